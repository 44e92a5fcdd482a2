"""What a model file says about itself; everything that inference needs, and nothing that needs torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.imaging.preprocess import Preprocessing

FORMAT_VERSION = 1

LICENCE_NOTES: tuple[str, ...] = (
    "Code: MIT. The weights inherit the terms of the photos and of the starting weights they were trained from.",
)


class Thresholds(BaseModel):
    """Where a verdict changes.

    Below `min_confidence` (a probability) the verdict is `uncertain`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confidence: float = Field(default=0.5, ge=0, le=1)


class SplitRecord(BaseModel):
    """How the training photos were divided, so that the same parts can be found again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["holdout", "kfold", "synthetic"]
    val_size: float
    test_size: float
    folds: int
    fold_index: int
    seed: int
    max_train_samples: int | None
    max_val_samples: int | None
    hash: str


class ModelMetadata(BaseModel):
    """The self-description of a checkpoint or an exported model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    version: str
    backbone: str
    class_names: tuple[str, ...] = CLASS_NAMES
    preprocessing: Preprocessing
    temperature: float = Field(default=1.0, gt=0)
    thresholds: Thresholds = Thresholds()
    metrics: dict[str, float]
    epoch: int = Field(ge=0)
    data_fingerprint: str
    split: SplitRecord
    git_commit: str | None
    package_version: str
    created_at: str
    licence_notes: tuple[str, ...] = LICENCE_NOTES
