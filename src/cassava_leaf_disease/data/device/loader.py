"""Batches that are made on the device: what a `DataLoader` and its processes do on a CPU."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cassava_leaf_disease.data.datasets import EvalDataset, Targets
from cassava_leaf_disease.data.device.augment import BatchAugmentation
from cassava_leaf_disease.data.device.photos import PhotoStore, network_sized, upload
from cassava_leaf_disease.data.sampling import EpochSampler, SampleKey

Batch = tuple[Tensor, Tensor]  # (N, 3, S, S) uint8 or float of 0 to 255; (N,) int64, or (N, C) float32

AHEAD: Final = 2  # batches made while the network learns from an earlier one


class DeviceTrainLoader:
    """Augmented batches `(N, 3, S, S)` of 0 to 255 and their targets, both on the device.

    Lightning calls `set_epoch` of `sampler` before each epoch, as it does for a `DataLoader`. On a GPU a
    thread makes the batches on a stream of its own, so that their many small kernels are launched while the
    network's are.
    """

    def __init__(  # noqa: PLR0913  # all that an epoch needs
        self,
        photos: PhotoStore,
        targets: Targets,
        sampler: EpochSampler,
        augmentation: BatchAugmentation,
        batch_size: int,
        *,
        drop_last: bool,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._photos = photos
        self._targets = torch.as_tensor(np.asarray(targets), device=augmentation.device)
        self._augmentation = augmentation
        self._drop_last = drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[Batch]:
        keys = iter(self.sampler)
        drawn = (tuple(islice(keys, self.batch_size)) for _ in range(len(self)))
        if self._augmentation.device.type == "cuda":
            return self._made_ahead(drawn)
        return map(self._make, drawn)

    def _make(self, keys: Sequence[SampleKey]) -> Batch:
        indices, seed = zip(*keys, strict=True)
        device = self._augmentation.device
        photos, rows = self._photos.batch(indices)
        images = self._augmentation(photos, rows, self._photos.sizes[list(indices)], seed)
        return images, self._targets.index_select(0, upload(torch.as_tensor(indices), device))

    def _made_ahead(self, drawn: Iterator[Sequence[SampleKey]]) -> Iterator[Batch]:
        device = self._augmentation.device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))

        def make(keys: Sequence[SampleKey]) -> tuple[Batch, torch.cuda.Event]:
            with torch.cuda.stream(stream):
                return self._make(keys), stream.record_event()

        waiting: deque[Future[tuple[Batch, torch.cuda.Event]]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for keys in drawn:
                waiting.append(thread.submit(make, keys))
                if len(waiting) > AHEAD:
                    yield _taken_over(*waiting.popleft().result())
            while waiting:
                yield _taken_over(*waiting.popleft().result())


class DeviceEvalLoader:
    """A part at the network's size, kept on the device: `(N, 3, S, S)` uint8 and labels `(N,)`, in order."""

    def __init__(self, dataset: EvalDataset, device: torch.device, batch_size: int) -> None:
        self.batch_size = batch_size
        self._pixels = network_sized(dataset, device)
        self._labels = torch.as_tensor(dataset.labels, device=device)

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._labels), self.batch_size):
            end = start + self.batch_size
            yield self._pixels[start:end], self._labels[start:end]


def _taken_over(batch: Batch, made: torch.cuda.Event) -> Batch:
    """Lets this thread's stream wait for the batch, and its memory be kept until that stream has used it."""
    current = torch.cuda.current_stream()
    current.wait_event(made)
    for tensor in batch:
        tensor.record_stream(current)
    return batch
