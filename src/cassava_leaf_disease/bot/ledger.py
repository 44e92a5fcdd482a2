"""What has come and what is to be answered, on the disk before Telegram is told that it has come.

An update becomes a task in one transaction; only after that does the next `getUpdates` (or the webhook's 200) let
Telegram forget it. A task is finished in one transaction, after its answer has been delivered. So a process that is
killed at any moment leaves each update either with Telegram, or here as a task that is still to be done. Photos are
never here: Telegram keeps them, and they are fetched again.

Times are seconds since 1970. One process at a time: SQLite's lock is held for as long as the file is open.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cassava_leaf_disease.bot.records import Answer, JsonObject, Task, read_arrival
from cassava_leaf_disease.bot.settings import ALBUM_PHOTOS
from cassava_leaf_disease.bot.state_file import Execute, StateFile
from cassava_leaf_disease.domain import PlantPrediction

DAY_S: Final = 86_400.0
_OFFSET_HOLDS_S: Final = DAY_S  # after a quiet week Telegram numbers anew, so an old offset is not to be used


class Ledger:
    """The SQLite file; at most `max_waiting` photos of one user wait. `clock` tells the time in seconds since 1970."""

    def __init__(
        self, path: Path, album_quiet_s: float, max_waiting: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._quiet_s = album_quiet_s
        self._max_waiting = max_waiting
        self._clock = clock
        self._file = StateFile(path)
        with self._file.transaction() as execute:
            # What was being worked on when the last process ended; albums may still be incomplete.
            execute("UPDATE tasks SET claimed = 0 WHERE done = 0")
            execute(
                "UPDATE tasks SET due_at = MAX(due_at, ?) WHERE done = 0 AND album IS NOT NULL",
                (self._clock() + album_quiet_s,),
            )

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def offset(self) -> int | None:
        """Where `getUpdates` goes on; None where Telegram shall begin with the oldest that it has."""
        at, value = float(self._fact("offset_at") or 0), self._fact("offset")
        return None if value is None or self._clock() - at > _OFFSET_HOLDS_S else int(value)

    def record(self, updates: Sequence[JsonObject]) -> int:
        """Makes tasks of updates; those that are known already change nothing. Returns how many were new."""
        new = 0
        with self._file.transaction() as execute:
            for update in updates:
                known = execute("SELECT 1 FROM updates WHERE update_id = ?", (update["update_id"],)).fetchone()
                new += known is None
                if known is None:
                    self._admit(execute, update)
            if updates:
                self._set_fact(execute, "offset", str(max(update["update_id"] for update in updates) + 1))
                self._set_fact(execute, "offset_at", str(self._clock()))
        return new

    def _admit(self, execute: Execute, update: JsonObject) -> None:
        now, arrival = self._clock(), read_arrival(update)
        if arrival is None:
            execute("INSERT INTO updates VALUES (?, ?, NULL, NULL)", (update["update_id"], now))
            return
        due_at = now if arrival.album is None else now + self._quiet_s
        found = (
            execute(
                "SELECT id FROM tasks WHERE done = 0 AND claimed = 0 AND chat = ? AND album = ? AND photos < ?",
                (arrival.chat, arrival.album, ALBUM_PHOTOS),
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
        with self._file.transaction() as execute:
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
        row = self._file.row("SELECT MIN(due_at) FROM tasks WHERE done = 0 AND claimed = 0 AND due_at > ?", (now,))
        return None if row[0] is None else float(row[0]) - now

    def set_placeholder(self, task: int, message: int) -> None:
        """The message that will be filled with the task's answer has been sent."""
        with self._file.transaction() as execute:
            execute("UPDATE tasks SET placeholder = ? WHERE id = ?", (message, task))

    def postpone(self, task: int, delay_s: float, *, counts: bool = False) -> None:
        """Lets a task be done later; an attempt that `counts` not was nobody's fault, such as a cut connection."""
        with self._file.transaction() as execute:
            execute(
                "UPDATE tasks SET claimed = 0, due_at = ?, attempts = attempts - ? WHERE id = ?",
                (self._clock() + delay_s, int(not counts), task),
            )

    def finish(self, task: Task, answer: Answer | None = None) -> None:
        """A task has been answered: what the user sent goes, and `answer` stays for its buttons."""
        with self._file.transaction() as execute:
            execute("UPDATE tasks SET done = 1, claimed = 0, album = NULL, placeholder = NULL WHERE id = ?", (task.id,))
            execute("UPDATE updates SET body = NULL WHERE task = ?", (task.id,))
            if answer is not None:
                self._put(execute, answer)

    def put_answer(self, answer: Answer) -> None:
        """Replaces what is remembered of an answer."""
        with self._file.transaction() as execute:
            self._put(execute, answer)

    def _put(self, execute: Execute, answer: Answer) -> None:
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
        row = self._file.row(f"SELECT * FROM answers WHERE {condition}", values)  # noqa: S608
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
        row = self._file.row("SELECT language FROM people WHERE person = ?", (person,))
        return None if row is None else row[0]

    def set_language(self, person: int, language: str) -> None:
        """Remembers the language that somebody chose."""
        with self._file.transaction() as execute:
            execute(
                "INSERT INTO people (person, language) VALUES (?, ?) "
                "ON CONFLICT (person) DO UPDATE SET language = excluded.language",
                (person, language),
            )

    def photos_before(self, task: Task, within_s: float) -> int:
        """Photos that the task's sender sent before it, in so many seconds."""
        row = self._file.row(
            "SELECT COALESCE(SUM(photos), 0) FROM tasks WHERE person = ? AND id < ? AND received_at > ?",
            (task.person, task.id, task.received_at - within_s),
        )
        return int(row[0])

    def messages_before(self, task: Task, within_s: float) -> int:
        """Messages and presses of the task's sender that came before it, in so many seconds."""
        row = self._file.row(
            "SELECT COUNT(*) FROM tasks WHERE person = ? AND id < ? AND received_at > ?",
            (task.person, task.id, task.received_at - within_s),
        )
        return int(row[0])

    def tell_limit(self, person: int, every_s: float) -> bool:
        """Whether it is time to tell somebody of a limit again; then it counts as told."""
        now = self._clock()
        with self._file.transaction() as execute:
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
        with self._file.transaction() as execute:
            execute("DELETE FROM answers WHERE person = ?", (person,))
            execute("DELETE FROM people WHERE person = ?", (person,))

    def prune(self, older_s: float) -> None:
        """Deletes what was done so long ago, answers too."""
        before = self._clock() - older_s
        with self._file.transaction() as execute:
            execute("DELETE FROM answers WHERE answered_at < ?", (before,))
            execute("DELETE FROM tasks WHERE done = 1 AND received_at < ?", (before,))
            execute(
                "DELETE FROM updates WHERE body IS NULL AND received_at < ? "
                "AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = updates.task AND done = 0)",
                (before,),
            )

    def is_done(self, task: int) -> bool:
        """Whether a task has been finished."""
        return self._file.row("SELECT 1 FROM tasks WHERE id = ? AND done = 0", (task,)) is None

    def open_tasks(self) -> int:
        """How many tasks are to be done."""
        return int(self._file.row("SELECT COUNT(*) FROM tasks WHERE done = 0")[0])

    def new_receipt(self) -> str:
        """What nobody can guess, to stand for what a user may give."""
        return secrets.token_urlsafe(24)

    def _fact(self, name: str) -> str | None:
        row = self._file.row("SELECT value FROM facts WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    def _set_fact(self, execute: Execute, name: str, value: str) -> None:
        execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
