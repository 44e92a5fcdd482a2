"""Bytes of every kind that people send: what is decoded, and what is refused with which words."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFile, PngImagePlugin

from cassava_leaf_disease.errors import (
    CorruptImageError,
    DataError,
    ImageError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image, read_image
from cassava_leaf_disease.imaging.jpeg import MAX_JPEG_SCANS

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, bits: int, color: int, rows: bytes, *before_pixels: bytes) -> bytes:
    """A PNG made by hand; `rows` are raw lines, each with its filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before_pixels) + pixels + chunk(b"IEND", b"")


def quarters() -> Image.Image:
    """48 x 32 pixels, another colour in each quarter, flat enough for JPEG."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, (0, 0, 255), WHITE
    return Image.fromarray(pixels)


def exif_with_orientation(value: int, *, order: str = ">", kind: int = 3) -> bytes:
    start = b"MM\0*" if order == ">" else b"II*\0"
    packed = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], value).ljust(4, b"\0")
    other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 48)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + packed
    return start + struct.pack(f"{order}IH", 8, 2) + other + entry + b"\0" * 4


def with_jpeg_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def gradient() -> Image.Image:
    return Image.fromarray(np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2)


class TestPictures:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}])
    def test_jpeg_has_the_pixels_that_pillow_decodes(self, options: dict[str, object]) -> None:
        data = encode(quarters(), "JPEG", **options)
        assert np.array_equal(decode_image(data), np.array(Image.open(io.BytesIO(data))))

    def test_png_is_lossless(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        assert np.array_equal(decode_image(encode(Image.fromarray(noise))), noise)

    def test_the_array_is_contiguous_writable_rgb(self) -> None:
        pixels = decode_image(encode(quarters(), "JPEG"))
        assert pixels.shape == (32, 48, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_greyscale_becomes_three_equal_channels(self, kind: str) -> None:
        pixels = decode_image(encode(gradient(), kind))
        assert np.array_equal(pixels[..., 0], pixels[..., 1])
        assert np.abs(pixels[..., 2].astype(int) - np.array(gradient()).astype(int)).max() <= 3

    def test_palette_is_looked_up(self) -> None:
        indexed = quarters().quantize(8)
        assert np.array_equal(decode_image(encode(indexed)), np.array(indexed.convert("RGB")))

    def test_transparent_palette_entry_becomes_white(self) -> None:
        indexed = Image.new("P", (2, 1))
        indexed.putpalette([*RED, *GREEN])
        indexed.putdata([0, 1])
        assert decode_image(encode(indexed, transparency=1)).tolist() == [[[*RED], [*WHITE]]]

    def test_half_transparent_palette_entry_is_mixed_with_white(self) -> None:
        indexed = Image.new("P", (2, 1))
        indexed.putpalette([*RED, *GREEN])
        indexed.putdata([0, 1])
        pixels = decode_image(encode(indexed, transparency=bytes([128, 255])))
        assert pixels.tolist() == [[[255, 127, 127], [*GREEN]]]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_is_laid_on_white(self, mode: str) -> None:
        black = Image.new(mode, (1, 1), (0, 0, 0, 51)[-len(mode) :])
        assert decode_image(encode(black)).tolist() == [[[204, 204, 204]]]

    def test_one_bit_is_black_and_white(self) -> None:
        bits = Image.new("1", (2, 1))
        bits.putpixel((1, 0), 1)
        assert decode_image(encode(bits)).tolist() == [[[0, 0, 0], [*WHITE]]]

    def test_sixteen_bit_grey_is_scaled_not_clipped(self) -> None:
        grey = Image.fromarray(np.array([[0, 128, 129, 257 * 100, 40_000, 65_535]], np.uint16))
        assert decode_image(encode(grey))[0, :, 0].tolist() == [0, 0, 1, 100, 156, 255]

    def test_sixteen_bit_colour_is_scaled(self) -> None:
        row = b"\0" + struct.pack(">6H", 0, 257 * 100, 65_535, 257, 257 * 254, 0)
        assert decode_image(png(2, 1, 16, 2, row)).tolist() == [[[0, 100, 255], [1, 254, 0]]]

    @pytest.mark.parametrize(
        ("bits", "color", "row", "key"),
        [
            (2, 0, bytes([0b00_10_00_00]), struct.pack(">H", 2)),
            (4, 0, bytes([0x0A]), struct.pack(">H", 10)),
            (8, 0, bytes([0, 9]), struct.pack(">H", 9)),
            (1, 0, bytes([0b01000000]), struct.pack(">H", 1)),
            (16, 0, struct.pack(">2H", 0, 999), struct.pack(">H", 999)),
            (8, 2, bytes([0, 0, 0, 1, 2, 3]), struct.pack(">3H", 1, 2, 3)),
            (16, 2, struct.pack(">6H", 0, 0, 0, 300, 600, 900), struct.pack(">3H", 300, 600, 900)),
        ],
    )
    def test_the_transparent_colour_becomes_white(self, bits: int, color: int, row: bytes, key: bytes) -> None:
        data = png(2, 1, bits, color, b"\0" + row, chunk(b"tRNS", key))
        assert decode_image(data).tolist() == [[[0, 0, 0], [*WHITE]]]

    def test_sixteen_bit_alpha_is_laid_on_white(self) -> None:
        data = png(1, 1, 16, 4, b"\0" + struct.pack(">2H", 0, 257 * 51))
        assert decode_image(data).tolist() == [[[204, 204, 204]]]

    def test_adobe_cmyk_is_not_inverted(self) -> None:
        data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
        assert b"Adobe" in data
        assert np.abs(decode_image(data)[8, 8].astype(int) - RED).max() <= 3

    def test_cmyk_without_adobe_marker_counts_ink(self) -> None:
        data = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 255)), "JPEG", quality=100)  # stored inverted
        start = data.index(b"\xff\xee")
        plain = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
        assert b"Adobe" not in plain
        assert np.abs(decode_image(plain)[8, 8].astype(int) - RED).max() <= 3

    def test_ycck_is_converted(self) -> None:
        # Adobe stores 255 - ink, here no cyan, all magenta and yellow, no black; then 255 - CMY as YCbCr.
        bands = Image.new("RGB", (16, 16), (0, 255, 255)).convert("YCbCr").split()
        inverted_by_pillow = [*(ImageChops.invert(band) for band in bands), Image.new("L", (16, 16), 0)]
        data = bytearray(encode(Image.merge("CMYK", inverted_by_pillow), "JPEG", quality=100))
        data[data.index(b"Adobe") + 11] = 2  # says YCCK
        assert np.abs(decode_image(bytes(data))[8, 8].astype(int) - RED).max() <= 3

    def test_a_phones_multi_picture_jpeg_gives_its_first(self) -> None:
        second = Image.new("RGB", (48, 32), "black")
        data = encode(quarters(), "MPO", save_all=True, append_images=[second])
        assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
        assert np.array_equal(decode_image(data), decode_image(encode(quarters(), "JPEG")))

    def test_a_film_behind_the_jpeg_does_no_harm(self) -> None:
        data = encode(quarters(), "JPEG")
        film = np.random.default_rng(1).bytes(200_000)
        assert np.array_equal(decode_image(data + film), decode_image(data))

    def test_a_real_photo_decodes_as_pillow_does(self, shared_data: Path) -> None:
        for path in sorted((shared_data / "cassava" / "train_images").glob("*.jpg"))[:5]:
            with Image.open(path) as photo:
                assert np.array_equal(read_image(path), np.array(photo.convert("RGB")))


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    @pytest.mark.parametrize(
        ("orientation", "corners"),
        [
            (1, "RGBW"), (2, "GRWB"), (3, "WBGR"), (4, "BWRG"),
            (5, "RBGW"), (6, "BRWG"), (7, "WGBR"), (8, "GWRB"),
        ],
    )  # fmt: skip
    def test_each_of_the_eight_is_applied(self, kind: str, orientation: int, corners: str) -> None:
        exif = b"Exif\0\0" + exif_with_orientation(orientation)
        pixels = decode_image(encode(quarters(), kind, exif=exif))
        names = {(True, False, False): "R", (False, True, False): "G", (False, False, True): "B"}
        seen = [tuple((pixels[y, x] > 128).tolist()) for y in (4, -4) for x in (4, -4)]
        assert "".join(names.get(corner, "W") for corner in seen) == corners
        assert pixels.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))

    @pytest.mark.parametrize(("order", "kind"), [("<", 3), (">", 4), ("<", 4), (">", 1)])
    def test_either_byte_order_and_any_integer_is_read(self, order: str, kind: int) -> None:
        exif = b"Exif\0\0" + exif_with_orientation(6, order=order, kind=kind)
        assert decode_image(encode(quarters(), "JPEG", exif=exif)).shape == (48, 32, 3)

    @pytest.mark.parametrize(
        "exif",
        [
            b"nonsense",
            b"MM\0*\0\0",
            b"MM\0*" + struct.pack(">IH", 8, 60_000),
            b"II*\0" + struct.pack("<IH", 8, 0) + b"\0" * 8,
            exif_with_orientation(9),
            exif_with_orientation(0),
        ],
    )
    def test_unreadable_exif_leaves_the_photo_as_it_is(self, exif: bytes) -> None:
        data = with_jpeg_segment(encode(quarters(), "JPEG"), 0xE1, b"Exif\0\0" + exif)
        assert np.array_equal(decode_image(data), decode_image(encode(quarters(), "JPEG")))


class TestRefusals:
    def test_no_bytes(self) -> None:
        with pytest.raises(CorruptImageError, match=r"leaf\.jpg: empty, 0 bytes; expected a JPEG or PNG"):
            decode_image(b"", name="leaf.jpg")

    @pytest.mark.parametrize("data", [b"hello, this is text", b"\0" * 50, b"\xff", b"BM is not a bitmap"])
    def test_no_image(self, data: bytes) -> None:
        with pytest.raises(UnsupportedImageError, match=r"no image .* expected a JPEG or PNG photo; save it"):
            decode_image(data)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("GIF", encode(quarters(), "GIF")),
            ("BMP", encode(quarters(), "BMP")),
            ("TIFF", encode(quarters(), "TIFF")),
            ("ICO", encode(quarters(), "ICO")),
            ("PDF", encode(quarters(), "PDF")),
            ("WebP", b"RIFF\x24\0\0\0WEBPVP8 "),
            ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
            ("AVIF", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif"),
            ("MP4 or QuickTime video", b"\0\0\0\x18ftypisom\0\0\0\0"),
            ("ZIP", b"PK\x03\x04\x14\0"),
            ("SVG, HTML or XML", b"<!DOCTYPE html><html>not found"),
            ("SVG, HTML or XML", b"\xef\xbb\xbf\n<svg>"),
            ("JPEG XL", b"\xff\x0a\x10"),
            ("JPEG 2000", b"\0\0\0\x0cjP  \r\n"),
            ("PSD", b"8BPS\0\1"),
        ],
    )
    def test_another_format_is_named(self, name: str, data: bytes) -> None:
        with pytest.raises(UnsupportedImageError, match=f"a {name} file; expected a JPEG or PNG photo"):
            decode_image(data)

    def test_content_counts_not_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "leaf.png").write_bytes(encode(quarters(), "JPEG"))
        (tmp_path / "leaf.jpg").write_bytes(encode(quarters(), "GIF"))
        assert read_image(tmp_path / "leaf.png").shape == (32, 48, 3)
        with pytest.raises(UnsupportedImageError, match=r"leaf\.jpg: a GIF file"):
            read_image(tmp_path / "leaf.jpg")

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_file_cut_anywhere_is_damaged(self, kind: str, progressive: bool) -> None:
        data = encode(quarters(), kind, **({"progressive": progressive} if kind == "JPEG" else {}))
        for length in range(8, len(data), 7):
            with pytest.raises(CorruptImageError, match=f"a truncated or damaged {kind} .*; send it again"):
                decode_image(data[:length])

    def test_truncation_is_an_error_even_where_pillow_was_told_to_forgive(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        for kind in ("JPEG", "PNG"):
            data = encode(gradient(), kind)
            with pytest.raises(CorruptImageError, match=f"damaged {kind} .it breaks off"):
                decode_image(data[: len(data) // 2])

    def test_a_png_with_a_flipped_bit_is_damaged(self) -> None:
        data = bytearray(encode(quarters()))
        data[data.index(b"IDAT") + 12] ^= 1
        with pytest.raises(CorruptImageError, match="wrong checksum in its 'IDAT' part"):
            decode_image(bytes(data))

    def test_pixel_data_that_does_not_unpack_is_damaged(self) -> None:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b"")
        with pytest.raises(CorruptImageError, match="truncated or damaged PNG"):
            decode_image(data)

    def test_a_png_without_header_is_damaged(self) -> None:
        signature, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
        for chunks in (end, chunk(b"IHDR", b"short") + end, chunk(b"IDAT", b"") + end):
            with pytest.raises(CorruptImageError, match="does not start with a header"):
                decode_image(signature + chunks)

    @pytest.mark.parametrize("data", [b"\xff\xd8\xff\xd9", encode(quarters(), "JPEG")[:20] + b"\xff\xd9"])
    def test_a_jpeg_without_picture_is_damaged(self, data: bytes) -> None:
        with pytest.raises(CorruptImageError, match="it holds no picture"):
            decode_image(data)

    def test_a_jpeg_with_a_broken_frame_header_is_damaged(self) -> None:
        with pytest.raises(CorruptImageError, match="frame header is cut short"):
            decode_image(b"\xff\xd8\xff\xc0\0\4\10\0\xff\xd9")

    def test_a_picture_without_area_is_damaged(self) -> None:
        with pytest.raises(CorruptImageError, match="a picture of 0x4 pixels"):
            decode_image(png(0, 4, 8, 0, b""))

    @pytest.mark.parametrize(("bits", "components"), [(12, 3), (8, 2)])
    def test_a_rare_kind_of_jpeg_is_named(self, bits: int, components: int) -> None:
        data = bytearray(encode(quarters(), "JPEG"))
        frame = data.index(b"\xff\xc0")
        data[frame + 4], data[frame + 9] = bits, components
        with pytest.raises(UnsupportedImageError, match=f"a JPEG of {bits} bits and {components} components"):
            decode_image(bytes(data))

    def test_an_animated_png_is_refused(self) -> None:
        data = encode(quarters(), save_all=True, append_images=[Image.new("RGB", (48, 32))])
        with pytest.raises(CorruptImageError, match="an animated PNG of 2 frames; expected one still picture"):
            decode_image(data)

    def test_a_png_that_counts_one_frame_is_a_still(self) -> None:
        data = png(1, 1, 8, 0, b"\0\7", chunk(b"acTL", struct.pack(">II", 1, 0)))
        assert decode_image(data).tolist() == [[[7, 7, 7]]]


class TestLimits:
    def test_bytes_are_checked_before_anything(self) -> None:
        with pytest.raises(ImageTooLargeError, match=r"big: 2,000 bytes; expected at most 1,000; save it smaller"):
            decode_image(b"x" * 2000, DecodeLimits(max_bytes=1000), name="big")

    def test_a_files_size_is_checked_before_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.jpg"
        with path.open("wb") as file:
            file.truncate(10**12)  # sparse: takes no room, and could never be read
        with pytest.raises(ImageTooLargeError, match=r"1,000,000,000,000 bytes; expected at most 20,000,000"):
            read_image(path)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_exactly_at_the_limits_is_accepted(self, kind: str) -> None:
        data = encode(quarters(), kind)
        decode_image(data, DecodeLimits(max_bytes=len(data), max_pixels=48 * 32))
        with pytest.raises(ImageTooLargeError, match=r"48x32 = 1,536 pixels; expected at most 1,535"):
            decode_image(data, DecodeLimits(max_pixels=48 * 32 - 1))

    def test_a_pixel_bomb_is_refused_by_its_header(self) -> None:
        bomb = png(60_000, 60_000, 1, 0, b"\0" * 100)
        with pytest.raises(ImageTooLargeError, match=r"60000x60000 = 3,600,000,000 pixels"):
            decode_image(bomb)
        jpeg = bytearray(encode(quarters(), "JPEG"))
        frame = jpeg.index(b"\xff\xc0")
        jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
        with pytest.raises(ImageTooLargeError, match=r"65000x65000 = 4,225,000,000 pixels"):
            decode_image(bytes(jpeg))

    def test_our_limit_alone_counts_not_pillows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # warns above 100 pixels, raises above 200
        for kind in ("JPEG", "PNG"):
            assert decode_image(encode(quarters(), kind)).shape == (32, 48, 3)
        assert Image.MAX_IMAGE_PIXELS == 100

    @pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
    @pytest.mark.parametrize("pieces", [1, 6])
    def test_a_metadata_bomb_is_refused(self, kind: str, pieces: int) -> None:
        packed = zlib.compress(b"\0" * (6 * 1024**2 // pieces))
        content = b"key\0" + (b"\1\0en\0key\0" if kind == "iTXt" else b"\0") + packed
        data = png(1, 1, 8, 0, b"\0\7", *[chunk(kind.encode(), content)] * pieces)
        with pytest.raises(ImageTooLargeError, match="texts or colour profile unpack to over 4,194,304 bytes"):
            decode_image(data)

    def test_harmless_metadata_is_passed_over(self) -> None:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("packed", "a" * 1000, zip=True)
        texts.add_itxt("long", "ä" * 1000, zip=True)
        texts.add_itxt("plain", "ä" * 1000)
        texts.add_text("plain", "a" * 1000)
        assert decode_image(encode(quarters(), pnginfo=texts, icc_profile=b"p" * 99)).shape == (32, 48, 3)
        unreadable = png(1, 1, 8, 0, b"\0\7", chunk(b"zTXt", b"key\0\0no zlib"), chunk(b"iCCP", b""))
        assert decode_image(unreadable).tolist() == [[[7, 7, 7]]]

    def test_a_jpeg_of_endless_scans_is_refused(self) -> None:
        data = encode(quarters(), "JPEG")
        start = data.index(b"\xff\xda")
        scan = data[start:-2]
        assert decode_image(data).shape == (32, 48, 3)
        with pytest.raises(ImageTooLargeError, match=f"more than {MAX_JPEG_SCANS} scans"):
            decode_image(data[:start] + scan * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")

    def test_endless_chunks_are_refused(self) -> None:
        data = b"\xff\xd8" + b"\xff\xfe\0\2" * 200_000 + b"\xff\xd9"
        with pytest.raises(CorruptImageError, match="breaks off"):
            decode_image(data)
        empty = png(1, 1, 8, 0, b"\0\7", *[chunk(b"tEXt", b"")] * 150_000)
        with pytest.raises(CorruptImageError, match="breaks off"):
            decode_image(empty)


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.jpg: no such file; give the path of a JPEG or PNG"):
            read_image(tmp_path / "none.jpg")

    def test_a_folder_is_no_photo(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            read_image(tmp_path)

    def test_an_unreadable_file_is_an_error_of_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "leaf.jpg"
        path.write_bytes(b"x")

        def refuse(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything: no mode forbids it here
        with pytest.raises(DataError, match=r"leaf\.jpg: cannot be read \(Permission denied\)"):
            read_image(path)


def test_damaged_bytes_end_in_our_errors_and_without_warnings() -> None:
    generator = np.random.default_rng(0)
    exif = b"Exif\0\0" + exif_with_orientation(6)
    originals = [encode(quarters(), kind, exif=exif) for kind in ("JPEG", "PNG")]
    originals.append(encode(quarters().quantize(8)))
    refused = 0
    for original in originals * 150:
        data = bytearray(original)
        for _ in range(generator.integers(1, 6)):
            data[generator.integers(0, len(data))] = generator.integers(0, 256)
        try:
            pixels = decode_image(bytes(data), DecodeLimits(max_pixels=10**6))
        except ImageError:
            refused += 1
        else:
            assert pixels.shape[2] == 3
    assert refused > 100


def test_many_threads_decode_side_by_side() -> None:
    files = [encode(quarters(), kind) for kind in ("JPEG", "PNG")] * 20
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        assert {pixels.shape for pixels in pool.map(decode_image, files)} == {(32, 48, 3)}


def test_neither_torch_nor_opencv_is_needed() -> None:
    code = (
        "import sys; import cassava_leaf_disease.imaging.decode, cassava_leaf_disease.imaging.preprocess, "
        "cassava_leaf_disease.imaging.augment; "
        "raise SystemExit(bool({'torch', 'cv2', 'albumentations'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
