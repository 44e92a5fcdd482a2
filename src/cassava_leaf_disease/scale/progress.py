"""How far a run has come: a bar with rate and errors on a terminal, else a line each ten seconds."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cassava_leaf_disease.log import HEARTBEAT_S, stderr_is_terminal

logger = logging.getLogger(__name__)


@contextmanager
def photo_bar(total: int, done: int) -> Iterator[Callable[[int, int], None]]:
    """Yields the function that moves it by so many photos, of which so many are errors; `done` were done before."""
    if not stderr_is_terminal():
        yield _heartbeat(total, done)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("scoring"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}, {task.fields[errors]:,} errors"),
        progress.TimeRemainingColumn(),
    )
    started, moved, failed = time.monotonic(), 0, 0
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("scoring", total=total, completed=done, rate="", errors=0)

        def advance(photos: int, errors: int) -> None:
            nonlocal moved, failed
            moved, failed = moved + photos, failed + errors
            shown.update(task, advance=photos, errors=failed, rate=_rate(moved, started))

        yield advance


def _heartbeat(total: int, done: int) -> Callable[[int, int], None]:
    started = said = time.monotonic()
    moved, failed = 0, 0

    def advance(photos: int, errors: int) -> None:
        nonlocal moved, failed, said
        moved, failed = moved + photos, failed + errors
        if time.monotonic() - said > HEARTBEAT_S:
            said = time.monotonic()
            logger.info(
                "%s of %s photos, %s, %s errors", f"{done + moved:,}", f"{total:,}", _rate(moved, started), failed
            )

    return advance


def _rate(photos: int, started: float) -> str:
    return f"{photos / max(time.monotonic() - started, 1e-9):,.0f} photos/s"
