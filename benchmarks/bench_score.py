"""`cassava score` against the predictor alone on the same photos and cores, and its memory by the number of files.

    python benchmarks/bench_score.py [--photos 400] [--rounds 5] [--cpus 2] [--model best.onnx] [--ray]
    python benchmarks/bench_score.py --rounds 0 --memory 1000,10000,100000

First table: photos a second of `Predictor.predict_bytes` in threads, over bytes that lie in memory, and of
`cassava score`, which also reads files and writes rows, with as many photos at a time; all in one process, in turns in
each round, and a ratio is the median of the rounds' own ratios. Processor time is what a photo costs beside that of
the predictor alone: it hardly depends on what else the machine does. Without `--model` a MobileNetV2 with drawn
weights answers, 224 px: the figures depend on the network, not on what it has learned. `--ray` adds a cluster on this
machine, whose start counts.

Second table (`--memory`): the largest resident memory of `cassava score` in a process of its own, by the number of
entries in its list, which repeats the same photos; timm's smallest network at 64 px. `--side 128` reduces the photos
first, so that 100,000 of them take a minute or two.

Photos are those of $CASSAVA_TEST_DATA (default ../shared/data) or, where they are missing, drawn leaves.
"""

import argparse
import itertools
import json
import logging
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench_serve import photos_dir
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.scale.score import score

BENCHMARKS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Measured:
    """One pass over the photos: seconds that went by, and processor time."""

    photos: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self.photos / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor time of a photo."""
        return 1000 * self.cpu_s / self.photos


def main() -> None:
    """Measures and prints."""
    options = parse()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])
    keep_freed_memory()
    logging.getLogger("cassava_leaf_disease").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["CASSAVA_ROOT"] = scratch
        photos = sorted(photos_dir(Path(scratch), options.distinct).iterdir())
        print(f"`{shlex.join(['python', *sys.argv])}`: {options.cpus} processors ({platform.machine()}), ", end="")
        print(f"{len(photos)} different photos; load average before: {os.getloadavg()[0]:.2f}\n", flush=True)
        if options.rounds:
            compare(options.model or drawn(Path(scratch), "mobilenetv2_100", 224), photos, options, Path(scratch))
        if options.memory:
            photos = reduced(photos, options.side, Path(scratch)) if options.side else photos
            tell_memory(drawn(Path(scratch), "test_resnet", 64), photos, options.memory, Path(scratch))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=400, help="in one turn")
    parser.add_argument("--distinct", type=int, default=100, help="different photos among them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--model", type=lambda text: Path(text).resolve())
    parser.add_argument("--memory", type=lambda text: [*map(int, text.split(","))], default=[])
    parser.add_argument("--side", type=int, help="shorter side to which --memory reduces the photos first, in pixels")
    parser.add_argument("--ray", action="store_true")
    return parser.parse_args()


def compare(model: Path, photos: Sequence[Path], options: argparse.Namespace, scratch: Path) -> None:
    """The first table."""
    predictor = load_predictor(FoundModel(model, "explicit"), "cpu", threads=1)
    contents = [path.read_bytes() for path in photos]
    one, many = (list_of(photos, count, scratch) for count in (1, options.photos))
    widths = sorted({1, options.cpus})
    engines = ["local", "ray"] if options.ray else ["local"]
    alone: dict[int, list[Measured]] = {width: [] for width in widths}
    scored: dict[tuple[str, int], list[Measured]] = {pair: [] for pair in itertools.product(engines, widths)}
    for turn in range(options.rounds):
        for width in widths:
            alone[width].append(predict(predictor, contents, options.photos, width))
            for engine in engines:
                loading, whole = (score_list(model, each, engine, width, scratch) for each in (one, many))
                scored[engine, width].append(Measured(whole.photos, whole.seconds, whole.cpu_s - loading.cpu_s))
        sys.stderr.write(f"round {turn + 1} of {options.rounds}\n")
    print("| | at a time | photos/s | to the predictor alone | to one at a time | processor ms a photo |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width in widths:
        print(row("predictor alone", width, alone[width], None, alone[1]))
    for (engine, width), found in scored.items():
        print(row(f"`score.engine={engine}`", width, found, alone[width], scored[engine, 1]))
    print(f"\nload average after: {os.getloadavg()[0]:.2f}", flush=True)


def row(
    name: str, width: int, found: Sequence[Measured], against: Sequence[Measured] | None, single: Sequence[Measured]
) -> str:
    """One line of the first table."""
    cpu = "" if name.endswith("ray`") else f"{statistics.median(each.cpu_ms for each in found):.2f}"
    cells = [
        f"{statistics.median(each.rate for each in found):.1f}",
        "" if against is None else spread([own.rate / other.rate for own, other in zip(found, against, strict=True)]),
        "" if width == 1 else spread([own.rate / one.rate for own, one in zip(found, single, strict=True)]),
        cpu,
    ]
    return f"| {name} | {width} | {' | '.join(cells)} |"


def spread(ratios: Sequence[float]) -> str:
    """The median, and the smallest and largest."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def predict(predictor: Predictor, contents: Sequence[bytes], count: int, threads: int) -> Measured:
    """So many photos by the predictor alone."""
    turns = list(itertools.islice(itertools.cycle(contents), count))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda data: predictor.predict_bytes(data, name="leaf"), contents))  # warm
        started, cpu = time.perf_counter(), time.process_time()
        list(pool.map(lambda data: predictor.predict_bytes(data, name="leaf"), turns))
        return Measured(count, time.perf_counter() - started, time.process_time() - cpu)


def score_list(model: Path, photos: Path, engine: str, workers: int, scratch: Path) -> Measured:
    """A list of photos by `cassava score`, in this process."""
    at_a_time = [f"score.workers={workers}"] if engine == "local" else [f"score.ray.actors={workers}"]
    words = [f"score.input={photos}", f"score.engine={engine}", "score.output=answers", "score.part_rows=100"]
    config = load_config([*words, *at_a_time, f"infer.checkpoint_path={model}", "infer.device=cpu"])
    cpu = time.process_time()
    result = score(config)
    measured = Measured(result.photos, result.seconds, time.process_time() - cpu)
    if result.errors:
        raise RuntimeError(f"{result.errors} errors, such as {result.error_examples[0]}")
    shutil.rmtree(scratch / "answers")
    return measured


def tell_memory(model: Path, photos: Sequence[Path], counts: Sequence[int], scratch: Path) -> None:
    """The second table."""
    print("| files | seconds | photos/s | largest resident memory, MB |")
    print("| --- | --- | --- | --- |", flush=True)
    for count in counts:
        cassava = str(Path(sys.executable).with_name("cassava"))
        words = [f"score.input={list_of(photos, count, scratch)}", "score.output=answers.parquet"]
        command = [cassava, "score", *words, f"infer.checkpoint_path={model}", "infer.device=cpu"]
        with (scratch / "result.json").open("wb") as out:
            process = subprocess.Popen(command, stdout=out)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{shlex.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
        result = json.loads((scratch / "result.json").read_text())
        memory_mb = usage.ru_maxrss * 1024 / 1e6  # kilobytes on Linux
        print(
            f"| {result['photos']:,} | {result['seconds']:.1f} | {result['photos_per_second']:.0f} | {memory_mb:.0f} |",
            flush=True,
        )
        (scratch / "answers.parquet").unlink()
        shutil.rmtree(scratch / "answers.parquet.parts")


def list_of(photos: Sequence[Path], count: int, scratch: Path) -> Path:
    """A list of so many entries, which repeats the photos."""
    path = scratch / f"list-{count}.txt"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{photo}\n" for photo in itertools.islice(itertools.cycle(photos), count))
    return path


def reduced(photos: Sequence[Path], side_px: int, scratch: Path) -> list[Path]:
    """Smaller copies."""
    copies = []
    for path in photos:
        with Image.open(path) as photo:
            photo.draft("RGB", (side_px, side_px))
            photo.thumbnail((2 * side_px, side_px))
            copies.append(scratch / f"small-{path.name}")
            photo.save(copies[-1], "JPEG", quality=90)
    return copies


def drawn(scratch: Path, backbone: str, size_px: int) -> Path:
    """A network with drawn weights as ONNX."""
    checkpoint = scratch / f"{backbone}.ckpt"
    script = f"from serve_stand_in import write; write({str(checkpoint)!r}, {backbone!r}, {size_px})"
    here = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    subprocess.run([sys.executable, "-c", script], check=True, env=here)
    words = [f"infer.checkpoint_path={checkpoint}", "export.tolerance=0.1"]
    cassava = str(Path(sys.executable).with_name("cassava"))
    subprocess.run([cassava, "export", *words], check=True, capture_output=True)
    return checkpoint.with_suffix(".onnx")


if __name__ == "__main__":
    main()
