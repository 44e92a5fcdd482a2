"""Models measured in turn, so that whatever else the machine does meets all of them alike."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cassava_leaf_disease.benchmark.photos import Photo, Photos
from cassava_leaf_disease.benchmark.timing import Clock, Deadline, Lap, Stopwatch
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.imaging.preprocess import normalize
from cassava_leaf_disease.inference.predictor import AnyPredictor


class Subject:
    """A model that is being measured; nobody else may ask it meanwhile."""

    def __init__(self, predictor: AnyPredictor, now: Clock) -> None:
        self.predictor = predictor
        self._stopwatch = Stopwatch(now)
        for each in {predictor, *predictor.members}:
            each.watch = self._stopwatch

    def answer(self, photo: Photo) -> tuple[Lap, Prediction]:
        """One photo, from its bytes to the verdict."""
        return self._stopwatch.lap(lambda: self.predictor.predict_bytes(photo.data, name=photo.name))

    def answer_all(self, photos: Sequence[Photo]) -> Lap:
        """Several photos that the network sees at once."""

        def call() -> list[Prediction]:
            images = (self.predictor.decode(photo.data, name=photo.name) for photo in photos)
            return self.predictor.predict_all([self.predictor.prepare(image) for image in images])

        return self._stopwatch.lap(call)[0]

    def bare_network(self, photo: Photo) -> float:
        """Seconds of the networks alone, all members and views, on input that lies ready."""
        prepared = self.predictor.prepare(self.predictor.decode(photo.data, name=photo.name))
        ready = [
            (member.engine, normalize(prepared[spec][view][None], spec))
            for member in self.predictor.members
            for spec in [member.metadata.preprocessing]
            for view in range(len(self.predictor.views))
        ]

        def call() -> None:
            for engine, batch in ready:
                engine.run(batch)

        return self._stopwatch.lap(call)[0].seconds


@dataclass
class Laps:
    """What was measured of one model: single photos, the bare network after each, batches by their size.

    `answers` are those about the photos of the first round, in their order.
    """

    single: list[Lap] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    batches: dict[int, list[Lap]] = field(default_factory=dict)
    answers: list[Prediction] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much is measured: at most `rounds` over the photos and as many calls of each batch size, for `seconds`."""

    rounds: int
    seconds: float
    warmup: int
    batch_sizes: tuple[int, ...]


def measure(subjects: Sequence[Subject], photos: Photos, plan: Plan) -> tuple[list[Laps], Literal["rounds", "time"]]:
    """The laps of each model, and what ended them.

    A tenth of the time at most is for warming up, and half of it is over when batches begin; each kind is measured
    once, however long it takes.
    """
    whole = Deadline.after(plan.seconds)
    half = Deadline.after(plan.seconds / 2) if plan.batch_sizes else whole
    warm_up(subjects, photos, plan, Deadline.after(plan.seconds / 10))
    laps = [Laps(batches={size: [] for size in plan.batch_sizes}) for _ in subjects]
    all_singles = measure_singles(subjects, photos, plan, laps, half)
    all_batches = measure_batches(subjects, photos, plan, laps, whole)
    return laps, "rounds" if all_singles and all_batches else "time"


def warm_up(subjects: Sequence[Subject], photos: Photos, plan: Plan, deadline: Deadline) -> None:
    """First calls are slower: buffers are made, kernels chosen, for each batch size anew."""
    calls = [1] * plan.warmup + list(plan.batch_sizes if plan.warmup else ())
    for number, size in enumerate(calls):
        if number and deadline.over:
            return
        for subject in subjects:
            subject.answer_all(photos.in_turn(0, size))


def measure_singles(
    subjects: Sequence[Subject], photos: Photos, plan: Plan, laps: Sequence[Laps], deadline: Deadline
) -> bool:
    """Photo after photo, each model in turn; whether all rounds were done."""
    for number, photo in enumerate(photos.in_turn(0, plan.rounds * len(photos))):
        if number and deadline.over:
            return False
        for subject, own in zip(subjects, laps, strict=True):
            lap, answer = subject.answer(photo)
            own.single.append(lap)
            own.bare.append(subject.bare_network(photo))
            if number < len(photos):
                own.answers.append(answer)
    return True


def measure_batches(
    subjects: Sequence[Subject], photos: Photos, plan: Plan, laps: Sequence[Laps], deadline: Deadline
) -> bool:
    """Round after round a call of each batch size, each model in turn; whether all rounds were done."""
    for number in range(plan.rounds):
        for size in plan.batch_sizes:
            if number and deadline.over:
                return False
            for subject, own in zip(subjects, laps, strict=True):
                own.batches[size].append(subject.answer_all(photos.in_turn(number * size, size)))
    return True
