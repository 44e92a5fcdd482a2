"""Photos in a folder that no table describes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cassava_leaf_disease.errors import DataError

PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png")


def find_photos(folder: Path, key: str) -> list[str]:
    """The paths of all JPEG and PNG files below a folder, by name, with slashes, sorted; `key` named the folder.

    Raises:
        DataError: It is no folder, or holds none.
    """
    names = sorted(walk_photos(folder, key))
    if not names:
        raise no_photos(f"{key}={folder}")
    return names


def walk_photos(folder: Path, key: str) -> Iterator[str]:
    """The same paths one after another, always in the same order, with one folder's names in memory.

    Raises:
        DataError: It is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"{key}={folder}: no such folder")
    for place, folders, files in os.walk(folder):
        folders.sort()
        below = Path(place).relative_to(folder)
        yield from ((below / file).as_posix() for file in sorted(files) if is_photo_name(file))


def is_photo_name(name: str) -> bool:
    """Whether a file is called as a JPEG or PNG is."""
    return name.lower().endswith(PHOTO_SUFFIXES)


def no_photos(where: str) -> DataError:
    """That there are none in a place, `where` as it was typed."""
    return DataError(f"{where}: no photos; expected files that end in {', '.join(PHOTO_SUFFIXES)}")
