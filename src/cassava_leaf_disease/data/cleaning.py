"""What an audit says of labels, as training takes it: photos to leave out, and probabilities in place of labels.

Both change the training part alone. Validation and test photos keep their labels, suspicious ones too: leaving them
out there would flatter the figures.
"""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.extra import read_probabilities
from cassava_leaf_disease.data.splits import Split
from cassava_leaf_disease.data.table import LabeledPhoto, name_some, read_rows, strangers_and_changed
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.errors import DataError

KEEP: Final = "keep"  # what the gallery of an audit writes where an expert finds the label right

logger = logging.getLogger(__name__)


def leave_out(split: Split, excluded: frozenset[str], csv_path: Path) -> Split:
    """The split without the `excluded` photos of its training part; the other parts stay as they are.

    Raises:
        DataError: A class has no training photo left.
    """
    kept = tuple(photo for photo in split.parts["train"] if photo.image_id not in excluded)
    absent = [name for label, name in enumerate(CLASS_NAMES) if not any(photo.label == label for photo in kept)]
    if absent:
        raise DataError(
            f"data.exclude_csv={csv_path}: no training photo of {', '.join(absent)} would be left; remove some of its "
            "rows, or lower audit.max_drop and run `cassava audit` again"
        )
    measuring = sum(photo.image_id in excluded for part in ("val", "test") for photo in split.parts[part])
    logger.info("%s: %d training photos are left out", csv_path, len(split.parts["train"]) - len(kept))
    if measuring:
        logger.info("%s: %d photos that validate or test stay, and keep their labels", csv_path, measuring)
    return Split({**split.parts, "train": kept}, split.settings)


def read_excluded(csv_path: Path, photos: Sequence[LabeledPhoto]) -> frozenset[str]:
    """The photos to leave out: every row of a table; where it has a column `decision`, those that do not say `keep`.

    `photos` are all of the data set.

    Raises:
        DataError: The table is missing or damaged, or about other photos or labels.
    """
    key = "data.exclude_csv"
    _check_rows(key, csv_path, photos)
    with csv_path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    return frozenset(row["image_id"] for row in rows if row.get("decision") != KEEP)


def read_soft_labels(csv_path: Path, photos: Sequence[LabeledPhoto], split: Split) -> npt.NDArray[np.float32]:
    """Targets `(N, C)` of the training part: a table's probabilities, and the bare label where it has no row.

    Raises:
        DataError: The table is missing or damaged, about other photos or labels, or its models have learned
            photos that test this run.
    """
    key = "data.soft_labels_csv"
    names, probabilities = read_probabilities(csv_path, "image_id", "expected a soft_labels.csv of `cassava audit`")
    _check_rows(key, csv_path, photos)
    _check_leaks(csv_path, frozenset(names), split)
    training = split.parts["train"]
    targets = np.eye(NUM_CLASSES, dtype=np.float32)[[photo.label for photo in training]]
    rows = {name: row for row, name in enumerate(names)}
    for index, photo in enumerate(training):
        if photo.image_id in rows:
            targets[index] = probabilities[rows[photo.image_id]]
    return targets


def _check_rows(key: str, csv_path: Path, photos: Sequence[LabeledPhoto]) -> None:
    """Refuses a table about photos that are not there, or that had another label when it was written."""
    rows = read_rows(csv_path)
    strangers, changed = strangers_and_changed(rows, photos)
    if strangers:
        raise DataError(
            f"{key}={csv_path}: {len(strangers)} of its {len(rows)} photos are not in the table of paths.data_dir: "
            f"{name_some(strangers)}; name the audit of these photos"
        )
    if changed:
        raise DataError(
            f"{key}={csv_path}: {len(changed)} of its {len(rows)} photos have another label now: {name_some(changed)}; "
            "remove their rows, or run `cassava audit` again"
        )


def _check_leaks(csv_path: Path, answered: frozenset[str], split: Split) -> None:
    """The models that gave the answers have learned, fold by fold, all photos in the table."""
    testing = split.parts["test"]
    known = sum(photo.image_id in answered for photo in testing)
    if known:
        raise DataError(
            f"data.soft_labels_csv={csv_path}: the models behind it have learned {known} of the {len(testing)} photos "
            "that test this run; type the data.split.seed and data.split.test_size of their cross-validation"
        )
    validating = sum(photo.image_id in answered for photo in split.parts["val"])
    if validating:
        logger.warning(
            "the models behind %s learned %d of the %d photos that validate this run: validation comes out a little "
            "too well, the test part does not",
            *(csv_path, validating, len(split.parts["val"])),
        )
