"""The report as one HTML page that needs no other file, no script and no network."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.report.charts import short_name
from cassava_leaf_disease.evaluation.report.gallery import Shown
from cassava_leaf_disease.evaluation.report.numbers import Report
from cassava_leaf_disease.imaging.data_uri import data_uri

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Gallery:
    """Photos of a kind: the surest mistakes, the worst ones of each class, or classes that are none of ours."""

    kind: Literal["surest", "worst", "foreign"]
    photos: tuple[Shown, ...]


@dataclass(frozen=True)
class Inline:
    """A figure inside of the page."""

    uri: str
    width_px: int
    height_px: int


def render_page(report: Report, figures: Mapping[str, Path], galleries: Sequence[Gallery]) -> str:
    """The page, with its figures inside; whatever names hold, they are text on it and never markup."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "points": points, "p_value": p_value, "short": short_name}
    template = environment.from_string((files(__package__) / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        report=report,
        figures={name: _inline(path.read_bytes()) for name, path in figures.items()},
        galleries={gallery.kind: gallery.photos for gallery in galleries},
        heatmaps=any(photo.heat for gallery in galleries for photo in gallery.photos),
        class_names=CLASS_NAMES,
        average_precisions=", ".join(
            f"{short_name(line.name)} {percent(line.average_precision)}"
            for line in report.classes
            if line.average_precision is not None
        ),
        letters=[chr(ord("B") + index) for index in range(len(report.comparisons))],
    )


def _inline(png: bytes) -> Inline:
    width, height = struct.unpack(">II", png[16:24])  # of its first chunk, IHDR
    return Inline(data_uri("image/png", png), width, height)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as people read it; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.{digits}f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """A p-value to three digits; not 0, which it never is."""
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
