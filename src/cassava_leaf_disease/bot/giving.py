"""What the bot tells other parts: photos that users give with their corrections, and counts of answers."""

from dataclasses import dataclass
from typing import Protocol

from cassava_leaf_disease.domain import PlantPrediction, Prediction


@dataclass(frozen=True)
class Gift:
    """A photo that a user agrees to give, the answer about it, and what they said: "right", a class id, or nothing."""

    person: int
    answer: Prediction
    correct: str | None
    photo: bytes
    receipt: str

    @property
    def contributor(self) -> str:
        """The user as the store knows them, which keeps a keyed hash of it alone."""
        return contributor_of(self.person)


class Store(Protocol):
    """Where gifts are kept. Calls block, and raise a `CassavaError` where they fail."""

    def keep(self, gift: Gift) -> None:
        """Keeps a gift; one with the same receipt is kept once."""
        ...

    def forget(self, contributor: str) -> int:
        """Deletes all that somebody gave, and says how many photos that were."""
        ...


class Statistics(Protocol):
    """Counts answers, without anything that tells of whom."""

    def record(self, prediction: Prediction) -> None:
        """A photo has its answer."""
        ...


class NoStatistics:
    """Counts nothing."""

    def record(self, prediction: Prediction) -> None:
        """See `Statistics`."""


def contributor_of(person: int) -> str:
    """A user as the store knows them."""
    return f"telegram:{person}"


def gifts(
    plant: PlantPrediction, photos: list[tuple[int, bytes]], person: int, correct: str, receipt: str
) -> list[Gift]:
    """A gift for each photo of a plant, given as (its place in `plant.photos`, its bytes).

    What was said of the plant holds for each photo: where it was right, the photo's class is the plant's.
    """
    return [
        Gift(person, plant.photos[place], _said_of(plant, plant.photos[place], correct), data, f"{receipt}-{place}")
        for place, data in photos
    ]


def _said_of(plant: PlantPrediction, photo: Prediction, correct: str) -> str | None:
    if correct == "none":
        return None
    if correct == "right" and photo.predicted_class_id != plant.predicted_class_id:
        return str(plant.predicted_class_id)
    return correct
