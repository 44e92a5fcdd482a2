"""The members of a zip archive."""

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cassava_leaf_disease.storage.archive_guard import Guard, Member

_ENCRYPTED = 1


@contextmanager
def read_zip(path: Path, guard: Guard) -> Iterator[tuple[Iterator[Member], int]]:
    """Its members, and how many bytes they say that they hold.

    Raises:
        DataError: It is damaged, or compressed in a way that Python does not know.
    """
    try:
        with guard.damage(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            guard.announce(total)
            yield (_member(archive, entry) for entry in entries), total
    except NotImplementedError as error:
        raise guard.rare(error) from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    def open_entry() -> IO[bytes]:
        return archive.open(entry)

    kind = stat.S_IFMT(entry.external_attr >> 16)
    special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    refused = "a link or a device" if special else "encrypted" if entry.flag_bits & _ENCRYPTED else None
    return Member(entry.filename, entry.file_size, entry.is_dir(), open_entry, refused)
