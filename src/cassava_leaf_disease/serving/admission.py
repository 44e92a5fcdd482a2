"""How much is let in: a bounded queue, a deadline, and nothing more for clients that went away."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.replies import ClientGoneError

Answer = TypeVar("Answer")
Receive = Callable[[], Awaitable[Any]]

_SMOOTHING: Final = 0.1  # share of the newest answer in the running mean of seconds
_LONGEST_RETRY_S: Final = 60


class Admission:
    """Counts the photos that wait or are worked on, and tells those that find no room when to come again."""

    def __init__(self, workers: int, queue_size: int, metrics: Metrics) -> None:
        self._most = workers + queue_size
        self._metrics = metrics
        self._mean_s = 0.0  # from entry to answer: by Little's law as long as all that wait now will take
        self.pending = 0

    def check(self, photos: int = 1) -> None:
        """Refuses early, before a photo has been uploaded in vain.

        Raises:
            BusyError: So many photos more have no room.
        """
        if self.pending + photos > self._most:
            self._metrics.rejected("full")
            raise BusyError(
                f"{self.pending} photos wait or are worked on here; expected room for {photos} more among "
                f"{self._most}; try again later",
                self.retry_after_s,
            )

    @property
    def retry_after_s(self) -> int:
        """When it may be worth to come again."""
        return max(1, min(math.ceil(self._mean_s), _LONGEST_RETRY_S))

    @contextlib.contextmanager
    def admitted(self, photos: int) -> Iterator[None]:
        """Room for so many photos while the block runs.

        Raises:
            BusyError: There is none.
        """
        self.check(photos)
        self._count(photos)
        started = time.perf_counter()
        try:
            yield
        finally:
            self._mean_s += _SMOOTHING * (time.perf_counter() - started - self._mean_s)
            self._count(-photos)

    async def answer(self, work: Awaitable[Answer], receive: Receive, deadline_s: float) -> Answer:
        """What `work` gives, unless the client goes away or the deadline passes: then the work is cancelled.

        Raises:
            ClientGoneError: The client went away.
            BusyError: The deadline has passed.
        """
        watch = _Watch(receive)
        try:
            async with asyncio.timeout(deadline_s):
                return await work
        except TimeoutError:
            self._metrics.rejected("deadline")
            raise BusyError(
                f"no answer within {deadline_s:g} s; expected a less busy moment; try again later", self.retry_after_s
            ) from None
        except asyncio.CancelledError:
            if not watch.gone:
                raise
            self._metrics.rejected("gone")
            raise ClientGoneError("the client went away before its answer was ready") from None
        finally:
            watch.end()

    def _count(self, photos: int) -> None:
        self.pending += photos
        self._metrics.pending(self.pending)


class _Watch:
    """Cancels the task that made it when the client of a request, whose body has been read, goes away."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._watched = asyncio.current_task()
        self._task = asyncio.create_task(self._until_gone(receive))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._watched is not None:
            self._watched.cancel()

    def end(self) -> None:
        """Stops looking; a cancellation that it made is taken back."""
        self._task.cancel()
        if self.gone and self._watched is not None:
            self._watched.uncancel()
