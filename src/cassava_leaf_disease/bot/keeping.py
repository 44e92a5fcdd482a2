"""The store of feedback and the counts of answers that the service's settings name; the bot shares them."""

import contextlib
import logging
import threading
from collections.abc import Iterator

from cassava_leaf_disease.bot.giving import Gift, Statistics, Store
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.drift.recorder import Recorder
from cassava_leaf_disease.errors import CassavaError, StorageError
from cassava_leaf_disease.feedback.store import Feedback, FeedbackStore, open_store
from cassava_leaf_disease.serving.settings import ServingSettings, settings_for
from cassava_leaf_disease.storage.database import check_address

_log = logging.getLogger(__name__)


class GiftStore:
    """Gifts in the store of feedback; opened at the start, or when it can be reached."""

    def __init__(self, url: str, photos: str | None, max_rows: int) -> None:
        check_address(url)
        self._url = url
        self._photos = photos
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._store: FeedbackStore | None = None

    def open(self) -> FeedbackStore:
        """The store.

        Raises:
            CassavaError: It cannot be reached.
        """
        with self._lock:
            if self._store is None:
                self._store = open_store(self._url, self._photos)
            return self._store

    def keep(self, gift: Gift) -> None:
        """See `Store`."""
        store = self.open()
        if store.count() >= self._max_rows:
            raise StorageError(f"a store of {self._max_rows:,} feedbacks, which is full; expected them to be exported")
        correct = gift.correct if gift.correct in (None, "right") else int(gift.correct)
        feedback = Feedback(
            contributor=gift.contributor, source="bot", answer=gift.answer, correct=correct, consent=True
        )
        store.add(feedback, gift.photo, gift.receipt)

    def forget(self, contributor: str) -> int:
        """See `Store`."""
        return self.open().forget(contributor=contributor)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._store is not None:
            self._store.close()


@contextlib.contextmanager
def as_set(config: AppConfig) -> Iterator[tuple[Store | None, Statistics]]:
    """The store, None where none is named, and the counts, which are written when the block ends.

    Raises:
        CassavaError: An address is wrong, or a library for it is missing.
    """
    settings = settings_for(config)
    with contextlib.ExitStack() as stack:
        recorder = Recorder("bot", _url_of(settings))
        stack.callback(recorder.close)
        recorder.start()
        if settings.feedback_url is None:
            yield None, recorder
            return
        store = GiftStore(
            settings.feedback_url.get_secret_value(), settings.feedback_photos, settings.feedback_max_rows
        )
        stack.callback(store.close)
        try:
            store.open()
        except CassavaError as error:
            _log.error("what users give cannot be kept now: %s", error)
        yield store, recorder


def _url_of(settings: ServingSettings) -> str | None:
    url = None if settings.statistics_url is None else settings.statistics_url.get_secret_value()
    if url is not None:
        check_address(url)
    return url
