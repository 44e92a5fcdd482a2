"""Pictures that stand inside an HTML page."""

import base64
import io
from pathlib import Path

from PIL import Image

from cassava_leaf_disease.imaging.decode import read_image


def thumbnail_uri(path: Path, side_px: int, quality: int = 72) -> str:
    """A photo as the `data:` address of a JPEG whose longer side has `side_px` pixels at most."""
    photo = Image.fromarray(read_image(path))
    photo.thumbnail((side_px, side_px), Image.Resampling.BOX, reducing_gap=2.0)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return data_uri("image/jpeg", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as the text of a `data:` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
