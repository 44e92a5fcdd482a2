"""What answers about photos: the shape that the service knows, and the engine in this process."""

import asyncio
import functools
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from cassava_leaf_disease.domain import ModelIdentity, Prediction
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.inference.aggregate import Pooling, pooling_for
from cassava_leaf_disease.inference.explain import draw_heatmap
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.views import UInt8Image
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.serving.keeper import LoadedModel, ModelKeeper
from cassava_leaf_disease.serving.metrics import Metrics

Answer = TypeVar("Answer")

_PNG_LEVEL: Final = 3  # half the time of 6, for a twentieth more bytes


@dataclass(frozen=True)
class About:
    """What answers: its identity, the self-descriptions of its networks, and how a plant's photos become one."""

    identity: ModelIdentity
    members: tuple[ModelMetadata, ...]
    views: tuple[str, ...]
    min_confidence: float
    pooling: Pooling


class Answerer(Protocol):
    """Bytes to an answer; calls may overlap, and a cancelled one costs nothing more than what it has begun."""

    async def predict_bytes(self, data: bytes, *, name: str, top_k: int) -> Prediction:
        """The answer about one JPEG or PNG file; raises a `CassavaError` where there is none."""
        ...

    async def about(self) -> About:
        """What answers now; raises a `CassavaError` where nothing does."""
        ...

    async def is_ready(self) -> bool:
        """Whether a model would answer now."""
        ...

    async def close(self) -> None:
        """Ends what has been begun, and gives everything back."""
        ...


class LocalAnswerer:
    """The model in this process: each worker thread decodes a photo and asks the network about it.

    ONNX Runtime and Pillow work without Python's lock, so threads are enough. A photo that has the machine to
    itself is answered by a session that uses all processors, photos that come together by one thread each.
    """

    def __init__(self, keeper: ModelKeeper, limits: DecodeLimits, workers: int, metrics: Metrics) -> None:
        self.keeper = keeper
        self._limits = limits
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="cassava-worker")
        self._unfinished = 0

    async def predict_bytes(self, data: bytes, *, name: str, top_k: int) -> Prediction:
        """The answer about one photo; see `Answerer`."""

        def answer(model: LoadedModel) -> Prediction:
            image = self._decoded(data, name)
            predictor = self._suited(model)
            started = time.perf_counter()
            prediction = predictor.predict_image(image, name=name, top_k=top_k)
            self._metrics.stage("inference", time.perf_counter() - started)
            self._metrics.batch(1)
            return prediction

        return await self._in_a_worker(answer)

    async def explain(self, data: bytes, *, name: str, class_id: int | None) -> bytes:
        """A PNG of the photo under the heatmap of a class, of the predicted one where none is named.

        Raises:
            NoClassMapsError: The model file has no maps.
            CassavaError: As `predict_bytes`.
        """

        def draw(model: LoadedModel) -> bytes:
            picture = draw_heatmap(self._suited(model), self._decoded(data, name), class_id)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", compress_level=_PNG_LEVEL)
            return buffer.getvalue()

        return await self._in_a_worker(draw)

    async def about(self) -> About:
        """The model that is loaded."""
        predictor = self.keeper.require().predictor
        return About(
            predictor.identity,
            predictor.described,
            predictor.views,
            predictor.min_confidence,
            pooling_for(predictor),
        )

    async def is_ready(self) -> bool:
        """Whether a model is loaded and warm."""
        return self.keeper.current is not None

    async def close(self) -> None:
        """Waits for the photos that are being worked on; those that wait are dropped."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _in_a_worker(self, job: Callable[[LoadedModel], Answer]) -> Answer:
        self.keeper.require()
        self._unfinished += 1
        try:
            work = functools.partial(self._work, job, time.perf_counter())
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._unfinished -= 1

    def _work(self, job: Callable[[LoadedModel], Answer], submitted: float) -> Answer:
        self._metrics.stage("queue", time.perf_counter() - submitted)
        return job(self.keeper.require())

    def _decoded(self, data: bytes, name: str) -> UInt8Image:
        started = time.perf_counter()
        image = decode_image(data, self._limits, name=name)
        self._metrics.stage("decode", time.perf_counter() - started)
        return image

    def _suited(self, model: LoadedModel) -> AnyPredictor:
        return model.wide if model.wide is not None and self._unfinished == 1 else model.predictor
