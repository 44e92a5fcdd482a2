"""The members of a tar archive, read in one go from whatever it is compressed with."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Self, cast

from cassava_leaf_disease.storage.archive_guard import Guard, Member

_CHUNK_BYTES: Final = 1 << 20
_LONGEST_NOTE_BYTES: Final = 1 << 20
_NOTES: Final = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


def is_tar_header(head: bytes) -> bool:
    """Whether 512 bytes are the header of a member, its checksum right; old archives have no other mark."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def read_tar(path: Path, guard: Guard, kind: str) -> Iterator[tuple[Iterator[Member], None]]:
    """Its members; how many bytes they hold is not known beforehand.

    When the last one is read, so is the rest of the stream: only its end tells whether it was damaged.

    Raises:
        DataError: It is damaged.
    """
    with (
        guard.damage(tarfile.TarError, *_zstd_errors(kind)),
        _decompressed(path, kind) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK_BYTES, tarinfo=_Header) as archive,
    ):
        yield _members(archive, stream, guard), None


class _Header(tarfile.TarInfo):
    """Says what tarfile passes over: it takes a damaged or missing header for the end of the archive.

    Long names and other notes about a member are held in memory: one of gigabytes is an attack.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the two empty blocks at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if found.type in _NOTES and found.size > _LONGEST_NOTE_BYTES:
            raise tarfile.ReadError(f"a note of {found.size:,} bytes about one member")
        return found


def _members(archive: tarfile.TarFile, stream: IO[bytes], guard: Guard) -> Iterator[Member]:
    for entry in archive:

        def open_entry(entry: tarfile.TarInfo = entry) -> IO[bytes]:
            return cast("IO[bytes]", archive.extractfile(entry))  # None for what is no file only

        refused = None if entry.isreg() or entry.isdir() else "a link or a device"
        yield Member(entry.name, entry.size, entry.isdir(), open_entry, refused)
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
    while padding := stream.read(_CHUNK_BYTES):
        guard.skip(len(padding))


def _zstd_errors(kind: str) -> tuple[type[Exception], ...]:
    if kind != "tar.zst":
        return ()
    from backports import zstd

    return (zstd.ZstdError,)


def _decompressed(path: Path, kind: str) -> IO[bytes]:
    if kind == "tar.gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if kind == "tar.bz2":
        return bz2.open(path, "rb")
    if kind == "tar.xz":
        return lzma.open(path, "rb")
    if kind == "tar.zst":
        from backports import zstd

        return cast("IO[bytes]", zstd.open(path, "rb"))
    return path.open("rb")
