"""What the walks through a JPEG and a PNG share: what they find, what they refuse, and the EXIF orientation."""

import struct
from dataclasses import dataclass
from typing import Final

from cassava_leaf_disease.errors import CorruptImageError, TooManyPixelsError

MAX_CHUNKS: Final = 100_000  # PNG chunks or JPEG segments; a 20 MB PNG in 8 KiB chunks has 2,500


@dataclass(frozen=True)
class Picture:
    """What the walk through a container found; `coded` is the file without its metadata."""

    kind: str
    coded: bytes
    bits: int
    orientation: int = 1
    adobe: bool = False
    components: int = 3
    baseline: bool = False


def read_orientation(tiff: bytes) -> int:
    """1 to 8; 1 (upright) where the block has none or cannot be read: many phones write odd EXIF."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + {1: "B", 4: "I"}.get(kind, "H"), tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def write_orientation(orientation: int) -> bytes:
    """An EXIF block that tells the orientation alone."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def check_pixels(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuses what nobody should decode.

    Raises:
        CorruptImageError: It has no pixels.
        TooManyPixelsError: It has more than `max_pixels`.
    """
    if not width or not height:
        raise CorruptImageError(f"{name}: a picture of {width}x{height} pixels; expected a photo; send it again")
    if width * height > max_pixels:
        seen, most = f"{width}x{height} = {width * height:,} pixels", f"at most {max_pixels:,}"
        raise TooManyPixelsError(f"{name}: {seen}; expected {most}; save it smaller, or raise the pixel limit")


def truncated(kind: str, data: bytes, name: str) -> CorruptImageError:
    """The error of a file that ends before its end marker."""
    return damaged(kind, f"it breaks off within its {len(data):,} bytes, before its end marker", name)


def damaged(kind: str, why: str, name: str) -> CorruptImageError:
    """The error of a file that is not whole."""
    return CorruptImageError(f"{name}: a truncated or damaged {kind} ({why}); expected a whole photo; send it again")
