"""The SQLite file of a bot: its tables, its lock, and transactions that are on the disk when they end."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cassava_leaf_disease.errors import ConfigError, StorageError

Execute = Callable[..., sqlite3.Cursor]  # a statement and its values to rows

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


class StateFile:
    """A file that one process at a time has open, and only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=2)
            # The lock is held from the first write on; a commit is on the disk when it returns.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                self._database.execute(f"PRAGMA {pragma}").fetchall()
            with self._undone_where_it_fails() as execute:
                for statement in _TABLES:
                    execute(statement)
            path.chmod(0o600)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigError(
                    f"{path}: another bot works with that file; end it first, or type bot.state_path=FILE for a bot "
                    "with another token"
                ) from None
            raise _cannot_be_opened(path, str(error)) from None
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{path}: no state of a bot ({error}); type bot.state_path=FILE") from None
        except OSError as error:
            raise _cannot_be_opened(path, str(error.strerror)) from None

    def close(self) -> None:
        """Gives the file back."""
        self._database.close()

    def row(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401  as the columns are
        """The first row of a question, None without one."""
        return self._database.execute(statement, values).fetchone()

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """All or nothing; on the disk when the block has ended.

        Raises:
            StorageError: The disk is full, or broken.
        """
        try:
            with self._undone_where_it_fails() as execute:
                yield execute
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: cannot be written ({error}); expected room on the disk") from None

    @contextmanager
    def _undone_where_it_fails(self) -> Iterator[Execute]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database.execute
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")


def _cannot_be_opened(path: Path, why: str) -> StorageError:
    return StorageError(f"{path}: cannot be opened ({why}); expected a place where files can be made")
