"""`cassava prepare`: photos drawn or checked, and what is written about them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.prepare import DRAWN_FILE, DRAWN_SIDE_PX, prepare
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import DataError

Config = Callable[..., AppConfig]


@pytest.fixture
def config(root_in_tmp_path: None) -> Config:
    sizes = [f"data.synthetic.{part}_size=5" for part in ("train", "val", "test")]
    return lambda *overrides: load_config(["paths.data_dir=data/my leaves", *sizes, *overrides])


DRAW = "data.synthetic.enabled=true"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_leaves_are_drawn_in_the_kaggle_layout_as_many_as_all_sizes_say(config: Config, tmp_path: Path) -> None:
    result = prepare(config(DRAW))

    folder = tmp_path / "data" / "my leaves"
    assert (result.data_dir, result.drawn, result.photos) == (folder, True, 15)
    assert result.classes == dict.fromkeys(CLASS_NAMES, 3)
    photos = sorted((folder / "train_images").iterdir())
    assert len(photos) == 15
    with Image.open(photos[0]) as photo:
        assert photo.size == (DRAWN_SIDE_PX, DRAWN_SIDE_PX)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["my leaves"]


def test_table_and_summary_are_written(config: Config, tmp_path: Path) -> None:
    result = prepare(config(DRAW))

    assert result.summary == tmp_path / "outputs" / "prepare" / "summary.json"
    summary = json.loads(result.summary.read_text(encoding="utf-8"))
    assert summary == result.model_dump(include={"drawn", "photos", "classes", "data_fingerprint"})
    with result.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    assert {len(row["digest"]) for row in rows} == {32}
    assert len(rows) == 15


def test_same_settings_draw_the_same_leaves_again(config: Config, tmp_path: Path) -> None:
    first = prepare(config(DRAW))
    before = contents(first.data_dir)

    again = prepare(config(DRAW, "prepare.output_dir=elsewhere"))

    assert contents(again.data_dir) == before
    assert again.data_fingerprint == first.data_fingerprint
    assert again.summary == tmp_path / "elsewhere" / "summary.json"
    assert again.summary.read_bytes() == first.summary.read_bytes()


def test_other_settings_replace_the_drawn_leaves_whole(config: Config) -> None:
    prepare(config(DRAW))

    result = prepare(config(DRAW, "data.synthetic.train_size=6", "data.split.seed=7"))

    names = [path.name for path in (result.data_dir / "train_images").iterdir()]
    assert len(names) == result.photos == 16
    assert all(name.startswith("7_") for name in names)


@pytest.mark.parametrize("found", ["train.csv", "notes.txt"])
def test_what_was_not_drawn_is_never_replaced(config: Config, tmp_path: Path, found: str) -> None:
    folder = tmp_path / "data" / "my leaves"
    folder.mkdir(parents=True)
    (folder / found).write_text("mine", encoding="utf-8")

    with pytest.raises(DataError, match=r"my leaves holds something that was not drawn, and .* type paths\.data_dir="):
        prepare(config(DRAW))
    assert contents(folder) == {found: b"mine"}


def test_file_in_place_of_the_folder_is_left(config: Config, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "my leaves").write_text("mine", encoding="utf-8")

    with pytest.raises(DataError, match="something that was not drawn"):
        prepare(config(DRAW))


def test_empty_folder_is_filled(config: Config, tmp_path: Path) -> None:
    (tmp_path / "data" / "my leaves").mkdir(parents=True)

    assert prepare(config(DRAW)).photos == 15


def test_photos_are_checked_and_left_as_they_are(config: Config) -> None:
    folder = prepare(config(DRAW)).data_dir
    (folder / DRAWN_FILE).unlink()
    before = contents(folder)

    result = prepare(config("data.cache.enabled=false"))

    assert (result.drawn, result.photos) == (False, 15)
    assert contents(folder) == before


def test_missing_data_set_is_told_with_what_to_type(config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"my leaves.*type paths\.data_dir=FOLDER .*data\.synthetic\.enabled=true"):
        prepare(config())
    assert list(tmp_path.iterdir()) == []


def test_incomplete_data_set_is_told(config: Config) -> None:
    folder = prepare(config(DRAW)).data_dir
    shutil.rmtree(folder / "train_images")
    (folder / "train_images").mkdir()

    with pytest.raises(DataError, match=r"15 of the 15 photos that .* names are not in"):
        prepare(config())
