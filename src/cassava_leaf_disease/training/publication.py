"""Publishing while other work goes on: a process of its own, which runs the very command that retries.

A training that ended hands its run over and is done. The process that trained waits for the uploads only
when it exits, and only for a bounded time; what came of each is one line in the log and `publish.json`.
"""

import atexit
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cassava_leaf_disease.training.publish_state import (
    PublishState,
    publish_words,
    read_state,
    retry_command,
    write_state,
)

logger = logging.getLogger(__name__)

LOG_FILE: Final = "publish.log"
_HEARTBEAT_S = 10
_STOP_S = 5
_running: "list[Publication]" = []


@dataclass(frozen=True)
class Publication:
    """A run on its way to S3, in another process."""

    run_dir: Path
    s3_prefix: str
    timeout_s: float
    process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls, run_dir: Path, s3_prefix: str, timeout_s: float) -> "Publication":
        """Starts `cassava publish` for a run, and remembers to look after it when this process exits.

        Raises:
            OSError: No process can be started, or its log cannot be written.
        """
        for earlier in [publication for publication in _running if publication.process.poll() is not None]:
            earlier.finish(0)
        command = [sys.executable, "-m", "cassava_leaf_disease", *publish_words(run_dir, s3_prefix)]
        with (run_dir / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  our own command
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        publication = cls(run_dir, s3_prefix, timeout_s, process)
        atexit.unregister(finish_publications)
        atexit.register(finish_publications)
        _running.append(publication)
        return publication

    def finish(self, timeout_s: float) -> bool:
        """Waits so long at most, then gives up; says once what came of it, and returns whether it is published."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None and (left := deadline - time.monotonic()) > 0:
            logger.info("publishing %s (waiting %.0f s at most; Ctrl-C gives up)%s", self.run_dir, left, self._last())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(min(left, _HEARTBEAT_S))
        if self.process.poll() is None:
            return self.give_up(f"not done {timeout_s:.0f} s after training; publish.timeout_s={self.timeout_s:g}")
        return self._conclude(None)

    def give_up(self, reason: str) -> bool:
        """Stops what still runs; an upload that is interrupted takes its parts back from the server."""
        self.process.terminate() if os.name == "nt" else self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self._conclude(reason)

    def _conclude(self, reason: str | None) -> bool:
        with contextlib.suppress(ValueError):  # told before
            _running.remove(self)
        state, log = read_state(self.run_dir), self.run_dir / LOG_FILE
        if self.process.returncode == 0:
            logger.info("published %s: %s", self.run_dir, state.destination if state else self.s3_prefix)
            with contextlib.suppress(OSError):
                log.unlink()
            return True
        told = state.error if state and state.state == "failed" else None
        warn_unpublished(
            self.run_dir,
            self.s3_prefix,
            told or reason or f"the upload ended with exit code {self.process.returncode}, see {log}",
        )
        return False

    def _last(self) -> str:
        """The last line that the upload logged."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = (self.run_dir / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""


def finish_publications() -> None:
    """Waits for what is still on its way, as long as its `publish.timeout_s` says; called when the process exits."""
    deadline = time.monotonic() + max((publication.timeout_s for publication in _running), default=0)
    try:
        while _running:
            _running[0].finish(deadline - time.monotonic())
    except KeyboardInterrupt:
        while _running:
            _running[0].give_up("interrupted")


def warn_unpublished(run_dir: Path, s3_prefix: str, reason: str) -> None:
    """Says what happened and how to try again, in one line and in `publish.json`; raises nothing."""
    with contextlib.suppress(OSError):  # the line below says the same
        write_state(run_dir, PublishState(state="failed", s3_prefix=s3_prefix, error=reason))
    retry = retry_command(run_dir, s3_prefix)
    logger.warning("%s is not published (%s); the run itself is whole; to try again type: %s", run_dir, reason, retry)
