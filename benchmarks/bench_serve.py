"""The service under load, side by side with the predictor alone, LitServe, and plain FastAPI with eager PyTorch.

    python benchmarks/bench_serve.py [--seconds 10] [--rounds 3] [--concurrency 1,32,128] [--cpus 2] [--model best.onnx]
    python benchmarks/bench_serve.py --soak 600 [--concurrency 32]

Everything, the load included, runs on 127.0.0.1 and on `--cpus` processors. Contenders take turns in each round,
each in a fresh process; a figure is the median of the rounds. Without `--model` a MobileNetV2 with drawn weights is
served, 224 px: the figures depend on the network, not on what it has learned. Photos are those of
$CASSAVA_TEST_DATA (default ../shared/data) or, where they are missing, drawn leaves saved as 800x600 JPEGs.
LitServe runs by `uv run --with litserve` in an environment of its own.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image

from cassava_leaf_disease.data.synthetic import draw_leaf
from serve_load import Load, load, middle, request_of, resident_mb, run

REPOSITORY = Path(__file__).resolve().parents[1]
RIVALS = Path(__file__).with_name("serve_rivals.py")
LITSERVE = "litserve==0.2.19"
CONTENDERS = ("service", "litserve", "litserve-2", "plain")


def main() -> None:
    """Measures and prints."""
    options = parse()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])
    os.environ["OMP_NUM_THREADS"] = str(options.cpus)
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or stand_in(Path(scratch))
        photos = photos_dir(Path(scratch), options.photos)
        print(
            f"`{shlex.join(['python', *sys.argv])}`: {model.name}, {options.cpus} processors ({platform.machine()}), "
        )
        print(f"load average before: {os.getloadavg()[0]:.2f}\n")
        if options.soak:
            soak(model, photos, options)
        else:
            compare(model, photos, options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=lambda text: [*map(int, text.split(","))], default=[1, 32, 128])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=["service", "litserve", "plain"])
    parser.add_argument("--soak", type=float, default=0, help="seconds of load on the service alone")
    options = parser.parse_args()
    if wrong := {*options.contenders} - {*CONTENDERS}:
        parser.error(f"--contenders: {', '.join(sorted(wrong))}; expected some of {', '.join(CONTENDERS)}")
    return options


def compare(model: Path, photos: Path, options: argparse.Namespace) -> None:
    """All contenders in turns; a table in Markdown."""
    requests = [request_of(path.read_bytes()) for path in sorted(photos.iterdir())]
    alone: list[dict[str, float]] = []
    loads: dict[tuple[str, int], list[Load]] = {}
    memory: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        alone.append(in_process(model, photos, options))
        for name in options.contenders:
            with running(name, model) as (process, port):
                for concurrency in options.concurrency:
                    run(load(port, requests, concurrency, options.seconds / 4))  # warm
                    measured = run(load(port, requests, concurrency, options.seconds))
                    loads.setdefault((name, concurrency), []).append(measured)
                memory.setdefault(name, []).append(resident_mb(process.pid))
        sys.stderr.write(f"round {turn + 1} of {options.rounds}\n")
    print("| | concurrency | answers/s | p50, ms | p99, ms | 503 | failed | memory, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rate, p50 = middle([each["rate"] for each in alone]), middle([each["p50_ms"] for each in alone])
    p99, ways = middle([each["p99_ms"] for each in alone]), [middle([each[w] for each in alone]) for w in _WAYS]
    print(f"| predictor alone | 1 | {ways[0]:.1f} | {p50:.1f} | {p99:.1f} | | | |")
    print(f"| predictor alone | {options.cpus} threads | {ways[1]:.1f} | | | | | |")
    for (name, concurrency), found in loads.items():
        print(row(name, concurrency, found, middle(memory[name])))
    tell_ratios(loads, rate, p50)


_WAYS = ("one_by_one", "together")


def row(name: str, concurrency: int, found: Sequence[Load], memory_mb: float) -> str:
    """One line of the table."""
    figures = [
        f"{middle([each.rate for each in found]):.1f}",
        f"{middle([each.quantile_ms(0.5) for each in found]):.1f}",
        f"{middle([each.quantile_ms(0.99) for each in found]):.1f}",
        f"{sum(each.statuses[503] for each in found)}",
        f"{sum(each.failures for each in found)}",
        f"{memory_mb:.0f}",
    ]
    return f"| {name} | {concurrency} | {' | '.join(figures)} |"


def tell_ratios(loads: dict[tuple[str, int], list[Load]], rate: float, p50_ms: float) -> None:
    """The service against the others at the same concurrency."""
    print()
    for (name, concurrency), found in loads.items():
        if name != "service":
            continue
        own = middle([each.rate for each in found])
        against = [f"{own / rate:.2f} x the predictor alone"]
        if concurrency == 1:
            against.append(f"p50 {middle([each.quantile_ms(0.5) for each in found]) - p50_ms:+.1f} ms")
        for other in (contender for contender in CONTENDERS[1:] if (contender, concurrency) in loads):
            theirs = middle([each.rate for each in loads[other, concurrency]])
            against.append(f"{own / theirs:.2f} x {other}" if theirs else f"{other} gave no answer")
        print(f"- service at concurrency {concurrency}: {', '.join(against)}")


def soak(model: Path, photos: Path, options: argparse.Namespace) -> None:
    """A long load on the service: errors, and how its memory grows after the first tenth of the time."""
    requests = [request_of(path.read_bytes()) for path in sorted(photos.iterdir())]
    concurrency = options.concurrency[0] if len(options.concurrency) == 1 else 32
    print("| seconds | answers/s | p50, ms | p99, ms | 503 | failed | memory, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    memory: list[float] = []
    total = Load()
    with running("service", model) as (process, port):
        for part in range(11):  # the first is the warm-up
            found = run(load(port, requests, concurrency, options.soak / 10))
            memory.append(resident_mb(process.pid))
            total.broken += found.broken
            total.statuses += found.statuses
            seconds = f"{(part - 1) * options.soak / 10:.0f} to {part * options.soak / 10:.0f}" if part else "warm-up"
            print(row(seconds, 0, [found], memory[-1]).replace(" | 0 | ", " | ", 1), flush=True)
    growth = (max(memory[1:]) - memory[0]) / memory[0]
    print(
        f"\n{sum(total.statuses.values())} answers, {total.failures} failed; memory at most {growth:+.1%} of warm-up's"
    )


def in_process(model: Path, photos: Path, options: argparse.Namespace) -> dict[str, float]:
    """The predictor's own figures, in a process of its own."""
    words = ["in-process", str(model), str(photos), str(options.seconds), str(options.cpus)]
    run = subprocess.run([sys.executable, str(RIVALS), *words], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


@contextmanager
def running(name: str, model: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A contender's server in a process of its own, and its port; ended by its id."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words_of(name, model, port), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(port, process, "/ready" if name == "service" else "/docs")
            yield process, port
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-3000:])
            raise
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and its own children, which are all that its session holds."""
    for by in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, by)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return


def words_of(name: str, model: Path, port: int) -> list[str]:
    """The command line of a contender."""
    if name == "service":
        cassava = str(Path(sys.executable).with_name("cassava"))
        return [cassava, "serve", f"serve.port={port}", f"infer.checkpoint_path={model}"]
    if name == "plain":
        return [sys.executable, str(RIVALS), "plain", str(model.with_suffix(".ckpt")), str(port)]
    workers = name.partition("-")[2] or "1"
    uv = shutil.which("uv") or "uv"
    apart = [uv, "run", "--no-sync", "--project", str(REPOSITORY), "--with", LITSERVE, "python"]
    return [*apart, str(RIVALS.with_name("serve_litserve.py")), str(model), str(port), workers]


def wait_for(port: int, process: subprocess.Popen[bytes], path: str, at_most_s: float = 180) -> None:
    """Until the server answers."""
    end = time.monotonic() + at_most_s
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{shlex.join(map(str, process.args))}: no answer at port {port}")  # type: ignore[arg-type]


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def stand_in(scratch: Path) -> Path:
    """A MobileNetV2 with drawn weights as ONNX, its checkpoint beside it."""
    words = ["infer.checkpoint_path=" + str(scratch / "model.ckpt"), f"export.output_path={scratch / 'model.onnx'}"]
    script = "from serve_stand_in import write; import sys; write(sys.argv[1])"
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", script, str(scratch / "model.ckpt")], check=True, env=here)
    cassava = str(Path(sys.executable).with_name("cassava"))
    subprocess.run([cassava, "export", *words, "export.tolerance=0.1"], check=True, capture_output=True)
    return scratch / "model.onnx"


def photos_dir(scratch: Path, count: int) -> Path:
    """A folder with so many photos."""
    folder = scratch / "photos"
    folder.mkdir()
    shared = Path(os.environ.get("CASSAVA_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    real = sorted((shared / "cassava" / "train_images").glob("*.jpg"))[:count]
    for path in real:
        shutil.copy(path, folder)
    for number in range(0 if real else count):
        Image.fromarray(draw_leaf(number, number % 5, 800)[100:700]).save(folder / f"{number:03}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
