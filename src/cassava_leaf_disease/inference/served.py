"""What the exported Triton repository and its client agree on: names of models and tensors, settings, identity.

The server takes this file along, so that it imports nothing that an operator would not have there.
"""

import hashlib
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.vote import Combination
from cassava_leaf_disease.modeling.metadata import (
    ModelMetadata,
    PositiveProbability,
    QualityLimits,
    Thresholds,
)

PREPROCESS: Final = "preprocess"
CHECK: Final = "check"  # before a `preprocess` of DALI
VOTE: Final = "vote"
ENSEMBLE: Final = "cassava"

IMAGE: Final = "IMAGE"  # (N, 1) bytes, each a JPEG or PNG file
ENCODED: Final = "ENCODED"  # (1, L) uint8, a checked file
PIXELS: Final = "pixels"  # (N, V, S, S, 3) uint8, V views; with one view (N, S, S, 3)
LOGITS: Final = "logits"  # (N, V, C) float32; with one view (N, C)
FEATURES: Final = "features"  # (N, V, D) float32, of members whose gate wants them; with one view (N, D)
PROBABILITIES: Final = "PROBABILITIES"  # (N, C) float64
FOREIGN: Final = "FOREIGN"  # (N, 1) float64, see `Gate.foreign`; only where a member has a gate
QUALITY: Final = "QUALITY"  # (N, 6) float64, the fields of `PhotoQuality` in their order; likewise
MODEL: Final = "MODEL"  # (N, 1) bytes: the digest of the description of what answered

DESCRIPTION_KEY: Final = "cassava_description"  # parameter of the ensemble
SETTINGS_KEY: Final = "settings"  # parameter of every model of ours in Python


class ServedMember(BaseModel):
    """One network of the repository: its model's name there, its share of the vote, what its file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    model: str
    sha256: str
    weight: float = Field(gt=0, allow_inf_nan=False)
    metadata: ModelMetadata


class ServedModel(BaseModel):
    """The self-description of a served repository, a parameter of its ensemble model.

    `temperature` and `class_prior` are those of the members' combined answer, where that was calibrated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    format_version: Literal[1] = 1
    name: str
    version: str
    members: tuple[ServedMember, ...] = Field(min_length=1)
    combine: Combination
    temperature: float = Field(default=1.0, gt=0, exclude_if=lambda temperature: temperature == 1)
    class_prior: tuple[PositiveProbability, ...] | None = Field(default=None, exclude_if=lambda prior: prior is None)
    tta: str
    views: tuple[str, ...]
    thresholds: Thresholds
    quality_limits: QualityLimits | None
    max_image_bytes: int
    max_image_pixels: int
    package_version: str

    @property
    def digest(self) -> str:
        """What the server sends along with every answer."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class PreprocessSettings(BaseModel):
    """What `preprocess` and `check` are told: which tensor shows what, which views, and the limits of a photo.

    With `quality` they measure it, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: dict[str, Preprocessing]
    tta: str
    quality: bool
    max_bytes: int
    max_pixels: int


class MemberSettings(BaseModel):
    """What a member in Python is told: the file that it runs, and with how many threads (0: ONNX Runtime's own)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    threads: int = Field(ge=0)


class Voter(BaseModel):
    """A member as `vote` knows it: the tensors in which its answers arrive, its weight, what its file says of itself.

    `gate_file`, beside the model, has the arrays of its gate, or of the gates of the networks in it; null without any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    logits: str
    features: str | None
    weight: float
    metadata: ModelMetadata
    gate_file: str | None


class VoteSettings(BaseModel):
    """What `vote` is told: its members, and the digest that it answers with."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    voters: tuple[Voter, ...]
    combine: Combination
    temperature: float = Field(default=1.0, gt=0)
    views: int
    digest: str
