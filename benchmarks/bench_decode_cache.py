"""Images a second of the training input, decoding in every epoch against the cache of decoded photos.

    python benchmarks/bench_decode_cache.py [--photos 600] [--image-size 224] [--workers 0] [--rounds 3]

Takes the photos of $CASSAVA_TEST_DATA (default ../shared/data) or, where they are missing, drawn leaves saved
as 800x600 JPEGs. Each figure is the median of `--rounds` epochs; the ways take turns, so that a change of
the machine's load meets both.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.device.loader import Batch
from cassava_leaf_disease.data.sampling import EpochSampler
from cassava_leaf_disease.data.synthetic import balanced_labels, draw_leaf

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir, what = photos_dir(Path(scratch), options.photos)
        print(f"`{shlex.join(['python', *sys.argv])}`\n")
        print(f"{what}; {available_cpus()} processors ({platform.machine()}), {options.workers} workers.\n")
        print("| augment | decoding each epoch, images/s | cached, images/s | ratio | first decoding, s |")
        print("| --- | --- | --- | --- | --- |")
        for augment in ("basic", "strong"):
            print(row(augment, data_dir, Path(scratch), options), flush=True)


def photos_dir(scratch: Path, count: int) -> tuple[Path, str]:
    """A folder in the Kaggle layout, and what lies there."""
    shared = Path(os.environ.get("CASSAVA_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "cassava"
    if (shared / "train.csv").is_file():
        return shared, f"Real photos ({shared})"
    images = scratch / "data" / "train_images"
    images.mkdir(parents=True)
    lines = ["image_id,label"]
    for index, label in enumerate(balanced_labels(max(count * 2, 100), seed=0).tolist()):
        Image.fromarray(draw_leaf(index, label, 800)[100:700]).save(images / f"{index}.jpg", quality=90)
        lines.append(f"{index}.jpg,{label}")
    (scratch / "data" / "train.csv").write_text("\n".join(lines) + "\n")
    return scratch / "data", "Drawn leaves as 800x600 JPEGs"


def row(augment: str, data_dir: Path, scratch: Path, options: argparse.Namespace) -> str:
    """One line of the table."""
    common = [
        f"paths.data_dir={data_dir}",
        f"paths.cache_dir={scratch / f'cache_{augment}'}",
        f"augment={augment}",
        f"augment.image_size={options.image_size}",
        f"train.num_workers={options.workers}",
        f"data.limits.max_train_samples={options.photos}",
        "data.limits.max_val_samples=5",
        "train.accelerator=cpu",
    ]
    start = time.perf_counter()
    cached = prepared([*common, "data.cache.enabled=true"])
    first_s = time.perf_counter() - start
    decoding = prepared([*common, "data.cache.enabled=false"])
    speeds: dict[str, list[float]] = {"decoding": [], "cached": []}
    for epoch in range(options.rounds + 1):
        for name, loader in (("decoding", decoding), ("cached", cached)):
            speed = images_per_second(loader, epoch)
            if epoch:  # the first epoch starts workers and fills the page cache
                speeds[name].append(speed)
    slow, fast = (statistics.median(values) for values in speeds.values())
    return f"| {augment} | {slow:.0f} | {fast:.0f} | {fast / slow:.1f} | {first_s:.1f} |"


def prepared(overrides: list[str]) -> DataLoader[Batch]:
    """The training loader; the cache is filled by then."""
    module = LeafDataModule(load_config(overrides))
    module.setup("fit")
    loader = module.train_dataloader()
    assert isinstance(loader, DataLoader)  # noqa: S101  data.pipeline=loader
    return loader


def images_per_second(loader: DataLoader[Batch], epoch: int) -> float:
    """Draws one epoch."""
    if isinstance(loader.sampler, EpochSampler):
        loader.sampler.set_epoch(epoch)
    batches = iter(loader)
    start = time.perf_counter()
    images = sum(len(labels) for _, labels in batches)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
