"""The tables of an audit: all labels ranked, those to leave out of a training, and soft ones."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.check_report import LabelConflict
from cassava_leaf_disease.data.extra import PROBABILITY_COLUMNS
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.evaluation.audit.answers import AnsweredPhotos
from cassava_leaf_disease.evaluation.audit.confident import LabelIssues

SUSPICIOUS: Final = "suspicious"
SAME_PICTURE: Final = "same_picture"
AUDIT_COLUMNS: Final = (
    *("rank", "image_id", "label", "class_name", "suggested", "suggested_name"),
    *("quality", "self_confidence", *PROBABILITY_COLUMNS, "flags"),
)


def audit_table(answers: AnsweredPhotos, issues: LabelIssues, conflicts: Sequence[LabelConflict]) -> str:
    """CSV text with a row a label, the most suspicious first; `flags` are words with spaces between them.

    `suspicious` by confident learning, `same_picture` where another photo shows the same under another label.
    """
    contradicted = frozenset(name for conflict in conflicts for name in conflict.image_ids)
    rows = []
    for rank, row in enumerate(issues.order.tolist(), start=1):
        photo, suggested = answers.photos[row], int(issues.suggested[row])
        flags = [SUSPICIOUS] * bool(issues.suspicious[row]) + [SAME_PICTURE] * (photo.image_id in contradicted)
        figures = (issues.quality[row], issues.self_confidence[row], *answers.probabilities[row])
        names = (photo.image_id, photo.label, CLASS_NAMES[photo.label], suggested, CLASS_NAMES[suggested])
        rows.append([rank, *names, *(f"{figure:.6f}" for figure in figures), " ".join(flags)])
    return _csv_text(AUDIT_COLUMNS, rows)


def rows_to_leave_out(labels: npt.NDArray[np.int64], issues: LabelIssues, max_drop: float) -> list[int]:
    """Suspicious rows, rising: of each given class the worst ones, at most the share `max_drop` of the class."""
    left_out: list[int] = []
    for label in range(NUM_CLASSES):
        allowed = int(max_drop * int((labels == label).sum()))
        suspicious = [row for row in issues.order.tolist() if labels[row] == label and issues.suspicious[row]]
        left_out.extend(suspicious[:allowed])
    return sorted(left_out)


def exclude_table(answers: AnsweredPhotos, issues: LabelIssues, rows: Iterable[int]) -> str:
    """CSV text of the photos to leave out, for `data.exclude_csv`; an expert may take rows away."""
    photos = [(answers.photos[row], int(issues.suggested[row]), issues.quality[row]) for row in rows]
    lines = [(photo.image_id, photo.label, suggested, f"{quality:.6f}") for photo, suggested, quality in photos]
    return _csv_text(("image_id", "label", "suggested", "quality"), lines)


def soft_labels_table(answers: AnsweredPhotos, issues: LabelIssues, weight: float) -> str:
    """CSV text of a target for each label, for `data.soft_labels_csv`.

    That of a suspicious one is `weight` times the out-of-fold answer and its label for the rest; the others are
    their labels. All audited photos stand there, so that a training can refuse answers that know its test part.
    """
    targets = soft_targets(answers.labels, answers.probabilities, issues.suspicious, weight)
    rows = [
        (photo.image_id, photo.label, *(f"{value:.8f}" for value in target))
        for photo, target in zip(answers.photos, targets.tolist(), strict=True)
    ]
    return _csv_text(("image_id", "label", *PROBABILITY_COLUMNS), rows)


def soft_targets(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    suspicious: npt.NDArray[np.bool_],
    weight: float,
) -> npt.NDArray[np.float64]:
    """Targets `(N, C)`: labels as probabilities, the suspicious ones mixed with the answers by `weight` in 0..1."""
    given = np.eye(NUM_CLASSES)[labels]
    share = weight * suspicious[:, np.newaxis]
    return share * probabilities + (1 - share) * given


def _csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
