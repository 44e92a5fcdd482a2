"""Trainings in processes of their own: started, listened to, ended together, none left behind.

A child is given a folder with its task and leaves its answer there. It holds the other end of a pipe to this
process and ends when that closes, so that even `kill -9` of this process leaves no orphan.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Final

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease import errors
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CassavaError, ProcessError
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training.result import TrainResult

TASK_FILE: Final = "task.json"
ANSWER_FILE: Final = "answer.json"
ERROR_FILE: Final = "error.json"
TRACEBACK_FILE: Final = "traceback.txt"

POLL_S: Final = 0.05
GRACE_S: Final = 10.0  # after an interrupt, to close what is open
_SIGTERM_EXIT: Final = 128 + signal.SIGTERM
_SILENT: Final = 4


class Task(BaseModel):
    """What a child does: a training in `run_dir` (None: the next of the outputs' runs), or a distillation there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AppConfig
    run_dir: Path | None
    distilled: bool = False


class Child:
    """A process that trains; `name` is what messages call it."""

    def __init__(self, name: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self._folder = folder
        self._process = process
        self._relay: threading.Thread | None = None
        if process.stdout is not None:
            self._relay = threading.Thread(target=_relay, args=(process.stdout, name), daemon=True)
            self._relay.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; below zero the signal that has ended it."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Asks it to end as Ctrl-C does."""
        with contextlib.suppress(OSError):  # it may have ended just now
            self._process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once, with the loader processes that it has started."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def close(self) -> None:
        """Reads the last of what an ended child has said."""
        self._process.wait()
        if self._relay is not None:
            self._relay.join(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def result(self) -> TrainResult:
        """The answer of a child that has ended well."""
        return TrainResult.model_validate_json((self._folder / ANSWER_FILE).read_text(encoding="utf-8"))

    @property
    def telling(self) -> tuple[int, float]:
        """How near a child that has failed is to the cause; larger is farther, and the last say nothing.

        A rank that dies takes the others with it: they fail for want of it, a little later, with a traceback or,
        where NCCL notices it, by aborting themselves.
        """
        for order, path in ((0, self._folder / ERROR_FILE), (2, self._folder / TRACEBACK_FILE)):
            if path.is_file():
                return order, path.stat().st_mtime
        code = self.exit_code or 0
        return (_SILENT if code >= 0 else 3 if code == -signal.SIGABRT else 1), 0.0

    def failure(self) -> Exception:
        """What a child that has failed says of it; of a bug it has left a traceback, which is shown."""
        if (self._folder / ERROR_FILE).is_file():
            said = json.loads((self._folder / ERROR_FILE).read_text(encoding="utf-8"))
            if said["kind"] == OSError.__name__:  # a full disk and the like, or a bug: a door knows which
                broken = OSError(*said["arguments"])
                broken.add_note(said["traceback"])
                return broken
            kind = getattr(errors, said["kind"])
            error: CassavaError = kind.__new__(kind, *said["arguments"])  # some constructors take other arguments
            return error
        if (self._folder / TRACEBACK_FILE).is_file():
            sys.stderr.write((self._folder / TRACEBACK_FILE).read_text(encoding="utf-8"))
            return ProcessError(f"{self.name} met a bug in cassava: please report it with the lines above")
        return ProcessError(f"{self.name} {_ending(self._process.returncode)}")


@contextmanager
def nursery() -> Iterator["Nursery"]:
    """Where children are started; all of them have ended when the block is left, however it is left."""
    folder = Path(tempfile.mkdtemp(prefix="cassava-"))  # readable by this user alone
    children = Nursery(folder)
    try:
        with _terminable():
            try:
                yield children
            finally:
                children.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Nursery:
    """Children of one command."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    def start(self, name: str, task: Task, environment: Mapping[str, str], *, relayed: bool) -> Child:
        """Starts a task with more environment variables; `relayed` lines stand on stderr after its name."""
        folder = self._folder / f"{len(self._children)}"
        write_json(folder / TASK_FILE, task.model_dump(mode="json"))
        process = subprocess.Popen(  # noqa: S603  this very program
            [sys.executable, "-P", "-m", "cassava_leaf_disease.training.worker", str(folder)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if relayed else 2,
            stderr=subprocess.STDOUT if relayed else None,
            start_new_session=True,  # Ctrl-C reaches this process alone, which tells its children
        )
        child = Child(name, folder, process)
        self._children.append(child)
        return child

    def end(self) -> None:
        """Interrupts those that still run, then kills what is left."""
        running = [child for child in self._children if child.running]
        for child in running:
            child.interrupt()
        deadline = time.monotonic() + GRACE_S
        while any(child.running for child in running) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for child in self._children:
            if child.running:
                child.kill()
            child.close()


def wait_for_one(children: Iterable[Child]) -> Child:
    """Waits until one of them has ended, well or not."""
    while True:
        for child in children:
            if not child.running:
                return child
        time.sleep(POLL_S)


def wait_for_all(children: Sequence[Child]) -> Child | None:
    """Waits until all have ended well, or one has not: then the one that tells why, or None."""
    waiting = set(children)
    while waiting:
        ended = wait_for_one(waiting)
        if ended.exit_code:
            return _find_culprit(children)
        waiting.remove(ended)
    return None


def _find_culprit(ranks: Sequence[Child]) -> Child:
    """Of ranks of which one has failed the one that tells why: those that fail for want of it may be gone first."""
    deadline = time.monotonic() + GRACE_S
    while True:
        running = any(child.running for child in ranks)
        culprit = min((child for child in ranks if child.exit_code), key=lambda child: child.telling)
        if culprit.telling[0] < _SILENT or not running or time.monotonic() > deadline:
            return culprit
        time.sleep(POLL_S)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    memory = ", as Linux does when memory is full" if name == "SIGKILL" else ""
    return f"was killed ({name}{memory})"


def _relay(stream: IO[bytes], name: str) -> None:
    for line in stream:
        sys.stderr.write(f"{name} | {line.decode('utf-8', 'replace').rstrip()}\n")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds this process instead of ending it on the spot, so that it can end its children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_SIGTERM_EXIT)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
