"""The photos, or the drawn leaves, of a configuration: which part each is in, and what is to be answered."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig, DataConfig
from cassava_leaf_disease.data.cleaning import leave_out, read_excluded, read_soft_labels
from cassava_leaf_disease.data.divide import DividedPhotos, divide_photos
from cassava_leaf_disease.data.extra import ExtraPhotos, read_extra, read_labelled, refuse_labeled
from cassava_leaf_disease.data.splits import Part, Split
from cassava_leaf_disease.data.synthetic import balanced_labels
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.domain import NUM_CLASSES

SYNTHETIC_VERSION: Final = 1  # raise it when draw_leaf gives other pictures than before
SYNTHETIC_FIRST_INDEX: Final[Mapping[Part, int]] = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}


@dataclass(frozen=True, slots=True)
class Parts:
    """What is in which part.

    `whole` is what the manifest and `split_hash` tell of; `split` lacks the training photos that `data.exclude_csv`
    names, and is None for drawn leaves, which have no files, as is `divided`. `labels` are class ids, (N,) int64, in
    the order of `split`.
    """

    labels: Mapping[Part, npt.NDArray[np.int64]]
    whole: Split
    fingerprint: str
    split_hash: str
    split: Split | None = None
    divided: DividedPhotos | None = None

    @property
    def excluded(self) -> int:
        """How many training photos `data.exclude_csv` left out."""
        return len(self.whole.parts["train"]) - len(self.labels["train"])


def divide_parts(config: AppConfig) -> Parts:
    """Reads the table and divides the photos, or says which leaves will be drawn; decodes and draws none.

    Raises:
        DataError: The photos or their table are missing or wrong, or too few for the split.
    """
    return _drawn_parts(config.data) if config.data.synthetic.enabled else _photo_parts(config)


def labels_of(photos: tuple[LabeledPhoto, ...]) -> npt.NDArray[np.int64]:
    """Their class ids, (N,) int64."""
    return np.array([photo.label for photo in photos], dtype=np.int64)


def read_soft_targets(config: AppConfig, parts: Parts) -> npt.NDArray[np.float32] | None:
    """Targets `(N, C)` of the training part by `data.soft_labels_csv`; None without one.

    Raises:
        DataError: The table is missing or wrong, or knows photos that test this run.
    """
    soft_csv = config.data.soft_labels_csv
    if soft_csv is None or parts.split is None or parts.divided is None:
        return None
    return read_soft_labels(soft_csv, parts.divided.photos, parts.split)


def read_extra_photos(config: AppConfig, parts: Parts) -> ExtraPhotos | None:
    """The photos of `data.extra`, which stand in no part; None without them.

    Raises:
        ConfigError: Their class map cannot be used.
        DataError: They are missing, their table is wrong, or some of them are photos of the data set too.
    """
    settings = config.data.extra
    if settings.csv_path is None or settings.images_dir is None or parts.divided is None:
        return None
    if settings.label_column is None:
        extra = read_extra(settings.csv_path, settings.images_dir)
    else:
        columns = (settings.image_column, settings.label_column)
        extra = read_labelled(settings.csv_path, settings.images_dir, columns, settings.class_map)
    labeled = [photo for photos in parts.whole.parts.values() for photo in photos]
    refuse_labeled(extra, labeled, config.paths.cache_dir if config.data.cache.enabled else None)
    return extra


def hard_targets(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Probabilities `(N, C)` that are sure of the labels."""
    return np.eye(NUM_CLASSES, dtype=np.float32)[labels]


def _photo_parts(config: AppConfig) -> Parts:
    divided, exclude_csv = divide_photos(config), config.data.exclude_csv
    split = divided.split
    if exclude_csv is not None:
        split = leave_out(split, read_excluded(exclude_csv, divided.photos), exclude_csv)
    return Parts(
        labels={part: labels_of(photos) for part, photos in split.parts.items()},
        whole=divided.split,
        fingerprint=divided.fingerprint,
        split_hash=divided.split.hash,
        split=split,
        divided=divided,
    )


def _drawn_parts(data: DataConfig) -> Parts:
    sizes: dict[Part, int] = {
        "train": min(data.synthetic.train_size, data.limits.max_train_samples or sys.maxsize),
        "val": min(data.synthetic.val_size, data.limits.max_val_samples or sys.maxsize),
        "test": data.synthetic.test_size,
    }
    seed = data.split.seed
    recipe = f"{SYNTHETIC_VERSION},{seed},{sorted(sizes.items())}"
    name = f"synthetic-{hashlib.sha256(recipe.encode()).hexdigest()}"
    labels = {part: balanced_labels(size, seed + SYNTHETIC_FIRST_INDEX[part]) for part, size in sizes.items()}
    leaves = {part: _numbered(part, own) for part, own in labels.items()}
    return Parts(labels, Split(leaves, data.split), fingerprint=name, split_hash=name)


def _numbered(part: Part, labels: npt.NDArray[np.int64]) -> tuple[LabeledPhoto, ...]:
    """Drawn leaves by the numbers that they are drawn from."""
    first = SYNTHETIC_FIRST_INDEX[part]
    return tuple(LabeledPhoto(f"synthetic-{first + index}", int(label), Path()) for index, label in enumerate(labels))
