"""Where a part's photos are kept: in the device's own memory, or in the host's beside it."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datasets import EvalDataset, PhotoSource
from cassava_leaf_disease.log import progress_bar

logger = logging.getLogger(__name__)

LARGEST_SHARE: Final = 0.4  # of the device's free memory; the network and its gradients need the rest

Sizes = npt.NDArray[np.int64]  # (N, 2): height and width in pixels


class PhotoStore(Protocol):
    """Photos by index, as batches on one device."""

    sizes: Sizes

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`(M, 3, H, W)` uint8 and the rows `(N,)` int64 of it that are meant, both on the device.

        A photo that is smaller than its canvas lies at the upper left.
        """
        ...


class DevicePhotos:
    """All photos in the device's memory, one canvas for each; a batch is one gather."""

    def __init__(self, pixels: Tensor, sizes: Sizes) -> None:
        self.sizes = sizes
        self._pixels = pixels

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All photos, and the rows that are asked for: nothing is copied."""
        return self._pixels, upload(torch.as_tensor(indices), self._pixels.device)


class HostPhotos:
    """Photos in the host's memory or in a memory-mapped file; threads gather a batch into pinned memory."""

    def __init__(self, source: PhotoSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        self._pool = ThreadPoolExecutor(available_cpus())
        shapes = list(self._pool.map(lambda index: source.image(index).shape[:2], range(len(source))))
        self.sizes = np.array(shapes, dtype=np.int64).reshape(-1, 2)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The photos that are asked for, moved to the device."""
        height, width = self.sizes[list(indices)].max(axis=0).tolist()
        canvas = torch.empty((len(indices), height, width, 3), dtype=torch.uint8, pin_memory=_is_cuda(self._device))
        rows = canvas.numpy()

        def copy(place: int) -> None:
            photo = self._source.image(indices[place])
            rows[place, : photo.shape[0], : photo.shape[1]] = photo

        list(self._pool.map(copy, range(len(indices))))
        images = canvas.to(self._device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        return images, torch.arange(len(indices), device=self._device)


def keep_photos(source: PhotoSource, device: torch.device) -> PhotoStore:
    """The photos of `source` on the device where they fit, else beside it; the log says which."""
    host = HostPhotos(source, device)
    needed = canvas_bytes(host.sizes)
    if not fits(needed, device):
        logger.info("%d photos (%.1f GB) stay in the memory of the host", len(source), needed / 1e9)
        return host
    height, width = host.sizes.max(axis=0).tolist()
    pixels = torch.empty((len(source), 3, height, width), dtype=torch.uint8, device=device)
    with progress_bar("moving photos to the device", len(source)) as advance:
        for indices in _batches(len(source), 64):
            images, _ = host.batch(indices)
            pixels[indices[0] : indices[-1] + 1, :, : images.shape[2], : images.shape[3]] = images
            advance(len(indices))
    return DevicePhotos(pixels, host.sizes)


def network_sized(dataset: EvalDataset, device: torch.device) -> Tensor:
    """A part `(N, 3, S, S)` uint8 on the device, as the one preprocessing definition gives it."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        images = list(pool.map(lambda index: dataset[index][0], range(len(dataset))))
    return torch.stack(images).to(device)


def canvas_bytes(sizes: Sizes) -> int:
    """What the photos take when each lies on a canvas that the largest fill."""
    return int(3 * len(sizes) * np.prod(sizes.max(axis=0), dtype=np.int64))


def fits(needed_bytes: int, device: torch.device) -> bool:
    """Whether so much may be taken of the device's free memory."""
    if not _is_cuda(device):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return needed_bytes <= LARGEST_SHARE * free


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A small transfer that the host does not wait for."""
    return (values.pin_memory() if _is_cuda(device) else values).to(device, non_blocking=True)


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))
