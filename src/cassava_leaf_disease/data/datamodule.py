"""Photos, or drawn leaves, as Lightning wants them: one object from the configuration to the loaders."""

import hashlib
import math
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning import LightningDataModule
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.cache import PhotoCache
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datasets import (
    DecodedPhotos,
    EvalDataset,
    PhotoSource,
    SyntheticPhotos,
    TrainDataset,
)
from cassava_leaf_disease.data.digests import data_fingerprint, photo_digests
from cassava_leaf_disease.data.sampling import EpochSampler
from cassava_leaf_disease.data.splits import PARTS, Part, Split, split_photos, write_manifest
from cassava_leaf_disease.data.synthetic import balanced_labels
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.imaging.augment import build_augmentation
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.imaging.preprocess import Preprocessing

Accelerator = Literal["auto", "cpu", "gpu", "mps"]
Batch = tuple[Tensor, Tensor]  # (N, 3, S, S) uint8, (N,) int64

MAX_WORKERS = 16
SYNTHETIC_VERSION = 1  # raise it when draw_leaf gives other pictures than before

_SYNTHETIC_FIRST_INDEX: dict[Part, int] = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}


def resolve_num_workers(setting: int | Literal["auto"], cpu_count: int, platform: str, accelerator: Accelerator) -> int:
    """How many loader processes: the setting, or for "auto" what suits the machine.

    0 on macOS and Windows, where processes start by spawn and import everything anew. On Linux with a GPU
    one for each processor, at most 16. In training on the CPU the network's own step uses every core.
    """
    if setting != "auto":
        return setting
    if platform != "linux" or accelerator in ("cpu", "mps"):
        return 0
    return min(cpu_count, MAX_WORKERS)


class LeafDataModule(LightningDataModule):
    """Training, validation and test photos of one configuration.

    `setup("fit")` reads the table, splits it and decodes what the cache lacks; the test part's photos are
    decoded by `setup("test")` alone. `fingerprint` and `split_hash` say "synthetic-..." for drawn leaves,
    for which `split` stays None.

    The trainer must be made with `use_distributed_sampler=False`: the training loader divides each epoch
    between the ranks itself, the others give every rank the whole part.
    """

    def __init__(self, config: AppConfig) -> None:
        super().__init__()
        augment = config.augment
        self.spec = Preprocessing(image_size_px=augment.image_size, crop_ratio=augment.crop_ratio)
        self.split: Split | None = None
        self.fingerprint = ""
        self.split_hash = ""
        self._config = config
        self._labels: dict[Part, npt.NDArray[np.int64]] = {}
        self._sources: dict[Part, PhotoSource] = {}

    def setup(self, stage: str | None = None) -> None:
        """Prepares the parts of a stage ("fit", "validate", "test"; None: all); again costs nothing.

        Raises:
            DataError: The photos or their table are missing or wrong, or too few for the split.
        """
        self.divide()
        stages: dict[str | None, tuple[Part, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
        }
        for part in stages.get(stage, PARTS):
            if part not in self._sources:
                self._sources[part] = self._source(part, for_training=part == "train")

    def divide(self) -> None:
        """Reads the table and divides the photos; decodes none of them; again costs nothing.

        Raises:
            DataError: The photos or their table are missing or wrong, or too few for the split.
        """
        if self._labels:
            return
        if self._config.data.synthetic.enabled:
            self._divide_synthetic()
        else:
            self._divide_photos()

    def labels(self, part: Part) -> npt.NDArray[np.int64]:
        """The class ids of a part, (N,) int64, in the order of its dataset."""
        return self._labels[part]

    def sizes(self) -> dict[str, int]:
        """How many photos each part has."""
        return {part: len(labels) for part, labels in self._labels.items()}

    def image_ids(self, part: Part) -> list[str]:
        """The photos of a part, in the order of its dataset; drawn leaves are numbered."""
        if self.split is not None:
            return [photo.image_id for photo in self.split.parts[part]]
        first = _SYNTHETIC_FIRST_INDEX[part]
        return [f"synthetic-{first + index}" for index in range(len(self.labels(part)))]

    def evaluation_dataset(self, part: Part, limits: DecodeLimits | None = None) -> EvalDataset:
        """A part as evaluation sees it: whole, in order, without random changes; "train" is decoded again.

        Photos that `setup` has not prepared are decoded within `limits`.
        """
        source = self._sources.get(part)
        if source is None or part == "train":
            source = self._source(part, for_training=False, limits=limits)
        return EvalDataset(source, self.labels(part), self.spec)

    def write_manifest(self, path: Path) -> None:
        """Writes which photo, or which drawn leaf, is in which part."""
        write_manifest(self.split or self._drawn_split(), path)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches; the same in every run with the same seed, whatever the number of workers."""
        config = self._config
        labels = self.labels("train")
        rank, world_size = _rank_and_world_size()
        sampler = EpochSampler(labels, config.data.sampling, config.train.seed, num_replicas=world_size, rank=rank)
        dataset = TrainDataset(self._sources["train"], labels, build_augmentation(config.augment))
        return self._loader(dataset, sampler, drop_last=drops_last(len(sampler), config.train.batch_size))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The whole validation part, in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The whole test part, in order."""
        return self._eval_loader("test")

    def _drawn_split(self) -> Split:
        parts = {
            part: tuple(
                LabeledPhoto(image_id, int(label), Path())
                for image_id, label in zip(self.image_ids(part), labels, strict=True)
            )
            for part, labels in self._labels.items()
        }
        return Split(parts, self._config.data.split)

    def _eval_loader(self, part: Part) -> DataLoader[Batch]:
        return self._loader(EvalDataset(self._sources[part], self.labels(part), self.spec), None, drop_last=False)

    def _loader(
        self, dataset: TrainDataset | EvalDataset, sampler: EpochSampler | None, *, drop_last: bool
    ) -> DataLoader[Batch]:
        train = self._config.train
        workers = resolve_num_workers(
            train.num_workers,
            available_cpus() // self._local_processes(),
            sys.platform,
            _accelerator(train.accelerator),
        )
        loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type] # torch types the loader by the sample, not by the batch
            batch_size=train.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=workers,
            pin_memory=_accelerator(train.accelerator) == "gpu" and torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=keep_worker_on_one_core,
            # A generator of its own: loaders leave the global one, which drives dropout, alone.
            generator=torch.Generator().manual_seed(train.seed),
        )
        return loader

    def _local_processes(self) -> int:
        """Training processes that share this machine's processors."""
        return max(1, _rank_and_world_size()[1] // self._config.train.num_nodes)

    def _divide_photos(self) -> None:
        config = self._config
        photos = read_kaggle(config.paths.data_dir)
        digests = photo_digests(photos, config.paths.cache_dir if config.data.cache.enabled else None)
        self.fingerprint = data_fingerprint(photos, digests)
        self.split = split_photos(photos, config.data.split, config.data.limits, digests)
        self.split_hash = self.split.hash
        self._labels = {part: _labels(members) for part, members in self.split.parts.items()}

    def _divide_synthetic(self) -> None:
        data = self._config.data
        sizes: dict[Part, int] = {
            "train": min(data.synthetic.train_size, data.limits.max_train_samples or sys.maxsize),
            "val": min(data.synthetic.val_size, data.limits.max_val_samples or sys.maxsize),
            "test": data.synthetic.test_size,
        }
        seed = data.split.seed
        self._labels = {
            part: balanced_labels(size, seed + _SYNTHETIC_FIRST_INDEX[part]) for part, size in sizes.items()
        }
        recipe = f"{SYNTHETIC_VERSION},{seed},{sorted(sizes.items())}"
        text = hashlib.sha256(recipe.encode()).hexdigest()
        self.fingerprint = self.split_hash = f"synthetic-{text}"

    def _source(self, part: Part, *, for_training: bool, limits: DecodeLimits | None = None) -> PhotoSource:
        """For training larger than the network's input, so that crops stay sharp; else as evaluation sees it."""
        data = self._config.data
        side_px = self.spec.resize_side_px
        if for_training:
            side_px = math.ceil(data.cache.train_zoom * side_px)
        if self.split is None:
            first = _SYNTHETIC_FIRST_INDEX[part]
            return SyntheticPhotos(self.labels(part), data.split.seed, side_px, first_index=first)
        photos, enlarge = self.split.parts[part], not for_training
        if not data.cache.enabled:
            return DecodedPhotos(photos, side_px, enlarge=enlarge, limits=limits)
        return PhotoCache(self._config.paths.cache_dir, side_px, enlarge=enlarge).images(photos, limits)


def drops_last(samples: int, batch_size: int) -> bool:
    """Whether the last, smaller batch of an epoch is left out.

    It is where two full batches or more remain; with one full batch only a rest of one sample is, on which
    batch normalisation could not train.
    """
    full, rest = divmod(samples, batch_size)
    return full > 1 or (full == 1 and rest == 1)


def keep_worker_on_one_core(_worker_id: int) -> None:
    """Loader processes are many: each gets one thread, and OpenCV, after a fork, none of its pool."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _labels(photos: tuple[LabeledPhoto, ...]) -> npt.NDArray[np.int64]:
    return np.array([photo.label for photo in photos], dtype=np.int64)


def _rank_and_world_size() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _accelerator(setting: Accelerator) -> Accelerator:
    if setting == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return setting
