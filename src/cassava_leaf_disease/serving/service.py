"""What the endpoints work with: one request's photos in, an answer or a refusal out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import Request

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.domain import PlantPrediction, Prediction
from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.inference.aggregate import combine_photos
from cassava_leaf_disease.serving.admission import Admission
from cassava_leaf_disease.serving.answerers import Answerer
from cassava_leaf_disease.serving.drift_watch import DriftWatch
from cassava_leaf_disease.serving.feedback_desk import FeedbackDesk
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.offline import OfflineOffer
from cassava_leaf_disease.serving.replies import RequestError
from cassava_leaf_disease.serving.settings import ServingSettings
from cassava_leaf_disease.serving.uploads import Form, Photo, UploadLimits, UploadMemory, read_form

Answer = TypeVar("Answer")

_PLANT_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Service:
    """The parts of a running service."""

    settings: ServingSettings
    metrics: Metrics
    answerer: Answerer
    admission: Admission
    memory: UploadMemory
    offline: OfflineOffer
    feedback: FeedbackDesk
    drift: DriftWatch

    @contextlib.asynccontextmanager
    async def form(
        self, request: Request, field: str, max_files: int, texts: frozenset[str] = frozenset()
    ) -> AsyncIterator[Form]:
        """The photos and texts of a request, held in memory while the block runs.

        Raises:
            CassavaError: As `read_form`; or the queue is full, which is told before anything is read.
        """
        self.admission.check()
        limits = UploadLimits(self.settings.max_upload_bytes, max_files)
        with self.memory.lease() as lease:
            try:
                async with asyncio.timeout(self.settings.upload_timeout_s):
                    form = await read_form(request, field, limits, lease, texts)
            except TimeoutError:
                limit_s = self.settings.upload_timeout_s
                raise RequestError(
                    408, f"an upload that took over {limit_s:g} s", "a faster one, or a smaller photo"
                ) from None
            yield form

    @contextlib.asynccontextmanager
    async def photos(self, request: Request, field: str, max_files: int) -> AsyncIterator[list[Photo]]:
        """The photos of a request alone; see `form`."""
        async with self.form(request, field, max_files) as form:
            yield form.photos

    async def answer(self, request: Request, photos: int, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `work` gives, within the bounds of queue and deadline."""
        with self.admission.admitted(photos):
            return await self.admission.answer(work(), request.receive, self.settings.deadline_s)

    async def predict(self, photo: Photo, top_k: int) -> Prediction:
        """The answer about one photo, counted."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        prediction = await self.answerer.predict_bytes(photo.data, name=photo.name, top_k=top_k)
        self.metrics.stage("total", loop.time() - started)
        self.metrics.answer(prediction)
        self.drift.answer(prediction)
        return prediction

    async def predict_plant(self, photos: Sequence[Photo], top_k: int) -> PlantPrediction:
        """The answer about a plant; asked again if the model was replaced between its photos."""
        for _ in range(_PLANT_ATTEMPTS):
            about = await self.answerer.about()
            predictions = await _together([self.predict(photo, top_k) for photo in photos])
            if {prediction.model.version for prediction in predictions} == {about.identity.version}:
                plant = combine_photos(predictions, about.min_confidence, about.pooling)
                self.metrics.plant(plant)
                return plant
        raise BusyError("the model is being replaced; expected one model for all photos of a plant; try again")


async def _together(works: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """All answers, in order; the first failure cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def number_of_workers(settings: ServingSettings) -> int:
    """Photos that are worked on at a time."""
    return available_cpus() if settings.workers == "auto" else settings.workers
