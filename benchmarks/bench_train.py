"""Training speed from JPEG files, against the bare training step and against a plain PIL DataLoader loop.

    python benchmarks/bench_train.py [--models resnet18:224:256,…] [--photos 16000] [--epochs 6] [--data FOLDER]

For each MODEL:SIZE:BATCH three figures in images a second, all measured in this process:

- bare: forward, backward and optimiser step on one batch that lies ready on the device, channels-last, in the
  project's precision, not compiled;
- project: `cassava train`'s own parts (data module, augmentation, trainer) from the JPEG files; the first epoch
  counts from the first file read, decoding included; steady is the median of the later epochs;
- plain: the loop that one would write: PIL, torchvision's transforms, a `DataLoader` with a process for each
  CPU, the same network and step; one epoch after a warm-up.

Photos are those of --data or $CASSAVA_TEST_DATA (default ../shared/data), repeated until there are --photos of
them, or drawn leaves where there are none. On a CPU the defaults are small.
"""

import argparse
import gc
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import lightning
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from typing_extensions import override

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import balanced_labels, draw_leaf
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.imaging.preprocess import IMAGENET_MEAN, IMAGENET_STD
from cassava_leaf_disease.modeling.backbone import build_network
from cassava_leaf_disease.modeling.optim import build_optimizer
from cassava_leaf_disease.training.build import build_module, build_trainer, build_training_network, calm_lightning
from cassava_leaf_disease.training.devices import resolve_precision
from cassava_leaf_disease.training.recorder import RunRecorder

REPOSITORY = Path(__file__).resolve().parents[1]
GPU_MODELS = "resnet18:224:256,efficientnet_b0:224:256,efficientnet_b4:380:64,vit_base_patch16_384:384:64"
CPU_MODELS = "resnet18:64:32,mobilenetv2_100:64:32"
BARE_STEPS = 30
DRAWN = 512  # distinct leaves where there are no photos


@dataclass(frozen=True)
class Job:
    """One row of the table."""

    backbone: str
    size_px: int
    batch: int
    config: AppConfig
    device: torch.device
    precision: str


@dataclass(frozen=True)
class Speed:
    """Images a second of the project's training, and the device's peak memory in bytes (0 on a CPU)."""

    first: float
    steady: float
    whole: float
    epochs: int
    peak_bytes: int


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--models", default=GPU_MODELS if has_gpu else CPU_MODELS, help="MODEL:SIZE:BATCH,…")
    parser.add_argument("--photos", type=int, default=16_000 if has_gpu else 320)
    parser.add_argument("--plain-photos", type=int, default=4_000 if has_gpu else 320)
    parser.add_argument("--epochs", type=int, default=6 if has_gpu else 3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--augment", default="basic", choices=("basic", "strong"))
    parser.add_argument("overrides", nargs="*", help="further configuration, key=value")
    options = parser.parse_args()
    hardware = torch.cuda.get_device_name() if has_gpu else platform.machine()
    print(f"`{shlex.join(['python', *sys.argv])}`\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch, calm_lightning():
        data_dir, what = photos_dir(Path(scratch), options.photos, options.data)
        print(f"{what}; {hardware}, {available_cpus()} CPU threads, torch {torch.__version__}.\n")
        print(
            "| model | batch | bare, images/s | project, steady | first epoch | whole run | plain loop "
            "| steady / bare | whole / bare | project / plain | peak memory, GB |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for model in options.models.split(","):
            job = make_job(model, data_dir, Path(scratch), options)
            print(row(job, options), flush=True)


def make_job(model: str, data_dir: Path, scratch: Path, options: argparse.Namespace) -> Job:
    """The project's own configuration of one MODEL:SIZE:BATCH."""
    backbone, size, batch = model.split(":")
    config = load_config(
        [
            f"paths.data_dir={data_dir}",
            f"paths.outputs_dir={scratch / 'outputs'}",
            f"model.backbone={backbone}",
            f"augment={options.augment}",
            f"augment.image_size={size}",
            f"train.batch_size={batch}",
            f"train.epochs={options.epochs}",
            "data.split.val_size=0.1",
            "data.split.test_size=0",
            *options.overrides,
        ]
    )
    accelerator = resolve_accelerator(config.train)
    precision = resolve_precision(config.train, accelerator)
    return Job(backbone, int(size), int(batch), config, torch.device(accelerator), precision)


def row(job: Job, options: argparse.Namespace) -> str:
    """One line of the table."""
    bare = bare_speed(job)
    project = project_speed(job)
    plain = plain_speed(job, options.plain_photos)
    ratios = project.steady / bare, project.whole / bare, project.steady / plain
    return (
        f"| {job.backbone} @ {job.size_px} | {job.batch} | {bare:,.0f} | {project.steady:,.0f} | {project.first:,.0f} "
        f"| {project.whole:,.0f} ({project.epochs} epochs) | {plain:,.0f} "
        f"| {ratios[0]:.3f} | {ratios[1]:.2f} | {ratios[2]:.1f} | {project.peak_bytes / 1e9:.1f} |"
    )


def photos_dir(scratch: Path, count: int, named: Path | None) -> tuple[Path, str]:
    """A folder in the Kaggle layout with `count` photos, and what lies there."""
    shared = named or Path(os.environ.get("CASSAVA_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "cassava"
    images = scratch / "data" / "train_images"
    images.mkdir(parents=True)
    with ThreadPoolExecutor(available_cpus()) as pool:
        if (shared / "train.csv").is_file():
            photos = read_kaggle(shared)[:count]
            labels = [photo.label for photo in photos]
            paths = list(pool.map(lambda photo: write_baseline(photo, scratch / "baseline"), photos))
            what = f"{count:,} JPEG files ({len(paths):,} real photos as baseline JPEGs, repeated as links)"
        else:
            labels = balanced_labels(min(count, DRAWN), seed=0).tolist()
            drawn = range(len(labels))
            paths = list(pool.map(lambda number: write_leaf(number, labels[number], scratch / "drawn"), drawn))
            what = f"{count:,} JPEG files of 512x384 ({len(paths):,} drawn leaves, repeated as links)"
    lines = ["image_id,label"]
    for number, (label, path) in enumerate(islice(cycle(zip(labels, paths, strict=True)), count)):
        (images / f"{number}.jpg").hardlink_to(path)
        lines.append(f"{number}.jpg,{label}")
    (scratch / "data" / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return scratch / "data", what


def write_leaf(number: int, label: int, folder: Path) -> Path:
    """A drawn leaf as a JPEG of 512x384."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.jpg"
    Image.fromarray(draw_leaf(number, label, 512)[64:448]).save(path, quality=90)
    return path


def write_baseline(photo: LabeledPhoto, folder: Path) -> Path:
    """The photo as cameras write it, in one pass; the copies at hand may be progressive, which no GPU decodes fast."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{photo.path.stem}.jpg"
    with Image.open(photo.path) as image:
        image.convert("RGB").save(path, "JPEG", quality=90)
    return path


def training_step(job: Job) -> Callable[[Tensor, Tensor], None]:
    """Forward, backward, optimiser: nothing else."""
    network = build_network(job.config.model, job.size_px, 5).to(job.device)
    network = network.to(memory_format=torch.channels_last)
    network.train()
    optimizer = build_optimizer(network, job.config.optim, 1e-3, 0.05)
    enabled = job.precision == "bf16-mixed"

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(job.device.type, torch.bfloat16, enabled=enabled):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def bare_speed(job: Job) -> float:
    """Images a second on a batch that lies ready; the median of three rounds."""
    free_memory()
    torch.backends.cudnn.benchmark = job.config.train.cudnn_benchmark
    step = training_step(job)
    images = torch.randn(job.batch, 3, job.size_px, job.size_px, device=job.device)
    images = images.contiguous(memory_format=torch.channels_last)
    if job.precision == "bf16-mixed":
        images = images.bfloat16()
    labels = torch.randint(0, 5, (job.batch,), device=job.device)
    steps = BARE_STEPS if job.device.type == "cuda" else 4

    def seconds() -> float:
        start = now(job.device)
        for _ in range(steps):
            step(images, labels)
        return now(job.device) - start

    seconds()
    return steps * job.batch / statistics.median(seconds() for _ in range(3))


class EpochClock(lightning.Callback):
    """The seconds of each epoch's training batches, validation and checkpoints aside."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: list[float] = []
        self._device = device
        self._start = 0.0

    @override
    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start = now(self._device)

    @override
    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.is_last_batch:
            self.seconds.append(now(self._device) - self._start)


def project_speed(job: Job) -> Speed:
    """The project's training, from the first file read."""
    free_memory()
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = now(job.device)
    data = LeafDataModule(job.config)
    data.setup("fit")
    module = build_module(job.config, data, build_training_network(job.config))
    prepared = now(job.device) - start
    clock = EpochClock(job.device)
    folder = job.config.paths.outputs_dir / f"{job.backbone}-{time.time_ns()}"
    recorder = RunRecorder(folder, job.config.train.epochs, save_checkpoints=False)
    trainer = build_trainer(job.config, recorder, job.device.type, job.precision)
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    folder.mkdir(parents=True)
    trainer.fit(module, datamodule=data)
    batches = len(data.train_dataloader())
    images = min(batches * job.batch, data.sizes()["train"])
    return Speed(
        first=images / (prepared + clock.seconds[0]),
        steady=images / statistics.median(clock.seconds[1:]),
        whole=len(clock.seconds) * images / (prepared + sum(clock.seconds)),
        epochs=len(clock.seconds),
        peak_bytes=torch.cuda.max_memory_allocated() if job.device.type == "cuda" else 0,
    )


class PlainPhotos(Dataset[tuple[Tensor, int]]):
    """JPEG files through PIL and torchvision, as tutorials do it."""

    def __init__(self, data_dir: Path, size_px: int, count: int) -> None:
        self._photos = read_kaggle(data_dir)[:count]
        self._transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.RandomResizedCrop(size_px, scale=(0.5, 1.0)),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD)),
            ]
        )

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        photo = self._photos[index]
        with Image.open(photo.path) as image:
            return self._transform(image.convert("RGB")), photo.label


def plain_speed(job: Job, count: int) -> float:
    """Images a second of the loop that one would write."""
    free_memory()
    step = training_step(job)
    workers = min(available_cpus(), 16) if job.device.type == "cuda" else 0
    loader = DataLoader(
        PlainPhotos(job.config.paths.data_dir, job.size_px, count),
        batch_size=job.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=job.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    for images, labels in islice(on_device(loader, job.device), 3):
        step(images, labels)
    start = now(job.device)
    for images, labels in on_device(loader, job.device):
        step(images, labels)
    return len(loader) * job.batch / (now(job.device) - start)


def on_device(loader: DataLoader[tuple[Tensor, int]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as the step wants them."""
    for images, labels in loader:
        moved = images.to(device, non_blocking=True)
        yield moved.contiguous(memory_format=torch.channels_last), labels.to(device, non_blocking=True)


def now(device: torch.device) -> float:
    """Seconds, when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def free_memory() -> None:
    """Gives back what the last measurement held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
