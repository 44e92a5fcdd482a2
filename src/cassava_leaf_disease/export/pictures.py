"""What an exported model is compared on: photos of the data set where there are some, else drawn leaves."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.data.table import file_names
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, to_network_size

MAX_PICTURES: Final = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonPictures:
    """Pictures at the network's size, (N, S, S, 3) uint8, and what they are in words."""

    images: npt.NDArray[np.uint8]
    origin: str


def comparison_pictures(data_dir: Path, spec: Preprocessing) -> ComparisonPictures:
    """Up to 64 photos from all over `train_images` in `data_dir`; where it has none, as many drawn leaves.

    Photos that cannot be used are passed over.
    """
    folder = data_dir / "train_images"
    images = _photos(folder, spec) if folder.is_dir() else []
    if images:
        return ComparisonPictures(np.stack(images), f"{len(images)} photos of {data_dir}")
    _log.info("no photos in %s: the comparison is made on drawn leaves", folder)
    drawn = [
        to_network_size(draw_leaf(seed, seed % NUM_CLASSES, spec.resize_side_px), spec) for seed in range(MAX_PICTURES)
    ]
    return ComparisonPictures(np.stack(drawn), f"{len(drawn)} drawn leaves")


def _photos(folder: Path, spec: Preprocessing) -> list[npt.NDArray[np.uint8]]:
    names = sorted(file_names(folder))
    images: list[npt.NDArray[np.uint8]] = []
    for name in names[:: max(1, len(names) // MAX_PICTURES)]:
        try:
            images.append(to_network_size(read_image(folder / name), spec))
        except CassavaError as error:
            _log.debug("passed over: %s", error)
    return images[:MAX_PICTURES]
