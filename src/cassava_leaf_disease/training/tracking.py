"""A run in MLflow: parameters and epochs while it trains; figures, files and the model when it has ended.

The run's own files come first and need none of this. Where MLflow fails, the training goes on without it: one
warning says so, `tracking.json` in the run's folder keeps it in mind, and `cassava track` sends the run again.
"""

import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import lightning
import yaml
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, StorageError
from cassava_leaf_disease.paths import METRICS_FILE, best_checkpoint, runs_dir, version_dirs
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training.mlflow_store import MEND, check_store, reaching, tracking_uri
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_folder import CONFIG_FILE, FIGURES_DIR, MANIFEST_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

TRACKING_FILE: Final = "tracking.json"
_VALUE_CHARACTERS: Final = 6000  # MLflow refuses longer parameters
_BATCH: Final = 100  # parameters in one request, MLflow's limit


class TrackedRun(BaseModel):
    """What `tracking.json` says of a run, and what `cassava track` answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["running", "complete", "incomplete"]
    tracking_uri: str
    experiment: str
    run_id: str | None = None
    model: str | None = None
    error: str | None = None


class MlflowTracker(lightning.Callback):
    """Sends each epoch's metrics; after the first failure nothing more is sent."""

    def __init__(self, config: AppConfig, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self.run = TrackedRun(
            state="running", tracking_uri=tracking_uri(config), experiment=config.logger.experiment_name
        )

    def start(self) -> None:
        """Opens a run in the store, or goes on with the one that a resumed training had opened."""
        before = read_tracking(self._run_dir)
        with self._trying(), reaching(self.run.tracking_uri) as client:
            resumed = before is not None and before.tracking_uri == self.run.tracking_uri and before.run_id
            run_id = resumed or create_run(client, self._config)
            client.update_run(run_id, status="RUNNING")
            log_parameters(client, run_id, self._config.model_dump(mode="json"))
            self._remember(run_id=run_id)
            logger.info("MLflow: run %s at %s", run_id, self.run.tracking_uri)

    @override
    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.run.state != "running" or not trainer.is_global_zero:
            return
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        row = {name: float(value) for name, value in trainer.callback_metrics.items()} | {"lr": max(rates)}
        with self._trying(), reaching(self.run.tracking_uri) as client:
            log_metrics(client, self._id, row, trainer.current_epoch)

    def finish(self, result: TrainResult) -> None:
        """Sends what the ended run has left in its folder, and registers its model."""
        if self.run.state == "running":
            with self._trying(), reaching(self.run.tracking_uri) as client:
                model = log_results(client, self._id, result, self._config)
                client.set_terminated(self._id, "FINISHED")
                self._remember(state="complete", model=model)

    def stop(self, error: BaseException) -> None:
        """Marks the run as failed or killed."""
        if self.run.state == "running":
            with self._trying(), reaching(self.run.tracking_uri) as client:
                client.set_terminated(self._id, "FAILED" if isinstance(error, Exception) else "KILLED")

    @property
    def _id(self) -> str:
        assert self.run.run_id is not None  # noqa: S101  `start` has set it, or the state is no longer running
        return self.run.run_id

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """MLflow's failures end the tracking, not the training."""
        try:
            yield
        except StorageError as error:
            self._remember(state="incomplete", error=str(error))
            logger.warning(
                "%s; the training goes on without it; to send the run when it has ended, type: %s",
                error,
                retry_command(self._run_dir, self.run.tracking_uri),
            )

    def _remember(self, **values: object) -> None:
        self.run = self.run.model_copy(update=values)
        write_json(self._run_dir / TRACKING_FILE, self.run.model_dump(mode="json"))


def check_tracking(config: AppConfig) -> None:
    """Finds before a training whether MLflow is there, where `logger.required` says that it must be.

    Raises:
        MissingDependencyError: MLflow is not installed.
        StorageError: The server does not answer.
    """
    if config.logger.enabled and config.logger.required:
        check_store(config)


@contextmanager
def tracked(config: AppConfig, run_dir: Path) -> Iterator[MlflowTracker | None]:
    """The tracker of a run while it trains; None where `logger.enabled` does not ask for one.

    Raises:
        StorageError: MLflow fails at once and `logger.required` is set.
    """
    if not config.logger.enabled:
        yield None
        return
    tracker = MlflowTracker(config, run_dir)
    tracker.start()
    if tracker.run.error is not None and config.logger.required:
        raise StorageError(f"{tracker.run.error}; {MEND}")
    try:
        yield tracker
    except BaseException as error:
        tracker.stop(error)
        raise


def track(config: AppConfig) -> TrackedRun:
    """`cassava track`: sends a finished run to MLflow, as a new run there; the newest one if none is named.

    Raises:
        ConfigError: No such run, or it has not ended.
        StorageError: MLflow does not take it.
    """
    run_dir = config.track.run_dir or _newest_finished(config)
    if not (run_dir / METRICS_FILE).is_file():
        raise ConfigError(
            f"track.run_dir={run_dir}: no finished run ({METRICS_FILE} is missing); name a folder like "
            f"{runs_dir(config.paths.outputs_dir) / 'version_0'}"
        )
    check_store(config)
    result = TrainResult.model_validate_json((run_dir / METRICS_FILE).read_text(encoding="utf-8"))
    result = result.model_copy(update={"run_dir": run_dir})
    settings = yaml.safe_load((run_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    uri = tracking_uri(config)
    with reaching(uri) as client:
        run_id = create_run(client, config)
        log_parameters(client, run_id, settings)
        log_history(client, run_id, result)
        model = log_results(client, run_id, result, config)
        client.set_terminated(run_id, "FINISHED")
    run = TrackedRun(
        state="complete",
        tracking_uri=uri,
        experiment=config.logger.experiment_name,
        run_id=run_id,
        model=model,
    )
    write_json(run_dir / TRACKING_FILE, run.model_dump(mode="json"))
    return run


def read_tracking(run_dir: Path) -> TrackedRun | None:
    """What `tracking.json` says, if it is there."""
    path = run_dir / TRACKING_FILE
    return TrackedRun.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def retry_command(run_dir: Path, uri: str) -> str:
    """The command line that sends the run again."""
    named = f" logger.tracking_uri={uri}" if uri.startswith("http") else ""
    return f"cassava track track.run_dir={run_dir}{named}"


def create_run(client: "MlflowClient", config: AppConfig) -> str:
    """A run in the experiment, which is made where it is missing; local artifacts lie under `paths.outputs_dir`."""
    settings, local = config.logger, not tracking_uri(config).startswith("http")
    if local:
        config.paths.outputs_dir.mkdir(parents=True, exist_ok=True)
    experiment = client.get_experiment_by_name(settings.experiment_name)
    if experiment is None:
        location = (config.paths.outputs_dir / "mlartifacts").as_uri() if local else None
        experiment_id = client.create_experiment(settings.experiment_name, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    return str(client.create_run(experiment_id, run_name=settings.run_name).info.run_id)


def log_parameters(client: "MlflowClient", run_id: str, settings: dict[str, Any]) -> None:
    """Every configuration key under its dotted name; those that a resumed run has stay as they are."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    flat = flat_settings(settings)
    new = [Param(key, value[:_VALUE_CHARACTERS]) for key, value in flat.items() if key not in known]
    for start in range(0, len(new), _BATCH):
        client.log_batch(run_id, params=new[start : start + _BATCH])


def log_metrics(client: "MlflowClient", run_id: str, metrics: dict[str, float], step: int) -> None:
    """One epoch's figures in one request."""
    import time

    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    finite = [Metric(name, value, now_ms, step) for name, value in metrics.items() if math.isfinite(value)]
    client.log_batch(run_id, metrics=finite)


def log_history(client: "MlflowClient", run_id: str, result: TrainResult) -> None:
    """The epochs of `metrics.csv`."""
    from cassava_leaf_disease.evaluation.figures import read_history

    for row in read_history(result.run_dir / "metrics.csv"):
        epoch = int(row.pop("epoch"))
        log_metrics(client, run_id, row, epoch)


def log_results(client: "MlflowClient", run_id: str, result: TrainResult, config: AppConfig) -> str | None:
    """Final figures, tags, the run's files and its model; the model's URI, if one was logged."""
    final = {name: value for name, value in result.metrics.items() if name.startswith("test/")}
    log_metrics(client, run_id, final, result.epochs)
    tags = ("backbone", "data_fingerprint", "split_hash", "git_commit", "hardware", "precision", "best_epoch")
    for name in tags:
        client.set_tag(run_id, name, str(getattr(result, name)))
    client.set_tag(run_id, "run_dir", str(result.run_dir))
    for name in (CONFIG_FILE, MANIFEST_FILE, "metrics.csv", METRICS_FILE):
        if (result.run_dir / name).is_file():
            client.log_artifact(run_id, str(result.run_dir / name))
    if (result.run_dir / FIGURES_DIR).is_dir():
        client.log_artifacts(run_id, str(result.run_dir / FIGURES_DIR), FIGURES_DIR)
    best = best_checkpoint(result.run_dir)
    return log_model(run_id, best, config) if best.is_file() else None


def log_model(run_id: str, checkpoint: Path, config: AppConfig) -> str:
    """Logs the checkpoint as a model that MLflow's own tools load, with signature and example; registers it."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    from cassava_leaf_disease import __version__
    from cassava_leaf_disease.domain import CLASS_NAMES
    from cassava_leaf_disease.training.demo import draw_photo

    signature = ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema([ColSpec("double", name) for name in CLASS_NAMES]),
    )
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*type hint", UserWarning)  # MLflow's, about its own classes and ours
        logged: Any = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={"checkpoint": checkpoint.as_uri()},
            signature=signature,
            input_example=pd.DataFrame({"image": [draw_photo()]}),
            pip_requirements=[f"cassava-leaf-disease[train]=={__version__}"],
            registered_model_name=config.logger.register_as,
        )
    return str(logged.model_uri)


def flat_settings(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _newest_finished(config: AppConfig) -> Path:
    parent = runs_dir(config.paths.outputs_dir)
    for candidate in reversed(version_dirs(parent)):
        if (candidate / METRICS_FILE).is_file():
            return candidate
    raise ConfigError(f"track.run_dir is not set and no finished run lies under {parent}; type track.run_dir=FOLDER")
