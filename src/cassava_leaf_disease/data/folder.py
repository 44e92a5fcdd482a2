"""Photos in a folder that no table describes."""

import os
from pathlib import Path
from typing import Final

from cassava_leaf_disease.errors import DataError

_SUFFIXES: Final = (".jpg", ".jpeg", ".png")


def find_photos(folder: Path, key: str) -> list[str]:
    """The paths of all JPEG and PNG files below a folder, by name, with slashes, sorted; `key` named the folder.

    Raises:
        DataError: It is no folder, or holds none.
    """
    if not folder.is_dir():
        raise DataError(f"{key}={folder}: no such folder")
    names = [
        (Path(place) / file).relative_to(folder).as_posix()
        for place, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(_SUFFIXES)
    ]
    if not names:
        raise DataError(f"{key}={folder}: no photos; expected files that end in {', '.join(_SUFFIXES)}")
    return sorted(names)
