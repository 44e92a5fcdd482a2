"""`cassava publish`: a finished run's checkpoint and figures to S3, by hand or in the background of a training.

They go to `<s3_prefix>/<git commit>/<run id>/`. The commit is the one that trained (`-dirty` if the tree was
changed, `unknown-commit` without one). The run id is `<start, UTC>-<run folder>-<8 digits of the checkpoint's
SHA-256>`: it sorts by time, two machines never share it, and trying again gives it again. `metrics.json` goes
last: where it is, the rest is there.
"""

import logging
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CassavaError, ConfigError, StorageError
from cassava_leaf_disease.paths import BEST_CHECKPOINT, METRICS_FILE, best_checkpoint, runs_dir, version_dirs
from cassava_leaf_disease.storage.s3 import check_upload_settings, upload_s3
from cassava_leaf_disease.storage.s3_transfer import sha256_of
from cassava_leaf_disease.training.publication import Publication, warn_unpublished
from cassava_leaf_disease.training.publish_state import (
    PublishState,
    read_state,
    unfinished_runs,
    write_state,
)
from cassava_leaf_disease.training.run_folder import CONFIG_FILE, MANIFEST_FILE

logger = logging.getLogger(__name__)

HISTORY_FILE = "metrics.csv"


class PublishedObject(BaseModel):
    """One file at its place; `uploaded` is false where the same content was there already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    size_bytes: int
    uploaded: bool


class PublishedRun(BaseModel):
    """A run whose files are all at `destination`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_dir: Path
    destination: str
    objects: list[PublishedObject]
    uploaded_bytes: int
    seconds: float


class PublishResult(BaseModel):
    """What `cassava publish` did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: list[PublishedRun]


class _Facts(BaseModel):
    """What names a run, out of its `metrics.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    git_commit: str | None = None
    started_at: str


def publish(config: AppConfig) -> PublishResult:
    """Publishes `publish.run_dir`; without it the newest finished run, and every run that still waits for it.

    They go to `publish.s3_prefix`; without it each goes where its `publish.json` says.

    Raises:
        ConfigError: No such run, it is not finished, or nothing says where it should go.
        StorageError: Some file could not be put there; the other runs were published nevertheless.
    """
    done: list[PublishedRun] = []
    failures: list[CassavaError] = []
    for run_dir, prefix in runs_to_publish(config):
        try:
            done.append(publish_run(run_dir, prefix))
        except CassavaError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise StorageError("\n".join(dict.fromkeys(map(str, failures))))
    return PublishResult(runs=done)


def start_publishing(config: AppConfig, run_dir: Path) -> Publication | None:
    """Sends a finished run on its way to S3 in a process of its own, where `publish.enabled` asks for it.

    Call it once all files of the run are written. It returns at once and raises nothing: what goes wrong is
    one warning with the command that tries again, and stays in the run's `publish.json`. The process that
    calls it waits for the upload when it exits, `publish.timeout_s` at most.
    """
    prefix = config.publish.s3_prefix
    if not config.publish.enabled or prefix is None:
        return None
    try:
        write_state(run_dir, PublishState(state="pending", s3_prefix=prefix))
        return Publication.start(run_dir, prefix, config.publish.timeout_s)
    except OSError as error:
        warn_unpublished(run_dir, prefix, str(error))
        return None


def check_publish(config: AppConfig) -> None:
    """Finds before a training, without a request, what would make publishing it fail for certain.

    Raises:
        ConfigError: No prefix, no checkpoint to publish, or no usable credentials.
        MissingDependencyError: boto3 is not installed.
    """
    if not config.publish.enabled:
        return
    if config.publish.s3_prefix is None:
        raise ConfigError(
            "publish.enabled=true: where to? type publish.s3_prefix=s3://bucket/prefix, or publish.enabled=false"
        )
    if not config.train.save_checkpoints:
        raise ConfigError(
            "publish.enabled=true train.save_checkpoints=false: no checkpoint would be there to publish; "
            "type train.save_checkpoints=true or publish.enabled=false"
        )
    try:
        check_upload_settings(config.publish.s3_prefix)
    except StorageError as error:
        raise ConfigError(f"publish.enabled=true: {error}") from error


def runs_to_publish(config: AppConfig) -> list[tuple[Path, str]]:
    """Run folders and their prefixes.

    Raises:
        ConfigError: There is none, or nothing says where one should go.
    """
    named, prefix = config.publish.run_dir, config.publish.s3_prefix
    if named is not None:
        return [(named, prefix or _recorded_prefix(named) or _no_prefix(named))]
    waiting = {run: prefix or recorded for run, recorded in unfinished_runs(config.paths.outputs_dir)}
    parent = runs_dir(config.paths.outputs_dir)
    newest = next((run for run in reversed(version_dirs(parent)) if (run / METRICS_FILE).is_file()), None)
    if newest is not None and newest not in waiting:
        wanted = prefix or _recorded_prefix(newest) or (None if waiting else _no_prefix(newest))
        waiting |= {newest: wanted} if wanted else {}
    if not waiting:
        raise ConfigError(f"no finished run under {parent}; train one, or type publish.run_dir=FOLDER")
    return list(waiting.items())


def publish_run(run_dir: Path, prefix: str) -> PublishedRun:
    """Puts one run's files below `prefix`, its `metrics.json` last, and remembers what came of it.

    Raises:
        ConfigError: It is no finished run.
        StorageError: Some file could not be put there.
    """
    start = time.perf_counter()
    destination = f"{prefix.rstrip('/')}/{run_path(run_dir)}"
    promised = PublishState(state="pending", s3_prefix=prefix, destination=destination)
    _remember(run_dir, promised)
    try:
        with _files_to_publish(run_dir) as files:
            uploads = [upload_s3(path, f"{destination}/{name}") for name, path in files.items()]
    except CassavaError as error:
        _remember(run_dir, promised.model_copy(update={"state": "failed", "error": str(error)}))
        raise
    uris = tuple(upload.uri for upload in uploads)
    _remember(run_dir, promised.model_copy(update={"state": "done", "uris": uris}))
    return PublishedRun(
        run_dir=run_dir,
        destination=destination,
        objects=[PublishedObject(uri=up.uri, size_bytes=up.size_bytes, uploaded=up.sent) for up in uploads],
        uploaded_bytes=sum(upload.size_bytes for upload in uploads if upload.sent),
        seconds=round(time.perf_counter() - start, 1),
    )


def run_path(run_dir: Path) -> str:
    """`<git commit>/<run id>`, made of letters, digits, `.`, `_` and `-`: keys that are plain in any URL.

    Raises:
        ConfigError: The folder holds no finished run, or one without a checkpoint.
    """
    facts, checkpoint = _read_facts(run_dir), best_checkpoint(run_dir)
    if not checkpoint.is_file():
        raise ConfigError(f"publish.run_dir={run_dir}: no {checkpoint.relative_to(run_dir)} in it to publish")
    started = re.sub(r"[^0-9T]", "", facts.started_at[:19])
    of_folds = f"{run_dir.parent.name}-" if run_dir.name.startswith("fold_") else ""
    run_id = f"{started}Z-{of_folds}{run_dir.name}-{sha256_of(checkpoint)[:8]}"
    return f"{_plain(facts.git_commit or '') or 'unknown-commit'}/{_plain(run_id)}"


def _read_facts(run_dir: Path) -> _Facts:
    path = run_dir / METRICS_FILE
    if not path.is_file():
        raise ConfigError(f"publish.run_dir={run_dir}: no finished run (no {METRICS_FILE} in it)")
    try:
        return _Facts.model_validate_json(path.read_bytes())
    except ValidationError:
        folds = sorted(run_dir.glob(f"fold_*/{METRICS_FILE}"))
        hint = f"; its folds are runs, for example publish.run_dir={folds[0].parent}" if folds else ""
        raise ConfigError(f"{path}: not the figures of a training run{hint}") from None


@contextmanager
def _files_to_publish(run_dir: Path) -> Iterator[dict[str, Path]]:
    """Names and files in the order to send them; passwords in addresses stay out of the configuration."""
    with tempfile.TemporaryDirectory(prefix="cassava-publish-") as folder:
        files = {BEST_CHECKPOINT: best_checkpoint(run_dir)}
        files |= {name: run_dir / name for name in (CONFIG_FILE, MANIFEST_FILE, HISTORY_FILE)}
        files = {name: path for name, path in files.items() if path.is_file()}
        if CONFIG_FILE in files:
            text = files[CONFIG_FILE].read_bytes().decode("utf-8", "surrogateescape")
            files[CONFIG_FILE] = Path(folder) / CONFIG_FILE
            masked = re.sub(r"(?<=://)[^\s/@'\"]+@", "***@", text)
            files[CONFIG_FILE].write_bytes(masked.encode("utf-8", "surrogateescape"))
        yield files | {METRICS_FILE: run_dir / METRICS_FILE}


def _remember(run_dir: Path, state: PublishState) -> None:
    try:
        write_state(run_dir, state)
    except OSError as error:  # a run in an archive that is read only
        logger.warning("%s: cannot be noted there as %s (%s)", run_dir, state.state, error)


def _recorded_prefix(run_dir: Path) -> str | None:
    state = read_state(run_dir)
    return None if state is None else state.s3_prefix


def _no_prefix(run_dir: Path) -> NoReturn:
    raise ConfigError(
        f"publish.s3_prefix is not set: where should {run_dir} go? type publish.s3_prefix=s3://bucket/runs"
    )


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")
