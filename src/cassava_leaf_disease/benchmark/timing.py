"""Seconds: which clock counts them, how long each stage took, when there is no more time to measure."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from cassava_leaf_disease.inference.stages import Stage

Result = TypeVar("Result")
Clock = Callable[[], float]

CLOCKS: Final[Mapping[Literal["wall", "cpu"], Clock]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Lap:
    """One call: all its seconds, and those of each stage; what is in no stage is the rest."""

    seconds: float
    stages: Mapping[Stage, float]

    @property
    def rest(self) -> float:
        """Seconds between the stages."""
        return self.seconds - sum(self.stages.values())


class Stopwatch:
    """What a predictor's `watch` can be: counts the seconds of each stage until they are taken."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._stages: defaultdict[Stage, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Counts what is inside for `stage`."""
        started = self._now()
        try:
            yield
        finally:
            self._stages[stage] += self._now() - started

    def lap(self, call: Callable[[], Result]) -> tuple[Lap, Result]:
        """What a call took and gave; the stages of earlier ones do not count."""
        self._stages.clear()
        started = self._now()
        result = call()
        return Lap(self._now() - started, dict(self._stages)), result


@dataclass(frozen=True)
class Deadline:
    """The moment after which nothing more is begun; what was begun is finished."""

    moment: float
    now: Clock = time.monotonic

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self.now() >= self.moment

    @classmethod
    def after(cls, seconds: float, now: Clock = time.monotonic) -> "Deadline":
        """The one in so many seconds."""
        return cls(now() + seconds, now)
