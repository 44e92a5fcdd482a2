"""The part of a file that has arrived, kept so that a later try goes on from there; and whole files, checked."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.log import byte_bar
from cassava_leaf_disease.storage.files import write_json

_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Download:
    """A complete, checked file; of its bytes `resumed_at_bytes` had arrived in an earlier program."""

    path: Path
    size_bytes: int
    sha256: str
    resumed_at_bytes: int


class Part:
    """`NAME.part` in a folder, and beside it `NAME.part.json`: which file the bytes are of.

    `validator` is the ETag or the date that the server gave, by which it tells whether its file is still the
    same. Without one nothing can be resumed. `reused_bytes` counts those of an earlier program.
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[-60:]}-{digest}.part"
        self._identity = identity
        self._note = _note_path(self.path)
        self.validator, self.total_bytes = self._known()
        self.reused_bytes = self.resumable_bytes

    @property
    def size_bytes(self) -> int:
        """How much has arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def resumable_bytes(self) -> int:
        """How much of that a server may be asked to go on from."""
        return self.size_bytes if self.validator else 0

    def start(self, validator: str | None, total_bytes: int | None) -> None:
        """Begins anew."""
        self.path.unlink(missing_ok=True)
        self.validator, self.total_bytes, self.reused_bytes = validator, total_bytes, 0
        write_json(self._note, {"url": self._identity, "validator": validator, "size_bytes": total_bytes})

    def discard(self) -> None:
        """Forgets what has arrived."""
        discard(self.path)
        self.validator, self.total_bytes, self.reused_bytes = None, None, 0

    def _known(self) -> tuple[str | None, int | None]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            validator, total = note["validator"], note["size_bytes"]
        except (OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one
            return None, None
        return (validator if isinstance(validator, str) else None, total if isinstance(total, int) else None)


def check_file(path: Path, checksums: Mapping[str, str], name: str, resumed_at_bytes: int = 0) -> Download:
    """The file as a complete download; `checksums` maps names of `hashlib` to what they must be.

    Raises:
        StorageError: Its content has another checksum; `name` is what the message calls the file.
    """
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in {"sha256", *checksums}}
    size = path.stat().st_size
    with path.open("rb") as file, byte_bar(f"checking {name}", size) as advance:
        while chunk := file.read(_CHUNK_BYTES):
            for digest in digests.values():
                digest.update(chunk)
            advance(len(chunk))
    for kind, expected in checksums.items():
        seen = digests[kind].hexdigest()
        if seen != expected.lower():
            raise StorageError(
                f"{name}: the file is damaged or another one: its {kind} is {seen}, expected {expected}; "
                "fetch it again, or correct the expected checksum"
            )
    return Download(path, size, digests["sha256"].hexdigest(), resumed_at_bytes)


def discard(path: Path) -> None:
    """Removes a download that is no longer needed or turned out to be of no use, and the note beside it."""
    path.unlink(missing_ok=True)
    _note_path(path).unlink(missing_ok=True)


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
