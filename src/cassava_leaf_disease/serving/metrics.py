"""What Prometheus is told."""

from collections.abc import Sequence
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from cassava_leaf_disease import __version__
from cassava_leaf_disease.domain import ModelIdentity, PlantPrediction, Prediction
from cassava_leaf_disease.drift.compare import FeatureDrift
from cassava_leaf_disease.feedback.store import Feedback

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Stage = Literal["decode", "queue", "inference", "total"]
Rejection = Literal["full", "memory", "deadline", "gone"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second number for each one, of when it was first seen
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests by path and status", "method", "path", "status")
        self._seconds = self._histogram("request_seconds", "Seconds from first to last byte", _SECONDS, "path")
        self._stages = self._histogram("stage_seconds", "Seconds of a photo in each stage", _SECONDS, "stage")
        self._batches = self._histogram("batch_size", "Photos that the network saw at once", (1, 2, 4, 8, 16, 32, 64))
        self._verdicts = self._counter("verdicts", "Answers by verdict", "verdict")
        self._classes = self._counter("predictions", "Answers by class", "class_name")
        self._plants = self._counter("plant_verdicts", "Answers about plants by verdict", "verdict")
        self._rejected = self._counter("rejected", "Requests that were given up, and why", "reason")
        self._drift = Gauge(
            "cassava_drift_psi", "Population stability index of answers", ("feature",), registry=self.registry
        )
        self._drift_photos = Gauge(
            "cassava_drift_photos", "Answers that the index is made of", ("feature",), registry=self.registry
        )
        self._feedback = self._counter("feedback", "Feedbacks that were kept", "source", "said")
        self._forgotten = self._counter("feedback_forgotten", "Feedbacks that were deleted on request")
        self._reloads = self._counter("model_reloads", "Looks at a changed model file", "result")
        self._model = Gauge("cassava_model_info", "The model that answers", ("name", "version"), registry=self.registry)
        self._pending = Gauge("cassava_pending_photos", "Photos that wait or are worked on", registry=self.registry)
        package = Gauge("cassava_package_info", "The package", ("version",), registry=self.registry)
        package.labels(__version__).set(1)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request has been answered."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        """A photo has left a stage; any thread may tell."""
        self._stages.labels(stage).observe(seconds)

    def batch(self, photos: int) -> None:
        """The network has seen so many photos at once."""
        self._batches.observe(photos)

    def answer(self, prediction: Prediction) -> None:
        """A photo has its answer."""
        self._verdicts.labels(prediction.verdict).inc()
        self._classes.labels(prediction.class_name).inc()

    def plant(self, plant: PlantPrediction) -> None:
        """A plant has its answer; its photos were counted each."""
        self._plants.labels(plant.verdict).inc()

    def feedback(self, feedback: Feedback) -> None:
        """Somebody has said what an answer was worth."""
        said = "nothing" if feedback.correct is None else "right" if feedback.correct == "right" else "wrong"
        self._feedback.labels(feedback.source, said).inc()

    def forgotten(self, count: int) -> None:
        """So many feedbacks have been deleted."""
        self._forgotten.inc(count)

    def drift(self, features: Sequence[FeatureDrift]) -> None:
        """How far answers have moved from the model's reference; features with too few photos have no index."""
        self._drift.clear()
        self._drift_photos.clear()
        for feature in features:
            self._drift_photos.labels(feature.feature).set(feature.photos)
            if feature.psi is not None:
                self._drift.labels(feature.feature).set(feature.psi)

    def rejected(self, reason: Rejection) -> None:
        """A request has been given up."""
        self._rejected.labels(reason).inc()

    def pending(self, photos: int) -> None:
        """So many photos wait or are worked on."""
        self._pending.set(photos)

    def model(self, identity: ModelIdentity) -> None:
        """Another model answers from now on."""
        self._model.clear()
        self._model.labels(identity.name, identity.version).set(1)

    def reload(self, result: Literal["ok", "failed"]) -> None:
        """A changed model file was taken, or not."""
        self._reloads.labels(result).inc()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"cassava_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"cassava_{name}", what, labels, registry=self.registry, buckets=buckets)
