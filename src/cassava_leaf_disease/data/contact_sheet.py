"""The first near duplicates side by side, for a person to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from cassava_leaf_disease.data.check_report import NearDuplicate
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.storage.files import replacing

MAX_PAIRS: Final = 20
CELL_PX: Final = (360, 270)  # width, height
CAPTION_PX: Final = 60  # three lines


def write_contact_sheet(pairs: Sequence[NearDuplicate], images_dir: Path, path: Path) -> None:
    """Writes a PNG with a row for each of the first pairs; those across parts or labels come first."""
    shown = sorted(pairs, key=lambda pair: not (pair.across_parts or len(set(pair.labels)) > 1))[:MAX_PAIRS]
    width, height = CELL_PX
    sheet = Image.new("RGB", (2 * width, len(shown) * (height + CAPTION_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for row, pair in enumerate(shown):
        top = row * (height + CAPTION_PX)
        draw.text((4, top + 3), _facts(pair), fill="black", font=font)
        for column, (image_id, label, part) in enumerate(zip(pair.image_ids, pair.labels, pair.parts, strict=True)):
            left = column * width
            caption = f"{image_id}\n{CLASS_NAMES[label]}, {part or 'in no part'}"
            draw.text((left + 4, top + 20), caption, fill="black", font=font)
            photo = Image.fromarray(read_image(images_dir / image_id))
            sheet.paste(ImageOps.contain(photo, CELL_PX), (left, top + CAPTION_PX))
    with replacing(path) as file:
        sheet.save(file, "PNG")


def _facts(pair: NearDuplicate) -> str:
    facts = [f"distance {pair.distance}", f"correlation {pair.correlation:.2f}"]
    if pair.symmetry != "none":
        facts.append(f"second one {pair.symmetry}")
    if pair.points is not None:
        facts.append(f"{pair.points} points agree")
    return ", ".join(facts)
