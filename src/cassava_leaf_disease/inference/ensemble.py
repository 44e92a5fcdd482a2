"""Several models that answer as one: the file that names them, and how their answers become one."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from cassava_leaf_disease.config.schema import AppConfig, Tta
from cassava_leaf_disease.domain import ModelIdentity
from cassava_leaf_disease.errors import CheckpointError, first_mistake
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.engines.base import Device
from cassava_leaf_disease.inference.gate import loosest
from cassava_leaf_disease.inference.model_files import is_ensemble
from cassava_leaf_disease.inference.predictor import AnyPredictor, Predictor, load_predictor
from cassava_leaf_disease.inference.views import UInt8Image
from cassava_leaf_disease.inference.vote import Combination, combine_answers
from cassava_leaf_disease.modeling.metadata import PositiveProbability, Thresholds
from cassava_leaf_disease.paths import ENSEMBLE_FILE
from cassava_leaf_disease.storage.s3_transfer import sha256_of

Weights = Literal["equal", "val_f1_macro"]

_MEND: Final = "write it again with `cassava ensemble ensemble.members=[a.ckpt,b.ckpt] ensemble.output_path=…`"


class MemberFile(BaseModel):
    """One model of an ensemble: its path from the ensemble's folder, its content, its share of the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    weight: float = Field(ge=0, allow_inf_nan=False)


class EnsembleCalibration(BaseModel):
    """What `cassava calibrate` found about the combined answer, in place of what the members say of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0, allow_inf_nan=False)
    class_prior: tuple[PositiveProbability, ...] = Field(min_length=5, max_length=5)
    thresholds: Thresholds


class EnsembleFile(BaseModel):
    """What `ensemble.json` holds; all else is read from the members, which describe themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["cassava-ensemble"] = "cassava-ensemble"
    format_version: Literal[1] = 1
    combine: Combination
    weights: Weights
    members: tuple[MemberFile, ...] = Field(min_length=2)
    calibration: EnsembleCalibration | None = Field(default=None, exclude_if=lambda found: found is None)


class EnsemblePredictor(AnyPredictor):
    """Members of any backbone and input size; each sees the photo as it would alone.

    The most cautious member's confidence holds for all, unless their combined answer was calibrated. A photo is poor
    where it breaks the limits of every member that has a gate, and foreign by the mean of theirs.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # the members, how they combine, and what every predictor takes
        self,
        members: Sequence[Predictor],
        weights: Sequence[float],
        combine: Combination,
        identity: ModelIdentity,
        tta: Tta = "none",
        limits: DecodeLimits | None = None,
        calibration: EnsembleCalibration | None = None,
    ) -> None:
        thresholds = max((member.metadata.thresholds for member in members), key=lambda each: each.min_confidence)
        if calibration is not None:
            thresholds = calibration.thresholds
        quality_limits = loosest([member.gate.quality for member in members if member.gate is not None])
        super().__init__(identity, thresholds, tta, limits, quality_limits)
        self._members = tuple(members)
        self.weights = tuple(weights)
        self.combination: Combination = combine
        self.calibration = calibration

    @property
    @override
    def members(self) -> tuple[Predictor, ...]:
        return self._members

    @property
    @override
    def shares(self) -> tuple[float, ...]:
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)

    @property
    @override
    def temperature(self) -> float:
        return 1.0 if self.calibration is None else self.calibration.temperature

    @property
    @override
    def class_prior(self) -> tuple[float, ...] | None:
        return None if self.calibration is None else self.calibration.class_prior

    @override
    def views_by_network(self, image: UInt8Image) -> Mapping[Preprocessing, UInt8Image]:
        one_each = {member.metadata.preprocessing: member for member in self._members}
        return {spec: member.views_by_network(image)[spec] for spec, member in one_each.items()}

    @override
    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return combine_answers(answers, self.weights, self.combination, self.temperature)


def load_model(config: AppConfig) -> AnyPredictor:
    """The model that answers (see `discover`), on the device and with the views that `infer` names.

    Raises:
        CassavaError: No model, a damaged or foreign one, no such device.
    """
    settings = config.infer
    limits = DecodeLimits(settings.max_image_bytes, settings.max_image_pixels)
    return load_found(find_model(config), settings.device, limits, settings.tta)


def load_found(
    found: FoundModel,
    device: Device,
    limits: DecodeLimits | None = None,
    tta: Tta = "none",
    *,
    threads: int | None = None,
) -> AnyPredictor:
    """A model file, an ensemble file or its folder, or several model files (a plain mean), loaded.

    `threads` as in `load_predictor`.

    Raises:
        CheckpointError: A file is missing, damaged or foreign, or not the one that the ensemble was made of.
        DeviceError: The device is not there.
        MissingDependencyError: A checkpoint needs PyTorch and it is not installed.
    """
    if found.members:
        return _load_ensemble(describe_members(found.members), found, device, limits, tta, threads)
    if not is_ensemble(found.path):
        return load_predictor(found, device, limits, tta, threads=threads)
    path = found.path / ENSEMBLE_FILE if found.path.is_dir() else found.path
    return _load_ensemble(read_ensemble(path), FoundModel(path, found.source), device, limits, tta, threads)


def describe_members(paths: Sequence[Path], combine: Combination = "probabilities") -> EnsembleFile:
    """An ensemble of model files, under their full paths, that all count alike.

    Raises:
        CheckpointError: One is no file, or an ensemble itself.
    """
    for path in paths:
        if is_ensemble(path):
            raise CheckpointError(f"{path}: an ensemble cannot be a member of another; name its own members instead")
        if not path.is_file():
            raise CheckpointError(f"{path}: {'a folder' if path.exists() else 'no such file'}; expected a model file")
    return EnsembleFile(
        combine=combine,
        weights="equal",
        members=tuple(MemberFile(path=str(path), sha256=sha256_of(path), weight=1.0) for path in paths),
    )


def read_ensemble(path: Path) -> EnsembleFile:
    """What an ensemble file says.

    Raises:
        CheckpointError: It is missing, or no such file.
    """
    try:
        return EnsembleFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from None
    except ValidationError as error:
        raise CheckpointError(f"{path}: no ensemble file ({first_mistake(error)}); {_MEND}") from None


def _load_ensemble(  # noqa: PLR0913, PLR0917  # what every loader takes, and the description
    description: EnsembleFile,
    found: FoundModel,
    device: Device,
    limits: DecodeLimits | None,
    tta: Tta,
    threads: int | None,
) -> EnsemblePredictor:
    paths = [_checked(found.path, member) for member in description.members]
    members = [load_predictor(FoundModel(path, found.source), device, tta=tta, threads=threads) for path in paths]
    counts = Counter(member.metadata.name for member in members)
    parts: list[object] = [description.combine, *((member.sha256, member.weight) for member in description.members)]
    if description.calibration is not None:
        parts.append(description.calibration.model_dump(mode="json"))
    identity = ModelIdentity(
        name=" + ".join(f"{count} x {name}" for name, count in counts.items()),
        version=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12],
        source=found.source,
        path=str(found.path),
        members=tuple(map(str, paths)),
    )
    weights = [member.weight for member in description.members]
    return EnsemblePredictor(members, weights, description.combine, identity, tta, limits, description.calibration)


def _checked(ensemble: Path, member: MemberFile) -> Path:
    path = Path(os.path.normpath(ensemble.parent / member.path))
    if not path.is_file():
        raise CheckpointError(f"{ensemble}: its member {path} is not there; copy the members along with it")
    if sha256_of(path) != member.sha256:
        raise CheckpointError(
            f"{ensemble}: its member {path} is not the file that the ensemble was made of (another SHA-256); {_MEND}"
        )
    return path
