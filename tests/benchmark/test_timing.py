"""Laps and what becomes of them, by a clock that stands still unless it is moved."""

import contextlib

import pytest

from cassava_leaf_disease.benchmark.result import (
    batch_figures,
    durations,
    median_ratio,
    round_medians,
    stages_of,
)
from cassava_leaf_disease.benchmark.timing import Deadline, Lap, Stopwatch


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time

    def work(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_lap_has_the_seconds_of_each_stage_and_the_rest(hands: Hands) -> None:
    watch = Stopwatch(hands)

    def answer() -> str:
        with watch("decode"):
            hands.work(2)
        hands.work(0.5)
        for _ in range(3):
            with watch("network"):
                hands.work(1)
        return "healthy"

    lap, result = watch.lap(answer)

    assert result == "healthy"
    assert (lap.seconds, dict(lap.stages), lap.rest) == (5.5, {"decode": 2, "network": 3}, 0.5)
    assert watch.lap(lambda: hands.work(4))[0] == Lap(4, {})


def test_a_stage_that_fails_is_counted_too(hands: Hands) -> None:
    watch = Stopwatch(hands)

    def failing() -> None:
        with watch("decode"):
            hands.work(1)
            raise ValueError("bad")

    def patient() -> None:
        with contextlib.suppress(ValueError):
            failing()

    assert watch.lap(patient)[0].stages == {"decode": 1}


def test_deadline_is_over_from_its_moment_on(hands: Hands) -> None:
    deadline = Deadline.after(3, hands)

    assert not deadline.over
    hands.work(3)
    assert deadline.over


def test_percentiles_of_calls() -> None:
    calls = [0.001 * number for number in range(1, 22)]

    assert durations(calls).model_dump() == {"calls": 21, "p50_ms": pytest.approx(11), "p95_ms": pytest.approx(20)}
    assert durations(calls[:19]).p95_ms is None


def test_rounds_are_whole_unless_there_is_none() -> None:
    assert round_medians([0.001, 0.003, 0.005, 0.009, 0.1], 2) == pytest.approx((2, 7))
    assert round_medians([0.004], 2) == pytest.approx((4,))


def test_shares_are_of_the_time_of_all_calls() -> None:
    laps = [Lap(1.0, {"network": 0.5, "decode": 0.25}), Lap(3.0, {"network": 2.5})]

    found = {each.stage: (each.p50_ms, each.share) for each in stages_of(laps)}

    assert found == {
        "decode": (125, 0.0625),
        "preprocess": (0, 0),
        "gate": (0, 0),
        "network": (1500, 0.75),
        "rest": (375, 0.1875),
    }


def test_photos_a_second_of_a_batch() -> None:
    found = batch_figures(8, [Lap(2.0, {"network": 1.0}), Lap(4.0, {"network": 2.0}), Lap(9.0, {"network": 8.0})])

    assert (found.calls, found.p50_ms, found.photos_per_second, found.network_photos_per_second) == (3, 4000, 2, 4)


def test_ratio_is_of_calls_that_followed_each_other() -> None:
    assert median_ratio([1, 10, 100], [2, 20, 50]) == pytest.approx(0.5)
    assert median_ratio([0], [0]) > 0  # a coarse clock divides by nothing
