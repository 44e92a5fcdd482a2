"""What both doors do with a command: run it, print one JSON document, map errors to exit codes."""

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from errno import EACCES, EDQUOT, EMFILE, ENOSPC, EPERM, EROFS
from typing import TYPE_CHECKING, Final

from cassava_leaf_disease.commands import Command
from cassava_leaf_disease.errors import CassavaError, MissingDependencyError, OtherRankError
from cassava_leaf_disease.process import imports_only

if TYPE_CHECKING:
    from cassava_leaf_disease.config.schema import AppConfig

PACKAGE: Final = "cassava_leaf_disease"
EXIT_INTERRUPTED: Final = 130
TIME_TO_TELL_S: Final = 30.0  # of a rank that failed, before the others end; it may still be loading its libraries
EXIT_BROKEN_PIPE: Final = 141  # what a shell reports for a program that SIGPIPE ended
_MACHINE_ERRORS: Final = frozenset({EACCES, EDQUOT, EMFILE, ENOSPC, EPERM, EROFS})
_EXTRA_OF: Final = {
    **dict.fromkeys(
        (
            "albumentations",
            "cleanlab",
            "cv2",
            "filelock",
            "lightning",
            "safetensors",
            "sklearn",
            "timm",
            "torch",
            "torchmetrics",
        ),
        "train",
    ),
    **dict.fromkeys(("optuna", "pyarrow", "ray", "sqlalchemy"), "scale"),
    "torchvision": "train",
    **dict.fromkeys(("imagehash", "jinja2", "matplotlib"), "train"),
    **dict.fromkeys(
        ("backports", "boto3", "botocore", "dotenv", "dvc", "kagglehub", "mlflow", "py7zr", "rarfile", "requests"),
        "track",
    ),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "psycopg": "postgres",
    **dict.fromkeys(("httpx", "telegram"), "bot"),
}


def run_workflow(command: Command, config: "AppConfig") -> object:
    """Imports and runs a command's workflow; what libraries print meanwhile goes to stderr.

    Raises:
        MissingDependencyError: The extra that holds the workflow's libraries is not installed.
    """
    module, _, function = command.workflow.partition(":")
    with _stdout_to_stderr():
        try:
            with imports_only():
                workflow: Callable[[AppConfig], object] = getattr(
                    importlib.import_module(f"{PACKAGE}.{module}"), function
                )
            return workflow(config)
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in _EXTRA_OF:
                raise
            raise MissingDependencyError(library, _EXTRA_OF[library]) from None


def write_result(result: object) -> int:
    """Prints one JSON document on stdout and returns the exit code."""
    import json

    from pydantic_core import to_jsonable_python

    plain = _without_nan(to_jsonable_python(result))
    return write_stdout(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_stdout(text: str) -> int:
    """Writes UTF-8 whatever the locale is; a reader that went away (`| head -1`) is worth no traceback."""
    try:
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:
            sys.stdout.write(text)
        else:
            sys.stdout.flush()
            buffer.write(text.encode("utf-8", "backslashreplace"))  # file names may hold undecodable bytes
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it exits: give it somewhere to write.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return EXIT_BROKEN_PIPE
    return 0


def guarded(action: Callable[[], int]) -> int:
    """Runs a door's work and turns whatever goes wrong into lines on stderr and an exit code."""
    try:
        return action()
    except CassavaError as error:
        if isinstance(error, OtherRankError):  # a launcher ends all ranks when one ends: that one tells why first
            time.sleep(TIME_TO_TELL_S)
        for line in str(error).splitlines():
            _say(f"error: {line}")
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as end:
        # Lightning turns an interrupt into sys.exit(1) when it has shut down.
        if isinstance(end, SystemExit) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        _say("interrupted")
        return EXIT_INTERRUPTED
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            return _report_bug()
        _say(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}")
        return 1
    except Exception:  # noqa: BLE001  (a door: the last place to say anything)
        return _report_bug()


def _report_bug() -> int:
    import traceback

    traceback.print_exc()
    _say("this is a bug in cassava: please report it with the lines above")
    return 1


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _without_nan(value: object) -> object:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    return [_without_nan(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keeps stdout for the result: `print`, C libraries and child processes write to stderr meanwhile."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # no stdout at all
        saved = -1
    if saved >= 0:
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved >= 0:
            _flush_c_buffers()
            os.dup2(saved, 1)
            os.close(saved)


def _flush_c_buffers() -> None:
    """What C libraries hold back in stdio would otherwise reach stdout after the result."""
    import ctypes

    with contextlib.suppress(OSError, TypeError, AttributeError):  # no such handle on Windows
        ctypes.CDLL(None).fflush(None)
