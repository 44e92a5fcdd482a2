"""`cassava split`, and what is trained and measured on a split file."""

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.divide import divide_photos, split
from cassava_leaf_disease.data.splits import PARTS
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError

Config = Callable[..., AppConfig]
Edit = Callable[[Callable[[list[list[str]]], list[list[str]]]], None]

FILE = "data.split.manifest=split.csv"


@pytest.fixture(scope="session")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawn leaves in the Kaggle layout; read only."""
    folder = tmp_path_factory.mktemp("leaves")
    write_synthetic_dataset(folder, 60, 40, seed=3)
    return folder


@pytest.fixture
def config(leaves: Path, root_in_tmp_path: None) -> Config:
    """Settings for those leaves, a third of them to validate and test."""
    small = ("data.split.val_size=0.2", "data.split.test_size=0.2", f"paths.data_dir={leaves}")
    return lambda *overrides: load_config([*small, *overrides])


@pytest.fixture
def edited(config: Config, tmp_path: Path) -> Edit:
    """Writes the split file, then changes its rows."""

    def edit(change: Callable[[list[list[str]]], list[list[str]]]) -> None:
        path = split(config(FILE)).manifest
        header, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        text = "\n".join(",".join(row) for row in [header, *change(rows)])
        path.write_text(f"{text}\n", encoding="utf-8")

    return edit


def moved(rows: list[list[str]], before: str, after: str) -> list[list[str]]:
    return [[name, label, after if part == before else part] for name, label, part in rows]


def test_split_file_is_what_training_would_have_made_itself(config: Config, tmp_path: Path) -> None:
    result = split(config(FILE, "data.split.seed=9"))

    assert result.manifest == tmp_path / "split.csv"
    assert result.photos == {"train": 36, "val": 12, "test": 12}
    assert list(result.classes["val"]) == list(CLASS_NAMES)
    assert sum(result.classes["val"].values()) == 12
    alone = divide_photos(config("data.split.seed=9"))
    assert (result.split_hash, result.data_fingerprint) == (alone.split.hash, alone.fingerprint)


def test_training_takes_the_parts_of_the_file_whatever_the_other_settings_say(config: Config) -> None:
    made = split(config(FILE, "data.split.seed=9"))

    data = LeafDataModule(config(FILE, "data.split.seed=1", "data.split.val_size=0.3"))
    data.divide()

    assert (data.split_hash, data.fingerprint) == (made.split_hash, made.data_fingerprint)
    assert data.sizes() == made.photos


def test_data_module_writes_the_same_file_again(config: Config, tmp_path: Path) -> None:
    made = split(config(FILE)).manifest
    data = LeafDataModule(config(FILE))
    data.divide()

    data.write_manifest(tmp_path / "again.csv")

    assert (tmp_path / "again.csv").read_bytes() == made.read_bytes()


def test_fold_of_a_file_is_used_as_it_stands(config: Config) -> None:
    fold = ("data.split.strategy=kfold", "data.split.folds=3", "data.split.fold_index=1")
    made = split(config(FILE, *fold))

    assert divide_photos(config(FILE)).split.hash == made.split_hash
    assert divide_photos(config(*fold)).split.hash == made.split_hash


def test_limits_thin_out_the_parts_of_a_file(config: Config) -> None:
    split(config(FILE))
    limits = ("data.limits.max_train_samples=10", "data.limits.max_val_samples=5")

    limited = divide_photos(config(FILE, *limits)).split

    assert [len(limited.parts[part]) for part in PARTS] == [10, 5, 12]
    assert limited.hash == divide_photos(config(*limits)).split.hash


def test_photos_that_the_file_leaves_out_are_in_no_part(
    config: Config, edited: Edit, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    edited(lambda rows: [row for row in rows if row[2] != "test"])

    with caplog.at_level(logging.INFO):
        divided = divide_photos(config(FILE)).split

    assert [len(divided.parts[part]) for part in PARTS] == [36, 12, 0]
    assert f"12 of 60 photos are in no part of {tmp_path / 'split.csv'}" in caplog.messages


def test_photos_of_the_file_that_are_missing_are_told(config: Config, edited: Edit) -> None:
    edited(lambda rows: [*rows, ["gone.jpg", "1", "train"]])

    with pytest.raises(DataError, match=r"1 of the 61 photos in .*split\.csv are not in the table .*: gone\.jpg; name"):
        divide_photos(config(FILE))


def test_other_label_in_the_table_is_told(config: Config, edited: Edit) -> None:
    edited(lambda rows: [[rows[0][0], str((int(rows[0][1]) + 1) % 5), rows[0][2]], *rows[1:]])

    with pytest.raises(DataError, match=r"split\.csv has other labels for 1 photos: \S+ \(\d, in the table \d\); name"):
        divide_photos(config(FILE))


def test_same_picture_in_two_parts_is_told(config: Config, edited: Edit, leaves: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with a copy"
    shutil.copytree(leaves, folder)
    name = min(path.name for path in (folder / "train_images").iterdir())
    shutil.copyfile(folder / "train_images" / name, folder / "train_images" / "copy.jpg")
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        label = next(row["label"] for row in csv.DictReader(file) if row["image_id"] == name)
    with (folder / "train.csv").open("a", encoding="utf-8") as file:
        file.write(f"copy.jpg,{label}\n")

    def with_copy_elsewhere(rows: list[list[str]]) -> list[list[str]]:
        part = next(row[2] for row in rows if row[0] == name)
        return [*rows, ["copy.jpg", label, "test" if part != "test" else "train"]]

    edited(with_copy_elsewhere)

    with pytest.raises(DataError, match=rf"1 pictures stand in two parts: {name} \(\w+\) = copy\.jpg \(\w+\); name"):
        divide_photos(config(FILE, f"paths.data_dir={folder}"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_part_without_photos_of_a_class_is_told(config: Config, edited: Edit, part: str) -> None:
    edited(lambda rows: moved(rows, part, "test"))

    with pytest.raises(DataError, match=rf"its {part} part holds no photo of Cassava Bacterial Blight, .*; name"):
        divide_photos(config(FILE))


def test_photo_that_the_file_names_twice_is_told(config: Config, edited: Edit) -> None:
    edited(lambda rows: [*rows, rows[0]])

    with pytest.raises(DataError, match=r"split\.csv names \S+ twice; expected each photo once"):
        divide_photos(config(FILE))


def test_missing_file_is_told(config: Config) -> None:
    with pytest.raises(DataError, match=r"no split manifest: .*split\.csv cannot be read"):
        divide_photos(config(FILE))


def test_split_wants_a_file_to_write(config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.split\.manifest is not set; type data\.split\.manifest=split\.csv, the"
    ):
        split(config())
    with pytest.raises(ConfigError, match=r"and data\.synthetic\.enabled=false after `cassava prepare`"):
        split(config("data.synthetic.enabled=true"))


def test_drawn_leaves_and_a_split_file_contradict_each_other(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        config(FILE, "data.synthetic.enabled=true")

    assert str(error.value) == (
        f"data.split.manifest={tmp_path / 'split.csv'}: a split file names photos, and there are none with "
        "data.synthetic.enabled=true; type data.synthetic.enabled=false or data.split.manifest=null"
    )
