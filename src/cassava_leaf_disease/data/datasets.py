"""From photos to the tensors that a network is given: uint8, NCHW; the network's module normalises them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from cassava_leaf_disease.data.sampling import Labels, SampleKey
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.imaging.augment import Augmentation
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, resize_shorter_side, to_network_size

Image = npt.NDArray[np.uint8]
Targets = Labels | npt.NDArray[np.float32]  # class ids (N,), or probabilities (N, C)

KEPT_BYTES = 256 * 2**20  # 1,000 drawn pictures at 280 px; one takes 11 ms to draw


class PhotoSource(Protocol):
    """Decoded photos by index: (H, W, 3) uint8 RGB; they may be read-only."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """Photo `index`, at the size that the source keeps."""
        ...


class DecodedPhotos:
    """Photos decoded anew each time, their shorter side brought to `side_px` (None: left as they are)."""

    def __init__(
        self,
        photos: Sequence[LabeledPhoto],
        side_px: int | None,
        *,
        enlarge: bool,
        limits: DecodeLimits | None = None,
    ) -> None:
        self._paths = tuple(photo.path for photo in photos)
        self._side_px = side_px
        self._enlarge = enlarge
        self._limits = limits or DecodeLimits()

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Image:
        """Photo `index`, decoded and resized."""
        image = read_image(self._paths[index], self._limits)
        return image if self._side_px is None else resize_shorter_side(image, self._side_px, enlarge=self._enlarge)


class SyntheticPhotos:
    """Drawn leaves: picture `index` depends on `seed`, `first_index + index`, its label and the size only.

    The process that made the object keeps what it has drawn, up to `KEPT_BYTES`; loader processes draw anew.
    """

    def __init__(self, labels: Labels, seed: int, size_px: int, *, first_index: int = 0) -> None:
        self._labels = np.asarray(labels, dtype=np.int64)
        self._first = (seed << 32) + first_index
        self._size_px = size_px
        self._kept: dict[int, Image] = {}
        self._keep_at_most = KEPT_BYTES // (size_px * size_px * 3)

    def __len__(self) -> int:
        return len(self._labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def image(self, index: int) -> Image:
        """Picture `index`, (size_px, size_px, 3)."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = draw_leaf(self._first + index, int(self._labels[index]), self._size_px)
        if len(self._kept) < self._keep_at_most and get_worker_info() is None:
            self._kept[index] = image
        return image


class EveryNth:
    """Photos `first`, `first + step`, `first + 2 * step` … of a source."""

    def __init__(self, source: PhotoSource, first: int, step: int) -> None:
        self._source = source
        self._indices = range(first, len(source), step)

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> Image:
        """Photo `index` of these."""
        return self._source.image(self._indices[index])


class TrainDataset(Dataset[tuple[Tensor, int | Tensor]]):
    """Augmented photos, by (index, seed of the changes); their targets are class ids or rows of probabilities."""

    def __init__(self, source: PhotoSource, targets: Targets, augmentation: Augmentation) -> None:
        self._source = source
        self._targets: npt.NDArray[Any] = np.asarray(_checked(targets, source))
        self._augmentation = augmentation

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, int | Tensor]:
        """One sample: ((3, S, S) uint8, class id or (C,) float32)."""
        index, seed = key
        target = self._targets[index]
        pixels = _to_tensor(self._augmentation(self._source.image(index), seed))
        return pixels, torch.from_numpy(target) if self._targets.ndim > 1 else int(target)


class EvalDataset(Dataset[tuple[Tensor, int]]):
    """Photos as the one preprocessing definition gives them, by index."""

    def __init__(self, source: PhotoSource, labels: Labels, spec: Preprocessing) -> None:
        self.source = source
        self.labels: npt.NDArray[np.int64] = np.asarray(_checked(labels, source), dtype=np.int64)
        self._spec = spec

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One sample: ((3, S, S) uint8, class id)."""
        return _to_tensor(to_network_size(self.source.image(index), self._spec)), int(self.labels[index])


def _checked(targets: Targets, source: PhotoSource) -> Targets:
    if len(targets) != len(source):
        raise ValueError(f"{len(targets)} labels for {len(source)} photos")
    return targets


def _to_tensor(image: Image) -> Tensor:
    # (S, S, 3) -> (3, S, S); always a copy, so that no tensor looks into a read-only file
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C", copy=True))
