"""The data set inside what was fetched: under folders, inside archives."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cassava_leaf_disease.data.table import kaggle_layout
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.archive import SUFFIXES, archive_kind

logger = logging.getLogger(__name__)

_DEPTH: Final = 4  # folders above the data set
_NESTING: Final = 2  # archives around it
_PHOTO_FOLDERS: Final = frozenset({"train_images", "test_images"})  # of many files, none of them an archive
_WANTED: Final = frozenset({"train_images", "train.csv"})  # as Kaggle names their archives


def find_dataset(folder: Path, unpack_into: Callable[[Path, Path], object]) -> Path:
    """The folder in the Kaggle layout that lies nearest to the top of `folder`.

    Where there is none, archives are unpacked beside where they lie, by `unpack_into(archive, new_folder)`, and
    the search begins anew.

    Raises:
        DataError: There is none.
    """
    for _ in range(_NESTING + 1):
        found = [place for place in _folders(folder) if _is_dataset(place)]
        if found:
            if len(found) > 1:
                names = ", ".join(str(place.relative_to(folder)) for place in found)
                logger.warning("several data sets were found (%s): taking the first", names)
            return found[0]
        archives = _archives(folder)
        if not archives:
            break
        for archive in archives:
            _unpack_in_place(archive, unpack_into)
    seen = ", ".join(sorted(child.name for child in folder.iterdir())[:5]) or "nothing"
    raise DataError(f"no data set in it: expected train.csv beside a folder train_images, found {seen}")


def _folders(folder: Path) -> Iterator[Path]:
    """`folder` and those in it, level by level."""
    level = [folder]
    for _ in range(_DEPTH + 1):
        yield from level
        level = sorted(
            child
            for parent in level
            if parent.name not in _PHOTO_FOLDERS
            for child in parent.iterdir()
            if child.is_dir()
        )


def _is_dataset(folder: Path) -> bool:
    try:
        kaggle_layout(folder)
    except DataError:
        return False
    return True


def _archives(folder: Path) -> list[Path]:
    """Those to unpack: the two that Kaggle makes of a data set if one of them is there, else all."""
    found = [
        path
        for place in _folders(folder)
        if place.name not in _PHOTO_FOLDERS
        for path in sorted(place.iterdir())
        if path.is_file() and _stem(path) != path.name and archive_kind(path) is not None
    ]
    return [path for path in found if _stem(path) in _WANTED] or found


def _stem(path: Path) -> str:
    """The name without what tells that it is an archive."""
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len, default="")
    return path.name[: len(path.name) - len(suffix)]


def _unpack_in_place(archive: Path, unpack_into: Callable[[Path, Path], object]) -> None:
    """Puts a folder in the place of an archive; one that holds nothing but its own namesake is that namesake."""
    logger.info("unpacking %s, which was inside", archive.name)
    unpacked = archive.with_name(f"{archive.name}.unpacked")
    unpack_into(archive, unpacked)
    archive.unlink()
    target = archive.with_name(_stem(archive))
    if target.exists():
        return
    if [child.name for child in unpacked.iterdir()] == [target.name]:
        (unpacked / target.name).rename(target)
        unpacked.rmdir()
    else:
        unpacked.rename(target)
