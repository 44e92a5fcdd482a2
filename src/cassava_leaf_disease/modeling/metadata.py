"""What a model file says about itself; everything that inference needs, and nothing that needs torch."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.preprocess import Preprocessing

FORMAT_VERSION: Final = 1
METADATA_KEY: Final = "cassava_metadata"  # under which a model file keeps its self-description

LICENCE_NOTES: tuple[str, ...] = (
    "Code: MIT. The weights inherit the terms of the photos and of the starting weights they were trained from.",
)

Count = Annotated[int, Field(ge=0)]
PositiveProbability = Annotated[float, Field(gt=0, le=1)]


class Thresholds(BaseModel):
    """Where a verdict changes.

    Below `min_confidence` (a probability) the verdict is `uncertain`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confidence: float = Field(default=0.5, ge=0, le=1)


class SplitRecord(BaseModel):
    """How the training photos were divided, so that the same parts can be found again.

    `photos` counts those of each part; without it the parts of drawn leaves cannot be drawn again.
    """

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
    photos: dict[Literal["train", "val", "test"], Count] = Field(default_factory=dict)


class ModelMetadata(BaseModel):
    """The self-description of a checkpoint or an exported model.

    `class_prior` is its mean answer about the validation photos, where it was calibrated on them.
    """

    # A diverged run has NaN among its metrics: JSON says it as text, which reads back as a number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    version: str
    backbone: str
    class_names: tuple[str, ...] = CLASS_NAMES
    preprocessing: Preprocessing
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    class_prior: tuple[PositiveProbability, ...] | None = Field(default=None, min_length=5, max_length=5)
    thresholds: Thresholds = Thresholds()
    metrics: dict[str, float]
    epoch: int = Field(ge=0)
    data_fingerprint: str
    split: SplitRecord
    git_commit: str | None
    package_version: str
    created_at: str
    licence_notes: tuple[str, ...] = LICENCE_NOTES

    @field_validator("class_names")
    @classmethod
    def _our_classes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names != CLASS_NAMES:
            msg = f"the model tells apart {', '.join(names) or 'nothing'}; expected {', '.join(CLASS_NAMES)}"
            raise ValueError(msg)
        return names


def parse_metadata(text: str, origin: str) -> ModelMetadata:
    """The self-description from its JSON; `origin` is what error messages call the file.

    Raises:
        CheckpointError: No such JSON, of another format version, or for other classes.
    """
    try:
        content = from_json(text)
    except ValueError:
        raise CheckpointError(f"{origin}: its self-description is no JSON; {_MEND}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{origin}: its self-description has format version {version}, this package reads {FORMAT_VERSION}; "
            "type pip install -U cassava-leaf-disease if the file is newer, or train the model again"
        )
    try:
        return ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{origin}: its self-description is wrong ({key}: {first['msg']}); {_MEND}") from None


_MEND = "use a best.ckpt that `cassava train` wrote"
