"""The members of a rar archive.

Stored ones are read without help. Compressed ones need a program, and it is run once for the whole archive: it
writes all files one after the other into a pipe, which is cut up by the sizes that the archive declares, each
piece held to its checksum. A run for each file would unpack a solid archive anew for every photo.
"""

import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Self, cast

from cassava_leaf_disease.errors import DataError, StorageError
from cassava_leaf_disease.storage.archive_guard import Guard, Member

_PROGRAMS: Final = (  # the words before the archive's path that write all its files to stdout
    ("unrar", "p", "-inul", "-p-", "--"),
    ("unar", "-q", "-o", "-", "-p", "", "--"),
    ("7z", "e", "-so", "-bb0", "-p", "--"),
    ("7zz", "e", "-so", "-bb0", "-p", "--"),
    ("bsdtar", "-x", "-O", "-f"),
)
_INSTALL: Final = "install unrar (from rarlab.com), unar, 7-Zip (7z) or bsdtar and type the command again"
_CHUNK_BYTES: Final = 1 << 20


@contextmanager
def read_rar(path: Path, guard: Guard) -> Iterator[tuple[Iterator[Member], int]]:
    """Its members, and how many bytes they say that they hold.

    Raises:
        DataError: It is damaged, encrypted, or one of several volumes that are not all there.
        StorageError: It is compressed, and there is no program that unpacks it.
    """
    import rarfile

    with guard.damage(rarfile.Error):
        archive = _open(path, guard)
        if archive.needs_password():
            raise guard.encrypted()
        entries: list[Any] = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        guard.announce(total)
        if all(entry.compress_type == rarfile.RAR_M0 for entry in entries):
            yield _members(entries, archive.open), total
        else:
            program = _working_program(path, entries, guard)
            with _piped(program, path) as pipe:
                yield _members(entries, lambda entry: cast("IO[bytes]", _Piece(pipe, entry, program[0], guard))), total


def _open(path: Path, guard: Guard) -> Any:  # noqa: ANN401  rarfile has no types
    import rarfile

    try:
        return rarfile.RarFile(path, errors="strict")
    except rarfile.RarCannotExec as error:  # even the comment of an old archive is compressed
        raise StorageError(f"{guard.archive}: compressed rar needs a program to unpack it; {_INSTALL}") from error
    except rarfile.Error as error:
        if isinstance(error, rarfile.NeedFirstVolume | rarfile.BadRarName) or "next volume" in str(error):
            raise DataError(
                f"{guard.archive}: it is one of several volumes, and not all of them are there; name the first one in "
                "a folder that holds them all, or pack the photos anew as one archive"
            ) from error
        raise


def _members(entries: list[Any], open_entry: Callable[[Any], IO[bytes]]) -> Iterator[Member]:
    for entry in entries:
        odd = entry.file_redir is not None or not (entry.is_file() or entry.is_dir())
        yield Member(
            name=entry.filename,
            size_bytes=entry.file_size,
            is_folder=entry.is_dir(),
            open=partial(open_entry, entry),
            refused="a link or a device" if odd else None,
        )


def _working_program(path: Path, entries: list[Any], guard: Guard) -> tuple[str, ...]:
    """The first program that unpacks the first file: not each knows each kind of rar.

    Raises:
        StorageError: There is none, or none that does.
    """
    first = next(entry for entry in entries if entry.file_size and not entry.is_dir())
    installed = [words for words in _PROGRAMS if shutil.which(words[0])]
    for words in installed:
        with suppress(StorageError), _piped(words, path) as pipe:
            piece = _Piece(pipe, first, words[0], guard)
            while piece.read(_CHUNK_BYTES):
                pass
            return words
    seen = ", ".join(words[0] for words in installed)
    why = f"{seen} cannot unpack it" if seen else "compressed rar needs a program to unpack it"
    raise StorageError(f"{guard.archive}: {why}; {_INSTALL}, or pack the photos anew as zip")


@contextmanager
def _piped(program: tuple[str, ...], path: Path) -> Iterator[IO[bytes]]:
    """All files of an archive one after the other, as a program writes them."""
    process = subprocess.Popen(  # noqa: S603  one of the programs above; the path is absolute, so it is no option
        [*program, str(path.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield cast("IO[bytes]", process.stdout)
    finally:
        process.kill()
        process.communicate()


class _Piece:
    """What of the pipe is one file."""

    def __init__(self, pipe: IO[bytes], entry: Any, program: str, guard: Guard) -> None:  # noqa: ANN401
        self._pipe = pipe
        self._entry = entry
        self._program = program
        self._guard = guard
        self._left_bytes: int = entry.file_size
        self._crc = 0

    def read(self, size: int) -> bytes:
        """The next bytes; none at its end.

        Raises:
            StorageError: The pipe ends before, or holds something else.
        """
        data = self._pipe.read(min(size, self._left_bytes))
        self._left_bytes -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        broke_off = not data and self._left_bytes > 0
        other = self._left_bytes == 0 and self._entry.CRC not in (None, self._crc)
        if broke_off or other:
            raise StorageError(
                f"{self._guard.archive}: {self._program} could not unpack {self._entry.filename!r}: it is damaged, or "
                f"packed in a way that this program does not know; {_INSTALL}, or pack the photos anew as zip"
            )
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The pipe goes on with the next file."""
