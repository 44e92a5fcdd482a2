"""What has come and what is to be answered, on the disk before Telegram is told that it has come.

An update becomes a task in one transaction; only after that does the next `getUpdates` (or the webhook's 200) let
Telegram forget it. A task is finished in one transaction, after its answer has been delivered. So a process that is
killed at any moment leaves each update either with Telegram, or here as a task that is still to be done. Photos are
never here: Telegram keeps them, and they are fetched again.

Times are seconds since 1970. One process at a time: SQLite's lock is held for as long as the file is open.
"""

import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cassava_leaf_disease.domain import PlantPrediction
from cassava_leaf_disease.errors import ConfigError, StorageError

_log = logging.getLogger(__name__)

JsonObject = dict[str, Any]
DAY_S: Final = 86_400.0
_OFFSET_HOLDS_S: Final = DAY_S  # after a quiet week Telegram numbers anew, so an old offset is not to be used

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS updates (
        update_id INTEGER PRIMARY KEY, received_at REAL NOT NULL, task INTEGER, body TEXT)""",
    """CREATE TABLE IF NOT EXISTS tasks (
        id INTEGER PRIMARY KEY AUTOINCREMENT, chat INTEGER NOT NULL, person INTEGER NOT NULL, album TEXT,
        photos INTEGER NOT NULL, received_at REAL NOT NULL, due_at REAL NOT NULL, refused INTEGER NOT NULL,
        done INTEGER NOT NULL DEFAULT 0,
        claimed INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, placeholder INTEGER)""",
    "CREATE INDEX IF NOT EXISTS tasks_open ON tasks (done, claimed, due_at)",
    "CREATE INDEX IF NOT EXISTS tasks_person ON tasks (person, received_at)",
    "CREATE INDEX IF NOT EXISTS updates_task ON updates (task)",
    """CREATE TABLE IF NOT EXISTS answers (
        id INTEGER PRIMARY KEY, chat INTEGER NOT NULL, person INTEGER NOT NULL, message INTEGER NOT NULL,
        answered_at REAL NOT NULL, photos TEXT NOT NULL, own_photos INTEGER NOT NULL, plant TEXT NOT NULL,
        receipt TEXT NOT NULL, correct TEXT, settled INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS answers_chat ON answers (chat, answered_at)",
    """CREATE TABLE IF NOT EXISTS people (
        person INTEGER PRIMARY KEY, language TEXT, told_limit_at REAL NOT NULL DEFAULT 0)""",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Task:
    """One thing to answer: an update, or those of one album.

    `refused`: too much of the same user waited when it came. `placeholder` is the message that waits to be filled.
    """

    id: int
    chat: int
    person: int
    album: str | None
    photos: int
    received_at: float
    refused: bool
    attempts: int
    placeholder: int | None
    updates: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Answer:
    """What has been answered, for the buttons below it.

    `photos` are Telegram's ids of the photos that it rests on; the last `own_photos` of them came with its own
    message, those before with earlier ones of the same plant. `correct` is what the user said: "right", a class id as
    text, or "none".
    """

    id: int
    chat: int
    person: int
    message: int
    answered_at: float
    photos: tuple[str, ...]
    own_photos: int
    plant: PlantPrediction
    receipt: str
    correct: str | None
    settled: bool


@dataclass(frozen=True)
class Arrival:
    """What the ledger has to know of an update before anybody reads it."""

    update_id: int
    chat: int
    person: int
    album: str | None
    photos: int
    body: JsonObject


def read_arrival(update: JsonObject) -> Arrival | None:
    """Who sent an update, and what; None where nobody can be answered."""
    try:
        return _read_arrival(update)
    except (KeyError, TypeError, AttributeError):  # it would come again and again if it were not taken
        _log.warning("update %d is none that this version knows, and goes without an answer", update["update_id"])
        return None


def _read_arrival(update: JsonObject) -> Arrival | None:
    press, message = update.get("callback_query"), update.get("message")
    if press is not None:
        message = press.get("message")
    person = (press or message or {}).get("from")
    if message is None or person is None or person.get("is_bot"):
        return None
    photo = press is None and ("photo" in message or "document" in message)
    return Arrival(
        update["update_id"],
        int(message["chat"]["id"]),
        int(person["id"]),
        message.get("media_group_id") if photo else None,
        int(photo),
        update,
    )


class Ledger:
    """The SQLite file; at most `max_waiting` photos of one user wait. `clock` tells the time in seconds since 1970."""

    def __init__(
        self, path: Path, album_quiet_s: float, max_waiting: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._quiet_s = album_quiet_s
        self._max_waiting = max_waiting
        self._clock = clock
        self._path = path
        self._open = False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=2)
            # The lock is held from the first write on; a commit is on the disk when it returns.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                self._database.execute(f"PRAGMA {pragma}").fetchall()
            with self._transaction() as execute:
                for statement in _TABLES:
                    execute(statement)
                # What was being worked on when the last process ended; albums may still be incomplete.
                execute("UPDATE tasks SET claimed = 0 WHERE done = 0")
                execute(
                    "UPDATE tasks SET due_at = MAX(due_at, ?) WHERE done = 0 AND album IS NOT NULL",
                    (self._clock() + album_quiet_s,),
                )
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigError(
                    f"{path}: another bot works with that file; end it first, or type bot.state_path=FILE for a bot "
                    "with another token"
                ) from None
            raise StorageError(
                f"{path}: cannot be opened ({error}); expected a place where files can be made"
            ) from None
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{path}: no state of a bot ({error}); type bot.state_path=FILE") from None
        self._open = True
        path.chmod(0o600)

    def close(self) -> None:
        """Gives the file back."""
        self._database.close()

    def offset(self) -> int | None:
        """Where `getUpdates` goes on; None where Telegram shall begin with the oldest that it has."""
        at, value = float(self._fact("offset_at") or 0), self._fact("offset")
        return None if value is None or self._clock() - at > _OFFSET_HOLDS_S else int(value)

    def record(self, updates: Sequence[JsonObject]) -> int:
        """Makes tasks of updates; those that are known already change nothing. Returns how many were new."""
        new = 0
        with self._transaction() as execute:
            for update in updates:
                known = execute("SELECT 1 FROM updates WHERE update_id = ?", (update["update_id"],)).fetchone()
                new += known is None
                if known is None:
                    self._admit(execute, update)
            if updates:
                self._set_fact(execute, "offset", str(max(update["update_id"] for update in updates) + 1))
                self._set_fact(execute, "offset_at", str(self._clock()))
        return new

    def _admit(self, execute: "Execute", update: JsonObject) -> None:
        now, arrival = self._clock(), read_arrival(update)
        if arrival is None:
            execute("INSERT INTO updates VALUES (?, ?, NULL, NULL)", (update["update_id"], now))
            return
        due_at = now if arrival.album is None else now + self._quiet_s
        found = (
            execute(
                "SELECT id FROM tasks WHERE done = 0 AND claimed = 0 AND chat = ? AND album = ? AND photos < 10",
                (arrival.chat, arrival.album),
            ).fetchone()
            if arrival.album is not None
            else None
        )
        if found is not None:
            [task] = found
            execute("UPDATE tasks SET photos = photos + 1, due_at = ? WHERE id = ?", (due_at, task))
        else:
            waiting = execute(
                "SELECT COALESCE(SUM(photos), 0) FROM tasks WHERE person = ? AND done = 0 AND refused = 0",
                (arrival.person,),
            ).fetchone()[0]
            refused = arrival.photos > 0 and waiting >= self._max_waiting
            task = execute(
                "INSERT INTO tasks (chat, person, album, photos, received_at, due_at, refused) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (arrival.chat, arrival.person, arrival.album, arrival.photos, now, due_at, int(refused)),
            ).lastrowid
        body = json.dumps(arrival.body, ensure_ascii=False)
        execute("INSERT INTO updates VALUES (?, ?, ?, ?)", (arrival.update_id, now, task, body))

    def claim(self, busy: frozenset[int]) -> Task | None:
        """The oldest task that is due of a chat that is not `busy`; it is counted as begun."""
        with self._transaction() as execute:
            rows = execute(
                "SELECT id, chat FROM tasks WHERE done = 0 AND claimed = 0 AND due_at <= ? ORDER BY refused DESC, id",
                (self._clock(),),
            )
            number = next((number for number, chat in rows if chat not in busy), None)
            if number is None:
                return None
            execute("UPDATE tasks SET claimed = 1, attempts = attempts + 1 WHERE id = ?", (number,))
            row = execute(
                "SELECT id, chat, person, album, photos, received_at, refused, attempts, placeholder "
                "FROM tasks WHERE id = ?",
                (number,),
            ).fetchone()
            bodies = execute("SELECT body FROM updates WHERE task = ? ORDER BY update_id", (number,)).fetchall()
        updates = tuple(json.loads(body) for (body,) in bodies)
        task, chat, person, album, photos, received_at, refused, attempts, placeholder = row
        return Task(task, chat, person, album, photos, received_at, bool(refused), attempts, placeholder, updates)

    def seconds_to_next(self) -> float | None:
        """How long until another task is due; None where none is to come. Those that are due now do not count."""
        now = self._clock()
        row = self._database.execute(
            "SELECT MIN(due_at) FROM tasks WHERE done = 0 AND claimed = 0 AND due_at > ?", (now,)
        ).fetchone()
        return None if row[0] is None else float(row[0]) - now

    def set_placeholder(self, task: int, message: int) -> None:
        """The message that will be filled with the task's answer has been sent."""
        with self._transaction() as execute:
            execute("UPDATE tasks SET placeholder = ? WHERE id = ?", (message, task))

    def postpone(self, task: int, delay_s: float, *, counts: bool = False) -> None:
        """Lets a task be done later; an attempt that `counts` not was nobody's fault, such as a cut connection."""
        with self._transaction() as execute:
            execute(
                "UPDATE tasks SET claimed = 0, due_at = ?, attempts = attempts - ? WHERE id = ?",
                (self._clock() + delay_s, int(not counts), task),
            )

    def finish(self, task: Task, answer: Answer | None = None) -> None:
        """A task has been answered: what the user sent goes, and `answer` stays for its buttons."""
        with self._transaction() as execute:
            execute("UPDATE tasks SET done = 1, claimed = 0, album = NULL, placeholder = NULL WHERE id = ?", (task.id,))
            execute("UPDATE updates SET body = NULL WHERE task = ?", (task.id,))
            if answer is not None:
                self._put(execute, answer)

    def put_answer(self, answer: Answer) -> None:
        """Replaces what is remembered of an answer."""
        with self._transaction() as execute:
            self._put(execute, answer)

    def _put(self, execute: "Execute", answer: Answer) -> None:
        execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(answer.id, answer.chat, answer.person, answer.message, answer.answered_at),
                *(json.dumps(answer.photos), answer.own_photos, answer.plant.model_dump_json()),
                *(answer.receipt, answer.correct, int(answer.settled)),
            ),
        )

    def answer(self, number: int) -> Answer | None:
        """What is remembered of an answer."""
        return self._answer_where("id = ?", (number,))

    def answer_in(self, chat: int, message: int) -> Answer | None:
        """The answer that stands in a message."""
        return self._answer_where("chat = ? AND message = ?", (chat, message))

    def latest_answer(self, chat: int, person: int) -> Answer | None:
        """The last answer that somebody got."""
        return self._answer_where("chat = ? AND person = ? ORDER BY answered_at DESC, id DESC LIMIT 1", (chat, person))

    def _answer_where(self, condition: str, values: tuple[object, ...]) -> Answer | None:
        row = self._database.execute(f"SELECT * FROM answers WHERE {condition}", values).fetchone()  # noqa: S608
        if row is None:
            return None
        number, chat, person, message, answered_at, photos, own, plant, receipt, correct, settled = row
        return Answer(
            id=number,
            chat=chat,
            person=person,
            message=message,
            answered_at=answered_at,
            photos=tuple(json.loads(photos)),
            own_photos=own,
            plant=PlantPrediction.model_validate_json(plant),
            receipt=receipt,
            correct=correct,
            settled=bool(settled),
        )

    def language(self, person: int) -> str | None:
        """The language that somebody chose."""
        row = self._database.execute("SELECT language FROM people WHERE person = ?", (person,)).fetchone()
        return None if row is None else row[0]

    def set_language(self, person: int, language: str) -> None:
        """Remembers the language that somebody chose."""
        with self._transaction() as execute:
            execute(
                "INSERT INTO people (person, language) VALUES (?, ?) "
                "ON CONFLICT (person) DO UPDATE SET language = excluded.language",
                (person, language),
            )

    def photos_before(self, task: Task, within_s: float) -> int:
        """Photos that the task's sender sent before it, in so many seconds."""
        row = self._database.execute(
            "SELECT COALESCE(SUM(photos), 0) FROM tasks WHERE person = ? AND id < ? AND received_at > ?",
            (task.person, task.id, task.received_at - within_s),
        ).fetchone()
        return int(row[0])

    def messages_before(self, task: Task, within_s: float) -> int:
        """Messages and presses of the task's sender that came before it, in so many seconds."""
        row = self._database.execute(
            "SELECT COUNT(*) FROM tasks WHERE person = ? AND id < ? AND received_at > ?",
            (task.person, task.id, task.received_at - within_s),
        ).fetchone()
        return int(row[0])

    def tell_limit(self, person: int, every_s: float) -> bool:
        """Whether it is time to tell somebody of a limit again; then it counts as told."""
        now = self._clock()
        with self._transaction() as execute:
            row = execute("SELECT told_limit_at FROM people WHERE person = ?", (person,)).fetchone()
            if row is not None and now - row[0] < every_s:
                return False
            execute(
                "INSERT INTO people (person, told_limit_at) VALUES (?, ?) "
                "ON CONFLICT (person) DO UPDATE SET told_limit_at = excluded.told_limit_at",
                (person, now),
            )
        return True

    def forget(self, person: int) -> None:
        """Deletes what is remembered of somebody; what they sent and got no answer to yet stays."""
        with self._transaction() as execute:
            execute("DELETE FROM answers WHERE person = ?", (person,))
            execute("DELETE FROM people WHERE person = ?", (person,))

    def prune(self, older_s: float) -> None:
        """Deletes what was done so long ago, answers too."""
        before = self._clock() - older_s
        with self._transaction() as execute:
            execute("DELETE FROM answers WHERE answered_at < ?", (before,))
            execute("DELETE FROM tasks WHERE done = 1 AND received_at < ?", (before,))
            execute(
                "DELETE FROM updates WHERE body IS NULL AND received_at < ? "
                "AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = updates.task AND done = 0)",
                (before,),
            )

    def is_done(self, task: int) -> bool:
        """Whether a task has been finished."""
        return self._database.execute("SELECT 1 FROM tasks WHERE id = ? AND done = 0", (task,)).fetchone() is None

    def open_tasks(self) -> int:
        """How many tasks are to be done."""
        return int(self._database.execute("SELECT COUNT(*) FROM tasks WHERE done = 0").fetchone()[0])

    def new_receipt(self) -> str:
        """What nobody can guess, to stand for what a user may give."""
        return secrets.token_urlsafe(24)

    def _fact(self, name: str) -> str | None:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_fact(self, execute: "Execute", name: str, value: str) -> None:
        execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator["Execute"]:
        """All or nothing; on the disk when the block has ended.

        Raises:
            StorageError: The disk is full, or broken.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database.execute
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if not self._open:
                raise
            raise StorageError(f"{self._path}: cannot be written ({error}); expected room on the disk") from None
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")


Execute = Callable[..., sqlite3.Cursor]
