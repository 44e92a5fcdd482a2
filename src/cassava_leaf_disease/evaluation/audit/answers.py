"""Out-of-fold answers for the photos of a data set: found, read, and held against the table they should fit."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.digests import data_fingerprint, photo_digests
from cassava_leaf_disease.data.divide import divide_photos
from cassava_leaf_disease.data.extra import read_probabilities
from cassava_leaf_disease.data.splits import read_manifest
from cassava_leaf_disease.data.table import LabeledPhoto, name_some, read_kaggle, read_rows, strangers_and_changed
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.paths import OUT_OF_FOLD_FILE, version_dirs

logger = logging.getLogger(__name__)

_FIRST_FOLD: Final = "fold_0"
_WANTED: Final = f"expected the {OUT_OF_FOLD_FILE} of `cassava crossval`"
_MEND: Final = "type paths.data_dir=FOLDER of the cross-validation, or run `cassava crossval` again"


@dataclass(frozen=True)
class AnsweredPhotos:
    """Photos with an out-of-fold answer, sorted by image_id, and how many of the test part have none.

    `probabilities` `(N, C)` are of a model that has not learned the photo; `table` holds all photos of the data set.
    """

    oof_csv: Path
    table: tuple[LabeledPhoto, ...]
    photos: tuple[LabeledPhoto, ...]
    probabilities: npt.NDArray[np.float64]
    in_test_part: int

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The given class ids, `(N,)`."""
        return np.array([photo.label for photo in self.photos], np.int64)


def load_answers(config: AppConfig) -> AnsweredPhotos:
    """The photos under `paths.data_dir` with their answers in `audit.oof_csv`, or in the newest cross-validation's.

    Raises:
        ConfigError: There is no cross-validation to take them from.
        DataError: The photos or the table are missing or wrong, or do not belong together.
    """
    photos = read_kaggle(config.paths.data_dir)
    path = config.audit.oof_csv or newest_answers(config.paths.outputs_dir / "crossval")
    names, probabilities = read_probabilities(path, "image_id", _WANTED)
    _check_rows(path, names, photos)
    _check_fingerprint(path, photos, config)
    rows = {name: row for row, name in enumerate(names)}
    answered = tuple(photo for photo in photos if photo.image_id in rows)
    _check_classes(path, answered, photos)
    unanswered = [photo.image_id for photo in photos if photo.image_id not in rows]
    if unanswered:
        _check_unanswered(path, unanswered, config)
    chosen = probabilities[[rows[photo.image_id] for photo in answered]]
    return AnsweredPhotos(path, photos, answered, chosen, len(unanswered))


def newest_answers(parent: Path) -> Path:
    """The table of the newest cross-validation that has one.

    Raises:
        ConfigError: None has.
    """
    found = [folder / OUT_OF_FOLD_FILE for folder in version_dirs(parent) if (folder / OUT_OF_FOLD_FILE).is_file()]
    if not found:
        raise ConfigError(
            f"no finished cross-validation under {parent}, whose {OUT_OF_FOLD_FILE} an audit needs; run `cassava "
            f"crossval`, or type audit.oof_csv=FOLDER/{OUT_OF_FOLD_FILE}"
        )
    return found[-1]


def _check_rows(path: Path, names: Sequence[str], photos: Sequence[LabeledPhoto]) -> None:
    """Refuses answers about other photos, and about photos that were labelled otherwise then."""
    if not names:
        raise DataError(f"{path}: no row below its header; run `cassava crossval` again")
    strangers, changed = strangers_and_changed(read_rows(path), photos)
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} of its {len(names)} photos are not in the table of paths.data_dir: "
            f"{name_some(strangers)}; {_MEND}"
        )
    if changed:
        raise DataError(
            f"{path}: {len(changed)} of its {len(names)} photos had another label when its models learned: "
            f"{name_some(changed)}; {_MEND}"
        )


def _check_fingerprint(path: Path, photos: Sequence[LabeledPhoto], config: AppConfig) -> None:
    """Refuses photos whose files are no longer those that the cross-validation beside the table has seen."""
    metrics = path.parent / _FIRST_FOLD / "metrics.json"
    if not metrics.is_file():
        logger.info("%s: no cross-validation stands beside it; photos are known by their names alone", path)
        return
    expected = json.loads(metrics.read_text(encoding="utf-8"))["data_fingerprint"]
    memo_dir = config.paths.cache_dir if config.data.cache.enabled else None
    seen = data_fingerprint(photos, photo_digests(photos, memo_dir))
    if seen != expected:
        raise DataError(
            f"{path} is about other photos than those under paths.data_dir={config.paths.data_dir}: their fingerprint "
            f"is {seen[:12]}, that of its cross-validation {expected[:12]}; {_MEND}"
        )


def _check_classes(path: Path, answered: Sequence[LabeledPhoto], photos: Sequence[LabeledPhoto]) -> None:
    """Refuses answers that leave a class out; a data set that has none of it, as feedback may, is told."""
    present, there = {photo.label for photo in answered}, {photo.label for photo in photos}
    absent = [name for label, name in enumerate(CLASS_NAMES) if label in there - present]
    if absent:
        raise DataError(f"{path}: no photo of {', '.join(absent)}, and an audit compares all classes; {_MEND}")
    if len(there) < len(CLASS_NAMES):
        lacking = ", ".join(name for label, name in enumerate(CLASS_NAMES) if label not in there)
        logger.warning("no photo of the data set is labelled %s: no label is suspected to be one of these", lacking)


def _check_unanswered(path: Path, unanswered: Sequence[str], config: AppConfig) -> None:
    """Only the test part, which a cross-validation never looks at, may be without answers."""
    manifest = path.parent / _FIRST_FOLD / "split.csv"
    if manifest.is_file():
        parts = {name: part for name, (_, part) in read_manifest(manifest).items()}
        testing = {name for name, part in parts.items() if part == "test"}
    else:
        testing = {photo.image_id for photo in divide_photos(config).split.parts["test"]}
    lacking = [name for name in unanswered if name not in testing]
    if lacking:
        raise DataError(
            f"{path} has no answer about {len(lacking)} photos that are in no test part: {name_some(lacking)}; run "
            "`cassava crossval` without data.limits, or type its data.split.seed and data.split.test_size"
        )
    logger.info("%d photos of the test part have no out-of-fold answer and are not audited", len(unanswered))
