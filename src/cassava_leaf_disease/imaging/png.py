"""The walk through a PNG's chunks, without decoding."""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from cassava_leaf_disease.errors import CorruptImageError, TooManyPixelsError
from cassava_leaf_disease.imaging.container import (
    MAX_CHUNKS,
    Picture,
    check_pixels,
    damaged,
    read_orientation,
    truncated,
)

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_METADATA_BYTES: Final = 4 * 1024**2  # unpacked size of all text and colour profile chunks of a PNG


def walk_png(data: bytes, max_pixels: int, name: str) -> Picture:
    """Keeps header, palette, transparency and pixels."""
    parts = [PNG_SIGNATURE]
    width, height, bits = 0, 0, 0
    orientation, metadata_bytes = 1, 0
    for kind, start, end in _png_chunks(data, name):
        content = data[start + 8 : end - 4]
        if kind == b"IHDR" and len(content) == 13:
            width, height, bits = struct.unpack_from(">IIB", content)
            check_pixels(width, height, max_pixels, name)
        elif not width:
            raise damaged("PNG", "it does not start with a header", name)
        elif kind == b"acTL" and content[:4] != b"\0\0\0\1":
            frames = int.from_bytes(content[:4], "big")
            what = f"an animated PNG of {frames} frames"
            raise CorruptImageError(f"{name}: {what}; expected one still picture; save a single frame")
        elif kind == b"eXIf":
            orientation = read_orientation(content)
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            metadata_bytes += _unpacked_size(kind, content, MAX_METADATA_BYTES + 1 - metadata_bytes)
            if metadata_bytes > MAX_METADATA_BYTES:
                what = f"a PNG whose texts or colour profile unpack to over {MAX_METADATA_BYTES:,} bytes"
                raise TooManyPixelsError(f"{name}: {what}; expected a plain photo; save it as JPEG")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            parts.append(data[start:end])
    return Picture("PNG", b"".join(parts), bits, orientation)


def _png_chunks(data: bytes, name: str) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk up to IEND; every checksum is checked."""
    start = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        kind = data[start + 4 : start + 8]
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise damaged("PNG", f"wrong checksum in its {kind.decode('latin-1')!r} part", name)
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise truncated("PNG", data, name)


def _unpacked_size(kind: bytes, content: bytes, limit: int) -> int:
    """Bytes that a compressed chunk unpacks to, or `limit` if it is more; 0 if it cannot be read."""
    packed = content.partition(b"\0")[2]  # after the keyword: method, data
    if kind == b"iTXt":  # compressed or not, method, language, keyword, data
        packed = packed[1:2] + packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    try:
        return len(zlib.decompressobj().decompress(packed[1:], limit))
    except zlib.error:
        return 0


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
