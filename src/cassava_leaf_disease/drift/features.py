"""What is counted of an answer: in which bin of each feature it falls. Nothing else of a photo is kept."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction, Verdict

Counts = Mapping[str, tuple[int, ...]]  # feature to the number of photos in each of its bins


@dataclass(frozen=True)
class Feature:
    """A property of answers with a few bins, which have names."""

    name: str
    bins: tuple[str, ...]


def _tenths(first: int) -> tuple[str, ...]:
    return tuple(f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}" for tenth in range(first, 10))


_FIRST_CONFIDENCE: Final = 2  # five probabilities: the highest is 0.2 or more
_VERDICTS: Final[tuple[str, ...]] = get_args(Verdict)
FEATURES: Final = {
    feature.name: feature
    for feature in (
        Feature("class", CLASS_NAMES),
        Feature("confidence", _tenths(_FIRST_CONFIDENCE)),
        Feature("verdict", _VERDICTS),
        Feature("brightness", _tenths(0)),
    )
}
_USABLE: Final = ("diagnosis", "uncertain")


def observe(prediction: Prediction) -> Iterator[tuple[str, int]]:
    """Feature and bin of one answer.

    Class and confidence count where the gate took the photo for a cassava leaf. A model without a gate, and one whose
    gate does not look at the light of a drawing, tell no brightness.
    """
    yield "verdict", _VERDICTS.index(prediction.verdict)
    if prediction.verdict in _USABLE:
        yield "class", prediction.predicted_class_id
        yield "confidence", max(_tenth(prediction.confidence) - _FIRST_CONFIDENCE, 0)
    for check in prediction.checks:
        if check.name == "brightness":
            yield "brightness", _tenth(check.value)


def count(predictions: Iterable[Prediction]) -> Counts:
    """The counts of many answers."""
    bins = {name: [0] * len(feature.bins) for name, feature in FEATURES.items()}
    for prediction in predictions:
        for name, place in observe(prediction):
            bins[name][place] += 1
    return {name: tuple(numbers) for name, numbers in bins.items()}


def model_key(name: str, version: str) -> str:
    """What tells the answers of one model from another's."""
    return f"{name} {version}"


def key_of(model: ModelIdentity) -> str:
    """The same, of the model that gave an answer."""
    return model_key(model.name, model.version)


def _tenth(value: float) -> int:
    return min(max(int(value * 10), 0), 9)
