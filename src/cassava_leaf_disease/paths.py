"""Every directory of the project, resolved in one place.

Relative paths are relative to `CASSAVA_ROOT`, or to the current directory where that is not set.
"""

import os
from pathlib import Path

BEST_CHECKPOINT = "best.ckpt"
LAST_CHECKPOINT = "last.ckpt"
ENSEMBLE_FILE = "ensemble.json"
METRICS_FILE = "metrics.json"  # of a finished run, or of a folder of runs
ENGINE_SUFFIX = ".engine"  # of a TensorRT engine
OUT_OF_FOLD_FILE = "oof.csv"


def root() -> Path:
    """The directory that relative paths start from."""
    return _expanded(os.environ.get("CASSAVA_ROOT") or Path.cwd()).absolute()


def resolve(path: str | Path) -> Path:
    """An absolute path: `~` expanded, relative paths taken from `root()`."""
    return Path(os.path.normpath(root() / _expanded(path)))


def runs_dir(outputs_dir: Path) -> Path:
    """Where training keeps its run folders."""
    return outputs_dir / "runs"


def checkpoints_dir(run_dir: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run_dir / "checkpoints"


def best_checkpoint(run_dir: Path) -> Path:
    """Where a run's best weights stand."""
    return checkpoints_dir(run_dir) / BEST_CHECKPOINT


def version_dirs(parent: Path) -> list[Path]:
    """The `version_N` folders below `parent`, by rising N."""
    if not parent.is_dir():
        return []
    numbered = [
        (int(number), path)
        for path in parent.iterdir()
        if path.is_dir() and (number := path.name.removeprefix("version_")).isdecimal() and number != path.name
    ]
    return [path for _, path in sorted(numbered)]


def create_version_dir(parent: Path) -> Path:
    """Makes the next `version_N` below `parent`; two runs that start together get two folders."""
    parent.mkdir(parents=True, exist_ok=True)
    taken = version_dirs(parent)
    number = int(taken[-1].name.removeprefix("version_")) + 1 if taken else 0
    while True:
        candidate = parent / f"version_{number}"
        try:
            candidate.mkdir()
        except FileExistsError:
            number += 1
        else:
            return candidate


def newest_best_checkpoint(outputs_dir: Path) -> Path | None:
    """The most recently written `best.ckpt` anywhere under `outputs_dir`, or None."""
    found = [path for path in outputs_dir.rglob(BEST_CHECKPOINT) if path.is_file()] if outputs_dir.is_dir() else []
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def _expanded(path: str | Path) -> Path:
    """`~` and `~user` expanded; one that names nobody stays as it is (`Path.expanduser` would raise)."""
    return Path(os.path.expanduser(path))  # noqa: PTH111
