"""Photos beside the data set's: their tables of probabilities, written and read, or of labels that people gave."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.class_map import NO_COUNTERPART, read_outside_table
from cassava_leaf_disease.data.digests import photo_digests
from cassava_leaf_disease.data.table import LabeledPhoto, name_some, read_table
from cassava_leaf_disease.domain import NUM_CLASSES, SUM_TOLERANCE
from cassava_leaf_disease.errors import DataError

PROBABILITY_COLUMNS: Final = tuple(f"prob_{index}" for index in range(NUM_CLASSES))

_WRITTEN_BY: Final = "expected a pseudo_labels.csv that `cassava pseudo-label` wrote"


@dataclass(frozen=True, slots=True)
class ExtraPhotos:
    """Photos whose `image_id` is their path in the folder and whose label is the most probable class.

    `probabilities` `(N, C)` float32, rows that sum to 1. `labelled` says whether they are what people said of the
    photos: sure of a class, or, of a leaf with a trouble that is none of ours, the same for all; such a photo's label
    is `NO_COUNTERPART`.
    """

    photos: tuple[LabeledPhoto, ...]
    probabilities: npt.NDArray[np.float32]
    labelled: bool = False


def probability_table(name_column: str, names: Sequence[str], probabilities: npt.NDArray[np.floating[Any]]) -> str:
    """CSV text with a row a name, which `read_probabilities` reads back."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([name_column, "label", "confidence", *PROBABILITY_COLUMNS])
    for name, row in zip(names, probabilities.tolist(), strict=True):
        best = max(row)
        writer.writerow([name, row.index(best), *(f"{value:.8f}" for value in (best, *row))])
    return buffer.getvalue()


def read_extra(csv_path: Path, images_dir: Path) -> ExtraPhotos:
    """The photos of a table by `probability_table`, which lie in `images_dir`, in the order of the table.

    The class of a photo is the most probable one, whatever the column `label` says.

    Raises:
        DataError: No such table, or it names files that are not there or lie outside the folder.
    """
    wanted = f"{_WRITTEN_BY}, or data.extra.label_column=COLUMN for a table of labels"
    names, probabilities = read_probabilities(csv_path, "path", wanted)
    if not names:
        raise DataError(f"data.extra.csv_path={csv_path}: no row below its header; type data.extra.csv_path=null")
    outside = [name for name in names if _leaves_folder(name)]
    if outside:
        raise DataError(f"{csv_path}: its paths must stay inside the folder; these do not: {name_some(outside)}")
    paths = [images_dir / name for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} photos that {csv_path} names are not in {images_dir}: "
            f"{name_some(missing)}; type data.extra.images_dir=FOLDER, the one that was scored"
        )
    labels = probabilities.argmax(axis=1).tolist()
    return ExtraPhotos(
        tuple(LabeledPhoto(*row) for row in zip(names, labels, paths, strict=True)), probabilities.astype(np.float32)
    )


def read_labelled(
    csv_path: Path,
    images_dir: Path,
    columns: tuple[str, str],
    named: Path | Mapping[str, object] | None,
) -> ExtraPhotos:
    """The photos of a table of labels: ours, or those of a class map (see `read_outside_table`).

    `columns` are those of the photo's name and of its class.

    Raises:
        ConfigError: The class map cannot be used.
        DataError: The table is wrong, or names files that are not there.
    """
    if named is None:
        photos = read_table(csv_path, images_dir, columns)
    else:
        photos = read_outside_table(csv_path, images_dir, columns, named, "data.extra.class_map").photos
    labels = np.array([photo.label for photo in photos])
    known = labels != NO_COUNTERPART
    rows = np.full((len(photos), NUM_CLASSES), 1 / NUM_CLASSES, np.float32)
    rows[known] = np.eye(NUM_CLASSES)[labels[known]]
    return ExtraPhotos(photos, rows, labelled=True)


def refuse_labeled(extra: ExtraPhotos, labeled: Sequence[LabeledPhoto], memo_dir: Path | None) -> None:
    """Refuses extra photos that are, by their content, among the labelled ones.

    Raises:
        DataError: They would train on what is to be measured.
    """
    digests = photo_digests([*labeled, *extra.photos], memo_dir)
    known = frozenset(digests[: len(labeled)])
    shared = [photo.image_id for photo, d in zip(extra.photos, digests[len(labeled) :], strict=True) if d in known]
    if shared:
        again = "" if extra.labelled else ", or write the table again with `cassava pseudo-label`"
        raise DataError(
            f"data.extra.csv_path: {len(shared)} of its {len(extra.photos)} photos are photos of the data set, which "
            f"would train on what is to be measured: {name_some(shared)}; remove their rows{again}"
        )


def read_probabilities(
    csv_path: Path, name_column: str, wanted: str = _WRITTEN_BY
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """As `parse_probabilities`, from a file; `wanted` ends the errors.

    Raises:
        DataError: The file is missing or no such table, or its numbers are no probabilities.
    """
    try:
        text = csv_path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{csv_path}: no UTF-8 text; {wanted}") from None
    except OSError as error:
        raise DataError(f"{csv_path}: cannot be read ({error.strerror}); {wanted}") from None
    return parse_probabilities(text, name_column, str(csv_path), wanted)


def parse_probabilities(
    text: str, name_column: str, origin: str, wanted: str = _WRITTEN_BY
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The names in a column, each once, and the probabilities `(N, C)` of `prob_0 … prob_4`, made to sum to 1.

    Raises:
        DataError: No such table, or its numbers are no probabilities; `origin` is what the error calls it, `wanted`
            how it ends.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        names = [row[name_column] for row in rows]
        values = [[float(row[column]) for column in PROBABILITY_COLUMNS] for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{origin}: no table of probabilities ({what}); {wanted}") from None
    wrong = [name for name, row in zip(names, values, strict=True) if not _sums_to_one(row)]
    if wrong:
        raise DataError(f"{origin}: the probabilities of {name_some(wrong)} do not sum to 1; {wanted}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{origin}: {name_some(repeated)} stand there more than once; keep one row of each")
    table = np.array(values, np.float64).reshape(-1, NUM_CLASSES)
    return names, table / table.sum(axis=1, keepdims=True)


def _sums_to_one(row: Sequence[float]) -> bool:
    return min(row) >= 0 and math.isclose(sum(row), 1, abs_tol=SUM_TOLERANCE)


def _leaves_folder(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not parts or PurePosixPath(name).is_absolute() or ".." in parts or Path(name).is_absolute()
