"""What `publish.json` in a run's folder remembers: what is to be published where, and what came of it."""

import logging
import os
import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cassava_leaf_disease.config.load import quoted
from cassava_leaf_disease.storage.files import write_json

logger = logging.getLogger(__name__)

STATE_FILE = "publish.json"


class PublishState(BaseModel):
    """`pending` from the moment that publishing is promised, `done` when all of it is there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Literal["pending", "failed", "done"]
    s3_prefix: str
    destination: str | None = None
    uris: tuple[str, ...] = ()
    error: str | None = None
    updated_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    retry: str | None = None


def read_state(run_dir: Path) -> PublishState | None:
    """What is remembered of a run; None where it never was to be published."""
    path = run_dir / STATE_FILE
    if not path.is_file():
        return None
    try:
        return PublishState.model_validate_json(path.read_bytes())
    except ValidationError:
        logger.warning("%s: not readable as the state of a publication; it is passed over", path)
        return None


def write_state(run_dir: Path, state: PublishState) -> None:
    """Replaces what is remembered; what is not done yet is noted with the command that tries again."""
    retry = None if state.state == "done" else retry_command(run_dir, state.s3_prefix)
    write_json(run_dir / STATE_FILE, {**state.model_dump(mode="json"), "retry": retry})


def unfinished_runs(outputs_dir: Path) -> list[tuple[Path, str]]:
    """Run folders whose publication is pending or failed, oldest first, with their prefixes."""
    found = outputs_dir.rglob(STATE_FILE)  # folds and `train.run_dir` lie elsewhere than version_N
    runs = [path.parent for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))]
    states = [(run, read_state(run)) for run in runs]
    return [(run, state.s3_prefix) for run, state in states if state is not None and state.state != "done"]


def publish_words(run_dir: Path, s3_prefix: str) -> list[str]:
    """The words after `cassava` that publish a run, as a command line's list."""
    return ["publish", f"publish.s3_prefix={_as_value(s3_prefix)}", f"publish.run_dir={_as_value(str(run_dir))}"]


def retry_command(run_dir: Path, s3_prefix: str) -> str:
    """The same as a line to type into this machine's shell."""
    words = ["cassava", *publish_words(run_dir, s3_prefix)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _as_value(text: str) -> str:
    """Free text that the door takes as it is; quoted where it holds what Hydra could read as something else."""
    return text if re.fullmatch(r"[\w./:\\~ -]+", text) else quoted(text)
