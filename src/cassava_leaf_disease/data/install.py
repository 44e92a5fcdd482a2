"""A checked data set takes its place, or what stood there stays."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cassava_leaf_disease.errors import ConfigError, StorageError
from cassava_leaf_disease.paths import resolve, root

logger = logging.getLogger(__name__)


@contextmanager
def claimed(lock_path: Path, what: str) -> Iterator[None]:
    """One program at a time; the claim ends with the program, however that ends.

    Raises:
        ConfigError: Another one holds it.
        StorageError: Its folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another program is {what}; wait until it has ended") from None
    except OSError as error:
        raise StorageError(f"{lock_path.parent}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def real_place(data_dir: Path) -> Path:
    """Where a data set really goes: links are followed, so that the link stays and what it points to is replaced."""
    return Path(os.path.realpath(data_dir))


def lock_path(target: Path) -> Path:
    """The lock beside a data set."""
    return target.with_name(f".{target.name}.lock")


def scratch_path(target: Path) -> Path:
    """Where a data set is made ready: beside its place, so that a rename takes it there."""
    return target.with_name(f".{target.name}.new")


def refuse_unsafe(target: Path, needed: Iterable[Path]) -> None:
    """Refuses a place that cannot be replaced, or whose replacement would take more than a data set with it.

    `needed` are files and folders that must survive.

    Raises:
        ConfigError: It is a file, a mount point, or holds the current folder or what is needed.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"paths.data_dir={target} is a file; name a folder")
    if os.path.ismount(target):  # pathlib has it on Unix only
        raise ConfigError(
            f"paths.data_dir={target} is a mount point, which cannot be replaced; name a folder in it: "
            f"paths.data_dir={target / 'cassava'}"
        )
    for path in (root(), Path.cwd(), resolve("~"), *needed):
        if real_place(path).is_relative_to(target):
            raise ConfigError(
                f"paths.data_dir={target} is no folder for a data set alone: {path} is in it and would be lost; name "
                "another folder"
            )


def swap(new: Path, target: Path) -> None:
    """Puts `new` in the place of `target`, or leaves `target` as it was.

    Raises:
        StorageError: The folders cannot be renamed.
    """
    if hasattr(os, "sync"):
        os.sync()  # else a power cut could leave names without content
    old = _old_path(target)
    try:
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    except OSError as error:
        raise StorageError(f"{target}: cannot be replaced ({error.strerror}); what stood there still does") from error
    shutil.rmtree(old, ignore_errors=True)


def clear_leftovers(target: Path) -> None:
    """What a killed program left: half-unpacked photos go, a data set that was being replaced comes back."""
    old = _old_path(target)
    if old.is_dir() and not target.exists():
        old.rename(target)
        logger.warning("an earlier download was cut off while it replaced %s: what stood there is back", target)
    for leftover in (old, scratch_path(target)):
        if leftover.is_dir():
            logger.info("removing what an earlier download left: %s", leftover)
            shutil.rmtree(leftover)


def _old_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
