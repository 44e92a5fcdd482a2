"""`cassava prepare`: photos to work with, drawn or checked, and a summary of them; the pipeline's first stage."""

import csv
import io
import logging
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.digests import data_fingerprint, photo_digests
from cassava_leaf_disease.data.divide import count_classes
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

DRAWN_SIDE_PX = 160
DRAWN_FILE = "drawn.json"  # in a folder that we drew, and may therefore draw again


class PreparedPhotos(BaseModel):
    """What there is to learn from; `summary.json` is this as JSON, the same for the same photos on any machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drawn: bool
    photos: int
    classes: dict[str, int]
    data_fingerprint: str


class PrepareResult(PreparedPhotos):
    """Where the photos lie, and where the files about them were written."""

    data_dir: Path
    table: Path
    summary: Path


def prepare(config: AppConfig) -> PrepareResult:
    """Checks the photos under `paths.data_dir` and writes their table (with digests) and a summary.

    With `data.synthetic.enabled` it draws them there first: as many as its three sizes say together.

    Raises:
        DataError: No usable data set, or drawn leaves would replace photos.
    """
    drawn = config.data.synthetic.enabled
    if drawn:
        draw_data_set(config)
    photos = read_kaggle(config.paths.data_dir)
    digests = photo_digests(photos, config.paths.cache_dir if config.data.cache.enabled else None)
    prepared = PreparedPhotos(
        drawn=drawn,
        photos=len(photos),
        classes=count_classes(photos),
        data_fingerprint=data_fingerprint(photos, digests),
    )
    folder = config.prepare.output_dir or config.paths.outputs_dir / "prepare"
    table, summary = folder / "table.csv", folder / "summary.json"
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image_id", "label", "digest"))
    writer.writerows((photo.image_id, photo.label, digest) for photo, digest in zip(photos, digests, strict=True))
    write_text(table, buffer.getvalue())
    write_json(summary, prepared.model_dump())
    return PrepareResult(**prepared.model_dump(), data_dir=config.paths.data_dir, table=table, summary=summary)


def draw_data_set(config: AppConfig) -> None:
    """Draws a data set in the Kaggle layout; replaces nothing but what it drew before, and that whole.

    Raises:
        DataError: There is something else in `paths.data_dir`.
    """
    folder, sizes = config.paths.data_dir, config.data.synthetic
    if folder.exists() and not (folder / DRAWN_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"paths.data_dir={folder} holds something that was not drawn, and data.synthetic.enabled=true would "
            "replace it; type paths.data_dir=FOLDER for drawn leaves, or data.synthetic.enabled=false"
        )
    size, seed = sizes.train_size + sizes.val_size + sizes.test_size, config.data.split.seed
    logger.info("drawing %d leaves: %s", size, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        write_synthetic_dataset(fresh, size, DRAWN_SIDE_PX, seed)
        write_json(fresh / DRAWN_FILE, {"photos": size, "image_size_px": DRAWN_SIDE_PX, "seed": seed})
        if folder.exists():
            folder.replace(Path(temporary) / "before")
        fresh.replace(folder)
