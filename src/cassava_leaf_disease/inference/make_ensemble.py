"""`cassava ensemble`: a small file that makes several checkpoints answer as one model."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, EnsembleConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import EnsembleFile, Weights, describe_members, read_ensemble
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.inference.vote import Combination
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.storage.files import write_json

_SCORE = "val/f1_macro"


class EnsembleMember(BaseModel):
    """A member, its share of the answer (all sum to 1), and its own validation macro-F1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    backbone: str
    image_size_px: int
    share: float
    val_f1_macro: float | None


class EnsembleResult(BaseModel):
    """The file that was written, and what it combines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    combine: Combination
    weights: Weights
    members: list[EnsembleMember]


def ensemble(config: AppConfig) -> EnsembleResult:
    """Writes `ensemble.output_path`, which `infer`, `evaluate` and others take as `infer.checkpoint_path`.

    Raises:
        ConfigError: Nothing to combine, no place for the file, or another file in it.
        CheckpointError: A member is missing, damaged or foreign, or has no score to be weighed by.
    """
    settings = config.ensemble
    path = _output_path(settings)
    if len(settings.members) < 2:
        raise ConfigError(
            f"ensemble.members names {len(settings.members)} models; an ensemble has two or more: "
            "type ensemble.members=[a.ckpt,b.ckpt]"
        )
    return write_ensemble(path, settings.members, settings.combine, settings.weights)


def write_ensemble(path: Path, members: Sequence[Path], combine: Combination, weights: Weights) -> EnsembleResult:
    """Loads every member once, to see that it answers, and writes the file that names them.

    Raises:
        CheckpointError: A member is missing, damaged or foreign, stands there twice, or has no score to be weighed by.
    """
    description = describe_members(members, combine)
    _refuse_twins(description)
    described = [load_predictor(FoundModel(member, "explicit"), "cpu").metadata for member in members]
    shares = [_score_of(*pair) if weights == "val_f1_macro" else 1.0 for pair in zip(members, described, strict=True)]
    named = tuple(
        file.model_copy(update={"path": _relative(member, path.parent), "weight": share})
        for file, member, share in zip(description.members, members, shares, strict=True)
    )
    written = description.model_copy(update={"weights": weights, "members": named})
    write_json(path, written.model_dump(mode="json"))
    return EnsembleResult(
        path=path,
        combine=combine,
        weights=weights,
        members=[
            EnsembleMember(
                path=member,
                backbone=metadata.backbone,
                image_size_px=metadata.preprocessing.image_size_px,
                share=share / sum(shares),
                val_f1_macro=metadata.metrics.get(_SCORE),
            )
            for member, metadata, share in zip(members, described, shares, strict=True)
        ],
    )


def _output_path(settings: EnsembleConfig) -> Path:
    path = settings.output_path
    if path is None:
        raise ConfigError("ensemble.output_path is not set; type ensemble.output_path=ensemble.json")
    if path.suffix.lower() != ".json":
        raise ConfigError(f"ensemble.output_path={path}: expected a name that ends in .json, by which it is known")
    if path.exists():
        try:
            read_ensemble(path)
        except CheckpointError:
            raise ConfigError(
                f"ensemble.output_path={path}: another file stands there, and it is no ensemble; type another path"
            ) from None
    return path


def _refuse_twins(description: EnsembleFile) -> None:
    digests = [member.sha256 for member in description.members]
    for index, member in enumerate(description.members):
        first = digests.index(member.sha256)
        if first < index:
            raise CheckpointError(
                f"{member.path}: the same model as {description.members[first].path}; name each member once"
            )


def _score_of(path: Path, metadata: ModelMetadata) -> float:
    score = metadata.metrics.get(_SCORE, math.nan)
    if not score > 0:
        raise CheckpointError(
            f"{path}: it has no validation macro-F1 above 0 to be weighed by ({score}); type ensemble.weights=equal"
        )
    return score


def _relative(member: Path, folder: Path) -> str:
    """How a file in `folder` names a member; by its full path where they share no drive."""
    try:
        return Path(os.path.relpath(member, folder)).as_posix()
    except ValueError:  # Windows
        return member.as_posix()
