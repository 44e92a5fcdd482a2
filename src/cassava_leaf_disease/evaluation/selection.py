"""Which photos a model is measured on: a part of its own split, or any table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.class_map import NO_COUNTERPART, OutsideTable, read_outside_table
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, PhotoSource
from cassava_leaf_disease.data.table import read_table
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.evaluation.own_split import divide_as_trained
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata


@dataclass(frozen=True)
class SelectedPhotos:
    """What a model is measured on: the photos, their labels and ids in the same order, and what they are in words.

    `originals` are the same photos as they are in their files. Of a table with class names of its own, `outside`,
    some labels may be `NO_COUNTERPART`.
    """

    source: PhotoSource
    labels: npt.NDArray[np.int64]
    image_ids: list[str]
    description: str
    originals: PhotoSource
    outside: OutsideTable | None = None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whose class is one of ours, `(N,)`."""
        known: npt.NDArray[np.bool_] = self.labels != NO_COUNTERPART
        return known


def select_photos(config: AppConfig, predictor: AnyPredictor) -> SelectedPhotos:
    """The photos to measure on: those of a table, or of the part that all members have in common.

    Raises:
        DataError: The table is wrong, a split is not its model's own, or the part is empty or not the same for all.
    """
    settings = config.evaluate
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    if settings.csv_path is not None:
        return _photos_of_table(config, settings.csv_path, predictor.source_side_px)
    data = divide_for_all(config, predictor.described)
    part = settings.part
    if not data.image_ids(part):
        raise DataError(
            f"evaluate.part={part}: the model was trained with data.split.test_size=0, so its split has no "
            "such part; type evaluate.part=val, or name other photos with evaluate.csv_path"
        )
    description = f"{part} part of {'the drawn leaves' if data.split is None else config.paths.data_dir}"
    labels, image_ids = data.labels(part), data.image_ids(part)
    if data.split is None:
        drawn = data.evaluation_dataset(part, limits).source
        return SelectedPhotos(drawn, labels, image_ids, description, drawn)
    originals = DecodedPhotos(data.split.parts[part], None, enlarge=True, limits=limits)
    source = originals if predictor.source_side_px is None else data.evaluation_dataset(part, limits).source
    return SelectedPhotos(source, labels, image_ids, description, originals)


def _photos_of_table(config: AppConfig, csv_path: Path, side_px: int | None) -> SelectedPhotos:
    settings = config.evaluate
    images_dir = settings.images_dir or csv_path.parent / "train_images"
    columns = (settings.image_column, settings.label_column)
    outside = None
    if settings.class_map is None:
        photos = read_table(csv_path, images_dir, columns)
    else:
        outside = read_outside_table(csv_path, images_dir, columns, settings.class_map)
        photos = outside.photos
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    originals = DecodedPhotos(photos, None, enlarge=True, limits=limits)
    return SelectedPhotos(
        source=DecodedPhotos(photos, side_px, enlarge=True, limits=limits),
        labels=np.array([photo.label for photo in photos], np.int64),
        image_ids=[photo.image_id for photo in photos],
        description=str(csv_path),
        originals=originals,
        outside=outside,
    )


def divide_for_all(config: AppConfig, described: Sequence[ModelMetadata]) -> LeafDataModule:
    """The split of the model with the largest input, whose `evaluate.part` is that of every other one.

    Raises:
        DataError: A split is not its model's own, or their parts differ: what one answers about, another learned.
    """
    part = config.evaluate.part
    first, *others = sorted(described, key=lambda metadata: -metadata.preprocessing.resize_side_px)
    data = divide_as_trained(config, first)
    for other in others:
        if other.split == first.split or divide_as_trained(config, other).image_ids(part) == data.image_ids(part):
            continue
        mend = "type evaluate.part=test" if part != "test" else "combine models of one data.split.seed and test_size"
        raise DataError(
            f"evaluate.part={part}: the models do not have the same {part} part, so one may have learned the photos "
            f"that another has not seen; {mend}, or name other photos with evaluate.csv_path"
        )
    return data
