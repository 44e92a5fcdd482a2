"""The Kaggle table is checked on reading; every mistake is one line that says what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle, read_table
from cassava_leaf_disease.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a Kaggle folder with this table and the photos a.jpg, b.jpg and c.jpg."""

    def write(table: str | bytes) -> Path:
        images = tmp_path / "train_images"
        images.mkdir()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (images / name).touch()
        (tmp_path / "train.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        return tmp_path

    return write


def test_a_good_table_is_read_sorted_by_image_id(write: Write) -> None:
    folder = write("image_id,label\nb.jpg,4\na.jpg,0\n")
    images = folder / "train_images"
    assert read_kaggle(folder) == (
        LabeledPhoto("a.jpg", 0, images / "a.jpg"),
        LabeledPhoto("b.jpg", 4, images / "b.jpg"),
    )


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbfimage_id,label\na.jpg,3\n",
        b"image_id,label\r\na.jpg,3\r\n",
        b"label,source,image_id\n3,x,a.jpg\n",
        b"image_id, label\na.jpg, 3\n\n",
        b'"image_id","label"\n"a.jpg","03"\n',
    ],
    ids=["BOM", "CRLF", "other columns and order", "spaces and blank line", "quotes and leading zero"],
)
def test_harmless_differences_of_the_file_are_tolerated(write: Write, table: bytes) -> None:
    (photo,) = read_kaggle(write(table))
    assert (photo.image_id, photo.label) == ("a.jpg", 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,label\na.jpg,1\n", r"no column image_id: seen id,label, expected the columns image_id,label"),
        ("a;b\n1;2\n", r"no column image_id and no column label: seen a;b"),
        ("", r"seen nothing"),
        ("image_id,label\n", r"holds no photos"),
        ("image_id,label\na.jpg,5\nb.jpg,1\n", r"from 0 to 4; 1 of the rows .* line 2 \(a.jpg: 5\)"),
        (
            "image_id,label\na.jpg,\nb.jpg\n",
            r"2 of the rows .* line 2 \(a.jpg: no label\), line 3 \(b.jpg: no",
        ),
        ("image_id,label\na.jpg,-1\n", r"a.jpg: -1"),
        ("image_id,label\na.jpg,1.0\n", r"a.jpg: 1.0"),
        ("image_id,label\na.jpg,\u0663\n", r"a.jpg: \u0663"),
        ("image_id,label\n../a.jpg,1\n", r"plain name of a file.* 1 are not: line 2 \('../a.jpg'\)"),
        ("image_id,label\n/etc/passwd,1\n,1\n..,1\nx\\y.jpg,1\n", r"4 are not"),
        ("image_id,label\na.jpg,1\na.jpg,1\n", r"1 with one and the same label: a.jpg; keep one"),
        (
            "image_id,label\na.jpg,1\nb.jpg,1\na.jpg,2\nb.jpg,1\n",
            r"1 with labels that contradict each other: a.jpg \(labels 1, 2\); 1 with one and .*: b.jpg",
        ),
        ("image_id,label\na.jpg,1\na.jpg,2\n", r"contradict each other: a.jpg \(labels 1, 2\); keep one"),
        ("image_id,label\na.jpg,1\nx.jpg,2\n", r"1 of the 2 photos .* are not in .*train_images: x.jpg; copy"),
        (b"image_id,label\n\xff.jpg,1\n", r"is no UTF-8 text \(byte 15\)"),
        ('image_id,label\n"' + "a" * 140_000 + '",1\n', r"is no readable CSV: field larger"),
    ],
)
def test_a_wrong_table_is_a_clear_error(write: Write, table: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_kaggle(write(table))
    assert "\n" not in str(raised.value)
    assert "train.csv" in str(raised.value)


def test_many_missing_files_are_counted_and_the_first_named(write: Write) -> None:
    rows = "".join(f"x{number}.jpg,{number % 5}\n" for number in range(12))
    with pytest.raises(DataError, match=r"12 of the 12 photos .* x0.jpg, x1.jpg, .*x4.jpg and 7 more; copy"):
        read_kaggle(write("image_id,label\n" + rows))


def test_a_folder_in_place_of_a_photo_is_missing(write: Write) -> None:
    folder = write("image_id,label\nd.jpg,1\n")
    (folder / "train_images" / "d.jpg").mkdir()
    with pytest.raises(DataError, match=r"are not in .*: d.jpg"):
        read_kaggle(folder)


def test_a_missing_data_folder_names_the_keys_to_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing") as raised:
        read_kaggle(tmp_path / "nowhere")
    message = str(raised.value)
    assert "\n" not in message
    assert f"paths.data_dir={tmp_path / 'nowhere'}" in message
    assert "data.synthetic.enabled=true" in message
    assert "cassava-leaf-disease-classification" in message
    assert raised.value.exit_code == 2


def test_a_folder_of_another_layout_says_what_is_missing(write: Write) -> None:
    folder = write("image_id,label\na.jpg,1\n")
    (folder / "train.csv").unlink()
    with pytest.raises(DataError, match=re.escape(f"{folder / 'train.csv'} is missing")):
        read_kaggle(folder)


def test_any_table_and_folder_can_be_read(write: Write, tmp_path: Path) -> None:
    folder = write("image_id,label\na.jpg,1\n")
    assert len(read_table(folder / "train.csv", folder / "train_images")) == 1
    with pytest.raises(DataError, match=r"no table: .*other.csv is missing"):
        read_table(tmp_path / "other.csv", folder / "train_images")
    with pytest.raises(DataError, match=r"no photos: .*elsewhere is missing or no folder"):
        read_table(folder / "train.csv", tmp_path / "elsewhere")


def test_a_table_that_may_not_be_read_is_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("image_id,label\na.jpg,1\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no mode bits stop
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_kaggle(folder)


def test_the_real_table_is_read_whole(shared_data: Path) -> None:
    photos = read_kaggle(shared_data / "cassava")
    assert len(photos) == 2453
    assert [sum(photo.label == label for photo in photos) for label in range(5)] == [81, 223, 563, 1030, 556]


def test_rows_without_a_label_are_an_error_and_not_dropped(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"600 of the rows .*no label"):
        read_table(shared_data / "ccmt" / "labels.csv", shared_data / "ccmt")
