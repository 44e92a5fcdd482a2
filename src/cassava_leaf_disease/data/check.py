"""`cassava check-data`: everything that is wrong with a data set, in one go, named and counted.

Training stops at the first fault. Here each is collected, and the search goes on: for files that cannot be
used, copies, labels that contradict each other, and traces in the pictures that tell the classes apart.
"""

import csv
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.check_report import (
    BlackCorners,
    DataReport,
    ExactCopies,
    LabelConflict,
    NearDuplicate,
    Size,
    TableFault,
    UnreadablePhoto,
)
from cassava_leaf_disease.data.contact_sheet import write_contact_sheet
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.digests import digest_bytes
from cassava_leaf_disease.data.divide import count_classes, split_as_written
from cassava_leaf_disease.data.perceptual import Look, find_alike, has_black_corners, look_at
from cassava_leaf_disease.data.splits import Part, split_photos
from cassava_leaf_disease.data.table import LabeledPhoto, TableRow, file_names, kaggle_layout, read_rows
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError, DataError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image, read_image
from cassava_leaf_disease.imaging.preprocess import resize_shorter_side
from cassava_leaf_disease.log import progress_bar
from cassava_leaf_disease.storage.files import write_json, write_text

REPORT_FILE = "report.json"
PAIRS_FILE = "near_duplicates.csv"
SHEET_FILE = "contact_sheet.png"
PAIR_COLUMNS = (
    *("image_id", "label", "part", "other_image_id", "other_label", "other_part"),
    *("symmetry", "distance", "correlation", "points"),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A photo that was opened: its content, its size, its look."""

    photo: LabeledPhoto
    digest: str
    size: tuple[int, int]  # width, height
    look: Look
    black_corners: bool


@dataclass(frozen=True, slots=True)
class _Unusable:
    photo: LabeledPhoto
    digest: str | None
    reason: str


def check_data(config: AppConfig) -> DataReport:
    """Reads every photo of `paths.data_dir` and says what is wrong; writes the report, the pairs and a picture.

    Raises:
        DataError: There is no data set, or its table cannot be read at all.
    """
    started = time.perf_counter()
    csv_path, images_dir = kaggle_layout(config.paths.data_dir)
    rows = read_rows(csv_path)
    present = file_names(images_dir)
    photos, faults = _usable_rows(rows, images_dir)
    found = [photo for photo in photos if photo.image_id in present]
    looked_at = _look_at_all(found)
    seen = [entry for entry in looked_at if isinstance(entry, _Seen)]
    unusable = [entry for entry in looked_at if isinstance(entry, _Unusable)]
    parts, split_error = _parts(config, looked_at)
    copies = _exact_copies(seen)
    near = _near_duplicates(seen, parts, config.check_data.near_distance)
    output_dir = config.check_data.output_dir or config.paths.outputs_dir / "check-data"
    report = DataReport(
        data_dir=config.paths.data_dir,
        rows=len(rows),
        readable=len(seen),
        classes=count_classes(photos),
        sizes=_sizes(seen),
        aspect_ratios=_counted(f"{width / height:.2f}" for width, height in (entry.size for entry in seen)),
        table_faults=tuple(faults),
        files_missing=tuple(photo.image_id for photo in photos if photo.image_id not in present),
        files_without_row=tuple(sorted(map(_printable, present - {row.image_id for row in rows}))),
        unreadable=tuple(UnreadablePhoto(image_id=bad.photo.image_id, reason=bad.reason) for bad in unusable),
        blank=tuple(entry.photo.image_id for entry in seen if entry.look.blank),
        black_corners=_black_corners(seen),
        exact_copies=copies,
        near_duplicates=near,
        label_conflicts=_label_conflicts(copies, near),
        across_parts=tuple(pair for pair in near if pair.across_parts),
        parts=_counted(parts.values()),
        split_error=split_error,
        output_dir=output_dir,
        seconds=round(time.perf_counter() - started, 1),
    )
    _write(report, images_dir)
    _tell(report)
    return report


def find_label_conflicts(photos: Sequence[LabeledPhoto], near_distance: int) -> tuple[LabelConflict, ...]:
    """The same picture under different labels, among `photos`: exact copies, and near duplicates. Reads them all."""
    seen = [entry for entry in _look_at_all(photos) if isinstance(entry, _Seen)]
    return _label_conflicts(_exact_copies(seen), _near_duplicates(seen, {}, near_distance))


def _usable_rows(rows: Sequence[TableRow], images_dir: Path) -> tuple[list[LabeledPhoto], list[TableFault]]:
    """The photos with a name and one label, sorted by image_id; and what is wrong with the other rows."""
    faults = []
    labels: dict[str, list[TableRow]] = {}
    for row in rows:
        if not row.has_plain_name:
            faults.append(TableFault(line=row.line, image_id=row.image_id, what="image_id is no plain name of a file"))
        elif not row.has_label:
            what = f"label {row.label!r} is none of 0 to {NUM_CLASSES - 1}" if row.label else "no label"
            faults.append(TableFault(line=row.line, image_id=row.image_id, what=what))
        else:
            labels.setdefault(row.image_id, []).append(row)
    for image_id, same in labels.items():
        if len(same) > 1:
            lines = ", ".join(f"{int(row.label)} in line {row.line}" for row in same)
            what = f"stands there {len(same)} times, labels {lines}"
            faults.append(TableFault(line=same[-1].line, image_id=image_id, what=what))
    photos = [
        LabeledPhoto(image_id, int(same[0].label), images_dir / image_id)
        for image_id, same in sorted(labels.items())
        if len({int(row.label) for row in same}) == 1
    ]
    return photos, sorted(faults, key=lambda fault: fault.line)


def _look_at_all(photos: Sequence[LabeledPhoto]) -> list[_Seen | _Unusable]:
    found = []
    with (
        ThreadPoolExecutor(available_cpus()) as pool,  # reading, hashing and decoding release the GIL
        progress_bar("looking at the photos", len(photos)) as advance,
    ):
        for entry in pool.map(_look_at_one, photos):
            found.append(entry)
            advance(1)
    return found


def _look_at_one(photo: LabeledPhoto) -> _Seen | _Unusable:
    try:
        data = photo.path.read_bytes()
    except OSError as error:
        return _Unusable(photo, None, f"cannot be read: {error.strerror or type(error).__name__}")
    digest = digest_bytes(data)
    try:
        image = decode_image(data, DecodeLimits(), name=photo.image_id)
        resize_shorter_side(image, min(image.shape[:2]))  # refuses strips; else gives the image back
    except CassavaError as error:
        reason = str(error).removeprefix(f"{photo.image_id}: ").removeprefix("image: ")
        return _Unusable(photo, digest, reason)
    height, width = image.shape[:2]
    return _Seen(photo, digest, (width, height), look_at(image), has_black_corners(image))


def _parts(config: AppConfig, entries: Sequence[_Seen | _Unusable]) -> tuple[dict[str, Part], str | None]:
    """The part of each photo in the split that `data.split` asks for; or why there is no such split."""
    hashed = [(entry.photo, entry.digest) for entry in entries if entry.digest is not None]
    photos, digests = [photo for photo, _ in hashed], [digest for _, digest in hashed]
    settings = config.data
    try:
        if settings.split.manifest is None:
            split = split_photos(photos, settings.split, settings.limits, digests)
        else:
            split = split_as_written(settings.split.manifest, photos, digests, settings)
    except DataError as error:
        return {}, str(error)
    return {photo.image_id: part for part, members in split.parts.items() for photo in members}, None


def _exact_copies(seen: Sequence[_Seen]) -> tuple[ExactCopies, ...]:
    by_digest: dict[str, list[LabeledPhoto]] = {}
    for entry in seen:
        by_digest.setdefault(entry.digest, []).append(entry.photo)
    return tuple(
        ExactCopies(image_ids=tuple(photo.image_id for photo in same), labels=tuple(photo.label for photo in same))
        for same in by_digest.values()
        if len(same) > 1
    )


def _near_duplicates(seen: Sequence[_Seen], parts: Mapping[str, Part], near_distance: int) -> tuple[NearDuplicate, ...]:
    """Pairs that look alike; of exact copies the first stands for all."""
    firsts = list({entry.digest: entry for entry in reversed(seen)}.values())[::-1]
    pairs = find_alike(
        [entry.look for entry in firsts], near_distance, lambda index: read_image(firsts[index].photo.path)
    )
    found = []
    for pair in pairs:
        photos = firsts[pair.first].photo, firsts[pair.second].photo
        found.append(
            NearDuplicate(
                image_ids=(photos[0].image_id, photos[1].image_id),
                labels=(photos[0].label, photos[1].label),
                parts=(parts.get(photos[0].image_id), parts.get(photos[1].image_id)),
                symmetry=pair.symmetry,
                distance=pair.distance,
                correlation=round(pair.correlation, 4),
                points=pair.points,
            )
        )
    return tuple(found)


def _label_conflicts(copies: Sequence[ExactCopies], near: Sequence[NearDuplicate]) -> tuple[LabelConflict, ...]:
    groups: Sequence[ExactCopies | NearDuplicate] = [*copies, *near]
    return tuple(
        LabelConflict(image_ids=group.image_ids, labels=group.labels, exact=isinstance(group, ExactCopies))
        for group in groups
        if len(set(group.labels)) > 1
    )


def _black_corners(seen: Sequence[_Seen]) -> BlackCorners:
    cornered = [entry.photo for entry in seen if entry.black_corners and not entry.look.blank]
    totals, found = (Counter(photo.label for photo in group) for group in ([e.photo for e in seen], cornered))
    return BlackCorners(
        photos=len(cornered),
        share_by_class={
            name: round(found[label] / totals[label], 4) for label, name in enumerate(CLASS_NAMES) if totals[label]
        },
    )


def _printable(name: str) -> str:
    """A file's name as JSON can hold it: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _sizes(seen: Sequence[_Seen]) -> tuple[Size, ...]:
    counted = Counter(entry.size for entry in seen)
    return tuple(
        Size(width=width, height=height, photos=photos)
        for (width, height), photos in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _write(report: DataReport, images_dir: Path) -> None:
    """The report as JSON, the pairs as a table, and the first pairs as a picture; no picture without pairs."""
    folder = report.output_dir
    write_json(folder / REPORT_FILE, report.model_dump(mode="json"))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PAIR_COLUMNS)
    for pair in report.near_duplicates:
        sides = zip(pair.image_ids, pair.labels, pair.parts, strict=True)
        writer.writerow(
            [*chain.from_iterable(sides), pair.symmetry, pair.distance, f"{pair.correlation:.4f}", pair.points]
        )
    write_text(folder / PAIRS_FILE, buffer.getvalue())
    if report.near_duplicates:
        write_contact_sheet(report.near_duplicates, images_dir, folder / SHEET_FILE)
    else:
        (folder / SHEET_FILE).unlink(missing_ok=True)


def _tell(report: DataReport) -> None:
    _log.info("%s: %d rows, %d photos can be used", report.data_dir, report.rows, report.readable)
    for name, photos in report.classes.items():
        _log.info("%7d  %s", photos, name)
    for finding in report.findings:
        _log.warning("%s", finding)
    if not report.findings:
        _log.info("nothing wrong was found")
    _log.info("the whole report: %s", report.output_dir / REPORT_FILE)
