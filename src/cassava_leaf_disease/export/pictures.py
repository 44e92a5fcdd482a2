"""What an exported model is compared on, and calibrated with: photos of the model's own split where they are there."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos
from cassava_leaf_disease.data.splits import Part
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.data.table import file_names
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError, DataError
from cassava_leaf_disease.evaluation.own_split import divide_as_trained
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, to_network_size
from cassava_leaf_disease.modeling.metadata import ModelMetadata

MAX_PICTURES: Final = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Pictures at the network's size, (N, S, S, 3) uint8, what they are in words, and their labels where known."""

    images: npt.NDArray[np.uint8]
    origin: str
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)


def own_split(config: AppConfig, metadata: ModelMetadata) -> LeafDataModule | None:
    """The model's own split, if `paths.data_dir` gives it."""
    try:
        return divide_as_trained(config, metadata)
    except CassavaError as error:
        _log.info("not the photos that the model was trained with: %s", error)
        return None


def part_pictures(data: LeafDataModule, part: Part, spec: Preprocessing, most: int) -> Pictures | None:
    """At most so many pictures from all over a part of a split, with their labels; None of an empty part."""
    indices = _spread(len(data.labels(part)), most)
    if not indices:
        return None
    if data.split is None:
        source = data.evaluation_dataset(part).source
        origin = f"{len(indices)} drawn leaves of the {part} part"
    else:
        source = DecodedPhotos(data.split.parts[part], spec.resize_side_px, enlarge=True)
        origin = f"{len(indices)} photos of the {part} part"
    images = np.stack([to_network_size(source.image(index), spec) for index in indices])
    return Pictures(images, origin, data.labels(part)[indices])


def comparison_pictures(data_dir: Path, spec: Preprocessing) -> Pictures:
    """Up to 64 photos from all over `train_images` in `data_dir`; where it has none, as many drawn leaves.

    Photos that cannot be used are passed over.
    """
    photos = folder_pictures(data_dir, spec, MAX_PICTURES)
    if photos is not None:
        return photos
    _log.info("no photos in %s: the comparison is made on drawn leaves", data_dir / "train_images")
    return drawn_pictures(range(MAX_PICTURES), spec)


def folder_pictures(data_dir: Path, spec: Preprocessing, most: int) -> Pictures | None:
    """At most so many photos from all over `train_images` in `data_dir`; None if it has none that can be used."""
    folder = data_dir / "train_images"
    names = sorted(file_names(folder)) if folder.is_dir() else []
    images: list[npt.NDArray[np.uint8]] = []
    for index in _spread(len(names), most):
        try:
            images.append(to_network_size(read_image(folder / names[index]), spec))
        except CassavaError as error:
            _log.debug("passed over: %s", error)
    return Pictures(np.stack(images), f"{len(images)} photos of {data_dir}") if images else None


def drawn_pictures(seeds: Sequence[int], spec: Preprocessing) -> Pictures:
    """Drawn leaves, one for each seed, of all classes in turn."""
    labels = [seed % NUM_CLASSES for seed in seeds]
    drawn = [
        to_network_size(draw_leaf(seed, label, spec.resize_side_px), spec)
        for seed, label in zip(seeds, labels, strict=True)
    ]
    return Pictures(np.stack(drawn), f"{len(drawn)} drawn leaves", np.array(labels, np.int64))


def calibration_and_comparison(
    config: AppConfig, metadata: ModelMetadata, calibrating: int, comparing: int
) -> tuple[Pictures, Pictures]:
    """Pictures to choose an integer model's ranges and layers with, and others, with labels, to measure it on.

    They are of the training and the validation part of the model's own split; with other photos, of these; drawn
    leaves only where `data.synthetic.enabled` asks for them or the model learned them.

    Raises:
        DataError: There are no photos.
    """
    spec = metadata.preprocessing
    data = own_split(config, metadata)
    if data is not None:
        calibration, comparison = (
            part_pictures(data, "train", spec, calibrating),
            part_pictures(data, "val", spec, comparing),
        )
        if calibration is not None and comparison is not None:
            return calibration, comparison
    if config.data.synthetic.enabled:
        return drawn_pictures(range(calibrating), spec), drawn_pictures(range(10**6, 10**6 + comparing), spec)
    photos = folder_pictures(config.paths.data_dir, spec, 2 * calibrating)
    if photos is None or len(photos) < 2:
        raise DataError(
            f"no photos in {config.paths.data_dir / 'train_images'}: an integer model is calibrated on photos; type "
            "paths.data_dir=FOLDER of the training photos, or data.synthetic.enabled=true to take drawn leaves"
        )
    _log.warning("the model is calibrated on photos that it was not trained with, and compared without labels")
    halves = photos.images[::2], photos.images[1::2]
    return tuple(Pictures(half, f"{len(half)} photos of {config.paths.data_dir}") for half in halves)  # type: ignore[return-value]


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers from 0 to `count` - 1, at even distances."""
    return [place * count // most for place in range(most)] if count > most else list(range(count))
