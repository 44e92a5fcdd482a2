"""What each choice of a training recipe is worth: losses, samplers, mixing, averaging, sizes, over several seeds.

    python benchmarks/compare_recipes.py [--only "base,no mixing"] [--seeds 1,2] [--per-gpu 5] [key=value …]

Every row is the recipe of `experiment=field_384` at 224 px with one choice changed. All its words stand in the table,
so each row can be typed as `cassava train …`. The last epoch's weights are measured (`train.keep=last`), so nothing is
chosen on the validation photos: they count like the test photos. Several trainings run at once on each GPU, since a
light network does not fill one. Each finished training is a line of --results; rows that stand there are not run again.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

# How the table is read: by the mean over seeds of macro-F1 on validation photos; the test figures are told beside it.
BASE = ("experiment=field_384", "model=mobilenetv2", "augment.image_size=224", "train.epochs=24", "train.keep=last")
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "base": (),
    "augment basic": ("augment=basic", "augment.image_size=224", "augment.mix.p=0.8", "augment.mix.cutmix_alpha=1.0"),
    "no mixing": ("augment.mix.p=0",),
    "MixUp": ("augment.mix.mixup_alpha=0.4", "augment.mix.cutmix_alpha=0"),
    "CutMix and MixUp": ("augment.mix.mixup_alpha=0.4",),
    "every batch mixed": ("augment.mix.p=1",),
    "sampling none": ("data.sampling=none",),
    "sampling inverse": ("data.sampling=inverse",),
    "class weights": ("data.sampling=none", "loss.class_weights=sqrt_inverse"),
    "loss class_balanced": ("data.sampling=none", "loss=class_balanced"),
    "loss focal": ("loss=focal",),
    "loss bi_tempered": ("loss=bi_tempered",),
    "no label smoothing": ("loss.label_smoothing=0",),
    "no EMA": ("optim.ema_decay=null",),
    "layer decay 0.8": ("optim.layer_decay=0.8",),
    "dropout 0.3": ("model.dropout=0.3",),
    "stochastic depth 0.1": ("model.drop_path=0.1",),
    "lr 0.001": ("train.lr=1e-3",),
    "48 epochs": ("train.epochs=48",),
    "160 px": ("augment.image_size=160",),
    "288 px": ("augment.image_size=288",),
    "384 px": ("augment.image_size=384",),
    "224 px, tested at 256": ("augment.eval_size=256",),
    "384 px, tested at 448": ("augment.image_size=384", "augment.eval_size=448"),
}


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    seed: int
    words: tuple[str, ...]


def main() -> None:
    """Trains what is missing and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="rows to run, comma-separated")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--per-gpu", type=int, default=5, help="trainings at once on each GPU")
    parser.add_argument("--results", type=Path, default=Path("outputs/recipes.jsonl"))
    parser.add_argument("--jobs", type=Path, help="rows from a file instead: NAME: key=value key=value …")
    options, overrides = parser.parse_known_args()
    jobs = list_jobs(options, overrides)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = {(line["name"], line["seed"], tuple(line["words"])) for line in read(options.results)}
    missing = [job for job in jobs if (job.name, job.seed, job.words) not in done]
    run_all(missing, options.per_gpu, options.results)
    print_table(jobs, read(options.results))


def list_jobs(options: argparse.Namespace, overrides: Sequence[str]) -> list[Job]:
    """Every row for every seed, large ones first so that the end is not one of them alone."""
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.jobs:
        rows = dict(line.split(": ", 1) for line in options.jobs.read_text(encoding="utf-8").splitlines() if line)
        return [Job(name, seed, (*words.split(), *overrides)) for name, words in rows.items() for seed in seeds]
    names = options.only.split(",") if options.only else list(VARIANTS)
    costly = sorted(names, key=lambda name: "384" not in name and "48" not in name)
    return [Job(name, seed, (*BASE, *VARIANTS[name], *overrides)) for seed in seeds for name in costly]


def run_all(jobs: Sequence[Job], per_gpu: int, results: Path) -> None:
    """Runs the jobs, `per_gpu` at a time on each GPU; a failed one is told and does not stop the others."""
    import torch

    context = multiprocessing.get_context("spawn")
    gpus = torch.cuda.device_count()
    workers = max(gpus, 1) * per_gpu
    seats: Queue[int] = context.Queue()
    for seat in range(workers):
        seats.put(seat % max(gpus, 1))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=take_seat, initargs=(seats, gpus)) as pool:
        running = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(running):
            job = running[future]
            if future.exception() is not None:
                sys.stderr.write(f"{job.name} (seed {job.seed}) failed: {future.exception()}\n")
                continue
            line = future.result()
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            sys.stderr.write(f"{job.name} {job.seed}: {line['metrics']}, {line['seconds']} s\n")


def take_seat(seats: "Queue[int]", gpus: int) -> None:
    """Binds a worker to one of the GPUs that this process may use, and keeps its threads few."""
    seat = seats.get()
    if gpus:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = named.split(",")[seat] if named else str(seat)
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def run(job: Job) -> dict[str, object]:
    """One training's figures."""
    from cassava_leaf_disease.config.load import load_config
    from cassava_leaf_disease.training.fit import train

    started = time.perf_counter()
    result = train(load_config([*job.words, f"train.seed={job.seed}", "train.devices=1"]))
    return {
        "name": job.name,
        "seed": job.seed,
        "words": job.words,
        "metrics": {name: round(value, 4) for name, value in result.metrics.items()},
        "seconds": round(time.perf_counter() - started, 1),
        "hardware": result.hardware,
        "commit": result.git_commit,
        "run_dir": result.run_dir.name,
        "confusion_matrix": result.confusion_matrix,
        "split_hash": result.split_hash,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def print_table(jobs: Sequence[Job], lines: Sequence[Mapping[str, Any]]) -> None:
    """Mean and standard deviation over seeds, best validation macro-F1 first."""
    words = {job.name: job.words for job in jobs}
    found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for line in lines:
        if tuple(line["words"]) == words.get(line["name"]):
            found[line["name"]].append(line["metrics"])
    keys = ("val/acc", "val/f1_macro", "test/acc", "test/f1_macro")
    print("| row | runs | validation accuracy | macro-F1 | test accuracy | macro-F1 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in sorted(found, key=lambda name: -statistics.mean(run["val/f1_macro"] for run in found[name])):
        cells = [spread([run[key] for run in found[name] if key in run]) for key in keys]
        print(f"| {name} | {len(found[name])} | {' | '.join(cells)} |")


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
