"""`cassava benchmark`: how fast the model that would answer answers on this machine, and where the time goes."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cassava_leaf_disease.benchmark.machine import (
    describe_machine,
    forget_peak,
    load_average,
    peak_bytes,
    resident_bytes,
    threads_of,
    torch_threads,
)
from cassava_leaf_disease.benchmark.measure import Laps, Plan, Subject, measure
from cassava_leaf_disease.benchmark.photos import choose_photos
from cassava_leaf_disease.benchmark.result import (
    Against,
    BenchmarkResult,
    ModelFigures,
    against,
    batch_figures,
    describe_photos,
    durations,
    median_ratio,
    round_medians,
    stages_of,
)
from cassava_leaf_disease.benchmark.table import lines_of
from cassava_leaf_disease.benchmark.timing import CLOCKS
from cassava_leaf_disease.config.schema import AppConfig, BenchmarkConfig
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import AnyPredictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model, and the seconds and the memory that loading it took."""

    predictor: AnyPredictor
    seconds: float
    grown_bytes: int | None


def benchmark(config: AppConfig) -> BenchmarkResult:
    """Measures the model that answers, and those of `benchmark.compare` in turn with it.

    Raises:
        CassavaError: A model or a photo cannot be used, no such device.
    """
    settings = config.benchmark
    _check(config)
    load = load_average()
    photos, found = choose_photos(config), list(_models(config))  # drawing and fetching need memory of their own
    since_loading = forget_peak()
    models = [_load(each, config) for each in found]
    runtimes = [member.engine.runtime for model in models for member in model.predictor.members]
    if load is not None and load > available_cpus() / 2 and settings.clock == "wall":
        busy = "%.1f processes ran here in the last minute: times will be longer than on an idle machine; %s"
        logger.warning(busy, load, "benchmark.clock=cpu counts this process alone")
    plan = Plan(settings.rounds, settings.seconds, settings.warmup, tuple(dict.fromkeys(settings.batch_sizes)))
    subjects = [Subject(model.predictor, CLOCKS[settings.clock]) for model in models]
    logger.info("measuring %s on %s photos, for %g seconds at most", _names(models), len(photos), plan.seconds)
    started = time.monotonic()
    with torch_threads(_threads(settings)):
        laps, ended_by = measure(subjects, photos, plan)
        figures = tuple(_all_figures(models, laps, len(photos), _threads(settings)))
    result = BenchmarkResult(
        machine=describe_machine(runtimes, load),
        photos=describe_photos(photos),
        clock=settings.clock,
        measured_s=time.monotonic() - started,
        ended_by=ended_by,
        peak_bytes=peak_bytes(),
        peak_since="loading" if since_loading else "start",
        models=figures,
    )
    for line in lines_of(result):
        logger.info("%s", line)
    return result


def _check(config: AppConfig) -> None:
    if config.infer.engine == "triton":
        raise ConfigError("infer.engine=triton: `cassava benchmark` loads the model itself; type infer.engine=auto")
    missing = [path for path in config.benchmark.compare if not path.exists()]
    if missing:
        raise ConfigError(f"benchmark.compare={missing[0]}: no such file; type a model file, or an ensemble.json")
    check_device(config.infer.device, config.infer.checkpoint_path)
    for path in config.benchmark.compare:
        check_device(config.infer.device, path)


def _models(config: AppConfig) -> Iterator[FoundModel]:
    yield find_model(config)
    yield from (FoundModel(path, "explicit") for path in config.benchmark.compare)


def _load(found: FoundModel, config: AppConfig) -> Loaded:
    infer = config.infer
    limits = DecodeLimits(infer.max_image_bytes, infer.max_image_pixels)
    before, started = resident_bytes(), time.perf_counter()
    predictor = load_found(found, infer.device, limits, infer.tta, threads=_threads(config.benchmark))
    seconds, after = time.perf_counter() - started, resident_bytes()
    return Loaded(predictor, seconds, None if before is None or after is None else after - before)


def _threads(settings: BenchmarkConfig) -> int | None:
    return None if settings.threads == "auto" else settings.threads


def _names(models: Sequence[Loaded]) -> str:
    return ", ".join(Path(model.predictor.identity.path).name for model in models)


def _all_figures(
    models: Sequence[Loaded], laps: Sequence[Laps], photos: int, threads: int | None
) -> Iterator[ModelFigures]:
    for model, own in zip(models, laps, strict=True):
        yield _figures(model, own, photos, threads, None if own is laps[0] else _against(own, laps[0]))


def _figures(
    loaded: Loaded, laps: Laps, photos: int, threads: int | None, against_first: Against | None
) -> ModelFigures:
    predictor = loaded.predictor
    members = predictor.members
    seconds = [lap.seconds for lap in laps.single]
    return ModelFigures(
        model=predictor.identity,
        views=predictor.views,
        runtimes=tuple(dict.fromkeys(member.engine.runtime for member in members)),
        threads=threads_of(members[0].engine.runtime, threads),
        image_sizes_px=tuple(dict.fromkeys(each.metadata.preprocessing.image_size_px for each in members)),
        file_bytes=sum(Path(member.identity.path).stat().st_size for member in members),
        loaded_s=loaded.seconds,
        loaded_bytes=loaded.grown_bytes,
        bytes_to_verdict=durations(seconds),
        round_p50_ms=round_medians(seconds, photos),
        stages=stages_of(laps.single),
        network=durations(laps.bare),
        ratio_to_network=median_ratio(seconds, laps.bare),
        batches=tuple(batch_figures(size, each) for size, each in laps.batches.items()),
        against_first=against_first,
    )


def _against(laps: Laps, first: Laps) -> Against:
    times = median_ratio([lap.seconds for lap in laps.single], [lap.seconds for lap in first.single])
    return against(laps.answers, first.answers, times, median_ratio(laps.bare, first.bare))
