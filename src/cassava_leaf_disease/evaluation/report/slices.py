"""Figures by what the photos have in common: light, sharpness, size, and the columns of a table about them."""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datasets import Image, PhotoSource
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.quality import measure_quality
from cassava_leaf_disease.log import progress_bar
from cassava_leaf_disease.modeling.metrics import class_scores, confusion_matrix, wilson_interval

logger = logging.getLogger(__name__)

ClassIds = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MOST_VALUES: Final = 12  # of a column whose values are groups themselves
MOST_NUMBERS: Final = 6  # from which on numbers are divided into quarters
NOT_GIVEN: Final = "(not given)"
_QUARTERS: Final = ("lowest", "second", "third", "highest")
_NAMES: Final = ("image_id",)
_NO_GROUPS: Final = ("image_id", "label")  # columns that say nothing of the photo itself


@dataclass(frozen=True)
class PhotoFacts:
    """What a photo itself tells: brightness and sharpness (see `measure_quality`), and its size as it came."""

    brightness: float
    sharpness: float
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Groups:
    """One way to divide the photos: the group of each, and the groups in the order to show."""

    name: str
    of_photo: Sequence[str]
    order: Sequence[str]


class Slice(BaseModel):
    """One group: its accuracy with Wilson's 95% interval, and the one to expect from its classes alone.

    `expected_accuracy` is what the recalls of all photos give for the classes of these; `stands_out` says that it
    lies outside of the interval. `f1_macro` is over the classes that the group has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    photos: int
    accuracy: float
    interval: tuple[float, float]
    expected_accuracy: float
    stands_out: bool
    f1_macro: float
    mean_confidence: float


class Slicing(BaseModel):
    """All groups of one division."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    slices: tuple[Slice, ...]


def photo_facts(image: Image) -> PhotoFacts:
    """The facts of a photo `(H, W, 3)` uint8 RGB."""
    height, width = image.shape[:2]
    quality = measure_quality(image)
    return PhotoFacts(quality.brightness, quality.sharpness, width, height)


def facts_of(photos: PhotoSource) -> list[PhotoFacts]:
    """The facts of every photo, in order; progress on stderr."""
    with ThreadPoolExecutor(available_cpus()) as pool, progress_bar("looking at the photos", len(photos)) as advance:
        facts = []
        for fact in pool.map(lambda index: photo_facts(photos.image(index)), range(len(photos))):
            facts.append(fact)
            advance(1)
        return facts


def groups_of_facts(facts: Sequence[PhotoFacts]) -> list[Groups]:
    """By brightness and sharpness in quarters, and by size; what is the same for all photos is left out."""
    measures: dict[str, Callable[[PhotoFacts], float]] = {
        "brightness": lambda fact: fact.brightness,
        "sharpness": lambda fact: fact.sharpness,
    }
    found = [in_quarters(name, [of(fact) for fact in facts]) for name, of in measures.items()]
    sizes = [f"{fact.width_px} x {fact.height_px}" for fact in facts]
    shorter = [str(min(fact.width_px, fact.height_px)) for fact in facts]
    few = len(set(sizes)) <= MOST_NUMBERS
    by_size = groups_of_values("size in pixels", sizes) if few else groups_of_values("shorter side in pixels", shorter)
    found.extend([] if by_size is None else [by_size])
    return [groups for groups in found if len(groups.order) > 1]


def in_quarters(name: str, values: Sequence[float]) -> Groups:
    """Quarters of the photos by a number, named by their ranges; equal numbers stay together."""
    numbers = np.asarray(values, np.float64)
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    places = np.searchsorted(edges, numbers, side="left")
    present = np.unique(places)
    words = {}
    for place in present:
        inside = numbers[places == place]
        quarter = f"{_QUARTERS[place]} quarter, " if len(present) == len(_QUARTERS) else ""
        words[place] = f"{quarter}{_short(inside.min())} to {_short(inside.max())}"
    return Groups(name, [words[place] for place in places], list(dict.fromkeys(words.values())))


def groups_of_values(name: str, values: Sequence[str]) -> Groups | None:
    """Each value a group, many numbers in quarters; None where the values are too many, or all the same."""
    given = sorted({value for value in values if value})
    if len({*values}) < 2:
        return None
    numbers = _numbers(given)
    if numbers is not None and len(given) > MOST_NUMBERS:
        placed = in_quarters(name, [float(value) for value in values if value])
        rest = iter(placed.of_photo)
        of_photo = [next(rest) if value else NOT_GIVEN for value in values]
        return Groups(name, of_photo, [*placed.order, *[NOT_GIVEN] * (NOT_GIVEN in of_photo)])
    if len(given) > MOST_VALUES:
        return None
    ordered = given if numbers is None else [value for _, value in sorted(zip(numbers, given, strict=True))]
    of_photo = [value or NOT_GIVEN for value in values]
    return Groups(name, of_photo, [*ordered, *[NOT_GIVEN] * (NOT_GIVEN in of_photo)])


def groups_of_table(path: Path, image_ids: Sequence[str], id_columns: Sequence[str] = _NAMES) -> list[Groups]:
    """The photos by each further column of a CSV table that names them.

    Columns with more than a dozen different words are left out, with a warning.

    Raises:
        DataError: No such table, no column of names, or it names none of the photos.
    """
    columns = _read_columns(path, image_ids, id_columns)
    found = []
    for name, values in columns.items():
        groups = groups_of_values(name, values)
        if groups is not None:
            found.append(groups)
        elif len(set(values)) > 1:
            logger.warning("%s: the column %s has %d different values, too many for slices", path, name, len({*values}))
    return found


def score_slices(groups: Groups, labels: ClassIds, probabilities: FloatArray) -> Slicing:
    """The figures of each group, from labels `(N,)` and probabilities `(N, C)`."""
    predicted, names = probabilities.argmax(axis=1), np.array(groups.of_photo)
    recalls = class_scores(confusion_matrix(labels, predicted, NUM_CLASSES)).recall
    slices = []
    for group in groups.order:
        inside = names == group
        hits, photos = int((predicted[inside] == labels[inside]).sum()), int(inside.sum())
        low, high = wilson_interval(hits, photos)
        expected = float(recalls[labels[inside]].mean())
        matrix = confusion_matrix(labels[inside], predicted[inside], NUM_CLASSES)
        slices.append(
            Slice(
                group=group,
                photos=photos,
                accuracy=hits / photos,
                interval=(low, high),
                expected_accuracy=expected,
                stands_out=not low <= expected <= high,
                f1_macro=float(class_scores(matrix).f1[matrix.sum(axis=1) > 0].mean()),
                mean_confidence=float(probabilities[inside].max(axis=1).mean()),
            )
        )
    return Slicing(name=groups.name, slices=tuple(slices))


def _read_columns(path: Path, image_ids: Sequence[str], id_columns: Sequence[str]) -> Mapping[str, list[str]]:
    """The further columns of a table, each with the value of every photo; empty where the table has none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            id_column = next((name for name in id_columns if name in header), None)
            rows = {} if id_column is None else dict(_cells(reader, id_column))
    except OSError as error:
        raise DataError(f"evaluate.slices_csv={path}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError):
        raise DataError(f"evaluate.slices_csv={path}: no readable CSV in UTF-8") from None
    if id_column is None:
        seen = ",".join(header) or "nothing"
        raise DataError(f"evaluate.slices_csv={path}: no column {id_columns[0]}; seen {seen}")
    if not rows.keys() & set(image_ids):
        raise DataError(
            f"evaluate.slices_csv={path}: names none of the {len(image_ids)} photos, such as {image_ids[0]}; "
            "expected a table of the same photos"
        )
    others = [name for name in header if name and name not in {*id_columns, *_NO_GROUPS}]
    return {name: [rows.get(image_id, {}).get(name, "") for image_id in image_ids] for name in others}


def _cells(reader: "csv.DictReader[str]", id_column: str) -> Iterator[tuple[str, dict[str, str]]]:
    for row in reader:
        cells: Mapping[str | None, object] = row  # cells beyond the header lie under None
        yield (
            str(cells[id_column] or "").strip(),
            {name: str(cell or "").strip() for name, cell in cells.items() if name},
        )


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 10 or number == int(number) else f"{number:.2g}"
