"""The walk through a JPEG's segments, without decoding."""

import re
import struct
from collections.abc import Iterator
from typing import Final

from cassava_leaf_disease.errors import TooManyPixelsError, UnsupportedImageError
from cassava_leaf_disease.imaging.container import (
    MAX_CHUNKS,
    Picture,
    check_pixels,
    damaged,
    read_orientation,
    truncated,
)

JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
MAX_JPEG_SCANS: Final = 500  # encoders write about ten; each costs a pass over all pixels

_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # not stuffing, fill, restart or start


def walk_jpeg(data: bytes, max_pixels: int, name: str) -> Picture:
    """Keeps tables, frame, scans and the two markers that tell the colour space (JFIF, Adobe)."""
    parts = [data[:2]]
    frame: tuple[int, int, int, int] | None = None  # bits, height, width, components
    orientation, adobe, baseline, scans = 1, False, False, 0
    for marker, start, body, end in jpeg_segments(data, name):
        content = data[body : body + 14]
        if _is_frame(marker):
            frame, baseline = _jpeg_frame(data[body:end], name), marker in (0xC0, 0xC1)
            check_pixels(frame[2], frame[1], max_pixels, name)
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation = read_orientation(data[body + 6 : end])
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                what = f"a JPEG of more than {MAX_JPEG_SCANS} scans"
                raise TooManyPixelsError(f"{name}: {what}; expected a photo of few scans; save it anew")
        adobe = adobe or (marker == 0xEE and content.startswith(b"Adobe"))
        if not 0xE0 <= marker <= 0xFE or content.startswith((b"JFIF\0", b"Adobe")):
            parts.append(data[start:end])
    if frame is None or not scans:
        raise damaged("JPEG", "it holds no picture", name)
    return Picture("JPEG", b"".join(parts), frame[0], orientation, adobe, frame[3], baseline)


def jpeg_segments(data: bytes, name: str) -> Iterator[tuple[int, int, int, int]]:
    """Marker, start, start of content, end; a scan ends with its coded data, the last one is EOI."""
    position = 2
    for _ in range(MAX_CHUNKS):
        found = _NEXT_MARKER.search(data, position)
        if found is None:
            break
        marker, start = data[found.start() + 1], found.start()
        if marker == 0xD9:
            yield marker, start, start + 2, start + 2
            return
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
        if length < 2 or position > len(data):
            break
        if marker == 0xDA:
            after = _NEXT_MARKER.search(data, position)
            position = after.start() if after else len(data)
        yield marker, start, start + 4, position
    raise truncated("JPEG", data, name)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def _jpeg_frame(content: bytes, name: str) -> tuple[int, int, int, int]:
    try:
        bits, height, width, components = struct.unpack_from(">BHHB", content)
    except struct.error:
        raise damaged("JPEG", "its frame header is cut short", name) from None
    if bits != 8 or components not in (1, 3, 4):
        seen = f"a JPEG of {bits} bits and {components} components"
        raise UnsupportedImageError(f"{name}: {seen}; expected 8 bits and 1, 3 or 4; save it as an 8-bit JPEG")
    return bits, height, width, components


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """A segment with its marker and length."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
