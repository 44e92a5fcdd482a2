"""Which photos a model is timed on: those of a folder, those of the data set, or drawn ones, which is said."""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.folder import find_photos, walk_photos
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError, DataError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image, read_bytes
from cassava_leaf_disease.imaging.preprocess import check_aspect

logger = logging.getLogger(__name__)

Origin = Literal["images_dir", "data_dir", "drawn"]
_DRAWN_PX: Final = 512  # leaves are drawn so large, then brought to the size that is asked for


@dataclass(frozen=True)
class Photo:
    """One file's content and how many pixels it has."""

    name: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Photos:
    """What is measured on: photos that can be decoded, where they are from, how many of those chosen cannot be used."""

    files: tuple[Photo, ...]
    origin: Origin
    folder: Path | None = None
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def in_turn(self, start: int, count: int) -> list[Photo]:
        """`count` of them from place `start` on, round and round."""
        return [self.files[place % len(self.files)] for place in range(start, start + count)]


def choose_photos(config: AppConfig) -> Photos:
    """At most `benchmark.photos` of `benchmark.images_dir`, else of the data set, else drawn leaves with a warning.

    Raises:
        DataError: The folder that was named is not there, or none of its photos can be used.
    """
    settings, infer = config.benchmark, config.infer
    limits = DecodeLimits(infer.max_image_bytes, infer.max_image_pixels)
    if settings.images_dir is not None:
        return _of_folder(settings.images_dir, "benchmark.images_dir", "images_dir", settings.photos, limits)
    images_dir = config.paths.data_dir / "train_images"
    asked = config.data.synthetic.enabled
    if not asked and images_dir.is_dir() and next(walk_photos(images_dir, "paths.data_dir"), None) is not None:
        return _of_folder(images_dir, "paths.data_dir", "data_dir", settings.photos, limits)
    if not asked:
        logger.warning(
            "no photos in %s: drawn leaves are measured, which decode in another time than photos do; "
            "type benchmark.images_dir=FOLDER of your own",
            images_dir,
        )
    return Photos(tuple(draw_photos(settings.photos, settings.drawn_side_px)), "drawn")


def draw_photos(count: int, side_px: int) -> Iterator[Photo]:
    """Drawn leaves as JPEG files of 4:3, the shorter side `side_px`."""
    width, height = side_px * 4 // 3, side_px
    for seed in range(count):
        leaf = draw_leaf(seed, seed % NUM_CLASSES, _DRAWN_PX)[_DRAWN_PX // 8 : -_DRAWN_PX // 8]
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(leaf)).resize((width, height)).save(buffer, "JPEG", quality=90)
        yield Photo(f"leaf {seed}", buffer.getvalue(), width, height)


def _of_folder(folder: Path, key: str, origin: Origin, most: int, limits: DecodeLimits) -> Photos:
    names = _spread(find_photos(folder, key), most)
    files: list[Photo] = []
    refused: list[CassavaError] = []
    for name in names:
        try:
            files.append(_read(folder / name, limits))
        except CassavaError as error:
            refused.append(error)
    if not files:
        raise DataError(f"{key}={folder}: none of the {len(names)} photos tried can be used; the first: {refused[0]}")
    if refused:
        what = "%s of %s photos cannot be used and are left out; the first: %s"
        logger.warning(what, len(refused), len(names), refused[0])
    return Photos(tuple(files), origin, folder, len(refused))


def _read(path: Path, limits: DecodeLimits) -> Photo:
    data = read_bytes(path, limits)
    height, width = decode_image(data, limits, name=str(path)).shape[:2]
    check_aspect(height, width)
    return Photo(str(path), data, width, height)


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many, from all over the list."""
    return [names[place * len(names) // most] for place in range(most)] if len(names) > most else list(names)
