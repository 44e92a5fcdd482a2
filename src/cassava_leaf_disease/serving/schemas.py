"""The JSON of the endpoints beside `Prediction`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.domain import ModelIdentity
from cassava_leaf_disease.modeling.metadata import ModelMetadata


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


class ModelCard(_Answer):
    """Which model answers, what it was measured at, and what may be asked."""

    model: ModelIdentity
    classes: tuple[str, ...]
    members: tuple[MemberCard, ...]
    views: tuple[str, ...]
    engine: Literal["local", "triton"]
    limits: Limits
    feedback: bool = Field(description="whether POST /feedback takes photos and corrections")


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
