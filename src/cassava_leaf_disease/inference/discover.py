"""Which model answers: explicit path, newest run, S3, the model in the package; each step passed over is told."""

import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import CheckpointError, StorageError
from cassava_leaf_disease.paths import BEST_CHECKPOINT, newest_best_checkpoint

logger = logging.getLogger(__name__)

PACKAGED_MODEL = "default_model.onnx"


@dataclass(frozen=True)
class FoundModel:
    """A model file, and which step of the search found it.

    `members` are all the files where several were named to answer as one; `path` is the first of them.
    """

    path: Path
    source: ModelSource
    members: tuple[Path, ...] = ()


def find_model(config: AppConfig) -> FoundModel:
    """The model file to answer with, by the order that the design fixes; each step passed over is a warning.

    Raises:
        CheckpointError: No step found one; the message names every step.
        MissingDependencyError: The S3 step needs boto3, or a file that DVC tracks needs DVC, and it is not installed.
    """
    passed: list[str] = []
    for step in (_explicit, _newest_run, _from_s3, _packaged):
        found = step(config)
        if isinstance(found, FoundModel):
            if found.source == "outputs" and config.infer.checkpoint_s3_uri is not None:
                logger.warning("%s comes before infer.checkpoint_s3_uri, which was not fetched", found.path)
            return found
        if found is not None:
            passed.append(found)
            logger.warning("%s", found)
    raise CheckpointError(
        f"no model to answer with: {'; '.join(passed)}; train one with `cassava train` (or `cassava demo`, for a "
        f"first try), or type infer.checkpoint_path={BEST_CHECKPOINT}"
    )


def _explicit(config: AppConfig) -> FoundModel | str | None:
    named = config.infer.checkpoint_path
    if not named:
        return None
    places = [_file(path) for path in ([named] if isinstance(named, Path) else named)]
    files = tuple(place for place in places if isinstance(place, Path))
    if len(files) < len(places):
        return next(place for place in places if isinstance(place, str))
    return FoundModel(files[0], "explicit", files if len(files) > 1 else ())


def _file(path: Path) -> Path | str:
    """A model file that was named, fetched by DVC where that knows it; or, as text, why it is not there."""
    if path.exists():  # a folder too: it is taken, and loading it says what is wrong
        return path
    from cassava_leaf_disease.storage.dvc import is_tracked, pull_target

    try:
        if is_tracked(path):
            return pull_target(path)
    except StorageError as error:
        return f"infer.checkpoint_path is not here, and DVC cannot fetch it: {error}"
    return f"infer.checkpoint_path={path}: no such file"


def _newest_run(config: AppConfig) -> FoundModel | str:
    newest = newest_best_checkpoint(config.paths.outputs_dir)
    return f"no {BEST_CHECKPOINT} under {config.paths.outputs_dir}" if newest is None else FoundModel(newest, "outputs")


def _from_s3(config: AppConfig) -> FoundModel | str:
    uri = config.infer.checkpoint_s3_uri
    if uri is None:
        return "infer.checkpoint_s3_uri is not set"
    from cassava_leaf_disease.storage.s3 import fetch_cached_s3

    try:
        return FoundModel(fetch_cached_s3(uri, config.paths.cache_dir / "models"), "s3")
    except StorageError as error:
        return str(error)


def packaged_model() -> FoundModel | None:
    """The model that the package ships, None where it ships none."""
    path = Path(str(files("cassava_leaf_disease"))) / "assets" / PACKAGED_MODEL
    return FoundModel(path, "package") if path.is_file() else None


def _packaged(_config: AppConfig) -> FoundModel | str:
    return packaged_model() or "this version ships no model in the package"
