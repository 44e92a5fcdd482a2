"""`cassava tune`: a search for better settings with Optuna, kept in a database, that goes on where it was cut off."""

import json
import logging
import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lightning
from filelock import FileLock
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, DeviceError, DivergedError
from cassava_leaf_disease.modeling.module import MONITOR
from cassava_leaf_disease.paths import LAST_CHECKPOINT, checkpoints_dir
from cassava_leaf_disease.ranks import launcher
from cassava_leaf_disease.storage.files import write_json, write_text
from cassava_leaf_disease.training.fit import train, train_here
from cassava_leaf_disease.training.launch import processes_to_start
from cassava_leaf_disease.training.run_folder import METRICS_FILE, differing_keys
from cassava_leaf_disease.training.search_space import Value, configured, read_space
from cassava_leaf_disease.training.tune_figure import write_tune_figure

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

_RECIPE: Final = "recipe"  # the study's attribute that says what is searched
_RUN_DIR: Final = "run_dir"
_ERROR: Final = "error"
_HEARTBEAT_S: Final = 30
_BUSY_S: Final = 60  # how long one process waits for another to have written to SQLite
_FREE: Final = ("tune.trials", "tune.storage", "paths.outputs_dir", "paths.cache_dir")


class TuneResult(BaseModel):
    """The best trial so far; `overrides` are the words that train with its settings.

    `storage` shows no password. `failed` trials are those that diverged or ran out of memory, and those whose
    process was killed.
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
    started_by = launcher()
    if started_by is not None:
        raise ConfigError(
            f"{started_by} started this command in several processes, and tune starts its own: type it alone"
        )
    if not config.train.save_checkpoints:
        raise ConfigError("tune keeps the best checkpoint; type train.save_checkpoints=true")
    space = read_space(config.tune.space, config)
    folder = config.paths.outputs_dir / "tune" / config.tune.study
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two that start together would both make the tables
        study = open_study(config, folder)
    while _counted(study) < config.tune.trials:
        study.optimize(
            lambda trial: run_trial(config, folder, space, trial), n_trials=1, catch=(DivergedError, DeviceError)
        )
        _tell(study, config.tune.trials)
    result = describe(config, study, folder)
    write_trials(study, folder / "trials.csv")
    write_tune_figure(study, result.importance, folder / "trials.png")
    write_json(folder / METRICS_FILE, result.model_dump(mode="json"))
    return result


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
                url, engine_kwargs=busy, heartbeat_interval=_HEARTBEAT_S, grace_period=2 * _HEARTBEAT_S
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
    # A study that goes on must not draw again what it drew at its start.
    study.sampler = optuna.samplers.TPESampler(
        seed=config.tune.seed + len(study.trials), constant_liar=True, n_startup_trials=8
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
    own = configured(config, params)
    shutil.rmtree(run_dir, ignore_errors=True)  # of a study that was deleted
    try:
        if processes_to_start(own) > 1:  # ranks cannot ask Optuna whether to go on
            metrics = train(own, run_dir).metrics
        else:
            metrics = train_here(own, run_dir, callbacks=[_Reporter(trial)], measure_test=False).metrics
    except (optuna.TrialPruned, DivergedError, DeviceError) as error:
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


def _counted(study: "optuna.Study") -> int:
    """Trials that count: finished, or running in another process; not those whose process was killed."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) or _failed_by_itself(trial)
        for trial in study.get_trials(deepcopy=False)
    )


def _failed_by_itself(trial: "optuna.trial.FrozenTrial") -> bool:
    from optuna.trial import TrialState

    return trial.state == TrialState.FAIL and _ERROR in trial.user_attrs


def _check_recipe(study: "optuna.Study", config: AppConfig) -> None:
    """Trials of other settings do not compare."""
    kept = study.user_attrs.get(_RECIPE)
    if kept is None:
        study.set_user_attr(_RECIPE, json.dumps(config.model_dump(mode="json")))
        return
    changed = [key for key in differing_keys(json.loads(kept), config) if not key.startswith(_FREE)]
    if changed:
        raise ConfigError(
            f"tune.study={study.study_name}: was started with other settings ({', '.join(changed[:5])}); type the same "
            "command as then, or another name in tune.study"
        )


def _tell(study: "optuna.Study", trials: int) -> None:
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = f"best {max(trial.value or 0.0 for trial in done):.4f}" if done else "none complete"
    last = study.trials[-1]
    value = "" if last.value is None else f" {last.value:.4f}"
    logger.info("trial %d of %d: %s%s  %s", last.number + 1, trials, last.state.name.lower(), value, best)


def _importance(study: "optuna.Study") -> dict[str, float]:
    """How much of the spread each key explains (fANOVA, Hutter et al., 2014); `{}` for too few trials."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    return dict(optuna.importance.get_param_importances(study))


def _as_word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url
