"""The data-set check goes on after every fault, and says in plain words what is wrong."""

import csv
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.check import PAIR_COLUMNS, PAIRS_FILE, REPORT_FILE, SHEET_FILE, check_data
from cassava_leaf_disease.data.check_report import DataReport
from cassava_leaf_disease.data.contact_sheet import MAX_PAIRS
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import DataError

Config = Callable[..., AppConfig]


class Photos:
    """A small data set in the Kaggle layout, to be spoiled by a test."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.images = folder / "train_images"
        self._config = config
        with (folder / "train.csv").open(encoding="utf-8") as file:
            self.labels = {row["image_id"]: int(row["label"]) for row in csv.DictReader(file)}
        self.names = list(self.labels)

    def row(self, text: str) -> None:
        """Adds a row to the table."""
        with (self.folder / "train.csv").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def image(self, name: str, label: int, image: Image.Image) -> None:
        """Adds a photo and its row."""
        image.save(self.images / name)
        self.row(f"{name},{label}")

    def open(self, index: int) -> Image.Image:
        return Image.open(self.images / self.names[index])

    def check(self, *overrides: str) -> DataReport:
        split = ("data.split.val_size=0.2", "data.split.test_size=0.2")
        return check_data(self._config(f"paths.data_dir={self.folder}", *split, *overrides))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_synthetic_dataset(folder, 40, 160, seed=5)
    return folder


@pytest.fixture
def photos(drawn: Path, tmp_path: Path, small_config: Config) -> Photos:
    return Photos(shutil.copytree(drawn, tmp_path / "photos"), small_config)


def test_a_sound_data_set_has_no_findings(photos: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = photos.check()

    assert (report.findings, report.fit_to_train) == ((), True)
    assert (report.rows, report.readable) == (40, 40)
    assert set(report.classes.values()) == {8}
    assert [size.model_dump() for size in report.sizes] == [{"width": 160, "height": 160, "photos": 40}]
    assert report.aspect_ratios == {"1.00": 40}
    assert sum(report.parts.values()) == 40
    assert report.black_corners.photos == 0
    assert "      8  Healthy" in caplog.text
    assert "nothing wrong was found" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    folder = tmp_path / "outputs" / "check-data"
    assert sorted(path.name for path in folder.iterdir()) == [PAIRS_FILE, REPORT_FILE]


def test_the_report_stands_as_json_and_is_what_is_returned(photos: Photos, tmp_path: Path) -> None:
    report = photos.check(f"check_data.output_dir={tmp_path / 'elsewhere'}")

    written = json.loads((tmp_path / "elsewhere" / REPORT_FILE).read_text(encoding="utf-8"))
    assert written == report.model_dump(mode="json")
    assert (written["findings"], written["fit_to_train"]) == ([], True)


def test_unusable_photos_are_named_with_the_reason_and_the_check_goes_on(photos: Photos) -> None:
    half, empty = photos.names[0], photos.names[1]
    (photos.images / half).write_bytes((photos.images / half).read_bytes()[:900])
    (photos.images / empty).write_bytes(b"")
    photos.image("strip.png", 1, Image.new("RGB", (600, 4), "green"))
    shutil.copy(photos.images / photos.names[3], photos.images / "copy.jpg")
    photos.row(f"copy.jpg,{photos.labels[photos.names[3]]}")

    report = photos.check()

    reasons = {photo.image_id: photo.reason for photo in report.unreadable}
    assert set(reasons) == {half, empty, "strip.png"}
    assert reasons[half].startswith("a truncated or damaged JPEG (it breaks off within its 900 bytes")
    assert reasons[empty].startswith("empty, 0 bytes")
    assert reasons["strip.png"].startswith("a strip of 600x4 pixels")
    assert (report.rows, report.readable, report.fit_to_train) == (42, 39, False)
    assert report.findings[0].startswith(f"3 photos cannot be used: {half} (a truncated")
    assert report.findings[1] == f"1 photo stored under several names: {photos.names[3]} = copy.jpg"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="no mode bits stop this user")
def test_a_photo_without_permission_is_unreadable(photos: Photos) -> None:
    (photos.images / photos.names[0]).chmod(0)

    (photo,) = photos.check().unreadable

    assert photo.reason == "cannot be read: Permission denied"


def test_a_photo_that_cannot_be_read_is_told_and_left_out_of_the_split(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, bad = Path.read_bytes, photos.images / photos.names[7]

    def read_bytes(path: Path) -> bytes:
        if path == bad:
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    report = photos.check()

    assert [(photo.image_id, photo.reason) for photo in report.unreadable] == [
        (bad.name, "cannot be read: Input/output error")
    ]
    assert sum(report.parts.values()) == 39


def test_faults_of_the_table_are_collected_by_line(photos: Photos) -> None:
    again, twice = photos.names[0], photos.names[1]
    other = (photos.labels[again] + 1) % 5
    for row in ("../x.jpg,1", "seven.jpg,7", "none.jpg", "gone.jpg,2", f"{again},{other}"):
        photos.row(row)
    photos.row(f"{twice},{photos.labels[twice]}")

    report = photos.check()

    assert [(fault.line, fault.image_id, fault.what) for fault in report.table_faults] == [
        (42, "../x.jpg", "image_id is no plain name of a file"),
        (43, "seven.jpg", "label '7' is none of 0 to 4"),
        (44, "none.jpg", "no label"),
        (46, again, f"stands there 2 times, labels {photos.labels[again]} in line 2, {other} in line 46"),
        (
            47,
            twice,
            f"stands there 2 times, labels {photos.labels[twice]} in line 3, {photos.labels[twice]} in line 47",
        ),
    ]
    assert report.files_missing == ("gone.jpg",)
    assert report.readable == 39  # a photo with two labels has none
    assert report.findings[0].startswith("5 rows of train.csv cannot be used: line 42 ('../x.jpg': image_id is no")
    assert report.findings[1] == "1 row without a file: gone.jpg"
    assert not report.fit_to_train


def test_files_without_a_row_are_named_also_where_the_name_is_no_text(photos: Photos) -> None:
    (photos.images / "копия (1).jpg").touch()
    expected = ["копия (1).jpg"]
    if sys.platform == "linux":
        Path(os.fsdecode(os.fsencode(photos.images) + b"/\xff.jpg")).touch()
        expected.insert(0, "\\xff.jpg")
    (photos.images / "folder").mkdir()

    report = photos.check()

    assert list(report.files_without_row) == expected
    assert report.findings == (
        f"{len(expected)} file{'s' * (len(expected) > 1)} in train_images that no row names: {', '.join(expected)}",
    )
    assert report.fit_to_train


def test_copies_with_other_labels_are_conflicts(photos: Photos) -> None:
    first, second = photos.names[2], photos.names[3]
    labels = [(photos.labels[name] + 1) % 5 for name in (first, second)]
    shutil.copy(photos.images / first, photos.images / "same.jpg")
    photos.row(f"same.jpg,{labels[0]}")
    photos.image("turned.jpg", labels[1], photos.open(3).transpose(Image.Transpose.ROTATE_90))

    report = photos.check()

    assert [copies.image_ids for copies in report.exact_copies] == [(first, "same.jpg")]
    (near,) = report.near_duplicates
    assert near.image_ids == (second, "turned.jpg")
    assert [(conflict.image_ids, conflict.labels, conflict.exact) for conflict in report.label_conflicts] == [
        ((first, "same.jpg"), (photos.labels[first], labels[0]), True),
        ((second, "turned.jpg"), (photos.labels[second], labels[1]), False),
    ]
    assert report.findings[0] == (
        f"2 pictures with labels that contradict each other: {first} = same.jpg (labels {photos.labels[first]}, "
        f"{labels[0]}), {second} = turned.jpg (labels {photos.labels[second]}, {labels[1]})"
    )
    assert report.fit_to_train


def test_near_duplicates_across_parts_are_listed_and_shown(photos: Photos, tmp_path: Path) -> None:
    for index, name in enumerate(photos.names):
        photos.image(f"near_{name}", photos.labels[name], photos.open(index).resize((120, 120)))

    report = photos.check()

    assert len(report.near_duplicates) == 40
    assert {pair.across_parts for pair in report.near_duplicates} == {True, False}
    assert report.across_parts == tuple(pair for pair in report.near_duplicates if pair.parts[0] != pair.parts[1])
    assert report.findings[0].startswith(f"{len(report.across_parts)} pairs of near duplicates in two parts of the ")
    folder = tmp_path / "outputs" / "check-data"
    with (folder / PAIRS_FILE).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PAIR_COLUMNS
    assert len(rows) == 40
    by_id = {pair.image_ids[0]: pair for pair in report.near_duplicates}
    for row in rows:
        pair = by_id[row["image_id"]]
        assert (row["other_image_id"], row["label"], row["part"]) == (
            pair.image_ids[1],
            str(pair.labels[0]),
            pair.parts[0],
        )
        assert float(row["correlation"]) == pytest.approx(pair.correlation, abs=1e-4)
    with Image.open(folder / SHEET_FILE) as sheet:
        assert sheet.format == "PNG"
        assert sheet.height == MAX_PAIRS * 330
        drawn = np.asarray(sheet.convert("L"))
    assert min(float(drawn[top + 60 : top + 330].std()) for top in range(0, sheet.height, 330)) > 20


def test_the_picture_of_an_earlier_check_goes_with_its_pairs(photos: Photos, tmp_path: Path) -> None:
    sheet = tmp_path / "outputs" / "check-data" / SHEET_FILE
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    scene = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    photos.image("scene.png", 1, scene)
    photos.image("crop.png", 1, scene.crop((10, 8, 390, 292)))
    photos.image("mirrored.jpg", 1, photos.open(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    mirrored, cropped = photos.check("check_data.near_distance=16").near_duplicates
    assert (mirrored.image_ids[1], mirrored.symmetry, mirrored.points) == ("mirrored.jpg", "mirrored", None)
    assert cropped.image_ids == ("crop.png", "scene.png")
    assert cropped.points is not None
    assert sheet.is_file()

    for name in ("crop.png", "mirrored.jpg"):
        (photos.images / name).write_bytes(b"")
    photos.check()

    assert not sheet.exists()


def test_a_photo_outside_the_limits_is_in_no_part(photos: Photos) -> None:
    copies = {name: photos.open(index).resize((120, 120)) for index, name in enumerate(photos.names)}
    for name, copy in copies.items():
        photos.image(f"near_{name}", photos.labels[name], copy)

    report = photos.check("data.limits.max_train_samples=10")

    assert report.parts["train"] == 10
    assert any(None in pair.parts for pair in report.near_duplicates)
    assert not any(pair.across_parts for pair in report.near_duplicates if None in pair.parts)


def test_parts_are_those_of_the_split_file_where_there_is_one(photos: Photos, tmp_path: Path) -> None:
    first, second = photos.names[0], photos.names[5]
    photos.image("near.jpg", photos.labels[first], photos.open(0).resize((120, 120)))
    parts = {"near.jpg": "test", first: "val"}
    rows = [
        f"{name},{label},{parts.get(name, 'val' if index < 15 else 'train')}"
        for index, (name, label) in enumerate({**photos.labels, "near.jpg": photos.labels[first]}.items())
        if name != second
    ]
    (tmp_path / "split.csv").write_text("\n".join(["image_id,label,part", *rows]) + "\n")

    report = photos.check("data.synthetic.enabled=false", "data.split.manifest=split.csv")
    broken = photos.check("data.synthetic.enabled=false", "data.split.manifest=gone.csv")

    assert report.parts == {"train": 25, "val": 14, "test": 1}
    assert [pair.parts for pair in report.across_parts] in ([("val", "test")], [("test", "val")])
    assert broken.split_error is not None
    assert "gone.csv cannot be read" in broken.split_error


def test_an_impossible_split_is_a_finding(photos: Photos) -> None:
    report = photos.check("data.split.test_size=0.05")

    assert report.split_error is not None
    assert report.findings == (f"the configured split is impossible: {report.split_error}",)
    assert "data.split.test_size" in report.split_error
    assert (report.parts, report.fit_to_train) == ({}, False)


def test_black_corners_that_tell_classes_apart_are_told_with_their_shares(photos: Photos) -> None:
    healthy = [name for name, label in photos.labels.items() if label == 4]
    for name in healthy[:6]:
        rotated = Image.open(photos.images / name).rotate(15, Image.Resampling.BILINEAR)
        rotated.save(photos.images / name, quality=95)

    report = photos.check()

    assert report.black_corners.photos == 6
    assert report.black_corners.share_by_class["Healthy"] == 0.75
    (finding,) = report.findings
    assert finding.startswith("6 of 40 photos have four black corners, as copies have that somebody rotated")
    assert finding.endswith("Cassava Mosaic Disease 0%, Healthy 75%")


def test_blank_photos_are_told(photos: Photos) -> None:
    photos.image("night.png", 2, Image.new("RGB", (200, 100), (4, 4, 4)))

    report = photos.check()

    assert report.blank == ("night.png",)
    assert report.findings == ("1 photo of one brightness all over: night.png",)
    assert report.black_corners.photos == 0
    assert [(size.width, size.height) for size in report.sizes] == [(160, 160), (200, 100)]
    assert report.aspect_ratios == {"1.00": 40, "2.00": 1}


def test_no_data_set_is_an_error(small_config: Config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no photos: .*nowhere is missing"):
        check_data(small_config(f"paths.data_dir={tmp_path / 'nowhere'}"))


@pytest.mark.slow
def test_the_real_photos_are_sound_but_for_their_black_corners(shared_data: Path, small_config: Config) -> None:
    report = check_data(small_config(f"paths.data_dir={shared_data / 'cassava'}"))

    assert (report.rows, report.readable, report.fit_to_train) == (2453, 2453, True)
    assert (report.near_duplicates, report.exact_copies) == ((), ())
    (finding,) = report.findings
    assert finding.startswith("555 of 2453 photos have four black corners")
    assert report.black_corners.share_by_class["Cassava Bacterial Blight"] == 0
    assert report.black_corners.share_by_class["Cassava Green Mottle"] > 0.3
