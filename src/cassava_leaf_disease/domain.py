"""What the whole system agrees on: the five classes, and the one definition of an answer."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

CLASS_NAMES: Final[tuple[str, ...]] = (
    "Cassava Bacterial Blight",
    "Cassava Brown Streak Disease",
    "Cassava Green Mottle",
    "Cassava Mosaic Disease",
    "Healthy",
)
NUM_CLASSES: Final = len(CLASS_NAMES)

Verdict = Literal["diagnosis", "uncertain", "not_cassava", "poor_photo"]


class ClassProbability(BaseModel):
    """One line of a ranking: a class and its probability in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_id: int
    class_name: str
    prob: float = Field(ge=0, le=1)


class ModelIdentity(BaseModel):
    """Which model gave an answer, and where it was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    source: Literal["explicit", "outputs", "s3", "package"]
    path: str


class Prediction(BaseModel):
    """The answer about one photo: the JSON of the CLI, the API, the bot's client and the report.

    `probabilities` maps every class name to its probability; they sum to 1. `top_k` is sorted, most
    probable first. Fields are added over time, never renamed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted_class_id: int
    class_name: str
    confidence: float = Field(ge=0, le=1)
    probabilities: dict[str, float]
    top_k: tuple[ClassProbability, ...]
    verdict: Verdict
    model: ModelIdentity
    image: str | None = None


def rank_classes(probabilities: Sequence[float], class_names: Sequence[str], top_k: int) -> tuple[ClassProbability, ...]:
    """The `top_k` most probable classes, most probable first; equal ones by class id."""
    order = sorted(range(len(class_names)), key=lambda index: (-probabilities[index], index))
    return tuple(
        ClassProbability(class_id=index, class_name=class_names[index], prob=probabilities[index])
        for index in order[:top_k]
    )


def probabilities_by_name(probabilities: Sequence[float], class_names: Sequence[str]) -> Mapping[str, float]:
    """Class name to probability, in class order."""
    return dict(zip(class_names, probabilities, strict=True))
