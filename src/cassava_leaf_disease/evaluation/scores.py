"""What a model's answers on many photos amount to."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.modeling.calibration import expected_calibration_error, negative_log_likelihood
from cassava_leaf_disease.modeling.metrics import (
    accuracy,
    bootstrap_intervals,
    class_scores,
    confusion_matrix,
    f1_macro,
)


class ClassReport(BaseModel):
    """One class: precision, recall and F1 in [0, 1]; support is its number of photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: float
    recall: float
    f1: float
    support: int


class Scores(BaseModel):
    """Figures of a whole set of photos; intervals are bootstrap 95%; matrix rows are the true classes.

    `calibration_error` is the expected one over 15 bins, `log_loss` the mean negative log-likelihood in nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    accuracy: float
    f1_macro: float
    intervals: dict[str, tuple[float, float]]
    majority_accuracy: float
    calibration_error: float
    log_loss: float
    per_class: dict[str, ClassReport]
    confusion_matrix: list[list[int]]


def score(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    class_names: Sequence[str],
    bootstrap_samples: int,
) -> Scores:
    """The figures for true class ids `(N,)` and probabilities `(N, C)`."""
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(class_names))
    by_class = class_scores(matrix)
    support = matrix.sum(axis=1)
    return Scores(
        photos=len(labels),
        accuracy=accuracy(matrix),
        f1_macro=f1_macro(matrix),
        intervals=bootstrap_intervals(matrix, bootstrap_samples),
        majority_accuracy=float(support.max() / max(len(labels), 1)),
        calibration_error=expected_calibration_error(probabilities, labels),
        log_loss=negative_log_likelihood(probabilities, labels),
        per_class={
            name: ClassReport(
                precision=float(by_class.precision[index]),
                recall=float(by_class.recall[index]),
                f1=float(by_class.f1[index]),
                support=int(support[index]),
            )
            for index, name in enumerate(class_names)
        },
        confusion_matrix=matrix.tolist(),
    )


def auroc(usual: npt.NDArray[np.float64], strange: npt.NDArray[np.float64]) -> float:
    """The area under the ROC curve of scores that should be larger for `strange`; ties count half (Mann-Whitney)."""
    ranked = np.sort(usual)
    below, up_to = np.searchsorted(ranked, strange, "left"), np.searchsorted(ranked, strange, "right")
    return float((below + up_to).mean() / (2 * len(usual)))
