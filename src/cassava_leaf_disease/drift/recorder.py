"""Counts answers by day, in memory first and every few seconds into a database, which several processes may share.

What is counted and not yet written is lost where the process is killed: the answers of at most `flush_s` seconds. A
database that cannot be reached loses none while the process lives: counts wait in memory, where they take a few
hundred numbers a day however many answers there are.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.drift.features import FEATURES, Counts, key_of, observe
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.storage.database import Database, open_database

logger = logging.getLogger(__name__)

Source = Literal["service", "bot"]
Key = tuple[str, str, str, str, int]  # day, source, model, feature, bin

FLUSH_S: Final = 10.0
KEEP_DAYS: Final = 400
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS answer_counts (day TEXT, source TEXT, model TEXT, feature TEXT, bin INTEGER, "
    "photos INTEGER NOT NULL, PRIMARY KEY (day, source, model, feature, bin))"
)


def today() -> date:
    """The day that counts now, in UTC."""
    return datetime.now(UTC).date()


class Recorder:
    """Counts what one door answers; without an address of a database the counts end with the process."""

    def __init__(
        self,
        source: Source,
        url: str | None,
        *,
        flush_s: float = FLUSH_S,
        after_flush: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._url = url
        self._flush_s = flush_s
        self._after_flush = after_flush
        self._database: Database | None = None
        self._pending: Counter[Key] = Counter()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self) -> None:
        """Writes every `flush_s` seconds from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="cassava-statistics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what is left, and ends."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        if self._database is not None:
            self._database.close()
            self._database = None

    def record(self, prediction: Prediction) -> None:
        """Counts one answer; any thread may tell, and waits for no disk."""
        day, model = today().isoformat(), key_of(prediction.model)
        with self._lock:
            for feature, place in observe(prediction):
                self._pending[day, self._source, model, feature, place] += 1

    def flush(self) -> None:
        """Brings the counts into the database, if there is one; a failure is told in the log, once."""
        oldest = (today() - timedelta(days=KEEP_DAYS)).isoformat()
        with self._writing:
            if self._url is None:
                with self._lock:
                    self._pending = Counter({key: n for key, n in self._pending.items() if key[0] >= oldest})
                return
            with self._lock:
                taken, self._pending = self._pending, Counter()
            try:
                self._write(taken, oldest)
            except CassavaError as error:
                with self._lock:
                    self._pending.update(taken)
                if not self._failed:
                    logger.warning("counts of answers wait in memory: %s", error)
                self._failed = True
            else:
                self._failed = False

    def counts(self, model: str, first: date, last: date) -> Counts:
        """All counts of a model's answers in a period, both days included, written or not, of all doors.

        Raises:
            CassavaError: The database cannot be read.
        """
        with self._writing:
            written = {} if self._url is None else read_counts(self._opened(), model, first, last)
            with self._lock:
                pending = list(self._pending.items())
        bins = {name: list(written.get(name, (0,) * len(feature.bins))) for name, feature in FEATURES.items()}
        for (day, _, of_model, feature, place), number in pending:
            if of_model == model and first.isoformat() <= day <= last.isoformat():
                bins[feature][place] += number
        return {name: tuple(numbers) for name, numbers in bins.items()}

    def _run(self) -> None:
        while not self._end.wait(self._flush_s):
            self.flush()
            if self._after_flush is not None:
                self._after_flush()

    def _write(self, taken: Counter[Key], oldest: str) -> None:
        if not taken:
            return
        with self._opened().transaction() as execute:
            for key, number in taken.items():
                execute(
                    "INSERT INTO answer_counts VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (day, source, model, feature, bin) DO UPDATE "
                    "SET photos = answer_counts.photos + excluded.photos",
                    (*key, number),
                )
            execute("DELETE FROM answer_counts WHERE day < ?", (oldest,))

    def _opened(self) -> Database:
        assert self._url is not None  # noqa: S101  those who call have looked
        if self._database is None:
            self._database = open_statistics(self._url)
        return self._database


def open_statistics(url: str) -> Database:
    """The database of counts at an address, made if it is not there.

    Raises:
        CassavaError: As `open_database`.
    """
    database = open_database(url)
    with database.transaction() as execute:
        execute(_TABLE)
    return database


def read_counts(
    database: Database, model: str, first: date, last: date, source: Source | None = None
) -> dict[str, tuple[int, ...]]:
    """The written counts of a model's answers in a period, both days included; of one door, or of all.

    Raises:
        DatabaseError: The database cannot be read.
    """
    with database.transaction() as execute:
        rows = execute(
            "SELECT feature, bin, SUM(photos) FROM answer_counts WHERE model = ? AND day BETWEEN ? AND ? "
            "AND (source = ? OR ? = 'all') GROUP BY feature, bin",
            (model, first.isoformat(), last.isoformat(), source or "all", source or "all"),
        )
    bins = {name: [0] * len(feature.bins) for name, feature in FEATURES.items()}
    for feature, place, number in rows:
        if feature in bins and 0 <= place < len(bins[feature]):
            bins[feature][place] = int(number)
    return {name: tuple(numbers) for name, numbers in bins.items()}


def counted_models(database: Database, first: date, last: date) -> list[str]:
    """The models whose answers were counted in a period.

    Raises:
        DatabaseError: The database cannot be read.
    """
    with database.transaction() as execute:
        rows = execute(
            "SELECT DISTINCT model FROM answer_counts WHERE day BETWEEN ? AND ? ORDER BY model",
            (first.isoformat(), last.isoformat()),
        )
    return [str(model) for (model,) in rows]
