"""What a model file says about itself; everything that inference needs, and nothing that needs torch."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from cassava_leaf_disease.config.schema import OodScore, Precision
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CheckpointError, first_mistake
from cassava_leaf_disease.imaging.preprocess import Preprocessing

FORMAT_VERSION: Final = 1
METADATA_KEY: Final = "cassava_metadata"  # under which a model file keeps its self-description

LICENCE_NOTES: tuple[str, ...] = (
    "Code: MIT. The weights inherit the terms of the photos and of the starting weights they were trained from.",
)

Count = Annotated[int, Field(ge=0)]
PositiveProbability = Annotated[float, Field(gt=0, le=1)]


class ConfidenceRule(BaseModel):
    """How `min_confidence` was chosen: see `choose_confidence` in `modeling/calibration.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_accuracy: float = Field(ge=0, le=1)
    min_coverage: float = Field(ge=0, le=1)


class OtherTrouble(BaseModel):
    """Leaves with a trouble that is none of the classes, of which the network has learned that no class is likelier.

    They are told by that: a photo whose largest probability is below `below`, and too small for a diagnosis, is
    `not_cassava` only where it is more foreign than `within`, which is 1 for other photos (see `Gate.foreign`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    below: float = Field(gt=0, le=1)
    within: float = Field(ge=1, allow_inf_nan=False)


class Thresholds(BaseModel):
    """Where a verdict changes.

    Below `min_confidence` (a probability) the verdict is `uncertain`. `rule` is how that was chosen on validation
    photos, null where it is the default; `cassava calibrate` chooses it anew by the same rule. `other_trouble` is null
    where the network has learned of none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confidence: float = Field(default=0.5, ge=0, le=1)
    rule: ConfidenceRule | None = None
    other_trouble: OtherTrouble | None = None


class QualityLimits(BaseModel):
    """What a usable photo keeps to, in the units of `PhotoQuality`.

    Brightness, `dark` and `bright` are not held against a picture of fewer than `min_colors` that is sharp all the
    same: a page or a screen is no badly exposed photo.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_sharpness: float = Field(ge=0)
    min_brightness: float = Field(ge=0, le=1)
    max_brightness: float = Field(ge=0, le=1)
    min_contrast: float = Field(ge=0, le=1)
    max_dark: float = Field(ge=0, le=1)
    max_bright: float = Field(ge=0, le=1)
    min_colors: float = Field(ge=0)


class GateRecord(BaseModel):
    """What a photo has to pass before its diagnosis counts, and how that was fitted.

    `score` names the distance from the training's leaves (see `inference/ood.py`); its arrays lie beside this in the
    model file. `typical` is its median on validation photos, `limit` the value above which a photo is `not_cassava`:
    the quantile that `max_refused` of them exceed. `photos` counts those that each part gave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: OodScore
    typical: float
    limit: float
    neighbors: int = Field(ge=1)
    max_refused: float = Field(gt=0, lt=1)
    quality: QualityLimits
    photos: dict[Literal["train", "val"], Count]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.limit <= self.typical:
            msg = f"the limit {self.limit:g} is not above the typical score {self.typical:g}"
            raise ValueError(msg)
        return self


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

    `class_prior` is its mean answer about the validation photos, where it was calibrated on them. `extra_photos` counts
    those that trained beside the split (`data.extra`), 0 in files from before that was told. `members` are
    those of the models that an exported ensemble holds in one graph, `feature_sizes` says how many of its features
    belong to each.
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
    gate: GateRecord | None = None
    metrics: dict[str, float]
    epoch: int = Field(ge=0)
    data_fingerprint: str
    split: SplitRecord
    extra_photos: Count = Field(default=0, exclude_if=lambda count: not count)
    git_commit: str | None
    package_version: str
    created_at: str
    licence_notes: tuple[str, ...] = LICENCE_NOTES
    precision: Precision = Field(default="fp32", exclude_if=lambda precision: precision == "fp32")
    members: "tuple[ModelMetadata, ...]" = Field(default=(), exclude_if=lambda members: not members)
    feature_sizes: tuple[Count, ...] = Field(default=(), exclude_if=lambda sizes: not sizes)

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
        raise CheckpointError(f"{origin}: its self-description is wrong ({first_mistake(error)}); {_MEND}") from None


_MEND = "use a best.ckpt that `cassava train` wrote"
