"""Photos, or drawn leaves, as Lightning wants them: one object from the configuration to the loaders."""

import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning import LightningDataModule
from torch import distributed
from torch.utils.data import DataLoader

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator, training_device
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.data.cache import PhotoCache
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
from cassava_leaf_disease.data.extra import ExtraPhotos
from cassava_leaf_disease.data.parts import (
    SYNTHETIC_FIRST_INDEX,
    Parts,
    divide_parts,
    hard_targets,
    labels_of,
    read_extra_photos,
    read_soft_targets,
)
from cassava_leaf_disease.data.sampling import EpochSampler, drops_last
from cassava_leaf_disease.data.splits import PARTS, Part, Split, write_manifest
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.data.workers import keep_worker_on_one_core, resolve_num_workers
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.augment import build_augmentation
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.imaging.preprocess import Preprocessing


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
        self._config = config
        self._divided: Parts | None = None
        self._sources: dict[Part, PhotoSource] = {}
        self._on_device: PhotoStore | None = None
        self._extra: ExtraPhotos | None = None
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
        if self._divided is None:
            self._divided = divide_parts(self._config)
            self._check_shares()

    @property
    def split(self) -> Split | None:
        """The photos of each part, without those that `data.exclude_csv` names; None for drawn leaves."""
        return self._parts.split

    @property
    def excluded(self) -> int:
        """How many training photos `data.exclude_csv` left out."""
        return self._parts.excluded

    @property
    def fingerprint(self) -> str:
        """What all photos are, in one word."""
        return self._parts.fingerprint

    @property
    def split_hash(self) -> str:
        """Which photo is in which part, in one word."""
        return self._parts.split_hash

    @property
    def _parts(self) -> Parts:
        self.divide()
        assert self._divided is not None  # noqa: S101  just divided
        return self._divided

    def labels(self, part: Part) -> npt.NDArray[np.int64]:
        """The class ids of a part, (N,) int64, in the order of its dataset."""
        return self._parts.labels[part]

    def training_labels(self) -> npt.NDArray[np.int64]:
        """Class ids `(N,)` of all that is trained on: the training part, then the extra photos' most probable ones.

        `NO_COUNTERPART` where people have said of an extra photo that it is none of the classes.
        """
        return np.concatenate([self.labels("train"), labels_of(self._extra_photos)])

    @property
    def _extra_photos(self) -> tuple[LabeledPhoto, ...]:
        return () if self._extra is None else self._extra.photos

    def training_photos(self) -> tuple[LabeledPhoto, ...]:
        """The photos of `training_labels`, in the same order; none for drawn leaves, which have no files."""
        return () if self.split is None else self.split.parts["train"] + self._extra_photos

    def training_targets(self) -> Targets:
        """What each of them is to be answered with: class ids `(N,)`, or probabilities `(N, C)` where some are soft."""
        return self.labels("train") if self._soft_targets is None else self._soft_targets

    def labelled_extra(self) -> ExtraPhotos | None:
        """The extra photos that people have labelled; None without such. Decodes none of them.

        Raises:
            CassavaError: They are missing, or their table is wrong.
        """
        extra = self._extra or read_extra_photos(self._config, self._parts)
        return extra if extra is not None and extra.labelled else None

    def labelled_targets(self) -> npt.NDArray[np.float32]:
        """What people said `(L, C)` of the first of them: of the training part, and of extra photos with labels."""
        labelled, extra = hard_targets(self.labels("train")), self.labelled_extra()
        return labelled if extra is None else np.concatenate([labelled, extra.probabilities])

    def extra_ids(self) -> list[str]:
        """The paths of the extra photos in their folder, in order."""
        return [photo.image_id for photo in self._extra_photos]

    def soften(self, targets: npt.NDArray[np.float32]) -> None:
        """Trains with these probabilities `(N, C)` in place of `training_targets`."""
        self._soft_targets = targets

    def sizes(self) -> dict[str, int]:
        """How many photos each part has; extra photos are in none."""
        return {part: len(labels) for part, labels in self._parts.labels.items()}

    def image_ids(self, part: Part) -> list[str]:
        """The photos of a part, in the order of its dataset; drawn leaves are numbered."""
        return [photo.image_id for photo in (self.split or self._parts.whole).parts[part]]

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
        write_manifest(self._parts.whole, path)

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
        for part, labels in self._parts.labels.items():
            if 0 < len(labels) < world_size:
                raise DataError(
                    f"{world_size} processes share the {part} part's {len(labels)} photos, at least one for each; "
                    f"type train.devices={len(labels)}, or make the part larger"
                )

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
        accelerator = resolve_accelerator(train)
        cpus = available_cpus() // self._local_processes()
        workers = resolve_num_workers(train.num_workers, cpus, sys.platform, accelerator)
        loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type] # torch types the loader by the sample, not by the batch
            batch_size=self._batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=workers,
            pin_memory=accelerator == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=keep_worker_on_one_core,
            # A generator of its own: loaders leave the global one, which drives dropout, alone.
            generator=torch.Generator().manual_seed(train.seed),
        )
        return loader

    def _local_processes(self) -> int:
        """Training processes that share this machine's processors."""
        return max(1, _rank_and_world_size()[1] // self._config.train.num_nodes)

    def _read_targets(self) -> None:
        """Targets that are more than labels: of the labelled photos by `data.soft_labels_csv`, and of extra photos."""
        if self._soft_targets is not None:
            return
        soft, extra = read_soft_targets(self._config, self._parts), read_extra_photos(self._config, self._parts)
        targets = hard_targets(self.labels("train")) if soft is None else soft
        if extra is not None:
            self._extra = extra
            targets = np.concatenate([targets, extra.probabilities])
        if soft is not None or extra is not None:
            self.soften(targets)

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
            first = SYNTHETIC_FIRST_INDEX[part]
            return SyntheticPhotos(self.labels(part), data.split.seed, side_px, first_index=first)
        photos = self.training_photos() if for_training else self.split.parts[part]
        enlarge = not for_training
        if not data.cache.enabled:
            return DecodedPhotos(photos, side_px, enlarge=enlarge, limits=limits)
        return PhotoCache(self._config.paths.cache_dir, side_px, enlarge=enlarge).images(photos, limits)


def _rank_and_world_size() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
