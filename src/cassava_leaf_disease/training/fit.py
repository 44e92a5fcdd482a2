"""`cassava train`: photos in, a run folder with checkpoints and honest figures out."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from timm.layers.norm_act import convert_sync_batchnorm

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.evaluation.calibrate import ENOUGH_PHOTOS, calibrate
from cassava_leaf_disease.evaluation.fit_gate import fit_gate
from cassava_leaf_disease.log import stderr_is_terminal
from cassava_leaf_disease.modeling.backbone import build_network, check_eval_size
from cassava_leaf_disease.modeling.checkpoint import AtomicCheckpointIO, load_checkpoint
from cassava_leaf_disease.modeling.losses import loss_weights
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord
from cassava_leaf_disease.modeling.metrics import bootstrap_intervals
from cassava_leaf_disease.modeling.module import MONITOR, LeafClassifier
from cassava_leaf_disease.paths import checkpoints_dir, create_version_dir, runs_dir
from cassava_leaf_disease.storage.files import remove_leftovers, write_json, write_text
from cassava_leaf_disease.training.devices import memory_in_one_line, resolve_precision
from cassava_leaf_disease.training.distill import SOFT_TARGETS_FILE, soften_targets
from cassava_leaf_disease.training.launch import processes_to_start, train_together
from cassava_leaf_disease.training.provenance import git_commit, hardware, utc_now
from cassava_leaf_disease.training.publish import check_publish, start_publishing
from cassava_leaf_disease.training.recorder import RunRecorder
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_figures import write_run_figures
from cassava_leaf_disease.training.run_folder import (
    MANIFEST_FILE,
    METRICS_FILE,
    check_unused,
    describe_run,
    find_run_to_resume,
    locked,
    remove_checkpoints,
)
from cassava_leaf_disease.training.teacher import consistent_teacher
from cassava_leaf_disease.training.team import Team, build_strategy, gathered, synchronizes
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
    resumed = run_dir or find_run_to_resume(config)
    if resumed is None:
        check_unused(config.train.run_dir)
    return resumed


def prepare(config: AppConfig, data: LeafDataModule, *, sync_batchnorm: bool) -> LeafClassifier:
    """Gets photos and network ready."""
    data.setup("fit")
    module = build_module(config, data, sync_batchnorm=sync_batchnorm)
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


def finish_run(
    data: LeafDataModule,
    module: LeafClassifier,
    recorder: RunRecorder,
    test_metrics: dict[str, float],
    session: "Session",
) -> TrainResult:
    """The run's figures, written into its folder, and its best checkpoint calibrated."""
    result = describe_result(data, module, recorder, test_metrics, session)
    calibrate_best(module.config, data, recorder.best_path)
    fit_gate_of_best(module.config, data, recorder.best_path)
    write_run_figures(result)
    write_json(recorder.run_dir / METRICS_FILE, result.model_dump(mode="json"))
    return result


def calibrate_best(config: AppConfig, data: LeafDataModule, best: Path) -> None:
    """Keeps a temperature in the best checkpoint (`train.calibrate`), where there are photos enough to fit one."""
    if not (config.train.calibrate and best.is_file() and data.sizes()["val"] >= ENOUGH_PHOTOS):
        return
    own = config.changed(infer=config.infer.changed(checkpoint_path=best))
    found = calibrate(own)
    before, after = found.validation.calibration_error_before, found.validation.calibration_error_after
    logger.info(
        "temperature %.2f: calibration error on validation photos %.3f, was %.3f", found.temperature, after, before
    )


def fit_gate_of_best(config: AppConfig, data: LeafDataModule, best: Path) -> None:
    """Keeps a gate in the best checkpoint (`train.fit_gate`), where there are real photos and enough of them."""
    if data.split is None or not (config.train.fit_gate and best.is_file() and data.sizes()["val"] >= ENOUGH_PHOTOS):
        return
    found = fit_gate(config.changed(infer=config.infer.changed(checkpoint_path=best)))
    refused = found.scores[found.gate.score].refused
    logger.info(
        "gate: %s; refuses as not cassava: %s; a diagnosis from confidence %.2f",
        found.gate.score,
        ", ".join(f"{share:.1%} of {part}" for part, share in refused.items()),
        found.thresholds.min_confidence,
    )


@dataclass(frozen=True)
class Session:
    """Where and since when this process trains."""

    precision: str
    hardware: str
    started_at: str
    started_s: float  # of `time.perf_counter`


def open_session(config: AppConfig, accelerator: str, processes: int) -> Session:
    """Settles the precision, and starts the clock."""
    return Session(
        precision=resolve_precision(config.train, accelerator),
        hardware=hardware(accelerator, processes),
        started_at=utc_now(),
        started_s=time.perf_counter(),
    )


def clear_leftovers(folder: Path, *, resumed: bool) -> None:
    """Removes what a killed writer left, and the checkpoints of an earlier run that this one replaces."""
    if not resumed:
        remove_checkpoints(folder)
    for written in (folder, checkpoints_dir(folder)):
        remove_leftovers(written)


def describe_result(
    data: LeafDataModule,
    module: LeafClassifier,
    recorder: RunRecorder,
    test_metrics: dict[str, float],
    session: Session,
) -> TrainResult:
    """The run's figures and circumstances."""
    config, matrix = module.config, module.confusion.get("test")
    beside = {"extra": len(data.extra_ids()), "excluded": data.excluded}
    intervals = {} if matrix is None else bootstrap_intervals(matrix, config.evaluate.bootstrap_samples)
    return TrainResult(
        run_dir=recorder.run_dir,
        checkpoint=recorder.best_path if recorder.best_path.is_file() else None,
        metrics=recorder.best_metrics | test_metrics,
        intervals={f"test/{name}": interval for name, interval in intervals.items()},
        confusion_matrix=None if matrix is None else matrix.tolist(),
        best_epoch=recorder.best_epoch,
        epochs=len(recorder.history),
        seconds=round(time.perf_counter() - session.started_s, 1),
        photos=data.sizes() | {name: count for name, count in beside.items() if count},
        backbone=config.model.backbone,
        data_fingerprint=data.fingerprint,
        split_hash=data.split_hash,
        seed=config.train.seed,
        hardware=session.hardware,
        precision=session.precision,
        git_commit=module.metadata.git_commit,
        started_at=session.started_at,
    )


def build_module(config: AppConfig, data: LeafDataModule, *, sync_batchnorm: bool = False) -> LeafClassifier:
    """The network, its loss and its self-description, for a data module that is set up."""
    network = build_network(config.model, config.augment.image_size, NUM_CLASSES)
    check_eval_size(config.model.backbone, config.augment.image_size, config.augment.eval_size)
    if sync_batchnorm:
        # timm's, since PyTorch's own would drop the activations inside timm's norms
        network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    weights = loss_weights(config.loss, data.training_labels())
    return LeafClassifier(config, network, describe_model(config, data), weights)


def describe_model(config: AppConfig, data: LeafDataModule) -> ModelMetadata:
    """What the run's checkpoints will say of themselves."""
    split, limits = config.data.split, config.data.limits
    created_at = utc_now()
    return ModelMetadata(
        name=config.model.backbone,
        version=f"{__version__}+{created_at.replace(':', '').replace('-', '')[:13]}",
        backbone=config.model.backbone,
        preprocessing=data.spec,
        metrics={},
        epoch=0,
        data_fingerprint=data.fingerprint,
        split=SplitRecord(
            strategy="synthetic" if config.data.synthetic.enabled else split.strategy,
            **split.model_dump(exclude={"strategy", "manifest"}),
            **limits.model_dump(),
            hash=data.split_hash,
            photos=data.sizes(),
        ),
        git_commit=git_commit(),
        package_version=__version__,
        created_at=created_at,
    )


def build_trainer(
    config: AppConfig, recorder: RunRecorder, accelerator: str, precision: str, team: Team | None = None
) -> lightning.Trainer:
    """Lightning's trainer with our callbacks; progress on stderr if that is a terminal."""
    team = team or Team()
    callbacks: list[lightning.Callback] = [recorder]
    if config.train.early_stopping.enabled:
        patience = config.train.early_stopping.patience_epochs
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=patience))
    show_bar = stderr_is_terminal()
    if show_bar:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    return lightning.Trainer(
        accelerator=accelerator,
        devices=team.local_size,
        num_nodes=team.nodes,
        strategy=build_strategy(config, team),
        precision=precision,  # type: ignore[arg-type]
        max_epochs=config.train.epochs,
        max_time=config.train.max_time,
        gradient_clip_val=config.optim.grad_clip_norm,
        callbacks=callbacks,
        logger=False,
        plugins=[AtomicCheckpointIO(), team.environment],
        default_root_dir=recorder.run_dir,
        enable_checkpointing=True,
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        benchmark=config.train.cudnn_benchmark,
    )


def test_best(
    trainer: lightning.Trainer, module: LeafClassifier, data: LeafDataModule, recorder: RunRecorder, team: Team
) -> dict[str, float]:
    """Measures the best weights (the final ones, where nothing was saved) on the test part; `{}` without one."""
    if not data.sizes()["test"]:
        return {}
    best = recorder.best_path
    weights = team.lead(lambda: load_checkpoint(best).network_state if best.is_file() else None)
    if weights is not None:
        module.evaluation_network.load_state_dict(weights)
    [metrics] = trainer.test(module, datamodule=data, verbose=False, weights_only=True)
    return {name: float(value) for name, value in metrics.items()}


@contextmanager
def calm_lightning() -> Iterator[None]:
    """Hides Lightning's greetings, and its advice on what this project has already decided."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        advice = (
            ".*does not have many workers.*",
            ".*isinstance.treespec, LeafSpec.*",
            ".*sync_dist=True.*",  # the metrics are those of all ranks' photos already
        )
        for message in advice:
            warnings.filterwarnings("ignore", message)
        yield


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
