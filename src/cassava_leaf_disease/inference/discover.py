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
    """A model file, and which step of the search found it."""

    path: Path
    source: ModelSource


def find_model(config: AppConfig) -> FoundModel:
    """The model file to answer with, by the order that the design fixes; each step passed over is a warning.

    Raises:
        CheckpointError: No step found one; the message names every step.
        MissingDependencyError: The S3 step needs boto3 and it is not installed.
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
    path = config.infer.checkpoint_path
    if path is None:
        return None
    # A folder is something that exists: it is taken, and loading it says what is wrong.
    return FoundModel(path, "explicit") if path.exists() else f"infer.checkpoint_path={path}: no such file"


def _newest_run(config: AppConfig) -> FoundModel | str:
    newest = newest_best_checkpoint(config.paths.outputs_dir)
    return f"no {BEST_CHECKPOINT} under {config.paths.outputs_dir}" if newest is None else FoundModel(newest, "outputs")


def _from_s3(config: AppConfig) -> FoundModel | str:
    uri = config.infer.checkpoint_s3_uri
    if uri is None:
        return "infer.checkpoint_s3_uri is not set"
    from cassava_leaf_disease.storage.s3 import fetch_s3

    try:
        return FoundModel(fetch_s3(uri, config.paths.artifacts_dir / BEST_CHECKPOINT), "s3")
    except StorageError as error:
        return str(error)


def _packaged(_config: AppConfig) -> FoundModel | str:
    path = Path(str(files("cassava_leaf_disease"))) / "assets" / PACKAGED_MODEL
    return FoundModel(path, "package") if path.is_file() else "this version ships no model in the package"
