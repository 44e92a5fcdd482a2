"""JPEG and PNG bytes to RGB pixels, judged by content and never by name.

The container is walked first, without decoding: that finds the size, the EXIF orientation, animation,
truncation and bombs. Only what codes the picture itself then reaches Pillow, so that no metadata of a
stranger's file is ever unpacked or parsed there, and no global setting of Pillow matters.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin

from cassava_leaf_disease.errors import (
    CorruptImageError,
    DataError,
    ImageTooLargeError,
    TooManyPixelsError,
    UnsupportedImageError,
)

JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

# What else arrives as "a photo", by (offset, bytes); the first match names it.
OTHER_FORMATS: Final = (
    ("GIF", 0, rb"GIF8[79]a"),
    ("WebP", 0, rb"RIFF.{4}WEBP"),
    ("AVIF", 4, rb"ftypavi[fs]"),
    ("HEIC", 4, rb"ftyp(hei[cxms]|hev[cx]|mif1|msf1)"),
    ("MP4 or QuickTime video", 4, rb"ftyp"),
    ("BMP", 0, rb"BM.{4}\0{4}"),
    ("TIFF", 0, rb"II\*\0|MM\0\*"),
    ("JPEG XL", 0, rb"\xff\x0a|\0{3}\x0cJXL "),
    ("JPEG 2000", 0, rb"\0{3}\x0cjP  |\xff\x4f\xff\x51"),
    ("PSD", 0, rb"8BPS"),
    ("ICO", 0, rb"\0\0\x01\0"),
    ("PDF", 0, rb"%PDF-"),
    ("ZIP", 0, rb"PK\x03\x04"),
    ("SVG, HTML or XML", 0, rb"(\xef\xbb\xbf)?\s*<[?!a-zA-Z]"),
)

MAX_METADATA_BYTES: Final = 4 * 1024**2  # unpacked size of all text and colour profile chunks of a PNG
MAX_JPEG_SCANS: Final = 500  # encoders write about ten; each costs a pass over all pixels
MAX_CHUNKS: Final = 100_000  # PNG chunks or JPEG segments; a 20 MB PNG in 8 KiB chunks has 2,500


@dataclass(frozen=True)
class DecodeLimits:
    """The largest file in bytes and the largest picture in pixels that is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 60_000_000


@dataclass(frozen=True)
class _Picture:
    """What the walk through a container found; `coded` is the file without its metadata."""

    kind: str
    coded: bytes
    bits: int
    orientation: int = 1
    adobe: bool = False
    components: int = 3
    baseline: bool = False


def read_image(path: Path, limits: DecodeLimits | None = None) -> np.ndarray:
    """The photo in a file as (H, W, 3) uint8 RGB; see `decode_image`.

    Raises:
        DataError: There is no readable file at `path`.
        ImageError: As `decode_image`.
    """
    limits = limits or DecodeLimits()
    return decode_image(read_bytes(path, limits), limits, name=str(path))


def read_bytes(path: Path, limits: DecodeLimits) -> bytes:
    """The file's content, whatever it is.

    Raises:
        DataError: There is no readable file at `path`.
        ImageTooLargeError: It is larger than `limits.max_bytes`.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the path of a JPEG or PNG photo")
        _check_bytes(path.stat().st_size, limits, str(path))
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def decode_image(data: bytes, limits: DecodeLimits | None = None, *, name: str = "image") -> np.ndarray:
    """The photo as (H, W, 3) uint8 RGB, C-contiguous and writable, upright by its EXIF orientation.

    Transparency is laid on white; 16 bits a sample become 8 by scaling; CMYK is converted by formula and
    colour profiles are ignored. Of several pictures in one JPEG (MPO, Ultra HDR) the first, primary one
    is taken. `name` is what error messages call the photo.

    Raises:
        UnsupportedImageError: Neither JPEG nor PNG, or a rare kind of JPEG.
        ImageTooLargeError: More bytes than `limits`.
        TooManyPixelsError: More pixels than `limits`, or a decompression bomb.
        CorruptImageError: Empty, truncated, damaged or animated.
    """
    limits = limits or DecodeLimits()
    if not data:
        raise CorruptImageError(f"{name}: empty, 0 bytes; expected a JPEG or PNG photo; send the file again")
    _check_bytes(len(data), limits, name)
    if data.startswith(JPEG_SIGNATURE):
        picture = _walk_jpeg(data, limits, name)
    elif data.startswith(PNG_SIGNATURE):
        picture = _walk_png(data, limits, name)
    else:
        raise UnsupportedImageError(f"{name}: {_seen(data)}; expected a JPEG or PNG photo; save it as JPEG")
    return _decode(picture, name)


@dataclass(frozen=True)
class PlainJpeg:
    """The coded picture of a JPEG that every decoder reads alike, without metadata.

    A `baseline` one is coded in a single pass, which GPUs decode; progressive ones they hardly can.
    """

    coded: bytes
    baseline: bool


def plain_jpeg(data: bytes, limits: DecodeLimits | None = None, *, name: str = "image") -> PlainJpeg | None:
    """The coded picture of a JPEG that every decoder reads alike; None for anything else.

    Alike are upright ones of three components whose colour space no Adobe marker tells. The container has
    then been walked as by `decode_image`.

    Raises:
        ImageError: As `decode_image`, for what the container shows.
    """
    limits = limits or DecodeLimits()
    if not data.startswith(JPEG_SIGNATURE):
        return None
    _check_bytes(len(data), limits, name)
    picture = _walk_jpeg(data, limits, name)
    plain = picture.orientation == 1 and picture.components == 3 and not picture.adobe
    return PlainJpeg(picture.coded, picture.baseline) if plain else None


@dataclass(frozen=True)
class BarePhoto:
    """A file of the same pixels that tells nothing else; `suffix` is `.jpg` or `.png`."""

    data: bytes
    suffix: str


def without_metadata(data: bytes, limits: DecodeLimits | None = None, *, name: str = "image") -> BarePhoto:
    """The photo without place, time, camera, texts, colour profile, thumbnails and whatever stands behind its end.

    Nothing is coded anew: it decodes to the same pixels. Of its EXIF block the orientation alone stays.

    Raises:
        ImageError: As `decode_image`; the photo has been decoded.
    """
    limits = limits or DecodeLimits()
    decode_image(data, limits, name=name)
    if data.startswith(PNG_SIGNATURE):
        picture = _walk_png(data, limits, name)
        head = len(PNG_SIGNATURE) + 25  # the header: length, kind, 13 bytes, checksum
        turned = b"" if picture.orientation == 1 else _png_chunk(b"eXIf", _exif_of(picture.orientation))
        return BarePhoto(picture.coded[:head] + turned + picture.coded[head:], ".png")
    picture = _walk_jpeg(data, limits, name)
    exif = b"Exif\0\0" + _exif_of(picture.orientation)
    parts = [data[:2], b"" if picture.orientation == 1 else _jpeg_segment(0xE1, exif)]
    for marker, start, body, end in _jpeg_segments(picture.coded, name):
        content = picture.coded[body:end]
        if marker == 0xE0:  # JFIF: 12 bytes, then a thumbnail of so many pixels
            parts.append(_jpeg_segment(marker, content[:12].ljust(12, b"\0") + b"\0\0"))
        elif marker == 0xEE:
            parts.append(_jpeg_segment(marker, content[:12]))
        else:
            parts.append(picture.coded[start:end])
    return BarePhoto(b"".join(parts), ".jpg")


def _exif_of(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _decode(picture: _Picture, name: str) -> np.ndarray:
    """Pillow's two decoders are called directly: `Image.open` would check its own, global pixel limit."""
    decoder = JpegImagePlugin.JpegImageFile if picture.kind == "JPEG" else PngImagePlugin.PngImageFile
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(picture.orientation)
    try:
        with decoder(io.BytesIO(picture.coded)) as coded:
            coded.load()
            rgb = _to_rgb(coded, picture)
        return np.array(rgb if turn is None else rgb.transpose(turn))
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(picture.kind, str(error), name) from None


def _to_rgb(image: Image.Image, picture: _Picture) -> Image.Image:
    if image.mode == "CMYK" and not picture.adobe:
        # Adobe stores 255 - ink and Pillow assumes that always; without its marker 0 is no ink (ITU-T T.872).
        image = ImageChops.invert(image)
    key = image.info.get("transparency")
    if image.mode == "I;16":
        wide = np.asarray(image)  # (H, W) uint16
        grey = Image.fromarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8))
        if key is not None:
            grey.paste(255, mask=Image.fromarray((wide == key).astype(np.uint8) * 255))
        image = grey
    elif key is not None and picture.bits in (2, 4) and image.mode == "L":
        image.info["transparency"] = key * 255 // (2**picture.bits - 1)  # Pillow scales the pixels alone
    elif key is not None and picture.bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)  # Pillow keeps the high bytes
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _walk_jpeg(data: bytes, limits: DecodeLimits, name: str) -> _Picture:
    """Keeps tables, frame, scans and the two markers that tell the colour space (JFIF, Adobe)."""
    parts = [data[:2]]
    frame: tuple[int, int, int, int] | None = None  # bits, height, width, components
    orientation, adobe, baseline, scans = 1, False, False, 0
    for marker, start, body, end in _jpeg_segments(data, name):
        content = data[body : body + 14]
        if _is_frame(marker):
            frame, baseline = _jpeg_frame(data[body:end], name), marker in (0xC0, 0xC1)
            _check_pixels(frame[2], frame[1], limits, name)
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(data[body + 6 : end])
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                what = f"a JPEG of more than {MAX_JPEG_SCANS} scans"
                raise TooManyPixelsError(f"{name}: {what}; expected a photo of few scans; save it anew")
        adobe = adobe or (marker == 0xEE and content.startswith(b"Adobe"))
        if not 0xE0 <= marker <= 0xFE or content.startswith((b"JFIF\0", b"Adobe")):
            parts.append(data[start:end])
    if frame is None or not scans:
        raise _damaged("JPEG", "it holds no picture", name)
    return _Picture("JPEG", b"".join(parts), frame[0], orientation, adobe, frame[3], baseline)


_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # not stuffing, fill, restart or start


def _jpeg_segments(data: bytes, name: str) -> Iterator[tuple[int, int, int, int]]:
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
    raise _truncated("JPEG", data, name)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def _jpeg_frame(content: bytes, name: str) -> tuple[int, int, int, int]:
    try:
        bits, height, width, components = struct.unpack_from(">BHHB", content)
    except struct.error:
        raise _damaged("JPEG", "its frame header is cut short", name) from None
    if bits != 8 or components not in (1, 3, 4):
        seen = f"a JPEG of {bits} bits and {components} components"
        raise UnsupportedImageError(f"{name}: {seen}; expected 8 bits and 1, 3 or 4; save it as an 8-bit JPEG")
    return bits, height, width, components


def _walk_png(data: bytes, limits: DecodeLimits, name: str) -> _Picture:
    """Keeps header, palette, transparency and pixels."""
    parts = [PNG_SIGNATURE]
    width, height, bits = 0, 0, 0
    orientation, metadata_bytes = 1, 0
    for kind, start, end in _png_chunks(data, name):
        content = data[start + 8 : end - 4]
        if kind == b"IHDR" and len(content) == 13:
            width, height, bits = struct.unpack_from(">IIB", content)
            _check_pixels(width, height, limits, name)
        elif not width:
            raise _damaged("PNG", "it does not start with a header", name)
        elif kind == b"acTL" and content[:4] != b"\0\0\0\1":
            frames = int.from_bytes(content[:4], "big")
            what = f"an animated PNG of {frames} frames"
            raise CorruptImageError(f"{name}: {what}; expected one still picture; save a single frame")
        elif kind == b"eXIf":
            orientation = _exif_orientation(content)
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            metadata_bytes += _unpacked_size(kind, content, MAX_METADATA_BYTES + 1 - metadata_bytes)
            if metadata_bytes > MAX_METADATA_BYTES:
                what = f"a PNG whose texts or colour profile unpack to over {MAX_METADATA_BYTES:,} bytes"
                raise TooManyPixelsError(f"{name}: {what}; expected a plain photo; save it as JPEG")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            parts.append(data[start:end])
    return _Picture("PNG", b"".join(parts), bits, orientation)


def _png_chunks(data: bytes, name: str) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk up to IEND; every checksum is checked."""
    start = len(PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        kind = data[start + 4 : start + 8]
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise _damaged("PNG", f"wrong checksum in its {kind.decode('latin-1')!r} part", name)
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise _truncated("PNG", data, name)


def _unpacked_size(kind: bytes, content: bytes, limit: int) -> int:
    """Bytes that a compressed chunk unpacks to, or `limit` if it is more; 0 if it cannot be read."""
    packed = content.partition(b"\0")[2]  # after the keyword: method, data
    if kind == b"iTXt":  # compressed or not, method, language, keyword, data
        packed = packed[1:2] + packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    try:
        return len(zlib.decompressobj().decompress(packed[1:], limit))
    except zlib.error:
        return 0


def _exif_orientation(tiff: bytes) -> int:
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


def _check_bytes(size: int, limits: DecodeLimits, name: str) -> None:
    if size > limits.max_bytes:
        seen, most = f"{size:,} bytes", f"at most {limits.max_bytes:,}"
        raise ImageTooLargeError(f"{name}: {seen}; expected {most}; save it smaller, or raise the byte limit")


def _check_pixels(width: int, height: int, limits: DecodeLimits, name: str) -> None:
    if not width or not height:
        raise CorruptImageError(f"{name}: a picture of {width}x{height} pixels; expected a photo; send it again")
    if width * height > limits.max_pixels:
        seen, most = f"{width}x{height} = {width * height:,} pixels", f"at most {limits.max_pixels:,}"
        raise TooManyPixelsError(f"{name}: {seen}; expected {most}; save it smaller, or raise the pixel limit")


def _seen(data: bytes) -> str:
    for kind, offset, pattern in OTHER_FORMATS:
        if re.match(pattern, data[offset : offset + 32], re.DOTALL):
            return f"a {kind} file"
    return f"no image ({len(data):,} bytes starting {data[:8]!r})"


def _truncated(kind: str, data: bytes, name: str) -> CorruptImageError:
    return _damaged(kind, f"it breaks off within its {len(data):,} bytes, before its end marker", name)


def _damaged(kind: str, why: str, name: str) -> CorruptImageError:
    return CorruptImageError(f"{name}: a truncated or damaged {kind} ({why}); expected a whole photo; send it again")
