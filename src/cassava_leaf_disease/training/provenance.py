"""Where a run comes from: the commit, the machine, the time."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch


def git_commit() -> str | None:
    """The commit of the source tree that this package runs from, `+dirty` if it was changed; None for a wheel.

    The environment variable `CASSAVA_GIT_COMMIT` says it where the tree travels without its history.
    """
    if os.environ.get("CASSAVA_GIT_COMMIT"):
        return os.environ["CASSAVA_GIT_COMMIT"]
    package = Path(__file__).resolve().parents[1]
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None or _git(package, "ls-files", "--error-unmatch", "domain.py") is None:
        return None
    return f"{commit}+dirty" if _git(package, "status", "--porcelain", "--", ".") else commit


def hardware(accelerator: str, processes: int = 1) -> str:
    """What trains, in words: a GPU for each of the processes, or the CPU that they share."""
    if accelerator == "cuda":
        return f"{processes} x {torch.cuda.get_device_name()}, {os.cpu_count()} CPU threads"
    together = f", {processes} processes" if processes > 1 else ""
    return f"{accelerator}, {platform.machine()}, {os.cpu_count()} CPU threads{together}"


def utc_now() -> str:
    """The time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603  fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
