"""Logging goes to stderr; stdout belongs to results."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cassava_leaf_disease.errors import ConfigError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def configure_logging(level: str | None = None) -> None:
    """Sends the package's log records to stderr, one line each.

    The level is `level`, else the environment variable `CASSAVA_LOG_LEVEL`, else INFO. Of chatty libraries
    only errors are shown.

    Raises:
        ConfigError: There is no such level.
    """
    wanted = level or os.environ.get("CASSAVA_LOG_LEVEL") or "INFO"
    if wanted.upper() not in LEVELS:
        raise ConfigError(f"CASSAVA_LOG_LEVEL={wanted}: no such level; expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(_CurrentStderr())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    package = logging.getLogger("cassava_leaf_disease")
    package.handlers[:] = [handler]
    package.setLevel(wanted.upper())
    for noisy in ("lightning", "lightning.pytorch", "lightning.fabric", "timm", "PIL", "albumentations", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class _CurrentStderr:
    """Whatever `sys.stderr` is now: a progress bar puts its own there, which writes above the bar."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def stderr_is_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr.isatty()


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; yields the function that moves it by so many steps."""
    if not stderr_is_terminal():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)
