"""The data set is found inside what was fetched, wherever honest people put it."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cassava_leaf_disease.data.locate import find_dataset
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.archive import unpack

TABLE = b"image_id,label\n1.jpg,0\n"


def unpack_into(archive: Path, folder: Path) -> None:
    unpack(archive, folder, 1_000_000)


def write_dataset(folder: Path) -> Path:
    (folder / "train_images").mkdir(parents=True)
    (folder / "train.csv").write_bytes(TABLE)
    (folder / "train_images" / "1.jpg").write_bytes(b"photo")
    return folder


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


DATASET = {"train.csv": TABLE, "train_images/1.jpg": b"photo"}


def test_the_nearest_to_the_top_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deep = write_dataset(tmp_path / "a" / "b" / "c")
    assert find_dataset(tmp_path, unpack_into) == deep
    near = write_dataset(tmp_path / "z")
    assert find_dataset(tmp_path, unpack_into) == near
    assert "several data sets were found (z, a/b/c): taking the first" in caplog.text
    assert find_dataset(near, unpack_into) == near


def test_photos_are_not_searched(tmp_path: Path) -> None:
    write_dataset(tmp_path / "train_images" / "set")
    with pytest.raises(DataError, match=r"no data set in it: expected train.csv beside a folder train_images"):
        find_dataset(tmp_path, unpack_into)


@pytest.mark.parametrize(
    ("table", "photos"),
    [
        (("train.csv", TABLE), ("train_images.zip", zipped({"1.jpg": b"photo"}))),
        (("train.csv", TABLE), ("train_images.zip", zipped({"train_images/1.jpg": b"photo"}))),
        (("train.csv.zip", zipped({"train.csv": TABLE})), ("train_images.zip", zipped({"1.jpg": b"photo"}))),
    ],
    ids=["photos", "photos in a folder", "table and photos"],
)
@pytest.mark.parametrize("top", [".", "cassava"])
def test_the_archives_that_kaggle_makes_of_it_are_unpacked(
    tmp_path: Path, table: tuple[str, bytes], photos: tuple[str, bytes], top: str
) -> None:
    folder = tmp_path / top
    folder.mkdir(exist_ok=True)
    for name, content in (table, photos, ("train_tfrecords.zip", b"PK\x03\x04 is not looked into")):
        (folder / name).write_bytes(content)
    assert find_dataset(tmp_path, unpack_into) == folder
    assert (folder / "train.csv").read_bytes() == TABLE
    assert (folder / "train_images" / "1.jpg").read_bytes() == b"photo"
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv", "train_images", "train_tfrecords.zip"]


def test_an_archive_in_an_archive_is_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(write_dataset(tmp_path / "source"), "leaves")
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "all.zip").write_bytes(zipped({"a": buffer.getvalue()}))
    (outer / "a.tar.gz").write_bytes(buffer.getvalue())
    assert find_dataset(outer, unpack_into) == outer / "a" / "leaves"


def test_what_stands_where_an_archive_would_go_stays(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "note.txt").write_text("mine")
    (tmp_path / "set.zip").write_bytes(zipped(DATASET))
    assert find_dataset(tmp_path, unpack_into) == tmp_path / "set.zip.unpacked"
    assert (tmp_path / "set" / "note.txt").read_text() == "mine"


def test_what_only_looks_like_an_archive_is_none(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"no")
    (tmp_path / "labels.xlsx").write_bytes(zipped({"a": b""}))
    with pytest.raises(DataError, match=r"found labels.xlsx, photos.zip$"):
        find_dataset(tmp_path, unpack_into)


def test_nothing_is_told_as_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        find_dataset(tmp_path, unpack_into)


def test_archives_in_archives_have_an_end(tmp_path: Path) -> None:
    matryoshka = zipped(DATASET)
    for _ in range(4):
        matryoshka = zipped({"inner.zip": matryoshka})
    (tmp_path / "outer.zip").write_bytes(matryoshka)
    with pytest.raises(DataError, match="no data set in it"):
        find_dataset(tmp_path, unpack_into)
