"""JPEG and PNG bytes to RGB pixels, judged by content and never by name.

The container is walked first, without decoding: that finds the size, the EXIF orientation, animation,
truncation and bombs. Only what codes the picture itself then reaches Pillow, so that no metadata of a
stranger's file is ever unpacked or parsed there, and no global setting of Pillow matters.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin

from cassava_leaf_disease.errors import (
    CorruptImageError,
    DataError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from cassava_leaf_disease.imaging.container import Picture, damaged
from cassava_leaf_disease.imaging.jpeg import JPEG_SIGNATURE, walk_jpeg
from cassava_leaf_disease.imaging.png import PNG_SIGNATURE, walk_png

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


@dataclass(frozen=True)
class DecodeLimits:
    """The largest file in bytes and the largest picture in pixels that is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 60_000_000


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
        picture = walk_jpeg(data, limits.max_pixels, name)
    elif data.startswith(PNG_SIGNATURE):
        picture = walk_png(data, limits.max_pixels, name)
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
    picture = walk_jpeg(data, limits.max_pixels, name)
    plain = picture.orientation == 1 and picture.components == 3 and not picture.adobe
    return PlainJpeg(picture.coded, picture.baseline) if plain else None


def _decode(picture: Picture, name: str) -> np.ndarray:
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
        raise damaged(picture.kind, str(error), name) from None


def _to_rgb(image: Image.Image, picture: Picture) -> Image.Image:
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


def _check_bytes(size: int, limits: DecodeLimits, name: str) -> None:
    if size > limits.max_bytes:
        seen, most = f"{size:,} bytes", f"at most {limits.max_bytes:,}"
        raise ImageTooLargeError(f"{name}: {seen}; expected {most}; save it smaller, or raise the byte limit")


def _seen(data: bytes) -> str:
    for kind, offset, pattern in OTHER_FORMATS:
        if re.match(pattern, data[offset : offset + 32], re.DOTALL):
            return f"a {kind} file"
    return f"no image ({len(data):,} bytes starting {data[:8]!r})"
