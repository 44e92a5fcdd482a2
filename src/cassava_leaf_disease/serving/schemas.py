"""The JSON of the endpoints beside `Prediction`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.config.schema import OodScore
from cassava_leaf_disease.domain import ModelIdentity, ModelSource
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.modeling.metadata import ModelMetadata, OtherTrouble, QualityLimits


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Health(_Answer):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """A model is loaded, warm and answers."""

    status: Literal["ready"] = "ready"


class Limits(_Answer):
    """What a request may hold."""

    formats: tuple[str, ...] = ("image/jpeg", "image/png")
    max_upload_bytes: int
    max_image_pixels: int
    max_files: int
    deadline_s: float


class MemberCard(_Answer):
    """What one model file says of itself."""

    name: str
    version: str
    backbone: str
    image_size_px: int
    temperature: float
    min_confidence: float = Field(description="below it the verdict is `uncertain`")
    metrics: dict[str, float]
    data_fingerprint: str
    split_hash: str
    git_commit: str | None
    created_at: str
    licence_notes: tuple[str, ...]


class Offered(_Answer):
    """What phones can download, in short."""

    name: str
    version: str
    bytes: int
    sha256: str


class ModelCard(_Answer):
    """Which model answers, what it was measured at, and what may be asked."""

    model: ModelIdentity
    classes: tuple[str, ...]
    members: tuple[MemberCard, ...]
    views: tuple[str, ...]
    engine: Literal["local", "triton"]
    limits: Limits
    feedback: bool = Field(description="whether POST /feedback takes photos and corrections")
    offline: Offered | None = Field(default=None, description="what phones can download to answer without a network")


class OfflineArray(_Answer):
    """An array of a gate, as model files keep it: base64 of its little-endian values in row order."""

    dtype: Literal["float16", "float32"]
    shape: tuple[int, ...]
    data: str


class OfflineGate(_Answer):
    """How one network tells leaves from anything else (see `inference/ood.py`).

    `features` are the first and the end of the network's own among the file's features; an end of null is the last.
    """

    score: OodScore
    typical: float
    limit: float
    neighbors: int
    features: tuple[int, int | None]
    arrays: dict[str, OfflineArray]


class OfflinePooling(_Answer):
    """How the answers about a plant's photos become one (see `Pooling` in `inference/aggregate.py`)."""

    kind: Literal["logarithms"] = "logarithms"
    correlation: float
    doubt: float
    prior: tuple[float, ...]


class OfflineLimits(_Answer):
    """What a photo may be, as for this service."""

    max_upload_bytes: int
    max_image_pixels: int
    max_files: int


class OfflineModel(_Answer):
    """All that a browser needs to answer as this service would with that file."""

    format_version: Literal[1] = 1
    name: str
    version: str
    source: ModelSource
    bytes: int
    sha256: str
    url: str = Field(description="the file, beside this description's folder")
    input_name: str
    output_names: tuple[str, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    resize_side_px: int = Field(description="the shorter side before the crop")
    temperature: float
    min_confidence: float
    other_trouble: OtherTrouble | None
    quality: QualityLimits | None
    gates: tuple[OfflineGate, ...]
    pooling: OfflinePooling
    limits: OfflineLimits


def describe_member(metadata: ModelMetadata) -> MemberCard:
    """The card of a model file."""
    return MemberCard(
        image_size_px=metadata.preprocessing.image_size_px,
        min_confidence=metadata.thresholds.min_confidence,
        split_hash=metadata.split.hash,
        # JSON has no NaN and no infinity, which the metrics of a diverged run are
        metrics={name: value for name, value in metadata.metrics.items() if abs(value) < float("inf")},
        **metadata.model_dump(
            include={
                *("name", "version", "backbone", "temperature", "data_fingerprint", "git_commit"),
                *("created_at", "licence_notes"),
            }
        ),
    )
