"""`cassava tune`: a search for better settings with Optuna, kept in a database, that goes on where it was cut off."""

import json
import logging
import math
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lightning
from filelock import FileLock
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, DeviceMemoryError, DivergedError
from cassava_leaf_disease.modeling.module import MONITOR
from cassava_leaf_disease.paths import LAST_CHECKPOINT, METRICS_FILE, checkpoints_dir
from cassava_leaf_disease.storage.files import write_json, write_text
from cassava_leaf_disease.training.fit import train, train_here
from cassava_leaf_disease.training.launch import processes_to_start, refuse_launcher
from cassava_leaf_disease.training.run_folder import differing_keys
from cassava_leaf_disease.training.search_space import Value, configured, read_space
from cassava_leaf_disease.training.trial_sampler import make_sampler
from cassava_leaf_disease.training.tune_figure import write_tune_figure

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

_RECIPE: Final = "recipe"  # the study's attribute that says what is searched
_RUN_DIR: Final = "run_dir"
_ERROR: Final = "error"
_HEARTBEAT_S: Final = 10
_DEAD_S: Final = 30  # a trial that has been silent for so long was killed
_POLL_S: Final = 1.0
_BUSY_S: Final = 60  # how long one process waits for another to have written to SQLite
# What may differ between the processes that share a study, and between two starts of one.
_FREE: Final = (
    *("tune.trials", "tune.storage", "paths.", "infer.", "evaluate."),
    *("train.accelerator", "train.devices", "train.num_workers", "data.cache.", "data.pipeline"),
)


class TuneResult(BaseModel):
    """The best trial so far; `overrides` are the words that train with its settings, beside those of the search.

    `storage` shows no password; of all checkpoints the best trial's is kept. `failed` trials are those that diverged
    or ran out of memory, and those whose process was killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    storage: str
    folder: Path
    complete: int
    pruned: int
    failed: int
    best_value: float
    best_trial: int
    best_run_dir: Path
    best_params: dict[str, Value]
    overrides: list[str]
    importance: dict[str, float]


def tune(config: AppConfig) -> TuneResult:
    """Tries settings from `tune.space` until the study has `tune.trials` trials; the best validation macro-F1 wins.

    The test part is not looked at by a trial on one device. Several processes may work on one study.

    Raises:
        ConfigError: The space cannot be searched, or the study was started with other settings.
        CassavaError: What stops every training, such as missing photos.
    """
    refuse_launcher("tune")
    if not config.train.save_checkpoints:
        raise ConfigError("tune keeps the best checkpoint; type train.save_checkpoints=true")
    if config.train.run_dir is not None or config.train.resume:
        raise ConfigError("tune makes the folders of its runs itself; type train.run_dir=null train.resume=false")
    processes_to_start(config)  # a device that is missing is missing for every trial
    space = read_space(config.tune.space, config)
    folder = config.paths.outputs_dir / "tune" / config.tune.study
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two that start together would both make the tables
        study = open_study(config, folder)
    search(config, study, folder, space)
    result = describe(config, study, folder)
    write_trials(study, folder / "trials.csv")
    write_tune_figure(study, result.importance, folder / "trials.png")
    write_json(folder / METRICS_FILE, result.model_dump(mode="json"))
    return result


def search(
    config: AppConfig, study: "optuna.Study", folder: Path, space: Mapping[str, "optuna.distributions.BaseDistribution"]
) -> None:
    """Runs trials until the study has enough; waits for those of other processes, and replaces dead ones."""
    told = False
    while (counts := _count(study)).finished < config.tune.trials:
        if counts.finished + counts.running < config.tune.trials:
            study.optimize(
                lambda trial: run_trial(config, folder, space, trial),
                n_trials=1,
                catch=(DivergedError, DeviceMemoryError),
                callbacks=[lambda study, trial: _after_trial(study, trial, config.tune.trials)],
            )
            continue
        if not told:
            logger.info(
                "waiting for %d trials that run elsewhere; one that was killed counts as dead soon", counts.running
            )
            told = True
        time.sleep(_POLL_S)


def open_study(config: AppConfig, folder: Path) -> "optuna.Study":
    """The study in its database, new or as it was left.

    Raises:
        ConfigError: It was started with other settings, or the database cannot be opened.
    """
    import optuna
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = config.tune.storage or f"sqlite:///{folder / 'study.db'}"
    busy = {"connect_args": {"timeout": _BUSY_S}} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since version 2.9
            storage = optuna.storages.RDBStorage(
                url, engine_kwargs=busy, heartbeat_interval=_HEARTBEAT_S, grace_period=_DEAD_S
            )
    except (ArgumentError, NoSuchModuleError, OperationalError, ImportError) as error:
        raise ConfigError(
            f"tune.storage={_without_password(url)}: {str(error).splitlines()[0]}; expected a database's address, such "
            "as sqlite:///study.db or postgresql://user:password@host/name (whose driver is to be installed)"
        ) from None
    study = optuna.create_study(
        study_name=config.tune.study,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=config.train.epochs // 4)
        if config.tune.prune
        else optuna.pruners.NopPruner(),
    )
    study.sampler = make_sampler(config.tune.seed)
    if not study.trials and any(folder.glob("trial_*")):
        raise ConfigError(
            f"tune.study={config.tune.study}: {folder} holds trials of another database; type the tune.storage of "
            "then, or another name in tune.study"
        )
    _check_recipe(study, config)
    return study


def run_trial(
    config: AppConfig, folder: Path, space: Mapping[str, "optuna.distributions.BaseDistribution"], trial: "optuna.Trial"
) -> float:
    """Trains with settings that Optuna suggests; the best epoch's macro-F1 on the validation part."""
    import optuna

    params = {key: _suggest(trial, key, distribution) for key, distribution in space.items()}
    run_dir = folder / f"trial_{trial.number}"
    trial.set_user_attr(_RUN_DIR, str(run_dir))
    try:
        own = configured(without_storage(config), params)
    except ConfigError as error:  # each value is fine, and they contradict each other
        logger.warning("trial %d left out: %s", trial.number, error)
        raise optuna.TrialPruned from None
    try:
        if processes_to_start(own) > 1:  # ranks cannot ask Optuna whether to go on
            metrics = train(own, run_dir).metrics
        else:
            metrics = train_here(own, run_dir, callbacks=[_Reporter(trial)], measure_test=False).metrics
    except (optuna.TrialPruned, DivergedError, DeviceMemoryError) as error:
        if not isinstance(error, optuna.TrialPruned):
            logger.warning("trial %d failed: %s", trial.number, error)
            trial.set_user_attr(_ERROR, str(error))
        shutil.rmtree(checkpoints_dir(run_dir), ignore_errors=True)
        raise
    (checkpoints_dir(run_dir) / LAST_CHECKPOINT).unlink(missing_ok=True)  # to resume from: it is finished
    return metrics[MONITOR]


class _Reporter(lightning.Callback):
    """Tells Optuna the best value of each epoch so far, and ends a trial that is behind the others."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial
        self._best = -math.inf

    @override
    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        import optuna

        self._best = max(self._best, float(trainer.callback_metrics[MONITOR]))
        self._trial.report(self._best, trainer.current_epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def without_storage(config: AppConfig) -> AppConfig:
    """The same without the database's address, which may hold a password."""
    return config.changed(tune=config.tune.changed(storage=None))


def describe(config: AppConfig, study: "optuna.Study", folder: Path) -> TuneResult:
    """What the study has found.

    Raises:
        ConfigError: No trial came to its end.
    """
    from optuna.trial import TrialState

    states = [trial.state for trial in study.trials]
    if TrialState.COMPLETE not in states:
        raise ConfigError(
            f"no trial of the study {study.study_name} came to its end ({len(states)} failed or were pruned): see the "
            "warnings above, and narrow tune.space"
        )
    best = study.best_trial
    return TuneResult(
        study=study.study_name,
        storage=_without_password(config.tune.storage or f"sqlite:///{folder / 'study.db'}"),
        folder=folder,
        complete=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
        best_value=study.best_value,
        best_trial=best.number,
        best_run_dir=Path(best.user_attrs[_RUN_DIR]),
        best_params=best.params,
        overrides=[f"{key}={_as_word(value)}" for key, value in best.params.items()],
        importance=_importance(study),
    )


def write_trials(study: "optuna.Study", path: Path) -> None:
    """A row a trial: number, state, value, seconds, and the settings that were searched."""
    table = study.trials_dataframe(attrs=("number", "state", "value", "duration", "params"))
    table["duration"] = table["duration"].dt.total_seconds().round(1)
    table.columns = [name.removeprefix("params_").replace("duration", "seconds") for name in table.columns]
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _suggest(trial: "optuna.Trial", key: str, distribution: "optuna.distributions.BaseDistribution") -> Value:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        choice: Any = trial.suggest_categorical(key, distribution.choices)
        return choice  # type: ignore[no-any-return]
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)  # noqa: S101  for the type checker
    return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)


@dataclass(frozen=True)
class _Counts:
    finished: int
    running: int


def _count(study: "optuna.Study") -> _Counts:
    """Trials that came to an end by themselves, and those that run; of neither kind those that were killed."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    states = [trial.state for trial in trials]
    failed = sum(trial.state == TrialState.FAIL and _ERROR in trial.user_attrs for trial in trials)
    finished = states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) + failed
    return _Counts(finished, states.count(TrialState.RUNNING))


def _check_recipe(study: "optuna.Study", config: AppConfig) -> None:
    """Trials of other settings do not compare."""
    kept = study.user_attrs.get(_RECIPE)
    if kept is None:
        study.set_user_attr(_RECIPE, json.dumps(without_storage(config).model_dump(mode="json")))
        return
    changed = [key for key in differing_keys(json.loads(kept), config) if not key.startswith(_FREE)]
    if changed:
        raise ConfigError(
            f"tune.study={study.study_name}: was started with other settings ({', '.join(changed[:5])}); type the same "
            "command as then, or another name in tune.study"
        )


def _after_trial(study: "optuna.Study", trial: "optuna.trial.FrozenTrial", trials: int) -> None:
    """Tells about a trial, and removes the checkpoints of all but the best, which `infer` would find."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    value = "" if trial.value is None else f" {trial.value:.4f}"
    best = f"best {study.best_value:.4f}, trial {study.best_trial.number + 1}" if complete else "none complete"
    logger.info("trial %d of %d: %s%s  %s", trial.number + 1, trials, trial.state.name.lower(), value, best)
    for other in complete:
        if other.number != study.best_trial.number:
            shutil.rmtree(checkpoints_dir(Path(other.user_attrs[_RUN_DIR])), ignore_errors=True)


def _importance(study: "optuna.Study") -> dict[str, float]:
    """How much of the spread each key explains, as Optuna estimates it by default; `{}` for too few trials."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    return dict(optuna.importance.get_param_importances(study))


def _as_word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url
