"""The limits of a gate, from what a network and the pixels say of leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import GateConfig, OodScore
from cassava_leaf_disease.data.class_map import NO_COUNTERPART
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.gate import Gate
from cassava_leaf_disease.inference.ood import NEEDS_FEATURES, fit_arrays
from cassava_leaf_disease.modeling.metadata import GateRecord, OtherTrouble, QualityLimits

ENOUGH_OTHERS: Final = 50  # photos of leaves with another trouble
_SCORES: Final[tuple[OodScore, ...]] = ("mahalanobis", "knn", "energy")


@dataclass(frozen=True)
class Readings:
    """What the network and the pixels say of N photos.

    `labels` are `NO_COUNTERPART` where they show no cassava, or a trouble that is none of ours.
    """

    outputs: EngineOutputs
    quality: list[PhotoQuality]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.quality)

    def joined(self, other: "Readings") -> "Readings":
        """These, then the other ones, whose classes are groups of their own."""
        outputs, others = self.outputs, other.outputs
        features = None
        if outputs.features is not None and others.features is not None:
            features = np.concatenate([outputs.features, others.features])
        groups = other.labels + (NUM_CLASSES - NO_COUNTERPART)
        return Readings(
            EngineOutputs(np.concatenate([outputs.logits, others.logits]), features),
            [*self.quality, *other.quality],
            np.concatenate([self.labels, groups]),
        )


@dataclass(frozen=True)
class FittedScore:
    """A score that could become the gate's, and how foreign it finds each set of photos, `(N,)`: above 1 refused."""

    gate: Gate
    foreign: dict[str, npt.NDArray[np.float64]]


def fit_quality(quality: Sequence[PhotoQuality], settings: GateConfig) -> QualityLimits:
    """Limits beyond what nearly all training photos have, by `photo_margin` of the way to nothing.

    Sharpness is a variance, so that its margin counts twice.
    """

    def low(name: str, margin: float) -> float:
        return margin * float(np.quantile([getattr(each, name) for each in quality], settings.photo_quantile))

    def high(name: str) -> float:
        usual = float(np.quantile([getattr(each, name) for each in quality], 1 - settings.photo_quantile))
        return 1 - (1 - usual) * settings.photo_margin

    margin = settings.photo_margin
    return QualityLimits(
        min_sharpness=low("sharpness", margin**2),
        min_brightness=low("brightness", margin),
        max_brightness=high("brightness"),
        min_contrast=low("contrast", margin),
        max_dark=high("dark"),
        max_bright=high("bright"),
        min_colors=low("colors", margin),
    )


def fit_scores(
    leaves: Readings, read: Mapping[str, Readings], settings: GateConfig, quality: QualityLimits
) -> dict[OodScore, FittedScore]:
    """Every score that the network allows, learned from the leaves, its limit from validation ones in `read`."""
    features = leaves.outputs.features
    return {
        score: fit_score(score, leaves, read, settings, quality)
        for score in _SCORES
        if score not in NEEDS_FEATURES or features is not None
    }


def fit_score(
    score: OodScore, leaves: Readings, read: Mapping[str, Readings], settings: GateConfig, quality: QualityLimits
) -> FittedScore:
    """One score.

    Raises:
        DataError: It finds all validation photos alike.
    """
    arrays = fit_arrays(score, leaves.outputs, leaves.labels, settings.dimensions)
    record = GateRecord(
        score=score,
        typical=0.0,
        limit=1.0,
        neighbors=settings.neighbors,
        max_refused=settings.max_refused,
        quality=quality,
        photos={"train": len(leaves), "val": len(read["val"])},
    )
    plain = {part: Gate(record, arrays).foreign(each.outputs) for part, each in read.items()}
    typical, limit = np.quantile(plain["val"], [0.5, 1 - settings.max_refused]).tolist()
    if not limit > typical:
        raise DataError(f"gate.score={score}: all validation photos score {limit:g}; the network tells nothing apart")
    gate = Gate(record.model_copy(update={"typical": typical, "limit": limit}), arrays)
    return FittedScore(gate, {part: gate.foreign(each.outputs) for part, each in read.items()})


def fit_other_trouble(
    probabilities: npt.NDArray[np.float64],
    foreign: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    settings: GateConfig,
) -> OtherTrouble | None:
    """What tells leaves with another trouble, of extra photos with answers `(N, C)`; None with too few of them."""
    others = labels == NO_COUNTERPART
    if others.sum() < ENOUGH_OTHERS:
        return None
    confidences = probabilities[others].max(axis=1)
    within = float(np.quantile(foreign[others], 1 - settings.max_refused))
    return OtherTrouble(below=float(np.quantile(confidences, settings.other_trouble)), within=max(within, 1.0))
