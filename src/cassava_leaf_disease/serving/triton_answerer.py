"""A Triton server that answers in our place."""

import time

from cassava_leaf_disease.domain import ModelIdentity, Prediction
from cassava_leaf_disease.inference.aggregate import pooling_of
from cassava_leaf_disease.inference.engines.triton import TritonClient, require_client
from cassava_leaf_disease.serving.answerers import About
from cassava_leaf_disease.serving.metrics import Metrics


class TritonAnswerer:
    """Hands the bytes on, and tells the metrics; see `Answerer`.

    A server that is down is asked again with the next request: it needs no restart of ours when it is back.
    """

    def __init__(self, url: str, timeout_s: float, metrics: Metrics) -> None:
        require_client()
        self._client = TritonClient(url, timeout_s=timeout_s)
        self._metrics = metrics
        self._answered: ModelIdentity | None = None

    async def predict_bytes(self, data: bytes, *, name: str, top_k: int) -> Prediction:
        """The server's answer; the stage `inference` is all that happens there."""
        started = time.perf_counter()
        prediction = await self._client.predict_bytes(data, name=name, top_k=top_k)
        self._metrics.stage("inference", time.perf_counter() - started)
        self._note(prediction.model)
        return prediction

    async def about(self) -> About:
        """What the server says that it serves."""
        served = await self._client.describe()
        identity = self._client.identity(served)
        self._note(identity)
        members = tuple(member.metadata for member in served.members)
        pooling = pooling_of(members, [member.weight for member in served.members], served.class_prior)
        described = tuple(each for member in members for each in member.members or (member,))
        return About(identity, described, served.views, served.thresholds.min_confidence, pooling)

    async def is_ready(self) -> bool:
        """Whether the server has the model loaded."""
        return await self._client.is_ready()

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.close()

    def _note(self, identity: ModelIdentity) -> None:
        if identity != self._answered:
            self._answered = identity
            self._metrics.model(identity)
