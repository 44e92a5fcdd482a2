"""Logging goes to stderr; stdout belongs to results."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.ranks import launched_rank

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def known_level(level: str) -> str:
    """The name of a level, in capitals.

    Raises:
        ValueError: There is no such level.
    """
    if level.upper() not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return level.upper()


HEARTBEAT_S = 10.0

_logger = logging.getLogger(__name__)


def configure_logging(level: str | None = None, rank: int = 0) -> None:
    """Sends the package's log records to stderr, one line each.

    The level is `level`, else the environment variable `CASSAVA_LOG_LEVEL`, else INFO. Of chatty libraries
    only errors are shown; of processes that train together, rank zero tells, the others only warn.

    Raises:
        ConfigError: There is no such level.
    """
    wanted = level or os.environ.get("CASSAVA_LOG_LEVEL") or "INFO"
    if wanted.upper() not in LEVELS:
        raise ConfigError(f"CASSAVA_LOG_LEVEL={wanted}: no such level; expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(_CurrentStderr())
    handler.setFormatter(logging.Formatter(f"%(levelname)s {f'rank {rank}: ' if rank else ''}%(message)s"))
    package = logging.getLogger("cassava_leaf_disease")
    package.handlers[:] = [handler]
    package.setLevel(wanted.upper())
    if rank:
        handler.setLevel(logging.WARNING)
    for noisy in ("lightning", "lightning.pytorch", "lightning.fabric", "timm", "PIL", "albumentations", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class _CurrentStderr:
    """Whatever `sys.stderr` is now: a progress bar puts its own there, which writes above the bar."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def stderr_is_terminal() -> bool:
    """Whether progress bars make sense: one process of those that train together shows them."""
    return sys.stderr.isatty() and launched_rank() == 0


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


@contextmanager
def byte_bar(what: str, total_bytes: int | None, done_bytes: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with megabytes and speed where stderr is a terminal, else a line each ten seconds.

    Yields the function that moves it by so many bytes, which any thread may call. `total_bytes` is None where
    nobody knows it.
    """
    if not stderr_is_terminal():
        yield _heartbeat(what, total_bytes, done_bytes)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total_bytes, completed=done_bytes)
        yield lambda count: shown.advance(task, count)


def _heartbeat(what: str, total_bytes: int | None, done_bytes: int) -> Callable[[int], None]:
    lock, done, said = threading.Lock(), done_bytes, time.monotonic()
    of_total = "" if total_bytes is None else f" of {total_bytes / 1e6:,.1f}"

    def advance(count: int) -> None:
        nonlocal done, said
        with lock:
            done += count
            if time.monotonic() - said > HEARTBEAT_S:
                said = time.monotonic()
                _logger.info("%s: %s%s MB", what, f"{done / 1e6:,.1f}", of_total)

    return advance
