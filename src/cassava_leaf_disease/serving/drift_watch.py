"""The service's counts of its answers, and what Prometheus is told of how far they have moved."""

import logging
from datetime import timedelta
from pathlib import Path

from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.drift.compare import Thresholds, compare
from cassava_leaf_disease.drift.recorder import Recorder, today
from cassava_leaf_disease.drift.reference import load_reference, reference_path
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.serving.answerers import Answerer, LocalAnswerer
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.settings import ServingSettings
from cassava_leaf_disease.storage.database import check_address

_log = logging.getLogger(__name__)


class DriftWatch:
    """Counts every answer; where the model has a reference, the gauges follow within a flush of the counts."""

    def __init__(self, settings: ServingSettings, answerer: Answerer, metrics: Metrics) -> None:
        url = None if settings.statistics_url is None else settings.statistics_url.get_secret_value()
        if url is not None:
            check_address(url)
        self._settings = settings
        self._answerer = answerer
        self._metrics = metrics
        self._told: str | None = None
        self.recorder = Recorder("service", url, after_flush=self.update)

    def start(self) -> None:
        """Counts are written from now on."""
        self.recorder.start()

    def close(self) -> None:
        """Writes what is left."""
        self.recorder.close()

    def answer(self, prediction: Prediction) -> None:
        """A photo has its answer."""
        self.recorder.record(prediction)

    def update(self) -> None:
        """Compares the last days with the reference, and sets the gauges; none where there is no reference."""
        path = self._reference()
        try:
            if path is None or not path.is_file():
                self._metrics.drift(())
                return
            reference = load_reference(path)
            last = today()
            first = last - timedelta(days=self._settings.drift_days - 1)
            self._metrics.drift(
                compare(reference.counts, self.recorder.counts(reference.key, first, last), Thresholds())
            )
            self._told = None
        except CassavaError as error:
            self._metrics.drift(())
            if self._told != str(error):
                _log.warning("no figures of drift: %s", error)
            self._told = str(error)

    def _reference(self) -> Path | None:
        if self._settings.drift_reference is not None:
            return self._settings.drift_reference
        if isinstance(self._answerer, LocalAnswerer) and self._answerer.keeper.current is not None:
            return reference_path(Path(self._answerer.keeper.current.predictor.identity.path))
        return None
