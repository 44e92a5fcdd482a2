"""Accuracy and F1 from one confusion matrix of the whole split: the only definition of them here.

A matrix has the true classes as rows and the predicted ones as columns.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntMatrix = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 by class, each `(C,)`; 0 where there is nothing to divide by."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


def confusion_matrix(targets: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int) -> IntMatrix:
    """Counts `(C, C)` from class ids `(N,)`."""
    pairs = np.asarray(targets, np.int64) * num_classes + np.asarray(predictions, np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(matrix: npt.ArrayLike) -> float:
    """Micro accuracy: right answers over all answers; 0 for no answers."""
    counts = np.asarray(matrix, np.float64)
    return float(np.trace(counts) / max(counts.sum(), 1.0))


def class_scores(matrix: npt.ArrayLike) -> ClassScores:
    """Precision, recall and F1 of every class, from counts `(..., C, C)`."""
    counts = np.asarray(matrix, np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    predicted, actual = counts.sum(axis=-2), counts.sum(axis=-1)
    return ClassScores(
        precision=_ratio(hits, predicted), recall=_ratio(hits, actual), f1=_ratio(2 * hits, predicted + actual)
    )


def f1_macro(matrix: npt.ArrayLike) -> float:
    """Mean F1 over the classes that occur among targets or predictions (as scikit-learn takes it)."""
    return float(f1_macro_each(np.asarray(matrix, np.float64)))


def f1_macro_each(counts: npt.ArrayLike) -> FloatArray:
    """The same of many matrices `(..., C, C)` at once, `(...)`."""
    matrices = np.asarray(counts, np.float64)
    present = (matrices.sum(axis=-2) + matrices.sum(axis=-1)) > 0
    return _ratio((class_scores(matrices).f1 * present).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


def bootstrap_intervals(matrix: IntMatrix, samples: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of accuracy and macro-F1 over photos drawn with replacement (see `resampled`)."""
    matrices = resampled(matrix, samples, seed)
    accuracies = np.trace(matrices, axis1=1, axis2=2) / matrix.sum()
    return {"accuracy": percentile_interval(accuracies), "f1_macro": percentile_interval(f1_macro_each(matrices))}


def resampled(counts: IntMatrix, samples: int, seed: int = 0) -> IntMatrix:
    """Counts `(samples, ...)` of as many photos as `counts` `(...)` has, drawn with replacement.

    Photos in one cell are alike to every score made from the counts, so drawing photos is drawing cells.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=samples)
    return drawn.reshape(samples, *counts.shape)


def percentile_interval(values: FloatArray) -> tuple[float, float]:
    """The 95% percentile interval of bootstrapped values `(samples,)`."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95% score interval of a share, which is none of a point where all or no trials hit; [0, 1] without trials.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    if trials == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # the 97.5% quantile of the normal distribution
    share, spread = hits / trials, z * z / trials
    middle = share + spread / 2
    reach = z * math.sqrt((share * (1 - share) + spread / 4) / trials)
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, np.float64), where=denominator > 0)
