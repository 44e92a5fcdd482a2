"""`cassava download-model`: a trained model from S3, checked before it replaces anything, then in DVC's care."""

import logging
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, DownloadModelConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError, StorageError
from cassava_leaf_disease.inference.model_files import require_torch
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.paths import BEST_CHECKPOINT
from cassava_leaf_disease.storage.dvc import (
    Remote,
    find_repository,
    push_target,
    read_remotes,
    require_dvc,
    track,
)
from cassava_leaf_disease.storage.s3 import fetch_s3
from cassava_leaf_disease.storage.s3_transfer import sha256_of

logger = logging.getLogger(__name__)


class FetchedModel(BaseModel):
    """What the model says of itself, in short."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    backbone: str
    image_size_px: int
    metrics: dict[str, float]
    epoch: int
    created_at: str
    git_commit: str | None


class PushedTo(BaseModel):
    """The DVC remote that has the model now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    remote: str
    url: str


class DownloadModelResult(BaseModel):
    """Where the model stands, and what it is.

    `changed` is false where the same content stood there before; `tracked_by` is the `.dvc` file, to be
    committed to git.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    s3_uri: str
    path: Path
    changed: bool
    sha256: str
    size_bytes: int
    model: FetchedModel
    tracked_by: Path | None
    pushed_to: PushedTo | None


def download_model(config: AppConfig) -> DownloadModelResult:
    """Fetches `download_model.s3_uri` to `dst_dir/best.ckpt`, tracks and pushes it as the settings say.

    Raises:
        CassavaError: Nothing to fetch, no such object, not one of our models, another model in its place, or
            DVC or its remote cannot take it. What stood there is replaced by a checked model or not at all.
    """
    settings = config.download_model
    if settings.s3_uri is None:
        raise ConfigError("download_model.s3_uri is not set; type download_model.s3_uri=s3://bucket/path/best.ckpt")
    require_torch("download-model")  # before anything is fetched
    destination = settings.dst_dir / BEST_CHECKPOINT
    repository = find_tracking_repository(settings, destination)
    remote = choose_remote(settings, repository) if settings.push and repository is not None else None
    settings.dst_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=settings.dst_dir) as temporary:
        fetched = fetch_s3(settings.s3_uri, Path(temporary) / BEST_CHECKPOINT)
        metadata = check_model(fetched, settings.s3_uri)
        digest = sha256_of(fetched)
        changed = put_in_place(fetched, digest, destination, overwrite=settings.overwrite)
    tracked_by = None if repository is None else take_into_care(destination, remote)
    return DownloadModelResult(
        s3_uri=settings.s3_uri,
        path=destination,
        changed=changed,
        sha256=digest,
        size_bytes=destination.stat().st_size,
        model=FetchedModel(
            image_size_px=metadata.preprocessing.image_size_px,
            **metadata.model_dump(include=set(FetchedModel.model_fields)),
        ),
        tracked_by=tracked_by,
        pushed_to=None if remote is None else PushedTo(remote=remote.name, url=remote.url),
    )


def find_tracking_repository(settings: DownloadModelConfig, destination: Path) -> Path | None:
    """The DVC repository that is to keep the model; None where it is not to be tracked.

    Raises:
        ConfigError: It is to be tracked or pushed, and there is no repository.
        MissingDependencyError: DVC is not installed.
    """
    if settings.track is False:
        if settings.push:
            raise ConfigError(
                "download_model.push=true: only what DVC tracks is pushed; type download_model.track=auto"
            )
        return None
    repository = find_repository(destination)
    if repository is not None:
        require_dvc("dvc (download_model.track=false does without it)")
    elif settings.track is True or settings.push:
        wanted = "download_model.push=true" if settings.push else "download_model.track=true"
        raise ConfigError(
            f"{wanted}: {settings.dst_dir} lies in no DVC repository; type download_model.dst_dir=FOLDER of a clone "
            "of the project, or leave it out"
        )
    return repository


def choose_remote(settings: DownloadModelConfig, repository: Path) -> Remote:
    """The DVC remote to push to: the named one, or the repository's default.

    Raises:
        ConfigError: There is no such remote, or it can only be read.
    """
    remotes = read_remotes(repository)
    name = settings.remote or remotes.default
    writable = [known for known, url in remotes.urls.items() if not url.startswith(("http://", "https://"))]
    mend = "type: dvc remote add NAME s3://bucket/path"
    if writable:
        mend = f"type {' or '.join(f'download_model.remote={known}' for known in writable)}"
    if name is None:
        raise ConfigError(f"download_model.push=true: the DVC repository {repository} has no default remote; {mend}")
    if name not in remotes.urls:
        known = ", ".join(remotes.urls) or "none"
        raise ConfigError(f"download_model.remote={name}: no such DVC remote; there are: {known}")
    if name not in writable:
        raise ConfigError(
            f"download_model.push=true: the DVC remote {name} ({remotes.urls[name]}) is plain HTTP, which can only be "
            f"read; {mend}"
        )
    return Remote(name, remotes.urls[name])


def check_model(path: Path, origin: str) -> ModelMetadata:
    """Loads a fetched file as `infer` will; `origin` is what error messages call it.

    Raises:
        CheckpointError: Damaged, foreign, or its weights do not fit the backbone that it names.
    """
    from cassava_leaf_disease.inference.engines.torch_engine import restore_network
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    try:
        loaded = load_checkpoint(path)
        restore_network(loaded, path)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).replace(str(path), origin)}; nothing was replaced") from None
    return loaded.metadata


def put_in_place(fetched: Path, digest: str, destination: Path, *, overwrite: bool) -> bool:
    """Moves a checked file to its place; False where the same content stands there already.

    Raises:
        ConfigError: Another file stands there and `overwrite` does not allow to replace it.
    """
    if destination.is_file() and sha256_of(destination) == digest:
        logger.info("%s: the same model stands there already", destination)
        return False
    if destination.is_dir():
        raise ConfigError(f"{destination}: a folder stands there; type download_model.dst_dir=FOLDER of another place")
    if destination.exists() and not overwrite:
        raise ConfigError(
            f"{destination}: another file stands there; type download_model.overwrite=true to replace it, "
            "or download_model.dst_dir=FOLDER"
        )
    fetched.replace(destination)
    return True


def take_into_care(path: Path, remote: Remote | None) -> Path:
    """Tracks the model that is in its place and pushes it to `remote`, if there is one; returns its `.dvc` file.

    Raises:
        StorageError: DVC or the remote does not take it; the model itself stands.
    """
    try:
        tracked_by = track(path)
    except StorageError as error:
        raise StorageError(
            f"{error}; the model is in its place; download_model.track=false leaves it at that"
        ) from None
    try:
        if remote is not None:
            push_target(path, remote)
    except StorageError as error:
        raise StorageError(
            f"{error}; the model is in its place and tracked: the same command pushes it again"
        ) from None
    return tracked_by
