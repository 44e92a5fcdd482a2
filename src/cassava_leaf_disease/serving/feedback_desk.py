"""The service's side of the store of feedback: one request after another, in a thread of its own."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.feedback.store import Feedback, FeedbackStore, open_store
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.replies import RequestError
from cassava_leaf_disease.serving.settings import ServingSettings
from cassava_leaf_disease.storage.database import check_address

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class FeedbackDesk:
    """Takes feedback where the settings name a store; it is opened with the service, or when it can be reached."""

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._store: FeedbackStore | None = None
        self._thread: ThreadPoolExecutor | None = None
        if settings.feedback_url is not None:
            check_address(settings.feedback_url.get_secret_value())

    @property
    def is_open(self) -> bool:
        """Whether feedback is taken here."""
        return self._settings.feedback_url is not None

    async def start(self) -> None:
        """Opens the store; one that cannot be reached is told in the log, and tried again with each request."""
        if not self.is_open:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cassava-feedback")
        try:
            await self._in_thread(lambda _: None)
        except CassavaError as error:
            _log.error("feedback cannot be kept now: %s", error)

    async def close(self) -> None:
        """Finishes what has begun, and closes the store."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        if self._store is not None:
            self._store.close()
            self._store = None

    async def add(self, feedback: Feedback, photo: bytes, receipt: str | None) -> str:
        """Keeps a feedback and gives its receipt; see `FeedbackStore.add`."""

        def add(store: FeedbackStore) -> str:
            most = self._settings.feedback_max_rows
            if store.count() >= most:
                raise RequestError(507, f"a store of {most:,} feedbacks, which is full", "an operator to export them")
            return store.add(feedback, photo, receipt)

        given = await self._in_thread(add)
        self._metrics.feedback(feedback)
        return given

    async def forget(self, *, contributor: str | None, receipt: str | None) -> int:
        """Deletes feedback and says how much; see `FeedbackStore.forget`."""
        count = await self._in_thread(lambda store: store.forget(contributor=contributor, receipt=receipt))
        self._metrics.forgotten(count)
        return count

    def require_open(self) -> None:
        """Refuses where no feedback is taken.

        Raises:
            RequestError: The settings name no store.
        """
        if not self.is_open:
            raise RequestError(404, "a service that keeps no feedback", "an operator to set CASSAVA_FEEDBACK_URL")

    async def _in_thread(self, work: Callable[[FeedbackStore], Answer]) -> Answer:
        assert self._thread is not None  # noqa: S101  `start` has been awaited
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))

    def _opened(self) -> FeedbackStore:
        url = self._settings.feedback_url
        assert url is not None  # noqa: S101  `require_open` has been asked
        if self._store is None:
            limits = DecodeLimits(self._settings.max_upload_bytes, self._settings.max_image_pixels)
            self._store = open_store(url.get_secret_value(), self._settings.feedback_photos, limits)
        return self._store
