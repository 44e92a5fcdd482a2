"""Archives, unpacked so that nothing leaves its folder and no bomb goes off: zip, tar, rar, 7z by content."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.log import byte_bar
from cassava_leaf_disease.storage.archive_guard import Guard, Member
from cassava_leaf_disease.storage.archive_rar import read_rar
from cassava_leaf_disease.storage.archive_sevenzip import unpack_7z
from cassava_leaf_disease.storage.archive_tar import is_tar_header, read_tar
from cassava_leaf_disease.storage.archive_zip import read_zip

SUFFIXES: Final = (
    *(".zip", ".rar", ".7z", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
)

_CHUNK_BYTES: Final = 1 << 20
_MAGIC: Final = (
    ("zip", rb"PK(\x03\x04|\x05\x06|\x07\x08)"),
    ("rar", rb"Rar!\x1a\x07"),
    ("7z", rb"7z\xbc\xaf\x27\x1c"),
    ("tar.gz", rb"\x1f\x8b"),
    ("tar.bz2", rb"BZh"),
    ("tar.xz", rb"\xfd7zXZ\x00"),
    ("tar.zst", rb"\x28\xb5\x2f\xfd"),
)


@dataclass(frozen=True)
class Unpacked:
    """How much came out."""

    files: int
    size_bytes: int


def archive_kind(path: Path) -> str | None:
    """`zip`, `rar`, `7z`, `tar`, `tar.gz` … by the first bytes; None for anything else."""
    with path.open("rb") as file:
        head = file.read(512)
    found = next((kind for kind, magic in _MAGIC if re.match(magic, head, re.DOTALL)), None)
    return found or ("tar" if is_tar_header(head) else None)


def unpack(path: Path, folder: Path, max_bytes: int, name: str | None = None) -> Unpacked:
    """Unpacks files and folders into `folder`, which must be new or empty; `name` is what messages call the archive.

    Names, times, modes and owners: only the names are kept.

    Raises:
        DataError: No archive, damaged, encrypted, or one that is made to do harm: names that lead elsewhere,
            links, devices, two names for one file, more than `max_bytes`, far too many files or bytes.
        StorageError: The disk is full, or a program to unpack rar is missing or fails.
    """
    name = name or path.name
    kind = archive_kind(path)
    if kind is None:
        with path.open("rb") as file:
            begins = file.read(16)
        raise DataError(
            f"{name}: no archive (judged by its content, which begins with {begins!r}); expected zip, tar, rar or 7z"
        )
    guard = Guard(name, folder, max_bytes, path.stat().st_size)
    guard.create_folder(folder)
    if kind == "7z":
        unpack_7z(path, guard)
    else:
        _unpack_members(kind, path, guard)
    return Unpacked(guard.files, guard.size_bytes)


def _unpack_members(kind: str, path: Path, guard: Guard) -> None:
    bar = f"unpacking {guard.archive}"
    with _reader(kind, path, guard) as (members, total_bytes), byte_bar(bar, total_bytes) as guard.advance:
        for member in members:
            target = guard.admit(member)
            if member.is_folder:
                guard.create_folder(target)
                continue
            with member.open() as source, guard.create(target) as file:
                while chunk := source.read(_CHUNK_BYTES):
                    file.write(chunk)


def _reader(kind: str, path: Path, guard: Guard) -> AbstractContextManager[tuple[Iterator[Member], int | None]]:
    if kind == "zip":
        return read_zip(path, guard)
    return read_rar(path, guard) if kind == "rar" else read_tar(path, guard, kind)
