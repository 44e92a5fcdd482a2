"""A run's folder: made, described, locked while it is written, found again to be resumed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cassava_leaf_disease.config.load import config_as_yaml
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.paths import (
    BEST_CHECKPOINT,
    LAST_CHECKPOINT,
    METRICS_FILE,
    checkpoints_dir,
    create_version_dir,
    runs_dir,
    version_dirs,
)
from cassava_leaf_disease.storage.files import write_text

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "split.csv"
FIGURES_DIR = "figures"

_MAY_CHANGE = (
    "train.resume",
    "distill.resume",
    "crossval.resume",
    "crossval.parallel",
    "logger.",
    "publish.",
    "track.",
)  # they change nothing about the training


def find_run_to_resume(config: AppConfig) -> Path | None:
    """The run folder that `train.resume` asks for; None where a new run is to start.

    Raises:
        ConfigError: There is nothing to resume, or it was started with other settings.
    """
    if not config.train.resume:
        return None
    parent = runs_dir(config.paths.outputs_dir)
    if isinstance(config.train.resume, Path):
        candidates = [config.train.resume]
        if (config.train.resume / METRICS_FILE).is_file():
            raise ConfigError(
                f"train.resume={config.train.resume}: this run is finished ({METRICS_FILE} stands in it); "
                "leave train.resume out to start a new one"
            )
    else:
        named = config.train.run_dir
        started = reversed(version_dirs(parent)) if named is None else [named]
        candidates = [path for path in started if is_unfinished(path)]
    if not candidates:
        raise ConfigError(
            f"train.resume=true: no unfinished run under {config.train.run_dir or parent}; "
            "leave train.resume out to start a new one"
        )
    for candidate in candidates:
        if not changed_settings(candidate, config):
            logger.info("resuming %s", candidate)
            return candidate
    raise ConfigError(_other_settings(candidates[0], config))


def check_unused(run_dir: Path | None) -> None:
    """Refuses to start a new run in a folder that holds one; `train.run_dir`, where it is set.

    Raises:
        ConfigError: A run stands there.
    """
    if run_dir is not None and (run_dir / CONFIG_FILE).is_file():
        mend = "type train.resume=true to go on with it, " if is_unfinished(run_dir) else ""
        raise ConfigError(f"train.run_dir={run_dir}: a run stands there; {mend}name another folder or remove this one")


def remove_checkpoints(run_dir: Path) -> None:
    """Removes what is left of checkpoints in a folder for a new run, which must not go on from them."""
    for name in (BEST_CHECKPOINT, LAST_CHECKPOINT):
        (checkpoints_dir(run_dir) / name).unlink(missing_ok=True)


def is_unfinished(run_dir: Path) -> bool:
    """Whether a run was started here and did not reach its metrics file."""
    return (run_dir / CONFIG_FILE).is_file() and not (run_dir / METRICS_FILE).is_file()


def describe_run(run_dir: Path, config: AppConfig) -> None:
    """Writes the composed configuration into the run's folder."""
    write_text(run_dir / CONFIG_FILE, config_as_yaml(config))


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the run's folder for this process; the lock ends with the process, also with `kill -9`.

    Raises:
        ConfigError: Another process is training in this folder.
    """
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{run_dir} is being trained by another process; wait for it, or leave train.resume out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def open_workflow_dir(config: AppConfig, command: str, what: str, *, resume: bool) -> Path:
    """The folder of a `command` that makes several runs: a new `outputs/COMMAND/version_N`.

    With `resume` the newest unfinished one of the same settings.

    Raises:
        ConfigError: Nothing to resume.
    """
    parent = config.paths.outputs_dir / command
    if not resume:
        return create_version_dir(parent)
    for candidate in reversed(version_dirs(parent)):
        if is_unfinished(candidate) and not changed_settings(candidate, config):
            return candidate
    raise ConfigError(
        f"{command}.resume=true: no unfinished {what} with these settings under {parent}; "
        f"leave {command}.resume out to start a new one"
    )


def changed_settings(run_dir: Path, config: AppConfig) -> list[str]:
    """The dotted keys in which `config` differs from the run's own, `train.resume` aside."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"train.resume={run_dir}: no run folder (no {CONFIG_FILE} in it)")
    return differing_keys(yaml.safe_load(path.read_text(encoding="utf-8")), config)


def differing_keys(settings: dict[str, Any], config: AppConfig) -> list[str]:
    """The dotted keys that differ between a configuration's JSON form and `config`, where it matters to a training."""
    before, after = _flat(settings), _flat(config.model_dump(mode="json"))
    keys = sorted(before.keys() | after.keys())
    return [key for key in keys if not key.startswith(_MAY_CHANGE) and before.get(key) != after.get(key)]


def _other_settings(run_dir: Path, config: AppConfig) -> str:
    keys = ", ".join(changed_settings(run_dir, config)[:5])
    return (
        f"train.resume: the unfinished run {run_dir} was started with other settings ({keys}); "
        "type the same command as then, or leave train.resume out to start a new run"
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
