"""Transactions happen one after another and whole, in SQLite and in PostgreSQL; passwords are not shown."""

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cassava_leaf_disease.errors import ConfigError, DatabaseError, MissingDependencyError
from cassava_leaf_disease.storage.database import (
    Database,
    PostgresDatabase,
    check_address,
    open_database,
    sqlite_path,
    without_password,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'rows.db'}"
    address: str = request.getfixturevalue("postgres_url")
    return address


def numbers(database: Database) -> list[int]:
    with database.transaction() as execute:
        return [number for (number,) in execute("SELECT number FROM numbers ORDER BY number")]


def test_what_a_transaction_wrote_is_there_and_what_broke_is_not(url: str) -> None:
    database = open_database(url)
    with database.transaction() as execute:
        execute("CREATE TABLE numbers (number INTEGER)")
        execute("INSERT INTO numbers VALUES (?)", (1,))
    with pytest.raises(ZeroDivisionError), database.transaction() as execute:  # noqa: PT012
        execute("INSERT INTO numbers VALUES (?)", (2,))
        raise ZeroDivisionError

    other = open_database(url)
    assert numbers(database) == numbers(other) == [1]
    database.close()
    other.close()


def test_transactions_of_several_connections_wait_for_each_other(url: str) -> None:
    databases = [open_database(url) for _ in range(3)]
    with databases[0].transaction() as execute:
        execute("CREATE TABLE numbers (number INTEGER)")
        execute("INSERT INTO numbers VALUES (0)")

    def count_up(database: Database) -> None:
        for _ in range(20):
            with database.transaction() as execute:
                [(number,)] = execute("SELECT number FROM numbers")
                execute("UPDATE numbers SET number = ?", (number + 1,))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(count_up, databases * 2))

    assert numbers(databases[0]) == [120]
    for database in databases:
        database.close()


def test_mistakes_of_the_database_are_one_line(url: str) -> None:
    database = open_database(url)
    with pytest.raises(DatabaseError, match="no_such_table"), database.transaction() as execute:
        execute("SELECT * FROM no_such_table")
    with database.transaction() as execute:
        assert execute("SELECT 1") == [(1,)]
    database.close()


def test_a_broken_connection_is_made_anew(postgres_url: str) -> None:
    database, other = open_database(postgres_url), open_database(postgres_url)
    assert isinstance(database, PostgresDatabase)
    with database.transaction() as execute:
        [(process,)] = execute("SELECT pg_backend_pid()")
    with other.transaction() as execute:
        execute("SELECT pg_terminate_backend(?)", (process,))

    with database.transaction() as execute:
        assert execute("SELECT pg_backend_pid()") != [(process,)]
    database.close()
    other.close()


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(DatabaseError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/none: .*refused"):
        open_database("postgresql://me:hidden@127.0.0.1:1/none")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_text("no database at all, but a text that is long enough to be one", encoding="utf-8")
    with pytest.raises(DatabaseError, match=r"rows\.db: file is not a database"):
        open_database("sqlite:///rows.db")


@pytest.mark.parametrize("file", ["folder", "text.txt/rows.db"])
def test_a_place_where_no_file_can_be_is_told(file: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("no folder", encoding="utf-8")
    with pytest.raises(DatabaseError, match="; expected a file that can be made or written") as told:
        open_database(f"sqlite:///{file}")
    assert str(told.value).startswith(str(tmp_path / file))


def test_a_locked_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cassava_leaf_disease.storage.database._WAIT_S", 0.1)
    database = open_database("sqlite:///rows.db")
    other = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseError, match="locked"), database.transaction():
        pass
    other.close()
    database.close()


def test_relative_and_absolute_files(tmp_path: Path) -> None:
    assert sqlite_path("sqlite:///rows.db") == tmp_path / "rows.db"
    assert sqlite_path("sqlite:////var/rows.db") == Path("/var/rows.db")
    assert sqlite_path("postgresql://host/name") is None


@pytest.mark.parametrize("url", ["mysql://me:hidden@host/name", "rows.db", "sqlite:///", "postgresql://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///") as refused:
        open_database(url)
    assert "hidden" not in str(refused.value)


def test_an_address_that_cannot_be_read_is_not_shown() -> None:
    assert without_password("postgresql://me:hidden@[::1/name") == "***"


def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    check_address("sqlite:///rows.db")
    with pytest.raises(MissingDependencyError, match=r"cassava-leaf-disease\[postgres\]"):
        check_address("postgresql://host/name")
