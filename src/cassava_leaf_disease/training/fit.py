"""`cassava train`: photos in, a run folder with checkpoints and honest figures out."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.log import stderr_is_terminal
from cassava_leaf_disease.modeling.backbone import build_network
from cassava_leaf_disease.modeling.checkpoint import AtomicCheckpointIO, load_checkpoint
from cassava_leaf_disease.modeling.losses import loss_weights
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord
from cassava_leaf_disease.modeling.metrics import bootstrap_intervals
from cassava_leaf_disease.modeling.module import MONITOR, LeafClassifier
from cassava_leaf_disease.paths import checkpoints_dir, create_version_dir, runs_dir
from cassava_leaf_disease.storage.files import remove_leftovers, write_json, write_text
from cassava_leaf_disease.training.devices import memory_in_one_line, resolve_accelerator, resolve_precision
from cassava_leaf_disease.training.distill import SOFT_TARGETS_FILE, soften_targets
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
from cassava_leaf_disease.training.tracking import check_tracking, tracked

logger = logging.getLogger(__name__)


def train(config: AppConfig, run_dir: Path | None = None) -> TrainResult:
    """Trains one network as `config` says and measures its best weights once on the test part.

    With `run_dir` the run goes there, and goes on from its last checkpoint if there is one; otherwise to
    `train.run_dir`, anew, or to a new `outputs/runs/version_N`; with `train.resume` an unfinished one is found.

    Raises:
        CassavaError: Whatever is wrong with the settings, the photos, the weights or the device.
    """
    session = open_session(config)
    check_tracking(config)
    check_publish(config)
    resumed = run_dir or find_run_to_resume(config)
    if resumed is None:
        check_unused(config.train.run_dir)
    lightning.seed_everything(config.train.seed, workers=True, verbose=False)
    data = LeafDataModule(config)
    data.setup("fit")
    module = build_module(config, data)
    soft_targets = soften_targets(config, data, resumed)
    folder = resumed or config.train.run_dir or create_version_dir(runs_dir(config.paths.outputs_dir))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), tracked(config, folder) as tracker:
        clear_leftovers(folder, resumed=resumed is not None)
        describe_run(folder, config)
        data.write_manifest(folder / MANIFEST_FILE)
        if soft_targets is not None:
            write_text(folder / SOFT_TARGETS_FILE, soft_targets)
        recorder = RunRecorder(folder, config.train.epochs, save_checkpoints=config.train.save_checkpoints)
        logger.info("run folder: %s  device: %s  precision: %s", folder, session.hardware, session.precision)
        with calm_lightning(), memory_in_one_line(config.train):
            trainer = build_trainer(config, recorder, session.accelerator, session.precision)
            trainer.callbacks.extend([] if tracker is None else [tracker])  # type: ignore[attr-defined]
            trainer.fit(module, datamodule=data, ckpt_path=_last_checkpoint(recorder), weights_only=True)
            test_metrics = test_best(trainer, module, data, recorder)
        result = describe_result(data, module, recorder, test_metrics, session)
        write_run_figures(result)
        write_json(folder / METRICS_FILE, result.model_dump(mode="json"))
        if tracker is not None:
            tracker.finish(result)
    start_publishing(config, folder)
    return result


@dataclass(frozen=True)
class Session:
    """Where and since when this process trains."""

    accelerator: str
    precision: str
    hardware: str
    started_at: str
    started_s: float  # of `time.perf_counter`


def open_session(config: AppConfig) -> Session:
    """Settles device and precision, and starts the clock.

    Raises:
        DeviceError: The device that was asked for is not there.
    """
    accelerator = resolve_accelerator(config.train)
    return Session(
        accelerator=accelerator,
        precision=resolve_precision(config.train, accelerator),
        hardware=hardware(accelerator),
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
        photos=data.sizes() | ({"extra": len(data.extra_ids())} if data.extra_ids() else {}),
        backbone=config.model.backbone,
        data_fingerprint=data.fingerprint,
        split_hash=data.split_hash,
        seed=config.train.seed,
        hardware=session.hardware,
        precision=session.precision,
        git_commit=module.metadata.git_commit,
        started_at=session.started_at,
    )


def build_module(config: AppConfig, data: LeafDataModule) -> LeafClassifier:
    """The network, its loss and its self-description, for a data module that is set up."""
    network = build_network(config.model, config.augment.image_size, NUM_CLASSES)
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


def build_trainer(config: AppConfig, recorder: RunRecorder, accelerator: str, precision: str) -> lightning.Trainer:
    """Lightning's trainer with our callbacks; progress on stderr if that is a terminal."""
    callbacks: list[lightning.Callback] = [recorder]
    if config.train.early_stopping.enabled:
        patience = config.train.early_stopping.patience_epochs
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=patience))
    show_bar = stderr_is_terminal()
    if show_bar:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    return lightning.Trainer(
        accelerator=accelerator,
        devices=_devices(config, accelerator),
        num_nodes=config.train.num_nodes,
        strategy=config.train.strategy,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=config.train.epochs,
        max_time=config.train.max_time,
        gradient_clip_val=config.optim.grad_clip_norm,
        callbacks=callbacks,
        logger=False,
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=True,
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        benchmark=accelerator == "cuda",
    )


def test_best(
    trainer: lightning.Trainer, module: LeafClassifier, data: LeafDataModule, recorder: RunRecorder
) -> dict[str, float]:
    """Measures the best weights (the final ones, where nothing was saved) on the test part; `{}` without one."""
    if not data.sizes()["test"]:
        return {}
    if recorder.best_path.is_file():
        module.evaluation_network.load_state_dict(load_checkpoint(recorder.best_path).network_state)
    [metrics] = trainer.test(module, datamodule=data, verbose=False, weights_only=True)
    return {name: float(value) for name, value in metrics.items()}


@contextmanager
def calm_lightning() -> Iterator[None]:
    """Hides Lightning's greetings, and its advice on what this project has already decided."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*"):
            warnings.filterwarnings("ignore", message)
        yield


def _devices(config: AppConfig, accelerator: str) -> int | str:
    if config.train.devices == "auto":
        return 1 if accelerator == "cpu" else "auto"
    return config.train.devices


def _last_checkpoint(recorder: RunRecorder) -> Path | None:
    return recorder.last_path if recorder.last_path.is_file() else None
