"""Files that stand whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write; when the block ends well it is flushed to disk and renamed over `path`.

    A process that is killed, or a block that raises, leaves what stood there before. The temporary file
    starts with a dot and ends in `.tmp`, beside `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replaces `path` whole with UTF-8 text, line ends as they are in `text`."""
    with replacing(path) as file:
        file.write(text.encode())


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
