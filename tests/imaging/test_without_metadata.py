"""A bare photo has the same pixels and tells nothing else."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import CorruptImageError
from cassava_leaf_disease.imaging.bare import without_metadata
from cassava_leaf_disease.imaging.decode import decode_image

SECRET = b"a place and a name"


def encoded(form: str, orientation: int = 1, mode: str = "RGB", **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture = Image.fromarray(draw_leaf(3, 2, 96)).resize((60, 40)).convert(mode)
    picture.save(buffer, form, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_pixels_stay_and_the_rest_goes(form: str, orientation: int) -> None:
    photo = encoded(form, orientation)
    assert SECRET in photo

    bare = without_metadata(photo)

    assert SECRET not in bare.data
    assert bare.suffix == {"JPEG": ".jpg", "PNG": ".png"}[form]
    assert np.array_equal(decode_image(bare.data), decode_image(photo))
    assert without_metadata(bare.data) == bare


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_decoders_see_the_same(mode: str) -> None:
    photo = encoded("JPEG", 6, mode, progressive=True, comment=SECRET, icc_profile=SECRET * 10)

    bare = without_metadata(photo)

    assert SECRET not in bare.data
    with Image.open(io.BytesIO(photo)) as before, Image.open(io.BytesIO(bare.data)) as after:
        assert after.getexif()[0x0112] == 6
        assert len(after.getexif()) == 1
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_thumbnail_and_what_stands_behind_the_end_go() -> None:
    photo = encoded("JPEG")
    start = photo.index(b"JFIF\0")
    thumbnail = bytes([1, 1]) + b"\x11\x22\x33"
    jfif = photo[start : start + 12] + thumbnail
    with_thumbnail = photo[: start - 2] + struct.pack(">H", len(jfif) + 2) + jfif + photo[start + 14 :] + SECRET

    bare = without_metadata(with_thumbnail)

    assert b"\x11\x22\x33" not in bare.data[:100]
    assert SECRET not in bare.data
    assert bare == without_metadata(photo)


def test_texts_of_a_png_go() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", SECRET.decode())
    photo = encoded("PNG", pnginfo=texts)
    chunk = b"prVt" + SECRET
    photo = photo[:33] + struct.pack(">I", len(SECRET)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + photo[33:]

    assert SECRET not in without_metadata(photo).data


def test_a_damaged_photo_is_refused() -> None:
    with pytest.raises(CorruptImageError):
        without_metadata(encoded("JPEG")[:-200])
