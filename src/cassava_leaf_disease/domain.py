"""What the whole system agrees on: the five classes, and the one definition of an answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CLASS_NAMES: Final[tuple[str, ...]] = (
    "Cassava Bacterial Blight",
    "Cassava Brown Streak Disease",
    "Cassava Green Mottle",
    "Cassava Mosaic Disease",
    "Healthy",
)
NUM_CLASSES: Final = len(CLASS_NAMES)

Verdict = Literal["diagnosis", "uncertain", "not_cassava", "poor_photo"]
Unusable = Literal["not_cassava", "poor_photo"]  # the verdicts that leave a photo out of its plant's answer
ModelSource = Literal["explicit", "outputs", "s3", "package", "triton"]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

SUM_TOLERANCE: Final = 1e-4  # how far the probabilities of one answer may sum from 1


class ClassProbability(BaseModel):
    """One line of a ranking: a class and its probability in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_id: int
    class_name: str
    prob: Probability


class ModelIdentity(BaseModel):
    """Which model gave an answer, and where it was found.

    `members` are the files of several models that answer as one; a single model's JSON is without it. Of a model that
    a Triton server runs, `path` is its address, and `members` are its networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    source: ModelSource
    path: str
    members: tuple[str, ...] = Field(default=(), exclude_if=lambda members: not members)


class Check(BaseModel):
    """One thing that was looked at before a verdict: what was measured, and the limits that it was held to.

    `foreign` tells how unlike the leaves of the training a photo is: 0 as a typical one, 1 at the limit.
    `confidence` is that of the answer; the others are those of `PhotoQuality` (`imaging/quality.py`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["sharpness", "brightness", "contrast", "dark", "bright", "foreign", "confidence"]
    value: float
    at_least: float | None = None
    at_most: float | None = None
    passed: bool


class Prediction(BaseModel):
    """The answer about one photo: the JSON of the CLI, the API, the bot's client and the report.

    `probabilities` maps every class name to its probability; they sum to 1. `top_k` is sorted, most
    probable first. `verdict` says whether it can be relied on, `reasons` in plain words why it is no diagnosis, and
    `checks` what was looked at; a model without a gate in its file checks the confidence alone. `views` names the
    views of the photo whose answers were averaged, where there were several. `explanation` is the file of its
    heatmap, where one was asked for. Fields are added over time, never renamed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted_class_id: int
    class_name: str
    confidence: Probability
    probabilities: dict[str, Probability]
    top_k: tuple[ClassProbability, ...]
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    model: ModelIdentity
    image: str | None = None
    views: tuple[str, ...] = Field(default=(), exclude_if=lambda views: not views)
    explanation: str | None = Field(default=None, exclude_if=lambda path: path is None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = sum(self.probabilities.values())
        if abs(total - 1) > SUM_TOLERANCE:
            msg = f"the probabilities sum to {total}; expected 1 within {SUM_TOLERANCE}"
            raise ValueError(msg)
        return self


class LeftOut(BaseModel):
    """A photo of a plant that did not count: its place in the list from 0, its name, and its verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    image: str | None
    reason: Unusable


class PlantPrediction(Prediction):
    """One answer from several photos of one plant: all that an answer about one photo has, and how it came about.

    `counted` are the places in `photos`, from 0, of those that the answer rests on. `more_leaves` is how many more
    photos of other leaves are expected to make it a diagnosis: 0 where it is one, null where ten would not.
    """

    counted: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    more_leaves: int | None
    photos: tuple[Prediction, ...]


def rank_classes(
    probabilities: Sequence[float], class_names: Sequence[str], top_k: int
) -> tuple[ClassProbability, ...]:
    """The `top_k` most probable classes, most probable first; equal ones by class id."""
    order = sorted(range(len(class_names)), key=lambda index: (-probabilities[index], index))
    return tuple(
        ClassProbability(class_id=index, class_name=class_names[index], prob=probabilities[index])
        for index in order[:top_k]
    )


def probabilities_by_name(probabilities: Sequence[float], class_names: Sequence[str]) -> Mapping[str, float]:
    """Class name to probability, in class order."""
    return dict(zip(class_names, probabilities, strict=True))
