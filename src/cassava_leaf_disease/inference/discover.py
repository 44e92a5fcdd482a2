"""Which model answers: explicit path, newest run, S3, the model shipped in the package; each step passed over is told."""

import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.paths import BEST_CHECKPOINT, newest_best_checkpoint

logger = logging.getLogger(__name__)

PACKAGED_MODEL = "default_model.onnx"


@dataclass(frozen=True)
class FoundModel:
    """A model file, and which step of the search found it."""

    path: Path
    source: Literal["explicit", "outputs", "s3", "package"]


def find_model(config: AppConfig) -> FoundModel:
    """The model file to answer with, by the order that the design fixes.

    Raises:
        CheckpointError: No step found one; the message names every step.
    """
    infer = config.infer
    passed: list[str] = []

    def pass_over(reason: str) -> None:
        passed.append(reason)
        logger.warning("%s", reason)

    if infer.checkpoint_path is not None:
        if infer.checkpoint_path.is_file():
            return FoundModel(infer.checkpoint_path, "explicit")
        pass_over(f"infer.checkpoint_path={infer.checkpoint_path}: no such file")
    newest = newest_best_checkpoint(config.paths.outputs_dir)
    if newest is not None:
        return FoundModel(newest, "outputs")
    pass_over(f"no {BEST_CHECKPOINT} under {config.paths.outputs_dir}")
    if infer.checkpoint_s3_uri is not None:
        from cassava_leaf_disease.storage.s3 import fetch_s3

        target = config.paths.artifacts_dir / BEST_CHECKPOINT
        return FoundModel(fetch_s3(infer.checkpoint_s3_uri, target), "s3")
    pass_over("infer.checkpoint_s3_uri is not set")
    packaged = Path(str(files("cassava_leaf_disease"))) / "assets" / PACKAGED_MODEL
    if packaged.is_file():
        return FoundModel(packaged, "package")
    raise CheckpointError(
        f"no model to answer with: {'; '.join(passed)}; no model is shipped in this version. "
        "Train one (`cassava train`, or `cassava demo` for a first try) or type infer.checkpoint_path=best.ckpt"
    )
