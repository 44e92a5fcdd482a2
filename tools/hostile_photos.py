"""Photos that mean harm: cut off, with wrong headers, bombs, two kinds of file in one, and bytes changed at random."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

_JPEG_MARKERS: Final = bytes(range(0xC0, 0x100))
_INTERESTING: Final = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\x00\x00",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
)


def sample_photos() -> list[bytes]:
    """Small pictures of every kind that the decoder takes, to be made hostile."""
    picture = Image.effect_mandelbrot((160, 120), (-2.0, -1.2, 1.0, 1.2), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        _saved(picture, "JPEG", quality=90),
        _saved(picture, "JPEG", progressive=True),
        _saved(picture, "JPEG", exif=exif),
        _saved(picture.convert("CMYK"), "JPEG"),
        _saved(picture.convert("L"), "JPEG"),
        _saved(picture, "PNG"),
        _saved(picture.quantize(16), "PNG"),
        _saved(picture.convert("RGBA"), "PNG"),
        _saved(picture.convert("L"), "PNG"),
    ]


def hand_made(photos: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of attacks that somebody thought of."""
    jpeg, png = photos[0], photos[5]
    for length in (0, 1, 2, 3, 4, 8, 20, 100, len(jpeg) // 2, len(jpeg) - 2, len(jpeg) - 1):
        yield f"jpeg cut at {length}", jpeg[:length]
    for length in (8, 16, 33, 40, len(png) // 2, len(png) - 12, len(png) - 1):
        yield f"png cut at {length}", png[:length]
    for side in (0, 1, 7, 50_000, 65_535):
        yield f"jpeg that says {side} px", _with_jpeg_size(jpeg, side, side)
    for width, height in ((0, 10), (2**31 - 1, 2**31 - 1), (50_000, 50_000), (2**32 - 1, 1), (1, 100_000_000)):
        yield f"png that says {width}x{height}", _with_png_size(png, width, height)
    yield "bomb of 49 megapixels", _saved(Image.new("L", (7_000, 7_000)), "PNG")
    yield "bomb of text", _with_chunk(png, b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    yield "bomb of a profile", _with_chunk(png, b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    yield "pixels that unpack to too much", _with_pixels(png, zlib.compress(bytes(30_000_000), 9))
    yield "pixels that unpack to too little", _with_pixels(png, zlib.compress(b"\0" * 10))
    yield "animated png", _with_chunk(png, b"acTL", struct.pack(">II", 1000, 0))
    yield "many chunks", _with_chunks(png, b"tEXt", b"a\0b", 50_000)
    yield "many scans", jpeg[:-2] + _scan(jpeg) * 600 + b"\xff\xd9"
    yield "many markers", jpeg[:2] + b"\xff\xfe\x00\x02" * 50_000 + jpeg[2:]
    yield "only fill bytes", jpeg[:2] + b"\xff" * 2_000_000
    yield "thin strip", _saved(Image.new("L", (20_000, 1)), "PNG")
    yield "one pixel", _saved(Image.new("RGB", (1, 1)), "PNG")
    yield "jpeg, then html", jpeg + b"<script>alert(1)</script>"
    yield "jpeg, then zip", jpeg + b"PK\x03\x04" + bytes(100)
    yield "html, then jpeg", b"<html><script>alert(1)</script>" + jpeg
    yield "gif that is javascript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"
    yield "jpeg in png", png[:8] + jpeg
    yield "png in jpeg", jpeg[:3] + png
    yield (
        "svg with an entity",
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    )
    yield "zeros", bytes(1_000_000)
    yield "a pickle", b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    yield "exif that loops", _with_exif(jpeg, b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01\0\x09\0\0" * 2)


def mutations(photos: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """So many photos with bytes changed, cut out, doubled or moved at random; the same ones for the same seed."""
    draw = random.Random(seed)  # noqa: S311  no secret
    for _ in range(count):
        data = bytearray(draw.choice(photos))
        for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
            _mutate(data, draw)
        if draw.random() < 0.5:
            data = bytearray(_with_right_checksums(bytes(data)))
        yield bytes(data)


def _mutate(data: bytearray, draw: random.Random) -> None:
    if len(data) < 16:
        return
    header = draw.random() < 0.5
    place = draw.randrange(min(len(data), 700) if header else len(data))
    kind = draw.randrange(7)
    if kind == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        data[place] = draw.randrange(256)
    elif kind == 2:
        data[place : place + 4] = draw.choice(_INTERESTING)
    elif kind == 3:
        del data[place : place + draw.randrange(1, 200)]
    elif kind == 4:
        part = data[place : place + draw.randrange(1, 400)]
        data[place:place] = part
    elif kind == 5:
        data[place:place] = bytes((0xFF, draw.choice(_JPEG_MARKERS))) + draw.randbytes(2)
    else:
        other = draw.randrange(len(data))
        data[place : place + 50] = data[other : other + 50]


def _with_right_checksums(data: bytes) -> bytes:
    """A PNG whose changed chunks pass the checksum, so that the decoder behind it sees them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, start = [data[:8]], 8
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        parts.append(data[start : end - 4] + zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big"))
        start = end
    return b"".join(parts) + data[start:]


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _with_jpeg_size(jpeg: bytes, width: int, height: int) -> bytes:
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def _with_png_size(png: bytes, width: int, height: int) -> bytes:
    return _with_right_checksums(png[:16] + struct.pack(">II", width, height) + png[24:])


def _scan(jpeg: bytes) -> bytes:
    return jpeg[jpeg.index(b"\xff\xda") : -2]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    return png[:33] + _chunk(kind, content) + png[33:]  # 33: after the signature and the header


def _with_chunks(png: bytes, kind: bytes, content: bytes, count: int) -> bytes:
    return png[:33] + _chunk(kind, content) * count + png[33:]


def _with_pixels(png: bytes, content: bytes) -> bytes:
    return png[:33] + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    content = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]
