"""JPEG files to pixels on a GPU, by its own decoder (nvJPEG); what that cannot do, Pillow does."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.device.photos import DevicePhotos, canvas_bytes, fits
from cassava_leaf_disease.data.table import LabeledPhoto, name_some
from cassava_leaf_disease.errors import DataError, ImageError
from cassava_leaf_disease.imaging.decode import DecodeLimits, PlainJpeg, decode_image, plain_jpeg, read_bytes
from cassava_leaf_disease.imaging.preprocess import resized_shape
from cassava_leaf_disease.log import progress_bar

logger = logging.getLogger(__name__)

BATCH: Final = 128  # photos decoded at once
AHEAD: Final = 8  # batches read meanwhile
READERS: Final = 4  # threads; more of them only fight for the interpreter's lock

Decoder = Callable[[list[Tensor]], list[Tensor]]  # coded bytes (n,) uint8 to (3, H, W) uint8 on the device


class Coded(NamedTuple):
    """A photo's name, and its plain JPEG."""

    name: str
    jpeg: PlainJpeg


_Read = Coded | Tensor | str  # for the GPU, (3, H, W) pixels, or what is wrong


def decode_photos(
    photos: Sequence[LabeledPhoto],
    side_px: int,
    device: torch.device,
    *,
    limits: DecodeLimits | None = None,
    decoder: Decoder | None = None,
) -> DevicePhotos | None:
    """All `photos` decoded on the device, their shorter side at most `side_px`.

    Every file's container is walked first, as `decode_image` does. Plain JPEGs go to `decoder` (default:
    nvJPEG); all others, and those that it refuses, are decoded by Pillow. None where, judged by the first
    batch, the photos do not fit into the device's memory, or most are not baseline JPEGs: of progressive ones
    (512x384) nvJPEG decoded 450 a second on an H100, fewer than Pillow in 16 threads, of baseline ones 13,950.

    Raises:
        DataError: Photos that cannot be used, by name and count.
    """
    limits, decoder = limits or DecodeLimits(), decoder or nvjpeg(device)
    images: list[Tensor] = []
    bad: list[str] = []
    with (
        ThreadPoolExecutor(min(READERS, available_cpus())) as pool,
        progress_bar(f"decoding photos on the GPU ({side_px} px)", len(photos)) as advance,
    ):
        for number, read in enumerate(_read_ahead(pool, photos, limits)):
            pixels = _decode_batch(read, decoder, device)
            bad.extend(image for image in pixels if isinstance(image, str))
            images.extend(shrink([image for image in pixels if isinstance(image, Tensor)], side_px))
            if number == 0 and not (_mostly_baseline(read) and _will_fit(images, len(photos), device)):
                return None
            advance(len(read))
    if bad:
        raise DataError(
            f"{len(bad)} of {len(photos)} photos cannot be used: {name_some(bad)}; "
            "mend them or remove their rows from the table"
        )
    return DevicePhotos(on_one_canvas(images), _sizes(images))


def nvjpeg(device: torch.device) -> Decoder:
    """The GPU's own JPEG decoder."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return lambda coded: list(decode_jpeg(coded, mode=ImageReadMode.RGB, device=device))


def shrink(images: Sequence[Tensor], side_px: int) -> list[Tensor]:
    """`(3, H, W)` uint8 each, their shorter side at most `side_px`: antialiased bilinear, within 1 of Pillow's."""
    by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_shape[image.shape[1], image.shape[2]].append(index)
    result = list(images)
    for (height, width), indices in by_shape.items():
        if min(height, width) <= side_px:
            continue
        stack = torch.stack([images[index] for index in indices]).float()
        shape = resized_shape(height, width, side_px)
        smaller = functional.interpolate(stack, shape, mode="bilinear", antialias=True)
        for index, image in zip(indices, smaller.round_().clamp_(0, 255).to(torch.uint8), strict=True):
            result[index] = image
    return result


def on_one_canvas(images: Sequence[Tensor]) -> Tensor:
    """`(N, 3, H, W)` uint8: each image at the upper left of a canvas that the largest fill."""
    height, width = _sizes(images).max(axis=0).tolist()
    if all(image.shape[1:] == (height, width) for image in images):
        return torch.stack(list(images))
    canvas = torch.zeros((len(images), 3, height, width), dtype=torch.uint8, device=images[0].device)
    for place, image in enumerate(images):
        canvas[place, :, : image.shape[1], : image.shape[2]] = image
    return canvas


def _mostly_baseline(read: Sequence[_Read]) -> bool:
    fit = sum(isinstance(item, Coded) and item.jpeg.baseline for item in read)
    return 2 * fit > sum(not isinstance(item, str) for item in read)


def _will_fit(images: Sequence[Tensor], count: int, device: torch.device) -> bool:
    """Judged by the first photos, with room for a second copy, which stacking them takes."""
    return not images or fits(canvas_bytes(_sizes(images)) * count // len(images), device)


def _sizes(images: Sequence[Tensor]) -> np.ndarray:
    return np.array([image.shape[1:] for image in images], dtype=np.int64)


def _read_ahead(
    pool: ThreadPoolExecutor, photos: Sequence[LabeledPhoto], limits: DecodeLimits
) -> Iterator[list[_Read]]:
    """Batches of files in order, some of them read while the GPU decodes."""
    waiting: deque[Future[list[_Read]]] = deque()
    for start in range(0, len(photos), BATCH):
        batch = photos[start : start + BATCH]
        waiting.append(pool.submit(_read_batch, batch, limits))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_batch(photos: Sequence[LabeledPhoto], limits: DecodeLimits) -> list[_Read]:
    return [_read(photo, limits) for photo in photos]


def _read(photo: LabeledPhoto, limits: DecodeLimits) -> _Read:
    try:
        data = read_bytes(photo.path, limits)
        jpeg = plain_jpeg(data, limits, name=photo.image_id)
        return _by_pillow(photo.image_id, data, limits) if jpeg is None else Coded(photo.image_id, jpeg)
    except (ImageError, DataError) as error:
        return str(error)


def _by_pillow(name: str, data: bytes, limits: DecodeLimits) -> Tensor:
    return torch.from_numpy(decode_image(data, limits, name=name)).permute(2, 0, 1)


def _decode_batch(read: Sequence[_Read], decoder: Decoder, device: torch.device) -> list[Tensor | str]:
    """Pixels on the device, or what is wrong, in the order of `read`."""
    decoded = iter(_decode_coded([item for item in read if isinstance(item, Coded)], decoder))
    images = [next(decoded) if isinstance(item, Coded) else item for item in read]
    return [image.to(device) if isinstance(image, Tensor) else image for image in images]


def _decode_coded(coded: Sequence[Coded], decoder: Decoder) -> list[Tensor | str]:
    """By the GPU; a batch with a photo that it refuses one by one, that photo by Pillow."""
    if not coded:
        return []
    try:
        return list(decoder([torch.frombuffer(bytearray(item.jpeg.coded), dtype=torch.uint8) for item in coded]))
    except RuntimeError as error:
        if len(coded) > 1:
            return [image for item in coded for image in _decode_coded([item], decoder)]
        logger.debug("the GPU's decoder refuses %s (%s): Pillow decodes it", coded[0].name, error)
    try:
        return [_by_pillow(coded[0].name, coded[0].jpeg.coded, DecodeLimits())]
    except ImageError as error:
        return [str(error)]
