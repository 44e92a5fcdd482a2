"""Photos without what else their files tell."""

from dataclasses import dataclass

from cassava_leaf_disease.imaging.container import write_orientation
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.jpeg import jpeg_segment, jpeg_segments, walk_jpeg
from cassava_leaf_disease.imaging.png import PNG_SIGNATURE, png_chunk, walk_png


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
        picture = walk_png(data, limits.max_pixels, name)
        head = len(PNG_SIGNATURE) + 25  # the header: length, kind, 13 bytes, checksum
        turned = b"" if picture.orientation == 1 else png_chunk(b"eXIf", write_orientation(picture.orientation))
        return BarePhoto(picture.coded[:head] + turned + picture.coded[head:], ".png")
    picture = walk_jpeg(data, limits.max_pixels, name)
    exif = b"Exif\0\0" + write_orientation(picture.orientation)
    parts = [data[:2], b"" if picture.orientation == 1 else jpeg_segment(0xE1, exif)]
    for marker, start, body, end in jpeg_segments(picture.coded, name):
        content = picture.coded[body:end]
        if marker == 0xE0:  # JFIF: 12 bytes, then a thumbnail of so many pixels
            parts.append(jpeg_segment(marker, content[:12].ljust(12, b"\0") + b"\0\0"))
        elif marker == 0xEE:
            parts.append(jpeg_segment(marker, content[:12]))
        else:
            parts.append(picture.coded[start:end])
    return BarePhoto(b"".join(parts), ".jpg")
