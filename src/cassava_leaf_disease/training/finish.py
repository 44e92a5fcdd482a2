"""The end of a run: its best weights measured, calibrated and gated, its figures written."""

import logging
import time
from pathlib import Path

import lightning

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.evaluation.calibrate import ENOUGH_PHOTOS, calibrate
from cassava_leaf_disease.evaluation.fit_gate import fit_gate
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metrics import bootstrap_intervals
from cassava_leaf_disease.modeling.module import LeafClassifier
from cassava_leaf_disease.paths import METRICS_FILE
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training.recorder import RunRecorder
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_figures import write_run_figures
from cassava_leaf_disease.training.session import Session
from cassava_leaf_disease.training.team import Team

logger = logging.getLogger(__name__)


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


def finish_run(
    data: LeafDataModule,
    module: LeafClassifier,
    recorder: RunRecorder,
    test_metrics: dict[str, float],
    session: Session,
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
