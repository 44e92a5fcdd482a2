"""Logs go to stderr; stdout belongs to results."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.log import configure_logging, stderr_is_terminal

LIBRARIES = ("lightning", "lightning.pytorch", "lightning.fabric", "timm", "PIL", "albumentations", "httpx")


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    package = logging.getLogger("cassava_leaf_disease")
    levels = {name: logging.getLogger(name).level for name in (*LIBRARIES, package.name)}
    handlers = list(package.handlers)
    yield
    package.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def speak() -> None:
    logger = logging.getLogger("cassava_leaf_disease.somewhere")
    for level in ("debug", "info", "warning"):
        getattr(logger, level)("a %s", level)


def test_records_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    configure_logging()  # a second call adds nothing
    speak()

    assert capsys.readouterr() == ("", "INFO a info\nWARNING a warning\n")


def test_records_go_where_stderr_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress bar puts its own stderr in place while it is drawn."""
    configure_logging()
    bar = io.StringIO()
    monkeypatch.setattr(sys, "stderr", bar)
    speak()
    logging.getLogger("cassava_leaf_disease").handlers[0].flush()

    assert bar.getvalue() == "INFO a info\nWARNING a warning\n"


@pytest.mark.parametrize(
    ("argument", "variable", "lines"), [("debug", "ERROR", 3), (None, "warning", 1), (None, "", 2), (None, "DEBUG", 3)]
)
def test_level_is_the_argument_then_the_environment(
    argument: str | None,
    variable: str,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASSAVA_LOG_LEVEL", variable)
    configure_logging(argument)
    speak()

    assert len(capsys.readouterr().err.splitlines()) == lines


def test_unknown_level_is_an_error_that_names_the_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_LOG_LEVEL", "loud")

    with pytest.raises(ConfigError, match="CASSAVA_LOG_LEVEL=loud: no such level; expected one of DEBUG, INFO"):
        configure_logging()


def test_libraries_are_quiet_but_for_errors(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()

    assert all(not logging.getLogger(name).isEnabledFor(logging.WARNING) for name in LIBRARIES)
    assert not stderr_is_terminal()
