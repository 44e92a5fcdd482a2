"""Where and since when a process trains."""

import time
from dataclasses import dataclass

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.training.devices import resolve_precision
from cassava_leaf_disease.training.provenance import hardware, utc_now


@dataclass(frozen=True)
class Session:
    """Where and since when this process trains."""

    precision: str
    hardware: str
    started_at: str
    started_s: float  # of `time.perf_counter`


def open_session(config: AppConfig, accelerator: str, processes: int) -> Session:
    """Settles the precision, and starts the clock."""
    return Session(
        precision=resolve_precision(config.train, accelerator),
        hardware=hardware(accelerator, processes),
        started_at=utc_now(),
        started_s=time.perf_counter(),
    )
