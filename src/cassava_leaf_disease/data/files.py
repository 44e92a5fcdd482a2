"""Writing whole files or none, and how many processors this process may use."""

import os
import secrets
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Writes `text` (UTF-8, LF) so that a reader, at any moment, finds the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def available_cpus() -> int:
    """Processors that this process may run on; on Linux that honours `taskset` and containers' cpusets."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
