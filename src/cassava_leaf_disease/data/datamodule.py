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
from torch import distributed
from torch.utils.data import DataLoader

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.data.cache import PhotoCache
from cassava_leaf_disease.data.cleaning import leave_out, read_excluded, read_soft_labels
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datasets import (
    DecodedPhotos,
    EvalDataset,
    EveryNth,
    PhotoSource,
    SyntheticPhotos,
    Targets,
    TrainDataset,
)
from cassava_leaf_disease.data.device.augment import BatchAugmentation
from cassava_leaf_disease.data.device.decode import decode_photos
from cassava_leaf_disease.data.device.loader import Batch, DeviceEvalLoader, DeviceTrainLoader
from cassava_leaf_disease.data.device.photos import PhotoStore, keep_photos
from cassava_leaf_disease.data.divide import DividedPhotos, divide_photos
from cassava_leaf_disease.data.extra import read_extra, refuse_labeled
from cassava_leaf_disease.data.sampling import EpochSampler
from cassava_leaf_disease.data.splits import PARTS, Part, Split, write_manifest
from cassava_leaf_disease.data.synthetic import balanced_labels
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.augment import build_augmentation
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.ranks import local_rank

Accelerator = Literal["auto", "cpu", "gpu", "mps"]
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
    for which `split` stays None. `split` lacks the training photos that `data.exclude_csv` names; `split_hash`
    and the manifest are those of the whole split, so that a model knows its test part by the photos alone.

    The trainer must be made with `use_distributed_sampler=False`: the loaders divide each epoch's photos, and
    each part to measure on, between the ranks themselves.
    """

    def __init__(self, config: AppConfig) -> None:
        super().__init__()
        augment = config.augment
        self.spec = Preprocessing(image_size_px=augment.eval_size or augment.image_size, crop_ratio=augment.crop_ratio)
        self.split: Split | None = None
        self.excluded = 0
        self.fingerprint = ""
        self.split_hash = ""
        self._config = config
        self._divided: DividedPhotos | None = None
        self._labels: dict[Part, npt.NDArray[np.int64]] = {}
        self._sources: dict[Part, PhotoSource] = {}
        self._on_device: PhotoStore | None = None
        self._extra_photos: tuple[LabeledPhoto, ...] = ()
        self._soft_targets: npt.NDArray[np.float32] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Prepares the parts of a stage ("fit", "validate", "test"; None: all); again costs nothing.

        Raises:
            DataError: The photos or their table are missing or wrong, or too few for the split.
        """
        keep_freed_memory()
        self.divide()
        stages: dict[str | None, tuple[Part, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
        }
        if "train" in stages.get(stage, PARTS):
            self._read_targets()
        for part in stages.get(stage, PARTS):
            if part == "train" and self.makes_batches_on_device:
                self._on_device = self._on_device or self._keep_training_photos()
            elif part not in self._sources:
                self._sources[part] = self._source(part, for_training=part == "train")

    @property
    def makes_batches_on_device(self) -> bool:
        """Whether `data.pipeline` and the accelerator keep the photos where the network learns."""
        pipeline = self._config.data.pipeline
        return pipeline == "device" or (pipeline == "auto" and training_device(self._config).type == "cuda")

    def divide(self) -> None:
        """Reads the table and divides the photos; decodes none of them; again costs nothing.

        Raises:
            DataError: The photos or their table are missing or wrong, or too few for the split or its ranks.
        """
        if self._labels:
            return
        if self._config.data.synthetic.enabled:
            self._divide_synthetic()
        else:
            self._divide_photos()
        self._check_shares()

    def labels(self, part: Part) -> npt.NDArray[np.int64]:
        """The class ids of a part, (N,) int64, in the order of its dataset."""
        return self._labels[part]

    def training_labels(self) -> npt.NDArray[np.int64]:
        """Class ids `(N,)` of all that is trained on: the training part, then the extra photos' most probable ones."""
        return np.concatenate([self.labels("train"), _labels(self._extra_photos)])

    def training_photos(self) -> tuple[LabeledPhoto, ...]:
        """The photos of `training_labels`, in the same order; none for drawn leaves, which have no files."""
        return () if self.split is None else self.split.parts["train"] + self._extra_photos

    def training_targets(self) -> Targets:
        """What each of them is to be answered with: class ids `(N,)`, or probabilities `(N, C)` where some are soft."""
        return self.labels("train") if self._soft_targets is None else self._soft_targets

    def extra_ids(self) -> list[str]:
        """The paths of the extra photos in their folder, in order."""
        return [photo.image_id for photo in self._extra_photos]

    def soften(self, targets: npt.NDArray[np.float32]) -> None:
        """Trains with these probabilities `(N, C)` in place of `training_targets`."""
        self._soft_targets = targets

    def sizes(self) -> dict[str, int]:
        """How many photos each part has; extra photos are in none."""
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
        write_manifest(self._drawn_split() if self._divided is None else self._divided.split, path)

    def train_dataloader(self) -> DataLoader[Batch] | DeviceTrainLoader:
        """Augmented batches; the same in every run with the same seed, whatever the number of workers.

        Of several ranks each gets its share of the same batches.
        """
        config = self._config
        targets = self.training_targets()
        sampler, drop_last = self._training_sampler()
        if self._on_device is not None:
            augmentation = BatchAugmentation(config.augment, training_device(config))
            return DeviceTrainLoader(
                self._on_device, targets, sampler, augmentation, self._batch_size, drop_last=drop_last
            )
        dataset = TrainDataset(self._sources["train"], targets, build_augmentation(config.augment))
        return self._loader(dataset, sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Batch] | DeviceEvalLoader:
        """The validation part, in order; of several ranks each gets its share."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | DeviceEvalLoader:
        """The test part, in order; of several ranks each gets its share."""
        return self._eval_loader("test")

    @property
    def _batch_size(self) -> int:
        """This rank's share of `train.batch_size`."""
        return self._config.train.batch_size // _rank_and_world_size()[1]

    def _training_sampler(self) -> tuple[EpochSampler, bool]:
        """Which photos this rank takes, and whether the last, smaller batch is left out."""
        config, extra = self._config, len(self._extra_photos)
        ratio = config.data.extra.ratio
        drawn = extra if ratio is None or not extra else round(ratio * len(self.labels("train")))
        rank, world_size = _rank_and_world_size()
        in_all = len(self.labels("train")) + drawn
        drop_last = drops_last(in_all, config.train.batch_size, world_size)
        sampler = EpochSampler(
            self.training_labels(),
            config.data.sampling,
            config.train.seed,
            num_replicas=world_size,
            rank=rank,
            extra=extra,
            extra_drawn=drawn,
            taken=in_all - in_all % config.train.batch_size if drop_last else in_all,
        )
        return sampler, drop_last

    def _check_shares(self) -> None:
        """Each rank needs a photo of every part, or it would leave the others waiting."""
        _, world_size = _rank_and_world_size()
        for part, labels in self._labels.items():
            if 0 < len(labels) < world_size:
                raise DataError(
                    f"{world_size} processes share the {part} part's {len(labels)} photos, at least one for each; "
                    f"type train.devices={len(labels)}, or make the part larger"
                )

    def _drawn_split(self) -> Split:
        parts = {
            part: tuple(
                LabeledPhoto(image_id, int(label), Path())
                for image_id, label in zip(self.image_ids(part), labels, strict=True)
            )
            for part, labels in self._labels.items()
        }
        return Split(parts, self._config.data.split)

    def _eval_loader(self, part: Part) -> DataLoader[Batch] | DeviceEvalLoader:
        rank, world_size = _rank_and_world_size()
        source, labels = self._sources[part], self.labels(part)
        dataset = EvalDataset(EveryNth(source, rank, world_size), labels[rank::world_size], self.spec)
        if self.makes_batches_on_device:
            return DeviceEvalLoader(dataset, training_device(self._config), self._batch_size)
        return self._loader(dataset, None, drop_last=False)

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
            batch_size=self._batch_size,
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
        divided = divide_photos(self._config)
        self._divided, self.split, self.fingerprint = divided, divided.split, divided.fingerprint
        self.split_hash = divided.split.hash
        exclude_csv = self._config.data.exclude_csv
        if exclude_csv is not None:
            self.split = leave_out(divided.split, read_excluded(exclude_csv, divided.photos), exclude_csv)
            self.excluded = len(divided.split.parts["train"]) - len(self.split.parts["train"])
        self._labels = {part: _labels(members) for part, members in self.split.parts.items()}

    def _read_targets(self) -> None:
        """Targets that are more than labels: of the labelled photos by `data.soft_labels_csv`, and of extra photos."""
        soft_csv, extra_csv = self._config.data.soft_labels_csv, self._config.data.extra.csv_path
        if self._divided is None or self.split is None or self._soft_targets is not None:
            return
        if soft_csv is None and extra_csv is None:
            return
        targets = np.eye(NUM_CLASSES, dtype=np.float32)[self.labels("train")]
        if soft_csv is not None:
            targets = read_soft_labels(soft_csv, self._divided.photos, self.split)
        self.soften(np.concatenate([targets, *self._read_extra()]))

    def _read_extra(self) -> list[npt.NDArray[np.float32]]:
        """Takes in the extra photos; their probabilities `(N, C)`, or nothing."""
        settings = self._config.data.extra
        if settings.csv_path is None or settings.images_dir is None or self._divided is None:
            return []
        extra = read_extra(settings.csv_path, settings.images_dir)
        labeled = [photo for photos in self._divided.split.parts.values() for photo in photos]
        refuse_labeled(extra, labeled, self._config.paths.cache_dir if self._config.data.cache.enabled else None)
        self._extra_photos = extra.photos
        return [extra.probabilities]

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

    def _keep_training_photos(self) -> PhotoStore:
        """Decoded on the GPU where that is one and they fit into its memory, else as for the loader processes."""
        device = training_device(self._config)
        if device.type == "cuda" and self.split is not None:
            photos = decode_photos(self.training_photos(), self._training_side_px, device)
            if photos is not None:
                return photos
        return keep_photos(self._source("train", for_training=True), device)

    @property
    def _training_side_px(self) -> int:
        """Larger than the network's input, so that random crops stay sharp."""
        augment = self._config.augment
        return math.ceil(self._config.data.cache.train_zoom * round(augment.image_size / augment.crop_ratio))

    def _source(self, part: Part, *, for_training: bool, limits: DecodeLimits | None = None) -> PhotoSource:
        """For training larger than the network's input, so that crops stay sharp; else as evaluation sees it."""
        data = self._config.data
        side_px = self._training_side_px if for_training else self.spec.resize_side_px
        if self.split is None:
            first = _SYNTHETIC_FIRST_INDEX[part]
            return SyntheticPhotos(self.labels(part), data.split.seed, side_px, first_index=first)
        photos = self.training_photos() if for_training else self.split.parts[part]
        enlarge = not for_training
        if not data.cache.enabled:
            return DecodedPhotos(photos, side_px, enlarge=enlarge, limits=limits)
        return PhotoCache(self._config.paths.cache_dir, side_px, enlarge=enlarge).images(photos, limits)


def training_device(config: AppConfig) -> torch.device:
    """Where this process trains: of several GPUs the one that its launcher gave it."""
    if _accelerator(config.train.accelerator) != "gpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank())


def drops_last(samples: int, batch_size: int, ranks: int = 1) -> bool:
    """Whether the last, smaller batch of an epoch is left out.

    It is where two full batches or more remain; with one full batch only a rest is that leaves one of the ranks
    that share it a single sample, on which batch normalisation could not train.
    """
    full, rest = divmod(samples, batch_size)
    return full > 1 or (full == 1 and 0 < rest < 2 * ranks)


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
