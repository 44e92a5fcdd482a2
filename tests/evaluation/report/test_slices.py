"""Photos by what they have in common."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.evaluation.report.slices import (
    NOT_GIVEN,
    Groups,
    PhotoFacts,
    groups_of_facts,
    groups_of_table,
    groups_of_values,
    in_quarters,
    photo_facts,
    score_slices,
)


def test_dark_and_blurred_photos_are_told_from_bright_and_sharp_ones() -> None:
    leaf = draw_leaf(5, 2, 300)
    dark = (leaf * 0.5).astype(np.uint8)
    blurred = np.array(Image.fromarray(leaf).filter(ImageFilter.GaussianBlur(3)))

    facts = photo_facts(leaf)

    assert photo_facts(dark).brightness == pytest.approx(facts.brightness / 2, rel=0.02)
    assert photo_facts(blurred).brightness == pytest.approx(facts.brightness, rel=0.02)
    assert photo_facts(blurred).sharpness < facts.sharpness / 4
    assert (facts.width_px, facts.height_px) == (300, 300)
    grey = photo_facts(np.full((40, 60, 3), 9, np.uint8))
    assert [grey.brightness, grey.sharpness] == pytest.approx([9 / 255, 0])
    assert (grey.width_px, grey.height_px) == (60, 40)


def test_numbers_are_divided_in_quarters_of_the_photos() -> None:
    groups = in_quarters("brightness", [10.0, 80.0, 20.0, 70.0, 30.0, 60.0, 40.0, 50.0])

    assert groups.order == [
        "lowest quarter, 10 to 20",
        "second quarter, 30 to 40",
        "third quarter, 50 to 60",
        "highest quarter, 70 to 80",
    ]
    assert [groups.of_photo.count(name) for name in groups.order] == [2, 2, 2, 2]
    assert groups.of_photo[1] == "highest quarter, 70 to 80"


def test_equal_numbers_stay_together() -> None:
    groups = in_quarters("blur", [1.0] * 9 + [3.5, 5.0])

    assert groups.order == ["1 to 1", "3.5 to 5"]
    assert groups.of_photo[:9] == ["1 to 1"] * 9


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["b", "a", "", "a"], ["a", "b", NOT_GIVEN]),
        (["10", "9", "10"], ["9", "10"]),
        (["x", "x"], None),
        ([str(number) for number in range(20)], None),
        ([f"field {number}" for number in range(20)], None),
        (["inf", "0"], ["0", "inf"]),
    ],
)
def test_values_are_groups_where_they_are_few(values: list[str], order: list[str] | None) -> None:
    groups = groups_of_values("column", values)

    if values[-1] == "19":
        assert groups is not None
        assert len(groups.order) == 4
    else:
        assert (groups.order if groups else None) == order


def test_photos_without_a_number_are_a_group() -> None:
    groups = groups_of_values("width", [*[str(number) for number in range(12)], ""])

    assert groups is not None
    assert groups.order[-1] == groups.of_photo[-1] == NOT_GIVEN
    assert len(groups.order) == 5


def test_sizes_are_groups_while_they_are_few() -> None:
    few = [PhotoFacts(10 * n, 5 * n, 640, 480 if n % 2 else 640) for n in range(8)]
    many = [PhotoFacts(1, 1, 640, 400 + n) for n in range(20)]

    assert [groups.name for groups in groups_of_facts(few)] == ["brightness", "sharpness", "size in pixels"]
    assert groups_of_facts(few)[2].order == ["640 x 480", "640 x 640"]
    (by_side,) = groups_of_facts(many)
    assert (by_side.name, len(by_side.order)) == ("shorter side in pixels", 4)
    assert groups_of_facts([PhotoFacts(1, 1, 64, 64)] * 4) == []


def test_columns_of_a_table_are_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"{number}.jpg,3,{'farm' if number % 2 else 'station'},note {number}" for number in range(15)]
    (tmp_path / "about.csv").write_text("image_id, label, place, remark\n" + "\n".join(lines), encoding="utf-8")

    with caplog.at_level(logging.WARNING):
        (place,) = groups_of_table(
            tmp_path / "about.csv", ["1.jpg", "2.jpg", "new.jpg"] + [f"{n}.jpg" for n in range(3, 15)]
        )

    assert place.name == "place"
    assert list(place.of_photo[:3]) == ["farm", "station", NOT_GIVEN]
    assert "remark has 15 different values" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"name,place\na,b\n", "no column image_id; seen name,place"),
        (b"image_id,place\nz.jpg,b\n", r"names none of the 1 photos, such as a\.jpg"),
        (b"\xff\xfe,\n", "no readable CSV"),
        (b"", "no column image_id; seen nothing"),
    ],
)
def test_table_that_tells_nothing_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "about.csv").write_bytes(content)

    with pytest.raises(DataError, match=rf"evaluate\.slices_csv=.*about\.csv: {message}"):
        groups_of_table(tmp_path / "about.csv", ["a.jpg"])


def test_group_of_hard_classes_is_not_blamed_on_its_photos() -> None:
    labels = np.repeat([0, 1], 100)
    probabilities = np.full((200, 5), 0.01)
    probabilities[:100, 0] = probabilities[100:150, 1] = probabilities[150:, 0] = 0.96

    mixed = score_slices(Groups("half", ["a"] * 100 + ["b"] * 100, ["a", "b"]), labels, probabilities)
    harder = score_slices(Groups("light", ["a"] * 150 + ["b"] * 50, ["a", "b"]), labels, probabilities)

    first, second = mixed.slices
    assert (first.accuracy, second.accuracy, second.expected_accuracy) == (1.0, 0.5, 0.5)
    assert not first.stands_out
    assert not second.stands_out
    assert (harder.slices[1].accuracy, harder.slices[1].expected_accuracy, harder.slices[1].stands_out) == (
        0,
        0.5,
        True,
    )
    assert harder.slices[1].photos == 50
    assert harder.slices[1].mean_confidence == pytest.approx(0.96)
