"""The figures as lines for people."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cassava_leaf_disease.benchmark.result import BenchmarkResult, ModelFigures


def lines_of(result: BenchmarkResult) -> Iterator[str]:
    """What was measured on what, then a table of the models and one of where their time goes."""
    machine, photos = result.machine, result.photos
    vnni = {True: ", VNNI", False: ", no VNNI", None: ""}[machine.vnni]
    gpu = f", {machine.gpu}" if machine.gpu else ""
    yield f"{machine.cpus} processors of {machine.processor}{vnni}{gpu}; {result.clock} time"
    yield f"{photos.count} {'drawn leaves' if photos.origin == 'drawn' else 'photos'} of {_size(result)}"
    yield from _columns([_HEAD, *(_row(model) for model in result.models)])
    stages = [each.stage for each in result.models[0].stages]
    yield "where the time goes, ms and share"
    yield from _columns([["model", *stages], *(_stage_row(model) for model in result.models)])
    for model in result.models[1:]:
        yield _against(model)
    if result.ended_by == "time":
        yield "time was over before all rounds were done; benchmark.seconds gives more"


_HEAD = ["model", "p50 ms", "p95 ms", "network ms", "ratio", "photos/s (batch)", "loaded s"]


def _row(model: ModelFigures) -> list[str]:
    whole = model.bytes_to_verdict
    batches = ", ".join(f"{each.photos_per_second:.1f} ({each.batch_size})" for each in model.batches)
    return [
        _name(model),
        f"{whole.p50_ms:.1f}",
        "-" if whole.p95_ms is None else f"{whole.p95_ms:.1f}",
        f"{model.network.p50_ms:.1f}",
        f"{model.ratio_to_network:.2f}",
        batches or "-",
        f"{model.loaded_s:.1f}",
    ]


def _stage_row(model: ModelFigures) -> list[str]:
    return [_name(model), *(f"{each.p50_ms:.1f} {each.share:.0%}" for each in model.stages)]


def _against(model: ModelFigures) -> str:
    found = model.against_first
    assert found is not None  # noqa: S101  of all but the first
    return (
        f"{_name(model)}: {found.time_ratio:.2f} of the first one's time, {found.network_ratio:.2f} of its network's; "
        f"{found.same_class:.0%} of {found.photos} answers name the same class, {found.same_verdict:.0%} have the same "
        f"verdict"
    )


def _name(model: ModelFigures) -> str:
    return f"{Path(model.model.path).name} on {', '.join(model.runtimes)}"


def _size(result: BenchmarkResult) -> str:
    photos, peak = result.photos, result.peak_bytes
    memory = "" if peak is None else f"; at most {peak / 1e6:.0f} MB of memory"
    return f"{photos.width_px}x{photos.height_px} and {photos.file_bytes / 1e3:.0f} kB{memory}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        yield "  ".join(cells)
