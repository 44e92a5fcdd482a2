"""Photos are known by content, remembered between starts."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.digests import MEMO_NAME, data_fingerprint, digest_bytes, photo_digests
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> tuple[LabeledPhoto, ...]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode())
    return tuple(LabeledPhoto(name, label, folder / name) for label, name in enumerate(("a.jpg", "b.jpg")))


def test_the_fingerprint_is_the_same_wherever_the_files_lie(photos: tuple[LabeledPhoto, ...], tmp_path: Path) -> None:
    copy = shutil.copytree(photos[0].path.parent, tmp_path / "copy")
    moved = [LabeledPhoto(photo.image_id, photo.label, copy / photo.image_id) for photo in reversed(photos)]
    assert data_fingerprint(moved) == data_fingerprint(photos)
    assert data_fingerprint(photos) == "05f43973311abc52356fe48187e5af166f23a253240e3bcaf6c6a64dcc5da0d4"


def test_the_fingerprint_changes_with_a_label_and_with_content(photos: tuple[LabeledPhoto, ...]) -> None:
    before = data_fingerprint(photos)
    assert data_fingerprint([photos[0], LabeledPhoto("b.jpg", 4, photos[1].path)]) != before
    photos[0].path.write_bytes(b"another")
    assert data_fingerprint(photos) != before


def test_unchanged_files_are_not_read_again(photos: tuple[LabeledPhoto, ...], tmp_path: Path) -> None:
    memo = tmp_path / "memo"
    first = photo_digests(photos, memo)
    assert first == tuple(digest_bytes(photo.path.read_bytes()) for photo in photos)
    stat = photos[0].path.stat()
    photos[0].path.write_bytes(b"A.JPG")  # the same size and, forced, the same time: only the memo tells
    os.utime(photos[0].path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert photo_digests(photos, memo) == first
    os.utime(photos[0].path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert photo_digests(photos, memo)[0] == digest_bytes(b"A.JPG")


def test_another_data_set_keeps_what_was_remembered(photos: tuple[LabeledPhoto, ...], tmp_path: Path) -> None:
    memo = tmp_path / "memo"
    photo_digests(photos[:1], memo)
    photo_digests(photos[1:], memo)
    assert len(json.loads((memo / MEMO_NAME).read_text())) == 2


@pytest.mark.parametrize("content", [b"{half", b"[1]", b'{"a": 3}', b"\xff\xff"])
def test_a_damaged_memo_costs_only_time(
    photos: tuple[LabeledPhoto, ...], tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / MEMO_NAME).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert photo_digests(photos, tmp_path) == photo_digests(photos)
    assert "hashed again" in caplog.text


def test_photos_that_vanished_are_named_and_counted(photos: tuple[LabeledPhoto, ...]) -> None:
    photos[1].path.unlink()
    with pytest.raises(DataError, match=r"1 of 2 photos cannot be read: b.jpg \(No such file or directory\)"):
        photo_digests(photos)


def test_a_cache_folder_that_cannot_be_made_names_its_key(photos: tuple[LabeledPhoto, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be (written|read).*paths.cache_dir=FOLDER"):
        photo_digests(photos, tmp_path / "file" / "below")


def test_available_cpus_counts_all_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cpus() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1
