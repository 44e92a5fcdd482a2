"""What `cassava benchmark` answers: the figures of each model, what they hold for, and how they come from laps."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.benchmark.machine import Machine
from cassava_leaf_disease.benchmark.photos import Origin, Photos
from cassava_leaf_disease.benchmark.timing import Lap
from cassava_leaf_disease.domain import ModelIdentity, Prediction
from cassava_leaf_disease.inference.stages import Stage

StageName = Literal["decode", "preprocess", "gate", "network", "rest"]
MIN_FOR_P95: Final = 20  # below, the 95th percentile is little else than the slowest call


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Durations(_Answer):
    """How long a call takes; `p95_ms` is null for fewer than 20 calls."""

    calls: int
    p50_ms: float
    p95_ms: float | None


class StageFigures(_Answer):
    """The median time of one stage of an answer, and its share of the time of all answers."""

    stage: StageName
    p50_ms: float
    share: float


class BatchFigures(_Answer):
    """Photos a second from their bytes to their verdicts, `batch_size` of them in one call of one thread.

    `network_photos_per_second` is what the network alone would do, by its share of the same calls.
    """

    batch_size: int
    calls: int
    p50_ms: float
    photos_per_second: float
    network_photos_per_second: float


class Against(_Answer):
    """A model against the first one, in the same run, photo by photo.

    `time_ratio` and `network_ratio` are medians: 0.5 is half the time. `same_class` and `same_verdict` are fractions
    of the `photos`, `max_difference` is the largest of any probability.
    """

    time_ratio: float
    network_ratio: float
    photos: int
    same_class: float
    same_verdict: float
    max_difference: float


class ModelFigures(_Answer):
    """How fast one model answers.

    `runtimes` say what runs its networks and where, `image_sizes_px` what they see; `loaded_s` and `loaded_bytes` are
    what loading took (the first model's include the library that runs it). `bytes_to_verdict` is one photo's whole
    way, of which `stages` are the parts; `network` is the bare network on input that lies ready, measured in turn with
    it, and `ratio_to_network` the median of the quotients. `round_p50_ms` has the median of each round over the photos:
    where they differ much, the machine had other things to do.
    """

    model: ModelIdentity
    views: tuple[str, ...]
    runtimes: tuple[str, ...]
    threads: int
    image_sizes_px: tuple[int, ...]
    file_bytes: int
    loaded_s: float
    loaded_bytes: int | None
    bytes_to_verdict: Durations
    round_p50_ms: tuple[float, ...]
    stages: tuple[StageFigures, ...]
    network: Durations
    ratio_to_network: float
    batches: tuple[BatchFigures, ...]
    against_first: Against | None = None


class PhotoFacts(_Answer):
    """What was measured on: `origin` says by which key they were found, or that they are drawn; medians of the size."""

    origin: Origin
    folder: str | None
    count: int
    passed_over: int
    width_px: int
    height_px: int
    file_bytes: int


class BenchmarkResult(_Answer):
    """The figures of each model, in the order of their names; what is compared was measured in turn.

    `peak_bytes` is the most memory of this process with all the models, since they began to be loaded or, where the
    system cannot tell that, since the process began. `ended_by` says whether all rounds were done or time was over.
    """

    machine: Machine
    photos: PhotoFacts
    clock: Literal["wall", "cpu"]
    measured_s: float
    ended_by: Literal["rounds", "time"]
    peak_bytes: int | None
    peak_since: Literal["loading", "start"]
    models: tuple[ModelFigures, ...]


def describe_photos(photos: Photos) -> PhotoFacts:
    """Their number and size."""
    sizes = np.median([(each.width, each.height, len(each.data)) for each in photos.files], axis=0)
    width, height, size = sizes.astype(int).tolist()
    folder = None if photos.folder is None else str(photos.folder)
    return PhotoFacts(
        origin=photos.origin,
        folder=folder,
        count=len(photos),
        passed_over=photos.passed_over,
        width_px=width,
        height_px=height,
        file_bytes=size,
    )


def durations(seconds: Sequence[float]) -> Durations:
    """Median and 95th percentile of calls, of which there is at least one."""
    high = float(np.percentile(seconds, 95)) if len(seconds) >= MIN_FOR_P95 else None
    return Durations(calls=len(seconds), p50_ms=_ms(seconds), p95_ms=None if high is None else 1e3 * high)


def round_medians(seconds: Sequence[float], photos: int) -> tuple[float, ...]:
    """The median, in milliseconds, of each whole round over so many photos; of what there is where none is whole."""
    whole = max(1, len(seconds) // photos)
    return tuple(_ms(seconds[start * photos : (start + 1) * photos]) for start in range(whole))


def stages_of(laps: Sequence[Lap]) -> tuple[StageFigures, ...]:
    """The stages in their order, then the rest; the shares sum to 1."""
    parts: dict[StageName, list[float]] = {stage: [lap.stages.get(stage, 0.0) for lap in laps] for stage in _STAGES}
    parts["rest"] = [lap.rest for lap in laps]
    total = sum(lap.seconds for lap in laps)
    return tuple(
        StageFigures(stage=stage, p50_ms=_ms(seconds), share=sum(seconds) / total if total else 0.0)
        for stage, seconds in parts.items()
    )


def batch_figures(batch_size: int, laps: Sequence[Lap]) -> BatchFigures:
    """Photos a second of calls about `batch_size` photos each."""
    return BatchFigures(
        batch_size=batch_size,
        calls=len(laps),
        p50_ms=_ms([lap.seconds for lap in laps]),
        photos_per_second=batch_size / _median([lap.seconds for lap in laps]),
        network_photos_per_second=batch_size / _median([lap.stages["network"] for lap in laps]),
    )


def against(answers: Sequence[Prediction], first: Sequence[Prediction], times: float, network: float) -> Against:
    """How answers about the same photos agree, beside the quotients of the times."""
    pairs = list(zip(answers, first, strict=True))
    return Against(
        time_ratio=times,
        network_ratio=network,
        photos=len(pairs),
        same_class=_mean([one.predicted_class_id == other.predicted_class_id for one, other in pairs]),
        same_verdict=_mean([one.verdict == other.verdict for one, other in pairs]),
        max_difference=max(
            abs(probability - other.probabilities[name])
            for one, other in pairs
            for name, probability in one.probabilities.items()
        ),
    )


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """The median quotient of calls that followed each other: a machine that slows down slows both."""
    return _median([one / max(other, 1e-9) for one, other in zip(seconds, others, strict=True)])


_STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


def _ms(seconds: Sequence[float]) -> float:
    return 1e3 * float(np.median(seconds))


def _median(values: Sequence[float]) -> float:
    return max(float(np.median(values)), 1e-9)  # a coarse clock may have counted nothing


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values))
