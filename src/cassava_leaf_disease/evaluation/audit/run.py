"""`cassava audit`: labels that a model which has not learned them contradicts, ranked and shown."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.check import find_label_conflicts
from cassava_leaf_disease.data.check_report import LabelConflict
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.audit.answers import AnsweredPhotos, load_answers
from cassava_leaf_disease.evaluation.audit.confident import LabelIssues, find_label_issues
from cassava_leaf_disease.evaluation.audit.gallery import gallery_page
from cassava_leaf_disease.evaluation.audit.tables import (
    audit_table,
    exclude_table,
    rows_to_leave_out,
    soft_labels_table,
)
from cassava_leaf_disease.paths import create_version_dir
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

TABLE_FILE: Final = "audit.csv"
EXCLUDE_FILE: Final = "exclude.csv"
SOFT_LABELS_FILE: Final = "soft_labels.csv"
GALLERY_FILE: Final = "gallery.html"
SUMMARY_FILE: Final = "audit.json"


class AuditResult(BaseModel):
    """What an audit found, and where it stands.

    `confident_joint` counts given labels (rows) by the class that the model is confident of (columns), in class
    order; `suspicious` and `left_out` (in `exclude.csv`) count by given class. Photos of the cross-validation's test
    part have no answer: `not_audited`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path
    gallery: Path
    oof_csv: Path
    audited: int
    not_audited: int
    out_of_fold_accuracy: float
    suspicious: dict[str, int]
    left_out: dict[str, int]
    confident_joint: list[list[int]]
    label_conflicts: tuple[LabelConflict, ...] | None


def audit(config: AppConfig) -> AuditResult:
    """Judges the labels under `paths.data_dir` by out-of-fold answers; writes tables and a gallery of the worst.

    Raises:
        CassavaError: No photos, no cross-validation, or they do not belong together.
    """
    settings = config.audit
    answers = load_answers(config)
    issues = find_label_issues(answers.labels, answers.probabilities, settings.find_by, settings.rank_by)
    conflicts = None
    if settings.near_duplicates:
        conflicts = find_label_conflicts(answers.table, config.check_data.near_distance)
    left_out = rows_to_leave_out(answers.labels, issues, settings.max_drop)
    folder = settings.output_dir or create_version_dir(config.paths.outputs_dir / "audit")
    result = AuditResult(
        output_dir=folder,
        gallery=folder / GALLERY_FILE,
        oof_csv=answers.oof_csv,
        audited=len(answers.photos),
        not_audited=answers.in_test_part,
        out_of_fold_accuracy=float((issues.suggested == answers.labels).mean()),
        suspicious=_by_class(answers, np.flatnonzero(issues.suspicious).tolist()),
        left_out=_by_class(answers, left_out),
        confident_joint=issues.joint.tolist(),
        label_conflicts=conflicts,
    )
    write_text(folder / TABLE_FILE, audit_table(answers, issues, conflicts or ()))
    write_text(folder / EXCLUDE_FILE, exclude_table(answers, issues, left_out))
    write_text(folder / SOFT_LABELS_FILE, soft_labels_table(answers, issues, settings.soft_weight))
    write_text(folder / GALLERY_FILE, gallery_page(answers, issues, conflicts or (), settings.max_shown))
    write_json(folder / SUMMARY_FILE, result.model_dump(mode="json"))
    _tell(result, issues)
    return result


def _by_class(answers: AnsweredPhotos, rows: Sequence[int]) -> dict[str, int]:
    given = np.bincount(answers.labels[list(rows)], minlength=len(CLASS_NAMES))
    return dict(zip(CLASS_NAMES, given.tolist(), strict=True))


def _tell(result: AuditResult, issues: LabelIssues) -> None:
    logger.info("%d of %d labels are suspicious", int(issues.suspicious.sum()), result.audited)
    if result.label_conflicts:
        logger.warning("%d pictures have labels that contradict each other", len(result.label_conflicts))
    logger.info("look at them, the worst first: %s", result.gallery)
