"""What a threshold would bring: precision and recall of each class, and accuracy of the answers kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.modeling.calibration import risk_coverage

FloatArray = npt.NDArray[np.float64]
ClassIds = npt.NDArray[np.int64]

LEVELS: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class PrecisionRecall:
    """One class against the others, a point a threshold: precision and recall `(T,)`, and their mean height."""

    precision: FloatArray
    recall: FloatArray
    average_precision: float
    share: float  # of the class among the photos: what guessing reaches


class CoverageLevel(BaseModel):
    """The surest answers only: their share of all, their accuracy, and the lowest confidence among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float
    photos: int
    accuracy: float
    min_confidence: float


def precision_recall(labels: ClassIds, probabilities: FloatArray) -> Mapping[str, PrecisionRecall]:
    """The curve of each class that has photos, as scikit-learn draws it."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    curves = {}
    for index, name in enumerate(CLASS_NAMES):
        of_class = labels == index
        if not of_class.any():
            continue
        precision, recall, _ = precision_recall_curve(of_class, probabilities[:, index])
        average = float(average_precision_score(of_class, probabilities[:, index]))
        curves[name] = PrecisionRecall(precision, recall, average, float(of_class.mean()))
    return curves


def coverage_levels(labels: ClassIds, probabilities: FloatArray) -> tuple[CoverageLevel, ...]:
    """The curve of accuracy against coverage at some round shares."""
    confidences, _, accuracies = risk_coverage(probabilities, labels)
    kept = [max(1, round(level * len(labels))) for level in LEVELS]
    return tuple(
        CoverageLevel(
            coverage=level,
            photos=count,
            accuracy=float(accuracies[count - 1]),
            min_confidence=float(confidences[count - 1]),
        )
        for level, count in zip(LEVELS, kept, strict=True)
    )
