"""The folds of a cross-validation, one after another in this process or several at a time in their own."""

import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.paths import METRICS_FILE, best_checkpoint
from cassava_leaf_disease.training.children import Child, Nursery, Task, nursery, wait_for_one
from cassava_leaf_disease.training.distillation import DistillResult, distill_into
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.result import TrainResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """A finished fold: the model file that answers about its photos, and the networks in it."""

    model: Path
    runs: list[TrainResult]
    seconds: float


def run_folds(config: AppConfig, folder: Path) -> list[Fold]:
    """Trains the folds that have not been finished before, each in its own folder; the results of all.

    With `crossval.distill` a fold's networks are students of teachers that have not seen its photos either.

    Raises:
        CassavaError: What went wrong in a fold; those that run beside it end, and can be resumed.
    """
    folds = range(config.data.split.folds)
    missing = []
    for index in folds:
        if (fold_dir(folder, index) / METRICS_FILE).is_file():
            logger.info("fold %d of %d was finished before: %s", index + 1, len(folds), fold_dir(folder, index))
        else:
            missing.append(index)
    at_once = min(folds_at_once(config), len(missing))
    if at_once > 1:
        _run_in_children(config, folder, missing, at_once)
    else:
        for index in missing:
            logger.info("fold %d of %d: %s", index + 1, len(folds), fold_dir(folder, index))
            train_fold = distill_into if config.crossval.distill else train
            train_fold(fold_config(config, index), fold_dir(folder, index))
    return [_read_fold(config, fold_dir(folder, index)) for index in folds]


def fold_config(config: AppConfig, index: int) -> AppConfig:
    """The configuration of one fold."""
    split = config.data.split.changed(strategy="kfold", fold_index=index)
    return config.changed(data=config.data.changed(split=split))


def fold_dir(folder: Path, index: int) -> Path:
    """Where a fold's run stands."""
    return folder / f"fold_{index}"


def folds_at_once(config: AppConfig) -> int:
    """How many folds train at a time; auto: one for each GPU, and one alone where a fold takes several devices."""
    if config.crossval.parallel != "auto":
        return config.crossval.parallel
    one_device = config.train.devices in ("auto", 1)
    return max(1, len(_gpus(config))) if one_device else 1


def _run_in_children(config: AppConfig, folder: Path, indices: Sequence[int], at_once: int) -> None:
    """Places are GPUs, or shares of the processors; a fold gets the place of one that has ended."""
    logger.info("%d of %d folds at a time", at_once, len(indices))
    free, waiting = deque(_places(config, at_once)), deque(indices)
    running: dict[Child, dict[str, str]] = {}
    with nursery() as children:
        while waiting or running:
            while waiting and free:
                place = free.popleft()
                running[_start(children, config, folder, waiting.popleft(), place)] = place
            ended = wait_for_one(running)
            free.append(running.pop(ended))
            if ended.exit_code:
                raise ended.failure()


def _start(children: Nursery, config: AppConfig, folder: Path, index: int, place: dict[str, str]) -> Child:
    own = fold_config(config, index)
    own = own.changed(train=own.train.changed(devices=1))
    name = f"fold {index + 1} of {config.data.split.folds}"
    task = Task(config=own, run_dir=fold_dir(folder, index), distilled=config.crossval.distill)
    return children.start(name, task, place, relayed=True)


def _places(config: AppConfig, count: int) -> list[dict[str, str]]:
    """The environment that gives each of `count` processes its GPU, or its share of the processors."""
    gpus = _gpus(config)
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} for place in range(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cpus() // count))
    return [{"OMP_NUM_THREADS": threads}] * count


def _gpus(config: AppConfig) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where the CPU trains."""
    if resolve_accelerator(config.train) != "cuda":
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def _read_fold(config: AppConfig, folder: Path) -> Fold:
    written = (folder / METRICS_FILE).read_bytes()
    if config.crossval.distill:
        distilled = DistillResult.model_validate_json(written)
        return Fold(distilled.model, distilled.students, distilled.seconds)
    trained = TrainResult.model_validate_json(written)
    return Fold(best_checkpoint(trained.run_dir), [trained], trained.seconds)
