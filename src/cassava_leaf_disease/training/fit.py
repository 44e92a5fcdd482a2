"""`cassava train`: photos in, a run folder with checkpoints and honest figures out."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import lightning

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.module import LeafClassifier
from cassava_leaf_disease.paths import checkpoints_dir, create_version_dir, runs_dir
from cassava_leaf_disease.storage.files import remove_leftovers, write_text
from cassava_leaf_disease.training.build import build_module, build_trainer, build_training_network, calm_lightning
from cassava_leaf_disease.training.devices import memory_in_one_line
from cassava_leaf_disease.training.distill import SOFT_TARGETS_FILE, soften_targets
from cassava_leaf_disease.training.finish import finish_run, test_best
from cassava_leaf_disease.training.launch import processes_to_start, train_together
from cassava_leaf_disease.training.publish import check_publish, start_publishing
from cassava_leaf_disease.training.recorder import RunRecorder
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_folder import (
    MANIFEST_FILE,
    check_unused,
    describe_run,
    find_run_to_resume,
    locked,
    remove_checkpoints,
)
from cassava_leaf_disease.training.session import open_session
from cassava_leaf_disease.training.teacher import consistent_teacher
from cassava_leaf_disease.training.team import Team, gathered, synchronizes
from cassava_leaf_disease.training.tracking import MlflowTracker, check_tracking, tracked

logger = logging.getLogger(__name__)


def train(config: AppConfig, run_dir: Path | None = None) -> TrainResult:
    """Trains one network as `config` says and measures its best weights once on the test part.

    With `run_dir` the run goes there, and goes on from its last checkpoint if there is one; otherwise to
    `train.run_dir`, anew, or to a new `outputs/runs/version_N`; with `train.resume` an unfinished one is found.
    For several devices this process starts one for each and waits for them; those that torchrun or SLURM have
    started all call this function, and all get the result.

    Raises:
        CassavaError: Whatever is wrong with the settings, the photos, the weights or the device.
    """
    processes = processes_to_start(config)
    return train_here(config, run_dir) if processes == 1 else train_together(config, run_dir, processes)


def train_here(
    config: AppConfig,
    run_dir: Path | None = None,
    *,
    callbacks: Sequence[lightning.Callback] = (),
    measure_test: bool = True,
) -> TrainResult:
    """What `train` does in each process: alone, or as one rank of those that were started together."""
    accelerator = resolve_accelerator(config.train)
    with gathered(config, accelerator) as team:
        session = open_session(config, accelerator, team.size)
        resumed = team.lead(lambda: find_start(config, run_dir))
        lightning.seed_everything(config.train.seed, workers=True, verbose=False)
        data = LeafDataModule(config)
        module = team.node_first(lambda: prepare(config, data, sync_batchnorm=synchronizes(config, team, accelerator)))
        with ExitStack() as held:
            folder, tracker = open_run(team, held, config, data, resumed)
            recorder = RunRecorder(
                folder, config.train.epochs, save_checkpoints=config.train.save_checkpoints, keep=config.train.keep
            )
            logger.info("run folder: %s  device: %s  precision: %s", folder, session.hardware, session.precision)
            with calm_lightning(), memory_in_one_line(config.train):
                trainer = build_trainer(config, recorder, accelerator, session.precision, team)
                trainer.callbacks.extend([*([] if tracker is None else [tracker]), *callbacks])  # type: ignore[attr-defined]
                last = find_last_checkpoint(team, recorder)
                trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
                test_metrics = test_best(trainer, module, data, recorder, team) if measure_test else {}
            result = team.lead(lambda: finish_run(data, module, recorder, test_metrics, session))
            if tracker is not None:
                tracker.finish(result)
        team.alone(lambda: start_publishing(config, folder))
    return result


def find_start(config: AppConfig, run_dir: Path | None) -> Path | None:
    """The folder of the run to go on with, None for a new one; refuses what would fail at the end.

    Raises:
        CassavaError: There is nothing to resume, the folder is in use, or nothing can be tracked or published.
    """
    check_tracking(config)
    check_publish(config)
    if run_dir is None and config.crossval.distill and config.distill.teacher is None:
        logger.warning(
            "this recipe is a student's (crossval.distill=true), and there is no teacher: it learns from the labels "
            "alone; type `cassava distill` with the same words, or distill.teacher=…"
        )
    resumed = run_dir or find_run_to_resume(config)
    if resumed is None:
        check_unused(config.train.run_dir)
    return resumed


def prepare(config: AppConfig, data: LeafDataModule, *, sync_batchnorm: bool) -> LeafClassifier:
    """Gets network and photos ready; the photos last, since decoding them takes longest."""
    data.divide()
    network = build_training_network(config, sync_batchnorm=sync_batchnorm)
    data.setup("fit")
    module = build_module(config, data, network)
    module.teacher = consistent_teacher(config, data, module.metadata)
    return module


def open_run(
    team: Team, held: ExitStack, config: AppConfig, data: LeafDataModule, resumed: Path | None
) -> tuple[Path, MlflowTracker | None]:
    """The run's folder, made and described, and on rank zero its tracker; both are `held` until the run ends.

    Raises:
        CassavaError: Another process trains there, or MLflow or the teacher cannot be asked.
    """
    soft_targets = team.lead(lambda: soften_targets(config, data, resumed))

    def make() -> Path:
        folder = resumed or config.train.run_dir or create_version_dir(runs_dir(config.paths.outputs_dir))
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(folder))
        clear_leftovers(folder, resumed=resumed is not None)
        describe_run(folder, config)
        data.write_manifest(folder / MANIFEST_FILE)
        if soft_targets is not None:
            write_text(folder / SOFT_TARGETS_FILE, soft_targets)
        return folder

    folder = team.lead(make)
    if not team.leads:
        soften_targets(config, data, folder)  # by the table that rank zero has written
    return folder, team.alone(lambda: held.enter_context(tracked(config, folder)))


def clear_leftovers(folder: Path, *, resumed: bool) -> None:
    """Removes what a killed writer left, and the checkpoints of an earlier run that this one replaces."""
    if not resumed:
        remove_checkpoints(folder)
    for written in (folder, checkpoints_dir(folder)):
        remove_leftovers(written)


def find_last_checkpoint(team: Team, recorder: RunRecorder) -> Path | None:
    """Where the run goes on from, None for a new one; every rank reads it.

    Raises:
        CheckpointError: It stands on a disk that not all of them share.
    """
    last = team.lead(lambda: recorder.last_path if recorder.last_path.is_file() else None)

    def check() -> None:
        if last is not None and not last.is_file():
            raise CheckpointError(
                f"{last}: rank zero alone sees it; put paths.outputs_dir on a disk that machines share"
            )

    team.node_first(check)
    return last
