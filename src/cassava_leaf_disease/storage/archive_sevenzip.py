"""7z archives. py7zr unpacks whole archives only: it is handed files that write through the guard."""

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from cassava_leaf_disease.log import byte_bar
from cassava_leaf_disease.storage.archive_guard import Guard, GuardedFile, Member


def unpack_7z(path: Path, guard: Guard) -> None:
    """Judges all names and sizes, then unpacks.

    Raises:
        DataError: It is damaged, encrypted, or holds what must not be unpacked.
    """
    import py7zr

    with guard.damage(py7zr.exceptions.ArchiveError), path.open("rb") as file:
        try:
            # py7zr unpacks a file that it has opened itself in threads, which would outlive Ctrl-C.
            with py7zr.SevenZipFile(file) as archive:
                if archive.needs_password():
                    raise guard.encrypted()
                _unpack(archive, guard)
        except py7zr.exceptions.PasswordRequired:
            raise guard.encrypted() from None
        except py7zr.exceptions.UnsupportedCompressionMethodError as error:
            raise guard.rare(error) from error


def _unpack(archive: Any, guard: Guard) -> None:  # noqa: ANN401
    entries = archive.list()
    total = sum(entry.uncompressed for entry in entries if not entry.is_directory)
    guard.announce(total)
    for entry in entries:
        target = guard.admit(_member(entry))
        if entry.is_directory:
            guard.create_folder(target)
    with byte_bar(f"unpacking {guard.archive}", total) as guard.advance, ExitStack() as opened:
        archive.extractall(guard.folder, factory=_Factory(guard, opened))


def _member(entry: Any) -> Member:  # noqa: ANN401
    refused = None if entry.is_file or entry.is_directory else "a link or a device"
    return Member(entry.filename, 0 if entry.is_directory else entry.uncompressed, entry.is_directory, _never, refused)


def _never() -> IO[bytes]:
    raise AssertionError  # pragma: no cover  py7zr opens its members itself


class _Factory:
    """Makes a writer for each file; py7zr names it by its path in the guard's folder."""

    def __init__(self, guard: Guard, opened: ExitStack) -> None:
        self._guard = guard
        self._opened = opened

    def create(self, filename: str) -> "_Writer":
        file = self._guard.create(Path(filename))
        self._opened.callback(file.close)
        return _Writer(file)


class _Writer:
    """What py7zr asks of a file: it writes from the beginning to the end, and closes it."""

    def __init__(self, file: GuardedFile) -> None:
        self.write = file.write
        self.close = file.close

    def seek(self, _offset: int, _whence: int = 0) -> int:
        return 0
