"""Whether probabilities are what they say, and the temperature that brings them nearer to it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BINS: Final = 15
_SMALLEST: Final = 1e-12  # probability whose logarithm is taken
_RANGE: Final = (0.05, 20.0)  # of temperatures
_HALVINGS: Final = 60


@dataclass(frozen=True)
class ReliabilityBin:
    """Photos whose confidence lies in one range: how many, their mean confidence, and how many answers are right."""

    photos: int
    confidence: float
    accuracy: float


def fit_temperature(probabilities: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """The temperature, of 0.05 to 20, under which labels `(N,)` are likeliest for probabilities `(N, C)`.

    It divides the logits; to probabilities that were made with a temperature already it comes as a factor. The
    likelihood is concave in the inverse temperature, so that the root of its slope is found by halving.
    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    logits = np.log(np.maximum(probabilities, _SMALLEST))
    of_labels = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(np.mean(of_labels - (soften(probabilities, 1 / inverse) * logits).sum(axis=1)))

    low, high = 1 / _RANGE[1], 1 / _RANGE[0]
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) >= 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def soften(probabilities: FloatArray, temperature: float) -> FloatArray:
    """The softmax of the logits divided by `temperature`, from the probabilities `(N, C)` at temperature 1."""
    logits = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softened: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return softened


def negative_log_likelihood(probabilities: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """The mean of -ln p of the labels `(N,)`, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST)).mean())


def reliability(probabilities: FloatArray, labels: npt.NDArray[np.int64], bins: int = BINS) -> list[ReliabilityBin]:
    """The photos by confidence, in `bins` ranges of equal width; ranges without photos are left out."""
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidences * bins).astype(np.int64), bins - 1)
    return [
        ReliabilityBin(int(inside.sum()), float(confidences[inside].mean()), float(right[inside].mean()))
        for inside in (places == place for place in range(bins))
        if inside.any()
    ]


def expected_calibration_error(probabilities: FloatArray, labels: npt.NDArray[np.int64], bins: int = BINS) -> float:
    """The mean distance between confidence and accuracy over the bins, weighed by their photos.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.
    """
    each = reliability(probabilities, labels, bins)
    distance = sum(one.photos * abs(one.confidence - one.accuracy) for one in each)
    return distance / max(len(labels), 1)


def risk_coverage(
    probabilities: FloatArray, labels: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Confidences `(N,)`, largest first, and what answering only from each of them up would mean.

    The fraction of photos answered and the accuracy of those answers, `(N,)` each.
    Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, 2017.
    """
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidences, kind="stable")
    answered = np.arange(1, len(labels) + 1)
    return confidences[order], answered / len(labels), np.cumsum(right[order]) / answered


def choose_confidence(
    probabilities: FloatArray, labels: npt.NDArray[np.int64], target_accuracy: float, min_coverage: float
) -> float:
    """The least confidence of a diagnosis: as many answers as possible whose accuracy reaches the target.

    Where only fewer than `min_coverage` of the photos would be answered so, it is the one that answers as many.
    """
    confidences, coverage, accuracy = risk_coverage(probabilities, labels)
    enough = coverage >= min_coverage
    reaching = np.flatnonzero(enough & (accuracy >= target_accuracy))
    last = int(reaching[-1]) if reaching.size else int(np.flatnonzero(enough)[0])
    if last + 1 == len(confidences):
        return 0.0
    return float((confidences[last] + confidences[last + 1]) / 2)
