"""`cassava feedback export`: what people said of the answers, as a data set for an expert and for training.

A photo's label is what all who gave it say; where they do not agree, or nobody knows, it has none until an expert
decides. The model's answer is from before anybody corrected it, so it can be held against the label as an
out-of-fold answer can.
"""

import csv
import io
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.extra import PROBABILITY_COLUMNS, probability_table
from cassava_leaf_disease.data.table import read_rows
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError, ConfigError, DataError
from cassava_leaf_disease.feedback.store import FeedbackStore, StoredFeedback, open_store
from cassava_leaf_disease.paths import create_version_dir
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

URL_VARIABLE: Final = "CASSAVA_FEEDBACK_URL"
PHOTOS_VARIABLE: Final = "CASSAVA_FEEDBACK_PHOTOS"

TABLE_FILE: Final = "train.csv"
IMAGES_DIR: Final = "train_images"
EXTRA_FILE: Final = "extra.csv"
ANSWERS_FILE: Final = "answers.csv"
REVIEW_FILE: Final = "review.csv"
PROVENANCE_FILE: Final = "provenance.csv"
UNLABELLED_DIR: Final = "unlabelled_images"
SUMMARY_FILE: Final = "feedback.json"

Status = Literal["labelled", "reviewed", "rejected", "conflict", "unknown"]


@dataclass(frozen=True)
class GivenPhoto:
    """A photo and all that was said about it, the oldest first; `label` is None where it has none to train on."""

    image_id: str
    said: tuple[StoredFeedback, ...]
    label: int | None
    status: Status

    @property
    def probabilities(self) -> list[float]:
        """The newest answer about it, in class order."""
        answer = self.said[-1].answer
        return [answer.probabilities[name] for name in CLASS_NAMES]

    @property
    def agreement(self) -> float | None:
        """What the model gave the label, in 0..1; the lowest are the first that an expert should look at."""
        return None if self.label is None else self.probabilities[self.label]


class FeedbackExport(BaseModel):
    """What came out, and where it lies.

    `labelled` counts photos by label, `corrected` those whose label is not the model's answer; `unlabelled` nobody
    knows, `conflicting` have several labels, `rejected` were left out by an expert; `missing` photos are not in the
    store or damaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_dir: Path
    feedbacks: int
    photos: int
    labelled: dict[str, int]
    corrected: int
    unlabelled: int
    conflicting: int
    rejected: int
    missing: int
    extra_csv: Path
    images_dir: Path


def export_feedback(config: AppConfig) -> FeedbackExport:
    """Writes the store's photos and labels in the Kaggle layout, with tables for review, audit and training.

    Raises:
        CassavaError: No store, an empty one, or a table of an expert that is wrong.
    """
    settings = config.feedback
    store = open_store(*_addresses(settings.url, settings.photos))
    try:
        decided = {} if settings.reviewed_csv is None else read_decisions(settings.reviewed_csv)
        photos = [
            photo for photo in group(store.all(), decided) if photo.status == "reviewed" or not settings.only_reviewed
        ]
        if not photos:
            raise DataError("no feedback to export; expected some that POST /feedback or the bot has kept")
        folder = settings.output_dir or create_version_dir(config.paths.outputs_dir / "feedback")
        _clear(folder)
        written = [photo for photo in photos if _write_photo(store, photo, folder)]
    finally:
        store.close()
    result = _summary(folder, photos, written)
    _write_tables(folder, written)
    write_json(folder / SUMMARY_FILE, result.model_dump(mode="json"))
    logger.info("look at them, the doubtful first: %s", folder / REVIEW_FILE)
    return result


def group(rows: Iterable[StoredFeedback], decided: Mapping[str, int | None]) -> list[GivenPhoto]:
    """Photos by their names; what an expert has `decided` comes before what people say."""
    by_photo: dict[str, list[StoredFeedback]] = {}
    for row in rows:
        by_photo.setdefault(image_id_of(row.photo), []).append(row)
    return [_judged(image_id, tuple(said), decided) for image_id, said in sorted(by_photo.items())]


def image_id_of(photo: str) -> str:
    """A shorter name of a stored photo, the same in every export."""
    stem, _, suffix = photo.rpartition(".")
    return f"{stem[:20]}.{suffix}"


def read_decisions(path: Path) -> dict[str, int | None]:
    """An expert's labels by image_id; an empty one leaves a photo out.

    They stand in the column `right_label`, as the gallery of `cassava audit` saves them, or else in `label`.

    Raises:
        DataError: No such table, or labels that are none.
    """
    rows = read_rows(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        if "right_label" in next(csv.reader(file)):
            rows = read_rows(path, ("image_id", "right_label"))
    wrong = [f"line {row.line}: {row.label}" for row in rows if row.label and not row.has_label]
    if wrong:
        raise DataError(f"{path}: {', '.join(wrong[:5])}; expected class ids from 0 to {NUM_CLASSES - 1}, or nothing")
    return {row.image_id: int(row.label) if row.label else None for row in rows}


def _judged(image_id: str, said: tuple[StoredFeedback, ...], decided: Mapping[str, int | None]) -> GivenPhoto:
    if image_id in decided:
        label = decided[image_id]
        return GivenPhoto(image_id, said, label, "rejected" if label is None else "reviewed")
    labels = {row.label for row in said} - {None}
    if len(labels) > 1:
        return GivenPhoto(image_id, said, None, "conflict")
    return GivenPhoto(image_id, said, *((labels.pop(), "labelled") if labels else (None, "unknown")))


def _addresses(url: str | None, photos: str | None) -> tuple[str, str | None]:
    typed = url is not None
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(f"no store of feedback; type feedback.url=sqlite:///FILE, or set {URL_VARIABLE}")
    return url, photos or (None if typed else os.environ.get(PHOTOS_VARIABLE) or None)


def _clear(folder: Path) -> None:
    """An export takes the place of an older one whole, so that nothing that was forgotten stays in it."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / SUMMARY_FILE).is_file():
        raise ConfigError(
            f"feedback.output_dir={folder}: holds something else; expected a new folder or an older export"
        )
    shutil.rmtree(folder)


def _write_photo(store: FeedbackStore, photo: GivenPhoto, folder: Path) -> bool:
    try:
        data = store.photo(photo.said[0])
    except CassavaError as error:
        logger.warning("left out: %s", error)
        return False
    place = folder / (UNLABELLED_DIR if photo.label is None else IMAGES_DIR)
    place.mkdir(parents=True, exist_ok=True)
    (place / photo.image_id).write_bytes(data)
    return True


def _write_tables(folder: Path, photos: Sequence[GivenPhoto]) -> None:
    (folder / IMAGES_DIR).mkdir(parents=True, exist_ok=True)
    labelled = [photo for photo in photos if photo.label is not None]
    names, labels = [photo.image_id for photo in labelled], [photo.label for photo in labelled]
    _write(folder / TABLE_FILE, ("image_id", "label"), zip(names, labels, strict=True))
    certain = np.eye(NUM_CLASSES)[[label for label in labels if label is not None]].reshape(-1, NUM_CLASSES)
    write_text(folder / EXTRA_FILE, probability_table("path", names, certain))
    answers = (
        [name, label, *(f"{p:.8f}" for p in _of_sum_one(photo))]
        for name, label, photo in zip(names, labels, labelled, strict=True)
    )
    _write(folder / ANSWERS_FILE, ("image_id", "label", *PROBABILITY_COLUMNS), answers)
    doubtful = sorted(photos, key=lambda photo: (-1 if photo.agreement is None else photo.agreement, photo.image_id))
    _write(folder / REVIEW_FILE, _REVIEW, map(_review_row, doubtful))
    _write(
        folder / PROVENANCE_FILE, _PROVENANCE, (_provenance_row(photo, row) for photo in photos for row in photo.said)
    )


def _of_sum_one(photo: GivenPhoto) -> list[float]:
    total = sum(photo.probabilities)
    return [value / total for value in photo.probabilities]


_REVIEW: Final = (
    "image_id",
    "label",
    "label_name",
    "agreement",
    "status",
    "predicted_name",
    "confidence",
    "verdict",
    "remarks",
)
_PROVENANCE: Final = (
    *("image_id", "status", "said", "predicted", "predicted_name", "confidence", "verdict"),
    *("model", "version", "source", "given_at", "remark"),
)


def _review_row(photo: GivenPhoto) -> list[object]:
    answer = photo.said[-1].answer
    return [
        photo.image_id,
        "" if photo.label is None else photo.label,
        "" if photo.label is None else CLASS_NAMES[photo.label],
        "" if photo.agreement is None else f"{photo.agreement:.4f}",
        photo.status,
        answer.class_name,
        f"{answer.confidence:.4f}",
        answer.verdict,
        " | ".join(_harmless(row.remark) for row in photo.said if row.remark),
    ]


def _provenance_row(photo: GivenPhoto, row: StoredFeedback) -> list[object]:
    answer = row.answer
    return [
        *(photo.image_id, photo.status, "" if row.label is None else row.label),
        *(answer.predicted_class_id, answer.class_name, f"{answer.confidence:.6f}", answer.verdict),
        *(_harmless(answer.model.name), _harmless(answer.model.version), row.source),
        *(row.given_at.isoformat(timespec="seconds"), _harmless(row.remark or "")),
    ]


def _harmless(text: str) -> str:
    """Spreadsheets would run a stranger's text that starts like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def _write(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _summary(folder: Path, photos: Sequence[GivenPhoto], written: Sequence[GivenPhoto]) -> FeedbackExport:
    counts = dict.fromkeys(CLASS_NAMES, 0)
    for photo in written:
        if photo.label is not None:
            counts[CLASS_NAMES[photo.label]] += 1

    def of_status(status: Status) -> int:
        return sum(photo.status == status for photo in written)

    return FeedbackExport(
        output_dir=folder,
        feedbacks=sum(len(photo.said) for photo in photos),
        photos=len(written),
        labelled=counts,
        corrected=sum(photo.label not in (None, photo.said[-1].answer.predicted_class_id) for photo in written),
        unlabelled=of_status("unknown"),
        conflicting=of_status("conflict"),
        rejected=of_status("rejected"),
        missing=len(photos) - len(written),
        extra_csv=folder / EXTRA_FILE,
        images_dir=folder / IMAGES_DIR,
    )
