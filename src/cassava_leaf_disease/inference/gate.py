"""Whether a diagnosis may be given at all: is the photo usable, does it show a cassava leaf, is the answer sure enough.

Everything is computed in numpy, from what the model file holds; a file without a gate lets the confidence decide alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.domain import Check, Verdict
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.ood import check_arrays, score_outputs
from cassava_leaf_disease.modeling.gate_arrays import GateArrays, arrays_of_member
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata, QualityLimits, Thresholds

FOREIGN_LIMIT: Final = 1.0  # of `Gate.foreign`
_MEND: Final = "type cassava fit-gate infer.checkpoint_path=… of its checkpoint, and export that again"


@dataclass(frozen=True)
class Gate:
    """What a model file knows of the leaves that it learned."""

    record: GateRecord
    arrays: GateArrays

    @cached_property
    def _exact(self) -> GateArrays:
        return {name: array.astype(np.float64) for name, array in self.arrays.items()}  # once, not for each photo

    def foreign(self, outputs: EngineOutputs) -> npt.NDArray[np.float64]:
        """How unlike those leaves photos are, `(N,)`: 0 as a typical leaf, above 1 refused.

        Raises:
            CheckpointError: The network does not give the features that the gate was fitted with.
        """
        try:
            scores = score_outputs(self.record.score, self._exact, outputs, self.record.neighbors)
        except ValueError:
            raise CheckpointError(f"the model's gate does not fit its network's features; {_MEND}") from None
        return (scores - self.record.typical) / (self.record.limit - self.record.typical)

    @property
    def quality(self) -> QualityLimits:
        """What a usable photo keeps to."""
        return self.record.quality


@dataclass(frozen=True)
class EnsembleGate:
    """The gates of several networks in one file, each with the place of its network's features among all of them."""

    gates: tuple[tuple[Gate, slice], ...]

    def foreign(self, outputs: EngineOutputs) -> npt.NDArray[np.float64]:
        """The mean over the gates, `(N,)`, as of an ensemble of several files.

        Raises:
            CheckpointError: As `Gate.foreign`.
        """
        features = outputs.features
        if features is None:
            features = np.empty((len(outputs.logits), 0), np.float32)
        each = [gate.foreign(replace(outputs, features=features[:, place])) for gate, place in self.gates]
        mean: npt.NDArray[np.float64] = np.mean(each, axis=0)
        return mean

    @property
    def quality(self) -> QualityLimits:
        """Limits that a photo breaks only where it breaks those of every network."""
        limits = loosest([gate.quality for gate, _ in self.gates])
        assert limits is not None  # noqa: S101  there is a gate
        return limits


AnyGate = Gate | EnsembleGate


@dataclass(frozen=True)
class Judgement:
    """A verdict, why it is no diagnosis, and what was looked at."""

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def open_gate(metadata: ModelMetadata, arrays: GateArrays | None, origin: str) -> AnyGate | None:
    """The gate of a model file, None where none was fitted; `origin` is what error messages call the file.

    Raises:
        CheckpointError: What the file says of its gate and the gate's arrays do not fit together.
    """
    if metadata.members:
        gates, start = [], 0
        for index, (member, size) in enumerate(zip(metadata.members, metadata.feature_sizes, strict=True)):
            gate = _open_one(member, arrays_of_member(arrays or {}, index), origin)
            gates += [] if gate is None else [(gate, slice(start, start + size))]
            start += size
        return EnsembleGate(tuple(gates)) if gates else None
    return _open_one(metadata, arrays, origin)


def _open_one(metadata: ModelMetadata, arrays: GateArrays | None, origin: str) -> Gate | None:
    if metadata.gate is None:
        return None
    try:
        check_arrays(metadata.gate.score, arrays or {})
    except ValueError:
        raise CheckpointError(f"{origin}: the arrays of its gate are missing or damaged; {_MEND}") from None
    return Gate(metadata.gate, arrays or {})


def judge(
    confidence: float,
    thresholds: Thresholds,
    quality: PhotoQuality | None = None,
    limits: QualityLimits | None = None,
    foreign: float | None = None,
) -> Judgement:
    """The verdict about one photo: `poor_photo`, else `not_cassava`, else `uncertain`, else `diagnosis`.

    What is None was not looked at, and is not among the checks.
    """
    photo = () if quality is None or limits is None else tuple(_check_photo(quality, limits))
    leaf = () if foreign is None else (_check_leaf(foreign, confidence, thresholds),)
    least = thresholds.min_confidence
    sure = (Check(name="confidence", value=confidence, at_least=least, passed=confidence >= least),)
    stages: tuple[tuple[Verdict, Sequence[Check]], ...] = (
        ("poor_photo", photo),
        ("not_cassava", leaf),
        ("uncertain", sure),
    )
    checks = (*photo, *leaf, *sure)
    for verdict, of_stage in stages:
        failed = [check for check in of_stage if not check.passed]
        if failed:
            return Judgement(verdict, tuple(map(_in_words, failed)), checks)
    return Judgement("diagnosis", (), checks)


def loosest(limits: Sequence[QualityLimits]) -> QualityLimits | None:
    """Limits that a photo breaks only where it breaks those of every model; None without any."""
    if not limits:
        return None
    return QualityLimits(
        **{
            name: (min if name.startswith("min_") else max)(getattr(each, name) for each in limits)
            for name in QualityLimits.model_fields
        }
    )


def _check_photo(quality: PhotoQuality, limits: QualityLimits) -> Iterator[Check]:
    sharp = quality.sharpness >= limits.min_sharpness
    contrasted = quality.contrast >= limits.min_contrast
    if not (quality.colors < limits.min_colors and sharp and contrasted):
        brightness = quality.brightness
        yield Check(
            name="brightness",
            value=brightness,
            at_least=limits.min_brightness,
            at_most=limits.max_brightness,
            passed=limits.min_brightness <= brightness <= limits.max_brightness,
        )
        yield Check(name="dark", value=quality.dark, at_most=limits.max_dark, passed=quality.dark <= limits.max_dark)
        bright, most = quality.bright, limits.max_bright
        yield Check(name="bright", value=bright, at_most=most, passed=bright <= most)
    yield Check(name="contrast", value=quality.contrast, at_least=limits.min_contrast, passed=contrasted)
    yield Check(name="sharpness", value=quality.sharpness, at_least=limits.min_sharpness, passed=sharp)


def _check_leaf(foreign: float, confidence: float, thresholds: Thresholds) -> Check:
    other = thresholds.other_trouble
    most = FOREIGN_LIMIT
    if other is not None and confidence < min(other.below, thresholds.min_confidence):
        most = other.within
    return Check(name="foreign", value=foreign, at_most=most, passed=foreign <= most)


_WORDS: Final[Mapping[str, str]] = {
    "too dark": "too dark: brightness {value:.0%}, expected at least {low:.0%}; take it in daylight",
    "too bright": "too bright: brightness {value:.0%}, expected at most {high:.0%}; turn away from the sun",
    "dark": "too dark: {value:.0%} of it is black, expected at most {high:.0%}; take it in daylight",
    "bright": "overexposed: {value:.0%} of it is white, expected at most {high:.0%}; turn away from the sun",
    "contrast": "hardly anything to see: contrast {value:.1%}, expected at least {low:.1%}; come nearer to the leaf",
    "sharpness": "blurred, or too small: sharpness {value:.0f}, expected at least {low:.0f}; hold still and focus",
    "foreign": "not like the cassava leaves of the training: {value:.2f} on a scale where they end at {high:.2f}; "
    "let one leaf fill the photo",
    "confidence": "not sure enough: confidence {value:.0%}, expected at least {low:.0%}; ask about another leaf too",
}


def _in_words(failed: Check) -> str:
    name: str = failed.name
    if name == "brightness":
        name = "too dark" if failed.at_least is not None and failed.value < failed.at_least else "too bright"
    return _WORDS[name].format(value=failed.value, low=failed.at_least, high=failed.at_most)
