"""What a model makes of another collection's photos, some of whose classes are none of ours."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.data.class_map import NO_COUNTERPART, OutsideTable
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES, Verdict
from cassava_leaf_disease.modeling.metrics import (
    class_scores,
    confusion_matrix,
    percentile_interval,
    resampled,
    wilson_interval,
)

Interval = tuple[float, float]


class OutsideClass(BaseModel):
    """One class of the other collection: what the model answers, how sure it is, and what it would not say.

    `counterpart` is our name of it; without one, `recall` and its interval are null: no answer is right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    counterpart: str | None
    photos: int
    recall: float | None
    recall_interval: Interval | None
    answers: dict[str, int]
    mean_confidence: float
    verdicts: dict[str, int]


class OutsideScores(BaseModel):
    """Macro-F1 over the classes that the collection has, and each of its classes.

    A wrong answer that names a class which the collection lacks counts against the class that it should have named.
    Intervals are 95%: bootstrap for macro-F1, Wilson's for recalls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    photos_without_counterpart: int
    classes_present: tuple[str, ...]
    f1_macro_present: float
    f1_macro_present_interval: Interval
    classes: tuple[OutsideClass, ...]


def score_outside(
    table: OutsideTable,
    probabilities: npt.NDArray[np.float64],
    verdicts: Sequence[Verdict],
    bootstrap_samples: int,
) -> OutsideScores:
    """The figures of answers `(N, C)` and verdicts about the photos of a table, in its order."""
    labels = np.array([photo.label for photo in table.photos], np.int64)
    predicted, known = probabilities.argmax(axis=1), labels != NO_COUNTERPART
    matrix = confusion_matrix(labels[known], predicted[known], NUM_CLASSES)
    present = matrix.sum(axis=1) > 0
    by_sample = class_scores(resampled(matrix, bootstrap_samples)).f1[:, present].mean(axis=1)
    names, written = np.array(table.classes), np.array(verdicts)
    return OutsideScores(
        photos=len(labels),
        photos_without_counterpart=int((~known).sum()),
        classes_present=tuple(name for name, there in zip(CLASS_NAMES, present, strict=True) if there),
        f1_macro_present=float(class_scores(matrix).f1[present].mean()),
        f1_macro_present_interval=percentile_interval(by_sample),
        classes=tuple(
            _of_class(name, table.class_map[name], probabilities[names == name], written[names == name].tolist())
            for name in sorted(
                set(table.classes),
                key=lambda name: (table.class_map[name] == NO_COUNTERPART, table.class_map[name], name),
            )
        ),
    )


def _of_class(
    name: str, label: int, probabilities: npt.NDArray[np.float64], verdicts: Sequence[Verdict]
) -> OutsideClass:
    answers = np.bincount(probabilities.argmax(axis=1), minlength=NUM_CLASSES).tolist()
    known = label != NO_COUNTERPART
    return OutsideClass(
        name=name,
        counterpart=CLASS_NAMES[label] if known else None,
        photos=len(probabilities),
        recall=answers[label] / len(probabilities) if known else None,
        recall_interval=wilson_interval(answers[label], len(probabilities)) if known else None,
        answers=dict(zip(CLASS_NAMES, answers, strict=True)),
        mean_confidence=float(probabilities.max(axis=1).mean()),
        verdicts=dict(sorted(Counter(verdicts).items())),
    )
