"""The file format of the photo cache: raw pixels in one file, an index of fixed-size records in another.

The index starts with a JSON header that names the pixel file; then comes a record for each photo: content
digest, offset, height, width and a CRC-32 of the record. Both files only grow. A record is written when its
pixels have reached the disk: a writer that dies leaves whole records and, at worst, half a record or pixels
that no record names; the next writer cuts those off.
"""

import io
import json
import os
import re
import secrets
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

FORMAT = "cassava-photo-cache"
FORMAT_VERSION = 1
HEADER_BYTES = 256

_FIELDS = struct.Struct("<16sQII")  # digest, offset, height, width
_RECORD_BYTES = _FIELDS.size + 4  # and a CRC-32


class DamagedStoreError(Exception):
    """The index is foreign, or contradicts itself or the pixel file; the store must be built anew."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where one photo's pixels lie: (height, width, 3) uint8 from `offset`."""

    offset: int
    height: int
    width: int

    @property
    def end(self) -> int:
        """The first byte behind the photo."""
        return self.offset + self.height * self.width * 3


@dataclass(frozen=True, slots=True)
class StoreContents:
    """What the index says: the pixel file, and the extents by hex digest."""

    pixels_path: Path
    extents: Mapping[str, Extent]

    @property
    def end(self) -> int:
        """The first byte behind all photos."""
        return max((extent.end for extent in self.extents.values()), default=0)


class PixelStore:
    """The two files called `name` in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.index_path = folder / f"{name}.index"
        self.lock_path = folder / f"{name}.lock"

    def load(self) -> StoreContents | None:
        """The contents, or None where there is no store yet; needs no lock.

        Raises:
            DamagedStoreError: See there.
        """
        try:
            raw = self.index_path.read_bytes()
        except FileNotFoundError:
            return None
        contents = StoreContents(self._pixels_path(raw[:HEADER_BYTES]), _parse_records(raw[HEADER_BYTES:]))
        size = contents.pixels_path.stat().st_size if contents.pixels_path.is_file() else -1
        if size < contents.end:
            raise DamagedStoreError(f"{contents.pixels_path.name} is shorter than {self.index_path.name} says")
        return contents

    def create(self) -> StoreContents:
        """An empty store in place of whatever stands there; hold the lock.

        The pixel file gets a new name: readers of an old one keep what they have mapped.
        """
        for old in self._folder.glob(f"{self._name}.*.pixels"):
            old.unlink()
        pixels_path = self._folder / f"{self._name}.{secrets.token_hex(8)}.pixels"
        pixels_path.touch()
        header = json.dumps(
            {"format": FORMAT, "version": FORMAT_VERSION, "name": self._name, "pixels": pixels_path.name}
        )
        fresh = self.index_path.with_suffix(".new")
        fresh.write_bytes(header.encode().ljust(HEADER_BYTES - 1) + b"\n")
        fresh.replace(self.index_path)
        return StoreContents(pixels_path, {})

    def _pixels_path(self, header: bytes) -> Path:
        try:
            fields = json.loads(header)
            name = str(fields["pixels"])
            known = (fields["format"], fields["version"], fields["name"]) == (
                FORMAT,
                FORMAT_VERSION,
                self._name,
            )
        except (ValueError, KeyError, TypeError):
            known, name = False, ""
        if not known or not re.fullmatch(re.escape(self._name) + r"\.[0-9a-f]{16}\.pixels", name):
            raise DamagedStoreError(f"{self.index_path.name} is no index of this cache")
        return self._folder / name


class StoreWriter:
    """Appends to a store; hold the lock, and use it as a context manager."""

    def __init__(self, store: PixelStore, contents: StoreContents) -> None:
        self._index = store.index_path.open("r+b")
        self._pixels = contents.pixels_path.open("r+b")
        for file, end in ((self._pixels, contents.end), (self._index, _index_end(contents))):
            file.truncate(end)  # what a killed writer left behind
            file.seek(end)
        self._offset = contents.end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pixels.close()
        self._index.close()

    def append(self, photos: Iterable[tuple[str, npt.NDArray[np.uint8]]]) -> None:
        """Writes (hex digest, (H, W, 3) uint8): all pixels to the disk, then their records."""
        records = []
        for digest, image in photos:
            height, width, _ = image.shape
            records.append(_pack(digest, Extent(self._offset, height, width)))
            self._pixels.write(np.ascontiguousarray(image).data)
            self._offset += image.nbytes
        _to_disk(self._pixels)
        self._index.write(b"".join(records))
        _to_disk(self._index)


def _to_disk(file: io.BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())


def _index_end(contents: StoreContents) -> int:
    return HEADER_BYTES + len(contents.extents) * _RECORD_BYTES


def _pack(digest: str, extent: Extent) -> bytes:
    fields = _FIELDS.pack(bytes.fromhex(digest), extent.offset, extent.height, extent.width)
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def _parse_records(raw: bytes) -> dict[str, Extent]:
    """Whole records; half a record at the end is what a killed writer leaves."""
    extents: dict[str, Extent] = {}
    for start in range(0, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES):
        fields = raw[start : start + _FIELDS.size]
        if zlib.crc32(fields).to_bytes(4, "little") != raw[start + _FIELDS.size : start + _RECORD_BYTES]:
            raise DamagedStoreError(f"record {start // _RECORD_BYTES} of the index has a wrong checksum")
        digest, offset, height, width = _FIELDS.unpack(fields)
        extents[digest.hex()] = Extent(offset, height, width)
    return extents
