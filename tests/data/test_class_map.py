"""Class names of another collection and ours."""

from pathlib import Path

import pytest

from cassava_leaf_disease.data.class_map import NO_COUNTERPART, read_class_map, read_outside_table
from cassava_leaf_disease.errors import ConfigError, DataError

COLUMNS = ("file", "disease")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in "abc":
        (tmp_path / "photos" / f"{name}.jpg").touch()
    path = tmp_path / "labels.csv"
    path.write_text("file,disease,farm\nc.jpg,mosaic,1\na.jpg,green mite,1\nb.jpg,healthy leaf,2\n", encoding="utf-8")
    return path


def test_photos_get_our_labels_and_keep_their_classes(table: Path) -> None:
    typed = {"mosaic": 3, "green mite": None, "healthy leaf": "healthy", "not there": 0}

    read = read_outside_table(table, table.parent / "photos", COLUMNS, typed)

    assert [(photo.image_id, photo.label) for photo in read.photos] == [
        ("a.jpg", NO_COUNTERPART),
        ("b.jpg", 4),
        ("c.jpg", 3),
    ]
    assert read.classes == ("green mite", "healthy leaf", "mosaic")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.yaml", "mosaic: Cassava Mosaic Disease\ngreen mite:\n'healthy leaf': 4\n"),
        ("map.csv", "disease,label\nmosaic,3\ngreen mite,\nhealthy leaf,4\nmosaic,3\n"),
    ],
)
def test_map_may_be_a_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    expected = {"mosaic": 3, "green mite": NO_COUNTERPART, "healthy leaf": 4}
    assert read_class_map(tmp_path / name, "disease") == expected


def test_map_of_a_table_whose_labels_are_names_has_a_column_class(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("class,label\nmosaic,3\n", encoding="utf-8")

    assert read_class_map(tmp_path / "map.csv", "label") == {"mosaic": 3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.yaml", "mosaic: 7", r"'mosaic' is mapped to '7', which is no class of ours; expected a class id from 0"),
        ("map.yaml", "mosaic: Cassava Mosaic", r"did you mean Cassava Mosaic Disease\?"),
        ("map.yaml", "- mosaic", "no class map"),
        ("map.yaml", "{", "no YAML"),
        ("map.yaml", "{}", "an empty class map"),
        ("map.csv", "disease,label\nmosaic,3\nmosaic,2\n", "'mosaic' stands there with two labels"),
        ("map.csv", "name,label\nmosaic,3\n", "no column disease"),
    ],
)
def test_map_that_cannot_be_used_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=message):
        read_class_map(tmp_path / name, "disease")


def test_missing_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.class_map=.*map\.yaml: cannot be read"):
        read_class_map(tmp_path / "map.yaml", "disease")


def test_class_that_the_map_does_not_name_is_told(table: Path) -> None:
    with pytest.raises(DataError, match=r"1 of its 3 classes are not in evaluate\.class_map: mosaic \(1 photos\)"):
        read_outside_table(table, table.parent / "photos", COLUMNS, {"green mite": None, "healthy leaf": 4})


def test_nothing_to_measure_is_told(table: Path) -> None:
    nothing = dict.fromkeys(("mosaic", "green mite", "healthy leaf"))

    with pytest.raises(DataError, match=r"none of its classes \(green mite, healthy leaf, mosaic\) has a counterpart"):
        read_outside_table(table, table.parent / "photos", COLUMNS, nothing)


def test_missing_column_and_missing_photo_are_told(table: Path) -> None:
    with pytest.raises(DataError, match=r"no column class: seen file,disease,farm, expected the columns file,class"):
        read_outside_table(table, table.parent / "photos", ("file", "class"), {"mosaic": 3})
    (table.parent / "photos" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 3 photos .*a\.jpg"):
        read_outside_table(
            table, table.parent / "photos", COLUMNS, {"mosaic": 3, "green mite": None, "healthy leaf": 4}
        )
    with pytest.raises(DataError, match="no table"):
        read_outside_table(table.with_name("none.csv"), table.parent, COLUMNS, {"mosaic": 3})
