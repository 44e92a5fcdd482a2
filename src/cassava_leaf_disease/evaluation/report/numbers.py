"""All figures of a report: what `report.json` holds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease import __version__
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES, ModelIdentity, Verdict
from cassava_leaf_disease.evaluation.outside import OutsideScores
from cassava_leaf_disease.evaluation.report.comparison import Comparison
from cassava_leaf_disease.evaluation.report.curves import CoverageLevel, coverage_levels, precision_recall
from cassava_leaf_disease.evaluation.report.slices import Slicing
from cassava_leaf_disease.evaluation.scores import Scores
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.modeling.calibration import expected_calibration_error, soften
from cassava_leaf_disease.modeling.metrics import (
    class_scores,
    confusion_matrix,
    percentile_interval,
    resampled,
    wilson_interval,
)

Interval = tuple[float, float]
FloatArray = npt.NDArray[np.float64]
ClassIds = npt.NDArray[np.int64]


class ClassLine(BaseModel):
    """One class with 95% intervals: Wilson's for precision and recall, bootstrap for F1.

    `predicted` is how often it is answered. Average precision and recall are null for a class without photos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    support: int
    predicted: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval
    f1: float
    f1_interval: Interval
    average_precision: float | None


class CalibrationNote(BaseModel):
    """How far confidence is from accuracy with the model's temperature, and without it where that is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None
    calibration_error: float
    calibration_error_before: float | None
    mean_confidence: float


class VerdictLine(BaseModel):
    """One verdict: how many photos got it, and how many answers about those with a label of ours are right.

    The interval is Wilson's 95% one; accuracy is null where none of them has such a label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    photos: int
    labelled: int
    accuracy: float | None
    interval: Interval


class ModelNote(BaseModel):
    """Which model it is, and what it says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: ModelIdentity
    backbones: tuple[str, ...]
    input_sizes_px: tuple[int, ...]
    created_at: str
    git_commit: str | None
    data_fingerprint: str
    split_hash: str
    views: tuple[str, ...]


class Report(BaseModel):
    """The content of `report.json`; `sources` says where its methods come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    written_at: str
    package_version: str
    model: ModelNote
    data: str
    photos: int
    scores: Scores
    classes: tuple[ClassLine, ...]
    calibration: CalibrationNote
    coverage: tuple[CoverageLevel, ...]
    verdicts: tuple[VerdictLine, ...]
    slices: tuple[Slicing, ...]
    comparisons: tuple[Comparison, ...]
    outside: OutsideScores | None
    bootstrap_samples: int
    sources: tuple[str, ...]


SOURCES = (
    "Intervals of accuracy, macro-F1 and F1: bootstrap percentiles over photos (Efron and Tibshirani, 1993).",
    "Intervals of precision, recall and of groups: score interval (Wilson, 1927).",
    "Calibration error over 15 bins (Naeini et al., 2015); temperature (Guo et al., 2017).",
    "Accuracy against coverage (Geifman and El-Yaniv, 2017).",
    "Comparison: exact test of McNemar (1947; Dietterich, 1998), corrected for several tests by Holm (1979).",
    "Heatmaps: class activation maps (Zhou et al., 2016).",
)


@dataclass(frozen=True)
class Answered:
    """Photos whose label is one of ours, and the answers about them: `(N,)`, `(N, C)` and a verdict each."""

    labels: ClassIds
    probabilities: FloatArray
    verdicts: Sequence[Verdict]


def class_lines(answered: Answered, bootstrap_samples: int) -> tuple[ClassLine, ...]:
    """The line of each class."""
    matrix = confusion_matrix(answered.labels, answered.probabilities.argmax(axis=1), NUM_CLASSES)
    curves = precision_recall(answered.labels, answered.probabilities)
    f1_of_samples = class_scores(resampled(matrix, bootstrap_samples)).f1  # (samples, C)
    scores = class_scores(matrix)
    lines = []
    for index, name in enumerate(CLASS_NAMES):
        hits, support, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        lines.append(
            ClassLine(
                name=name,
                support=support,
                predicted=predicted,
                precision=hits / predicted if predicted else None,
                precision_interval=wilson_interval(hits, predicted),
                recall=hits / support if support else None,
                recall_interval=wilson_interval(hits, support),
                f1=float(scores.f1[index]),
                f1_interval=percentile_interval(f1_of_samples[:, index]),
                average_precision=curves[name].average_precision if name in curves else None,
            )
        )
    return tuple(lines)


def verdict_lines(answered: Answered, verdicts: Sequence[Verdict]) -> tuple[VerdictLine, ...]:
    """Each verdict that was given to a photo, those without a label of ours among them."""
    rights = answered.probabilities.argmax(axis=1) == answered.labels
    lines = []
    for verdict, photos in sorted(Counter(verdicts).items()):
        inside = [right for right, given in zip(rights.tolist(), answered.verdicts, strict=True) if given == verdict]
        lines.append(
            VerdictLine(
                verdict=verdict,
                photos=photos,
                labelled=len(inside),
                accuracy=sum(inside) / len(inside) if inside else None,
                interval=wilson_interval(sum(inside), len(inside)),
            )
        )
    return tuple(lines)


def without_temperature(predictor: AnyPredictor, probabilities: FloatArray) -> FloatArray | None:
    """What the network alone says, `(N, C)`; None where answers are averaged, or there is no temperature."""
    if len(predictor.members) > 1 or len(predictor.views) > 1 or predictor.members[0].metadata.temperature == 1:
        return None
    return soften(probabilities, 1 / predictor.members[0].metadata.temperature)


def calibration_note(predictor: AnyPredictor, answered: Answered) -> CalibrationNote:
    """The calibration of these answers."""
    before = without_temperature(predictor, answered.probabilities)
    alone = len(predictor.members) == 1
    return CalibrationNote(
        temperature=predictor.members[0].metadata.temperature if alone else None,
        calibration_error=expected_calibration_error(answered.probabilities, answered.labels),
        calibration_error_before=None if before is None else expected_calibration_error(before, answered.labels),
        mean_confidence=float(answered.probabilities.max(axis=1).mean()),
    )


def model_note(predictor: AnyPredictor) -> ModelNote:
    """What the model's files say."""
    described = predictor.described
    return ModelNote(
        identity=predictor.identity,
        backbones=tuple(dict.fromkeys(each.backbone for each in described)),
        input_sizes_px=tuple(dict.fromkeys(each.preprocessing.image_size_px for each in described)),
        created_at=max(each.created_at for each in described),
        git_commit=described[0].git_commit,
        data_fingerprint=described[0].data_fingerprint,
        split_hash=described[0].split.hash,
        views=predictor.views,
    )


def build_report(  # noqa: PLR0913, PLR0917  # the parts of a report
    predictor: AnyPredictor,
    data: str,
    answered: Answered,
    scores: Scores,
    verdicts: Sequence[Verdict],
    slices: Sequence[Slicing],
    comparisons: Sequence[Comparison],
    outside: OutsideScores | None,
    bootstrap_samples: int,
) -> Report:
    """All numbers, from what was measured."""
    return Report(
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        package_version=__version__,
        model=model_note(predictor),
        data=data,
        photos=len(verdicts),
        scores=scores,
        classes=class_lines(answered, bootstrap_samples),
        calibration=calibration_note(predictor, answered),
        coverage=coverage_levels(answered.labels, answered.probabilities),
        verdicts=verdict_lines(answered, verdicts),
        slices=tuple(slices),
        comparisons=tuple(comparisons),
        outside=outside,
        bootstrap_samples=bootstrap_samples,
        sources=SOURCES,
    )
