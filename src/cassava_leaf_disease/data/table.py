"""The table of labelled photos, checked while it is read: what it lets through can be trained on."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import DataError

COLUMNS = ("image_id", "label")
NAMED_AT_MOST = 5

_WANTED = f"labels are whole numbers from 0 to {NUM_CLASSES - 1}"
_LABEL = re.compile(r"[0-9]{1,99}")
_UNSAFE_IN_NAME = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """One row: the file's name, its class id in 0..4, and where the file lies."""

    image_id: str
    label: int
    path: Path


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as it stands in the file, unchecked: its line, and the text of its two cells."""

    line: int
    image_id: str
    label: str

    @property
    def has_label(self) -> bool:
        """Whether its label is one of ours."""
        return _LABEL.fullmatch(self.label) is not None and int(self.label) < NUM_CLASSES

    @property
    def has_plain_name(self) -> bool:
        """Whether it names a file, and nothing outside its folder."""
        return self.image_id not in {"", ".", ".."} and not _UNSAFE_IN_NAME.search(self.image_id)


def strangers_and_changed(rows: Iterable[TableRow], photos: Iterable[LabeledPhoto]) -> tuple[list[str], list[str]]:
    """Rows of another table that do not fit: of no photo in `photos`, and, in words, labelled otherwise than there."""
    labels = {photo.image_id: photo.label for photo in photos}
    strangers, changed = [], []
    for row in rows:
        if row.image_id not in labels:
            strangers.append(row.image_id)
        elif not row.has_label or int(row.label) != labels[row.image_id]:
            changed.append(f"{row.image_id} ({row.label or 'no label'}, in the table {labels[row.image_id]})")
    return strangers, changed


def read_kaggle(data_dir: Path) -> tuple[LabeledPhoto, ...]:
    """The photos of a folder in the Kaggle layout: `train.csv` and `train_images/`, sorted by image_id.

    Raises:
        DataError: The folder is missing or no such layout, or the table is wrong (see `read_table`).
    """
    return read_table(*kaggle_layout(data_dir))


def kaggle_layout(data_dir: Path) -> tuple[Path, Path]:
    """The table and the folder of photos in a folder of the Kaggle layout.

    Raises:
        DataError: One of them is missing.
    """
    csv_path, images_dir = data_dir / "train.csv", data_dir / "train_images"
    missing = next((path for path in (data_dir, csv_path, images_dir) if not path.exists()), None)
    if missing is not None:
        raise DataError(
            f"no photos: {missing} is missing; expected train.csv and train_images/ in "
            f"paths.data_dir={data_dir}; type paths.data_dir=FOLDER (the unpacked Kaggle data set "
            "cassava-leaf-disease-classification), or train on drawn leaves with data.synthetic.enabled=true"
        )
    return csv_path, images_dir


def read_table(csv_path: Path, images_dir: Path, columns: tuple[str, str] = COLUMNS) -> tuple[LabeledPhoto, ...]:
    """The rows of a `train.csv`-like table whose photos lie in `images_dir`, sorted by image_id.

    The table needs the two `columns`, of the photo's name and of its label; others are ignored. Every row needs a
    label: an empty one is an error, so that no photo drops out of a measurement unseen.

    Raises:
        DataError: Names the table, the lines or files in question and what to do about them.
    """
    check_places(csv_path, images_dir, columns)
    rows = read_rows(csv_path, columns)
    _check_labels(csv_path, rows)
    check_photos(csv_path, images_dir, rows)
    photos = (LabeledPhoto(row.image_id, int(row.label), images_dir / row.image_id) for row in rows)
    return tuple(sorted(photos, key=lambda photo: photo.image_id))


def check_places(csv_path: Path, images_dir: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Refuses a table or a folder that is not there.

    Raises:
        DataError: Names the one that is missing.
    """
    if not csv_path.is_file():
        raise DataError(f"no table: {csv_path} is missing or no file; expected a CSV file with {_header(columns)}")
    if not images_dir.is_dir():
        raise DataError(f"no photos: {images_dir} is missing or no folder; expected the photos that {csv_path} names")


def check_photos(csv_path: Path, images_dir: Path, rows: Sequence[TableRow]) -> None:
    """Refuses rows that do not name one file of the folder each; their labels are not looked at.

    Raises:
        DataError: Names the table, the lines or files in question and what to do about them.
    """
    _check_names(csv_path, rows)
    _check_duplicates(csv_path, rows)
    _check_files(csv_path, images_dir, rows)


def name_some(names: Sequence[str]) -> str:
    """The first few names and how many more there are: `a, b, c, d, e and 7 more`."""
    shown = ", ".join(names[:NAMED_AT_MOST])
    return f"{shown} and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else shown


def _header(columns: Sequence[str] = COLUMNS) -> str:
    return f"the columns {','.join(columns)}"


def read_rows(csv_path: Path, columns: tuple[str, str] = COLUMNS) -> list[TableRow]:
    """The rows of a table as they stand there, at least one; what they say is not checked.

    `columns` are those of the photo's name and of its label.

    Raises:
        DataError: No readable CSV with the two columns.
    """
    try:
        with csv_path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv_path, file, columns))
    except UnicodeDecodeError as error:
        raise DataError(f"{csv_path} is no UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{csv_path} is no readable CSV: {error}; expected {_header(columns)}") from None
    except OSError as error:
        raise DataError(f"{csv_path} cannot be read: {error.strerror}") from None
    if not rows:
        raise DataError(f"{csv_path} holds no photos: there is no row below its header")
    return rows


def _rows(csv_path: Path, file: TextIO, wanted: tuple[str, str]) -> Iterator[TableRow]:
    reader = csv.DictReader(file, skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    if absent := [name for name in wanted if name not in columns]:
        seen = ",".join(columns) or "nothing"
        raise DataError(
            f"{csv_path} has no column {' and no column '.join(absent)}: seen {seen}, expected {_header(wanted)}"
        )
    for values in reader:
        cells: Mapping[str, str | None] = values
        yield TableRow(reader.line_num, *((cells[name] or "").strip() for name in wanted))


def _check_labels(csv_path: Path, rows: Iterable[TableRow]) -> None:
    wrong = [row for row in rows if not row.has_label]
    if wrong:
        shown = [f"line {row.line} ({row.image_id}: {row.label or 'no label'})" for row in wrong]
        raise DataError(
            f"{csv_path}: {_WANTED}; {len(wrong)} of the rows have another one: {name_some(shown)}; mend or remove them"
        )


def _check_names(csv_path: Path, rows: Iterable[TableRow]) -> None:
    wrong = [row for row in rows if not row.has_plain_name]
    if wrong:
        shown = [f"line {row.line} ({row.image_id!r})" for row in wrong]
        raise DataError(
            f"{csv_path}: an image_id is the plain name of a file, such as 1000015157.jpg, without folders; "
            f"{len(wrong)} are not: {name_some(shown)}"
        )


def _check_duplicates(csv_path: Path, rows: Iterable[TableRow]) -> None:
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(row.image_id, []).append(row.label)
    repeated = {image_id: seen for image_id, seen in labels.items() if len(seen) > 1}
    if not repeated:
        return
    conflicting = [f"{name} (labels {', '.join(seen)})" for name, seen in repeated.items() if len(set(seen)) > 1]
    same = [name for name, seen in repeated.items() if len(set(seen)) == 1]
    found = []
    if conflicting:
        found.append(f"{len(conflicting)} with labels that contradict each other: {name_some(conflicting)}")
    if same:
        found.append(f"{len(same)} with one and the same label: {name_some(same)}")
    raise DataError(
        f"{csv_path}: every image_id may stand there once; repeated: {'; '.join(found)}; keep one row of each"
    )


def file_names(folder: Path) -> frozenset[str]:
    """The files in a folder, by one listing instead of a stat for each of 21,000 photos."""
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def _check_files(csv_path: Path, images_dir: Path, rows: Sequence[TableRow]) -> None:
    present = file_names(images_dir)
    missing = [row.image_id for row in rows if row.image_id not in present]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(rows)} photos that {csv_path} names are not in {images_dir}: "
            f"{name_some(missing)}; copy the data set again or remove their rows"
        )
