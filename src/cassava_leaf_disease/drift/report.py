"""`cassava drift`: what was answered in a period, held against the model's reference."""

import logging
import os
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.drift.compare import FeatureDrift, Level, Thresholds, compare
from cassava_leaf_disease.drift.recorder import counted_models, open_statistics, read_counts, today
from cassava_leaf_disease.drift.reference import DriftReference, load_reference, reference_path
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.storage.database import sqlite_path

logger = logging.getLogger(__name__)

URL_VARIABLE: Final = "CASSAVA_STATISTICS_URL"
_WORST_FIRST: Final[tuple[Level, ...]] = ("alarm", "watch", "stable", "too_few")


class DriftReport(BaseModel):
    """How far each feature has moved; `level` is the worst of them, `photos` how many answers the period has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    model: str
    reference: Path
    reference_data: str
    first_day: date
    last_day: date
    photos: int
    watch: float
    alarm: float
    features: tuple[FeatureDrift, ...]


def drift(config: AppConfig) -> DriftReport:
    """Compares the answers of the last `drift.days` days with the reference of the model.

    Raises:
        CassavaError: No counts, no reference, or counts of other models only.
    """
    settings = config.drift
    path = settings.reference or reference_path(_model_path(config))
    reference = load_reference(path)
    last = settings.until or today()
    first = last - timedelta(days=settings.days - 1)
    seen = _counts(config, reference, first, last)
    features = compare(reference.counts, seen, Thresholds(settings.watch, settings.alarm, settings.min_photos))
    report = DriftReport(
        level=min((feature.level for feature in features), key=_WORST_FIRST.index),
        model=reference.key,
        reference=path,
        reference_data=reference.data,
        first_day=first,
        last_day=last,
        photos=sum(seen["verdict"]),
        watch=settings.watch,
        alarm=settings.alarm,
        features=features,
    )
    for line in table_of(report):
        logger.info("%s", line)
    return report


def table_of(report: DriftReport) -> list[str]:
    """The report as lines for people, with the bin that moved most of each feature."""
    lines = [
        f"{report.photos} photos from {report.first_day} to {report.last_day}: {report.level}",
        f"{'feature':<12}{'photos':>8}{'PSI':>8}{'chance':>8}  {'level':<9}moved most",
    ]
    for feature in report.features:
        most = max(feature.shares, key=lambda share: abs(share.seen - share.expected))
        psi = ["-" if value is None else f"{value:.3f}" for value in (feature.psi, feature.noise)]
        moved = f"{most.bin}: {most.expected:.0%} expected, {most.seen:.0%} seen" if feature.photos else "-"
        lines.append(f"{feature.feature:<12}{feature.photos:>8}{psi[0]:>8}{psi[1]:>8}  {feature.level:<9}{moved}")
    return lines


def _model_path(config: AppConfig) -> Path:
    from cassava_leaf_disease.inference.discover import find_model

    return find_model(config).path


def _counts(config: AppConfig, reference: DriftReference, first: date, last: date) -> dict[str, tuple[int, ...]]:
    url = config.drift.statistics_url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(f"no counts of answers; type drift.statistics_url=sqlite:///FILE, or set {URL_VARIABLE}")
    file = sqlite_path(url)
    if file is not None and not file.is_file():
        raise DataError(f"{file}: no such file; expected the counts that a service with {URL_VARIABLE} writes")
    database = open_statistics(url)
    try:
        source = None if config.drift.source == "all" else config.drift.source
        seen = read_counts(database, reference.key, first, last, source)
        others = counted_models(database, first, last)
    finally:
        database.close()
    if not sum(seen["verdict"]) and others and reference.key not in others:
        raise DataError(
            f"no answers of {reference.key} from {first} to {last}, but of {', '.join(others[:5])}; expected the "
            "reference of the model that answered; type drift.reference=FILE"
        )
    return seen
