"""Tables of other collections, whose class names are brought to ours where there is a counterpart."""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cassava_leaf_disease.data.table import LabeledPhoto, check_photos, check_places, name_some, read_rows
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError

NO_COUNTERPART: Final = -1  # the label of a photo whose class is none of ours
NAMES_COLUMN: Final = "class"  # of a class map, where the table's own label column is called `label`
LABEL_COLUMN: Final = "label"

ClassMap = Mapping[str, int]  # their name -> our class id, or NO_COUNTERPART

_WANTED: Final = f"a class id from 0 to {len(CLASS_NAMES) - 1}, one of our class names, or null"


@dataclass(frozen=True)
class OutsideTable:
    """The photos of another collection, their labels ours or `NO_COUNTERPART`, and what it calls their classes."""

    photos: tuple[LabeledPhoto, ...]
    classes: tuple[str, ...]
    class_map: ClassMap


def read_outside_table(
    csv_path: Path,
    images_dir: Path,
    columns: tuple[str, str],
    named: Path | Mapping[str, object],
    key: str = "evaluate.class_map",
) -> OutsideTable:
    """The rows of a table with class names of its own, sorted by photo.

    `columns` are those of the photo's name and of its class; `named` is the class map or its file, which was typed
    as `key`.

    Raises:
        ConfigError: The class map cannot be used.
        DataError: The table is wrong, or has classes that the map does not name or none with a counterpart.
    """
    check_places(csv_path, images_dir, columns)
    class_map = read_class_map(named, columns[1], key)
    rows = sorted(read_rows(csv_path, columns), key=lambda row: row.image_id)
    _check_classes(csv_path, class_map, Counter(row.label for row in rows), key)
    check_photos(csv_path, images_dir, rows)
    photos = tuple(LabeledPhoto(row.image_id, class_map[row.label], images_dir / row.image_id) for row in rows)
    return OutsideTable(photos, tuple(row.label for row in rows), class_map)


def read_class_map(
    named: Path | Mapping[str, object], label_column: str, key: str = "evaluate.class_map"
) -> dict[str, int]:
    """Their class names and our class ids, from what was typed, a YAML file of the same, or a CSV file.

    The CSV file has a column with their names, called as in the table (`class` where that is `label`), and a
    column `label`, empty where there is no counterpart; rows may repeat, so that a labelled table can serve.

    Raises:
        ConfigError: It is missing, empty, contradicts itself, or names a class that is not ours.
    """
    origin = str(named) if isinstance(named, Path) else key
    pairs = _read_pairs(named, label_column, key) if isinstance(named, Path) else list(named.items())
    found: dict[str, int] = {}
    for name, value in pairs:
        label = _our_label(origin, str(name).strip(), value)
        if found.setdefault(str(name).strip(), label) != label:
            raise ConfigError(f"{origin}: {name!r} stands there with two labels; expected one for each class")
    if not found:
        raise ConfigError(f"{origin}: an empty class map; expected their class names, each with {_WANTED}")
    return found


def _read_pairs(path: Path, label_column: str, key: str) -> list[tuple[object, object]]:
    if path.suffix.lower() == ".csv":
        names = NAMES_COLUMN if label_column == LABEL_COLUMN else label_column
        try:
            return [(row.image_id, row.label) for row in read_rows(path, (names, LABEL_COLUMN))]
        except DataError as error:
            raise ConfigError(f"{key}: {error}") from None
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{key}={path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{key}={path}: no YAML; expected lines such as `mosaic: 3`") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{key}={path}: no class map; expected lines such as `mosaic: 3`")
    return list(content.items())


def _our_label(origin: str, name: str, value: object) -> int:
    text = "" if value is None else str(value).strip()
    if not text:
        return NO_COUNTERPART
    by_text = {str(index): index for index in range(len(CLASS_NAMES))}
    by_text |= {our.casefold(): index for index, our in enumerate(CLASS_NAMES)}
    label = by_text.get(text.casefold())
    if label is None:
        close = difflib.get_close_matches(text, CLASS_NAMES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"{origin}: {name!r} is mapped to {text!r}, which is no class of ours; expected {_WANTED}{hint}"
        )
    return label


def _check_classes(csv_path: Path, class_map: ClassMap, photos_of: Counter[str], key: str) -> None:
    unknown = [f"{name or '(empty)'} ({count} photos)" for name, count in photos_of.items() if name not in class_map]
    if unknown:
        raise DataError(
            f"{csv_path}: {len(unknown)} of its {len(photos_of)} classes are not in {key}: "
            f"{name_some(unknown)}; the map names {', '.join(class_map)}; add them, with null where there is no "
            "counterpart"
        )
    if all(class_map[name] == NO_COUNTERPART for name in photos_of):
        raise DataError(
            f"{csv_path}: none of its classes ({name_some(list(photos_of))}) has a counterpart among ours, so there is "
            "nothing to measure or to learn; map at least one to a class id, or ask `cassava infer` about the photos"
        )
