"""Small tables in SQLite, or in PostgreSQL by its address: transactions one after another, on the disk when they end.

The statements that both understand, with `?` for values. SQLite comes with Python; PostgreSQL needs the extra
`postgres`.
"""

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from cassava_leaf_disease.errors import ConfigError, DatabaseError, MissingDependencyError, first_line
from cassava_leaf_disease.paths import resolve

if TYPE_CHECKING:
    import psycopg

Execute = Callable[..., list[tuple[Any, ...]]]  # a statement and its values to rows

WANTED: Final = "sqlite:///feedback.db, sqlite:////folder/feedback.db or postgresql://user:password@host/name"
_WAIT_S: Final = 30.0  # for the transactions of other processes
_LOCK: Final = 0x63617373617661  # PostgreSQL's advisory locks are numbers: "cassava"


class Database(Protocol):
    """A database whose transactions happen one after another, also those of several threads and processes."""

    def transaction(self) -> AbstractContextManager[Execute]:
        """Gives what executes; kept on the disk when the block ends well, undone where it raises.

        Raises:
            DatabaseError: The database cannot be read or written.
        """
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


def open_database(url: str) -> Database:
    """The database at an address, made if it is not there yet (SQLite's file, not PostgreSQL's database).

    Raises:
        ConfigError: `url` is no such address.
        MissingDependencyError: PostgreSQL's driver is not installed.
        DatabaseError: It cannot be opened.
    """
    path = sqlite_path(url)
    if path is not None:
        return SqliteDatabase(path)
    return PostgresDatabase(url)


def check_address(url: str) -> None:
    """Finds without a connection what would keep `open_database` from ever succeeding.

    Raises:
        ConfigError: `url` is no address of a database.
        MissingDependencyError: PostgreSQL's driver is not installed.
    """
    if sqlite_path(url) is None:
        _driver()


def sqlite_path(url: str) -> Path | None:
    """The file that a `sqlite:///` address names; None of an address of PostgreSQL.

    Raises:
        ConfigError: It is neither.
    """
    file = re.fullmatch(r"sqlite:///(.+)", url)
    if file is not None:
        return resolve(file[1])
    if re.match(r"postgres(ql)?://.", url):
        return None
    raise ConfigError(f"{without_password(url)}: no address of a database; expected {WANTED}")


def without_password(url: str) -> str:
    """An address that may be shown."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return "***"
    return url.replace(f":{password}@", ":***@") if password else url


class SqliteDatabase:
    """A file that only its owner may read; deleted rows are overwritten, so that nothing of them stays in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._told():
            _make_file(path)
            self._connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous=EXTRA")  # a commit is on the disk, its folder entry too
            self._connection.execute("PRAGMA secure_delete=ON")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Execute]:
        """See `Database`; others may not write meanwhile, and wait."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DatabaseError(f"{self._path}: {error}; expected a database that can be written; try again") from error


class PostgresDatabase:
    """A connection that is made anew when it has broken."""

    def __init__(self, url: str) -> None:
        self._driver = _driver()
        self._url = url
        self._lock = threading.Lock()
        self._connection: psycopg.Connection | None = None
        with self._lock, self._told():
            self._connected()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Execute]:
        """See `Database`."""
        with self._lock, self._told():
            connection = self._connected()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                yield self._execute

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        assert self._connection is not None  # noqa: S101  within a transaction
        cursor = self._connection.execute(statement.replace("?", "%s").encode(), values)
        return cursor.fetchall() if cursor.description else []

    def _connected(self) -> "psycopg.Connection":
        """The connection if it is alive, else another one."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except self._driver.OperationalError:
                self._connection.close()
            else:
                return self._connection
        self._connection = self._driver.connect(self._url, autocommit=True, connect_timeout=int(_WAIT_S))
        return self._connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            where = without_password(self._url)
            raise DatabaseError(f"{where}: {first_line(error)}; expected a PostgreSQL that answers") from error


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseError(f"{path}: {error.strerror}; expected a file that can be made or written") from None


def _driver() -> Any:  # noqa: ANN401
    try:
        import psycopg
    except ModuleNotFoundError:
        raise MissingDependencyError("psycopg", "postgres") from None
    return psycopg
