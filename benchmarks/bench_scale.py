"""Training speed on one device and on several: `cassava train` itself, timed from one epoch's end to the next.

    python benchmarks/bench_scale.py [--devices 1,2] [--model efficientnet_b4:380:64] [--photos 8000] [--epochs 5]

MODEL:SIZE:BATCH names a timm backbone, its input and the photos that each device takes in a step, so that the global
batch grows with the devices. An epoch counts whole: training, the validation of one photo in fifty, and what lies
between. The first epoch (start, decoding) is told apart; steady is the median of the others. On a machine without a
GPU the devices are processes on the CPU, which share its cores: that shows that it works, not that it is faster.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from bench_train import photos_dir

EPOCH_LINE = re.compile(r"epoch (\d+)/\d+ ")


@dataclass(frozen=True)
class Measured:
    """Seconds from the start to the end of the first epoch, and of every later epoch; photos trained in one."""

    first_s: float
    later_s: list[float]
    photos: int

    @property
    def steady(self) -> float:
        """Images a second."""
        return self.photos / statistics.median(self.later_s)


def main() -> None:
    """Measures and prints a table in Markdown."""
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", default="1,2")
    parser.add_argument("--model", default="efficientnet_b4:380:64" if has_gpu else "test_resnet:64:16")
    parser.add_argument("--photos", type=int, default=8_000 if has_gpu else 640)
    parser.add_argument("--epochs", type=int, default=5 if has_gpu else 3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("overrides", nargs="*", help="further configuration, key=value")
    options = parser.parse_args()
    hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if has_gpu else "CPU"
    print(f"`{shlex.join(['python', *sys.argv])}`\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        data_dir, what = photos_dir(Path(scratch), options.photos, options.data)
        print(f"{what}; {hardware}, {os.cpu_count()} CPU threads, torch {torch.__version__}.\n")
        print("| devices | global batch | images/s, steady | first epoch, s | against one device |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        alone = 0.0
        for devices in map(int, options.devices.split(",")):
            measured = measure(options, devices, data_dir, Path(scratch) / f"outputs-{devices}")
            alone = alone or measured.steady
            batch = devices * int(options.model.split(":")[2])
            print(
                f"| {devices} | {batch} | {measured.steady:,.0f} | {measured.first_s:.0f} "
                f"| {measured.steady / alone:.2f} |",
                flush=True,
            )


def measure(options: argparse.Namespace, devices: int, data_dir: Path, outputs_dir: Path) -> Measured:
    """Runs the command line and listens to its epochs."""
    backbone, size, batch = options.model.split(":")
    words = [
        f"paths.data_dir={data_dir}",
        f"paths.outputs_dir={outputs_dir}",
        f"model.backbone={backbone}",
        f"augment.image_size={size}",
        f"train.batch_size={int(batch) * devices}",
        f"train.devices={devices}",
        f"train.epochs={options.epochs}",
        "train.save_checkpoints=false",
        "data.split.val_size=0.02",
        "data.split.test_size=0",
        *options.overrides,
    ]
    start = time.perf_counter()
    ends: list[float] = []
    log: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "cassava_leaf_disease", "train", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None  # noqa: S101  it was asked for
        for line in process.stderr:
            log.append(line)
            if EPOCH_LINE.search(line):
                ends.append(time.perf_counter())
    if process.returncode or len(ends) < 2:
        sys.exit("".join(log[-20:]))
    later = [end - begin for begin, end in pairwise(ends)]
    return Measured(ends[0] - start, later, round(options.photos * 0.98))


if __name__ == "__main__":
    main()
