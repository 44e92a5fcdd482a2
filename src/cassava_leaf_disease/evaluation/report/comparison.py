"""Two models on the same photos: is the difference more than chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.modeling.metrics import (
    accuracy,
    confusion_matrix,
    f1_macro,
    f1_macro_each,
    percentile_interval,
    resampled,
)

Interval = tuple[float, float]
ClassIds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a model says of photos in the order of the measured ones: class ids `(N,)`."""

    name: str
    path: str
    predicted: ClassIds


class Comparison(BaseModel):
    """Another model against the measured one, on the same photos.

    Differences are the other's figure minus the measured one's, with paired bootstrap 95% intervals. `p_value` is
    McNemar's exact one, `p_value_holm` the same corrected for the number of comparisons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    accuracy: float
    f1_macro: float
    accuracy_difference: float
    accuracy_difference_interval: Interval
    f1_macro_difference: float
    f1_macro_difference_interval: Interval
    both_right: int
    only_measured_right: int
    only_other_right: int
    both_wrong: int
    p_value: float
    p_value_holm: float


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of as many photos that only one of two models gets right, if both were equally good.

    Exact for any number of photos: under that hypothesis each of them falls to either model like a fair coin.
    Sources: McNemar, Note on the Sampling Error of the Difference between Correlated Proportions, 1947; Dietterich,
    Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms, 1998.
    """
    tosses = only_first + only_second
    ways = total = 1  # of the tosses that fall as unevenly or more, to one side; whole numbers, so nothing is lost
    for heads in range(min(only_first, only_second)):
        ways = ways * (tosses - heads) // (heads + 1)
        total += ways
    return min(1.0, total / 2 ** (tosses - 1)) if tosses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected so that one false alarm among all is as rare as in a single one.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def compare(
    labels: ClassIds, measured: ClassIds, others: Sequence[Answers], bootstrap_samples: int
) -> tuple[Comparison, ...]:
    """Each of the others against the answers `measured` `(N,)` about photos with labels `(N,)`."""
    ours = measured == labels
    p_values = []
    for other in others:
        theirs = other.predicted == labels
        p_values.append(mcnemar(int((ours & ~theirs).sum()), int((theirs & ~ours).sum())))
    return tuple(
        _compared(labels, measured, other, bootstrap_samples, (alone, together))
        for other, alone, together in zip(others, p_values, holm(p_values), strict=True)
    )


def _compared(
    labels: ClassIds, measured: ClassIds, other: Answers, samples: int, p_values: tuple[float, float]
) -> Comparison:
    ours, theirs = measured == labels, other.predicted == labels
    matrix, own = (confusion_matrix(labels, answers, NUM_CLASSES) for answers in (other.predicted, measured))
    # Photos by label, our answer and theirs: drawing them draws both models' matrices together.
    cells = (labels * NUM_CLASSES + measured) * NUM_CLASSES + other.predicted
    shape = (NUM_CLASSES,) * 3
    drawn = resampled(np.bincount(cells, minlength=NUM_CLASSES**3).reshape(shape), samples)  # (samples, C, C, C)
    of_own, of_other = drawn.sum(axis=3), drawn.sum(axis=2)
    rights = np.trace(of_other, axis1=1, axis2=2) - np.trace(of_own, axis1=1, axis2=2)
    return Comparison(
        name=other.name,
        path=other.path,
        accuracy=accuracy(matrix),
        f1_macro=f1_macro(matrix),
        accuracy_difference=accuracy(matrix) - accuracy(own),
        accuracy_difference_interval=percentile_interval(rights / len(labels)),
        f1_macro_difference=f1_macro(matrix) - f1_macro(own),
        f1_macro_difference_interval=percentile_interval(f1_macro_each(of_other) - f1_macro_each(of_own)),
        both_right=int((ours & theirs).sum()),
        only_measured_right=int((ours & ~theirs).sum()),
        only_other_right=int((theirs & ~ours).sum()),
        both_wrong=int((~ours & ~theirs).sum()),
        p_value=p_values[0],
        p_value_holm=p_values[1],
    )
