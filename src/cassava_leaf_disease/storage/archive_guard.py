"""What comes out of an archive, judged before it is written: names, kinds, numbers, sizes."""

import lzma
import re
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, EINVAL, ENOSPC
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Final, Self

from cassava_leaf_disease.errors import DataError, StorageError, first_line

MAX_ENTRIES: Final = 1_000_000
MAX_RATIO: Final = 200  # photos hardly shrink; a text does tenfold, a zip bomb a thousandfold
RATIO_FREE_BYTES: Final = 256 << 20  # what may come out of however small an archive

_DAMAGE: Final = (EOFError, ValueError, IndexError, struct.error, lzma.LZMAError, zlib.error)
_DRIVE = re.compile(r"[A-Za-z]:")


class TooLargeError(DataError):
    """More than `download_data.max_unpacked_bytes` would come out; the archive itself may be honest."""


@dataclass(frozen=True)
class Member:
    """One entry: a folder, a file with a way to open it, or something that must not be unpacked."""

    name: str
    size_bytes: int
    is_folder: bool
    open: Callable[[], IO[bytes]]
    refused: str | None = None


class Guard:
    """Says where each member of one archive goes, and counts each byte before it is written.

    `archive` is what messages call the archive; `packed_bytes` is its size.
    """

    def __init__(self, archive: str, folder: Path, max_bytes: int, packed_bytes: int) -> None:
        self.archive = archive
        self.folder = folder
        self.advance: Callable[[int], None] = lambda _: None
        self.files = 0
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._plausible_bytes = max(RATIO_FREE_BYTES, MAX_RATIO * packed_bytes)
        self._skipped_bytes = 0
        self._entries = 0
        self._file_keys: set[str] = set()
        self._folder_keys: set[str] = set()

    def announce(self, size_bytes: int) -> None:
        """Judges the sum of what an archive says that it holds, before anything is written.

        Raises:
            DataError: It is too much.
            StorageError: There is no room for it.
        """
        self._check_size(size_bytes)
        free = shutil.disk_usage(self.folder).free
        if size_bytes > free:
            raise StorageError(
                f"{self.archive}: unpacks to {size_bytes / 1e6:,.1f} MB, more than the {free / 1e6:,.1f} MB that are "
                f"free in {self.folder.parent}; make room"
            )

    def admit(self, member: Member) -> Path:
        """Where a member goes.

        Raises:
            DataError: It must not go anywhere.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise self._bad(f"it holds more than {MAX_ENTRIES:,} entries")
        if member.refused is not None:
            raise self._bad(f"{member.name!r} is {member.refused}")
        parts = self._safe_parts(member)
        self._check_twice(parts, member)
        if not member.is_folder:
            self.files += 1
            self._check_size(self.size_bytes + member.size_bytes)
        return self.folder.joinpath(*parts)

    def spend(self, size_bytes: int) -> None:
        """Counts what is about to be written.

        Raises:
            DataError: It is more than an honest archive holds.
        """
        self.size_bytes += size_bytes
        self._check_size(self.size_bytes)
        self.advance(size_bytes)

    def skip(self, size_bytes: int) -> None:
        """Counts what is read and thrown away: the padding at the end of a tar archive.

        Raises:
            DataError: It is more than an honest archive holds.
        """
        self._skipped_bytes += size_bytes
        self._check_size(self.size_bytes + self._skipped_bytes)

    def create_folder(self, path: Path) -> None:
        """A folder where `admit` has placed it, or where a file will need it."""
        with _disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> "GuardedFile":
        """A new file where `admit` has placed it."""
        return GuardedFile(self, path)

    def encrypted(self) -> DataError:
        """Why an archive with a password is not unpacked."""
        return DataError(f"{self.archive}: refused: it is encrypted; unpack it, and pack it anew without a password")

    def rare(self, error: Exception) -> DataError:
        """Why an archive is not unpacked whose compression the library does not know."""
        return DataError(
            f"{self.archive}: packed in a rare way ({first_line(error)}); unpack it, and pack it anew as zip or tar"
        )

    @contextmanager
    def damage(self, *kinds: type[Exception]) -> Iterator[None]:
        """Tells in our words what a library raises when an archive is damaged: its own errors, `kinds`, and others.

        Raises:
            DataError: The archive is damaged.
            StorageError: The disk cannot be read.
        """
        told: tuple[type[Exception], ...] = (OSError, *_DAMAGE, *kinds)
        try:
            yield
        except told as error:
            if isinstance(error, OSError) and error.errno not in (None, EINVAL):  # those: no such place in the file
                raise StorageError(f"{self.archive}: cannot be read ({error.strerror})") from error
            raise DataError(f"{self.archive}: the archive is damaged ({first_line(error)}); fetch it again") from error

    def _safe_parts(self, member: Member) -> tuple[str, ...]:
        parts = PurePosixPath(member.name.replace("\\", "/")).parts
        leads_away = any(part == ".." or part.startswith("/") or _DRIVE.match(part) for part in parts)
        if leads_away or "\0" in member.name or not (parts or member.is_folder):
            raise self._bad(f"the name {member.name!r} leads out of its folder")
        return parts

    def _check_twice(self, parts: tuple[str, ...], member: Member) -> None:
        """No file takes the place of another, not even where upper and lower case or accents are one to the disk."""
        keys = [unicodedata.normalize("NFC", "/".join(parts[:end])).casefold() for end in range(1, len(parts) + 1)]
        folders = keys if member.is_folder else keys[:-1]
        taken = not self._file_keys.isdisjoint(folders)
        if not member.is_folder:
            taken = taken or keys[-1] in self._file_keys or keys[-1] in self._folder_keys
            self._file_keys.add(keys[-1])
        self._folder_keys.update(folders)
        if taken:
            raise self._bad(f"it holds {member.name!r} twice")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise TooLargeError(
                f"{self.archive}: unpacks to more than {self._max_bytes:,} bytes, as archive bombs do; if it is meant "
                "to, type download_data.max_unpacked_bytes=NUMBER"
            )
        if size_bytes > self._plausible_bytes:
            raise self._bad(f"it unpacks to more than {MAX_RATIO} times its size, as archive bombs do")

    def _bad(self, why: str) -> DataError:
        return DataError(f"{self.archive}: refused: {why}; nothing of it was kept; get it from a source you trust")


class GuardedFile:
    """A file that is written through its guard."""

    def __init__(self, guard: Guard, path: Path) -> None:
        self._guard = guard
        self._path = path
        guard.create_folder(path.parent)
        with _disk_errors(path):
            self._file = path.open("xb")

    def write(self, data: bytes | bytearray) -> int:
        """Writes bytes, once they are counted."""
        self._guard.spend(len(data))
        with _disk_errors(self._path):
            return self._file.write(data)

    def close(self) -> None:
        """What is still in memory goes to the disk."""
        with _disk_errors(self._path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk raises into an error that tells it from a damaged archive.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        hint = "; make room, then type the command again" if error.errno in (EDQUOT, ENOSPC) else ""
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}){hint}") from error
