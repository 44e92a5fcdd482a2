"""Decoded once: the cache gives the pixels that decoding gives, and survives what happens to files."""

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from cassava_leaf_disease.data import cache
from cassava_leaf_disease.data.cache import CachedPhotos, PhotoCache
from cassava_leaf_disease.data.datasets import DecodedPhotos
from cassava_leaf_disease.data.digests import photo_digests
from cassava_leaf_disease.data.store import HEADER_BYTES, PixelStore
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.decode import DecodeLimits

Photos = tuple[LabeledPhoto, ...]
RECORD_BYTES = 36

FILL = """
import sys
from pathlib import Path
from cassava_leaf_disease.data.cache import PhotoCache
from cassava_leaf_disease.data.table import read_kaggle
photos = read_kaggle(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(PhotoCache(Path(sys.argv[2]), int(sys.argv[3]), enlarge=True).images(photos)), flush=True)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    write_synthetic_dataset(tmp_path / "data", 12, 48, seed=1)
    return read_kaggle(tmp_path / "data")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fill(cache_dir: Path, photos: Photos, side_px: int = 32) -> CachedPhotos:
    return PhotoCache(cache_dir, side_px, enlarge=True).images(photos)


def assert_like_decoded(cached: CachedPhotos, photos: Photos, side_px: int = 32, *, enlarge: bool = True) -> None:
    decoded = DecodedPhotos(photos, side_px, enlarge=enlarge)
    assert len(cached) == len(decoded) == len(photos)
    for index in range(len(photos)):
        assert np.array_equal(cached.image(index), decoded.image(index))


def index_file(cache_dir: Path) -> Path:
    (path,) = cache_dir.glob("*.index")
    return path


def pixel_file(cache_dir: Path) -> Path:
    (path,) = cache_dir.glob("*.pixels")
    return path


def records(cache_dir: Path) -> int:
    return (index_file(cache_dir).stat().st_size - HEADER_BYTES) // RECORD_BYTES


@pytest.mark.parametrize("enlarge", [True, False])
@pytest.mark.parametrize("side_px", [32, 64])
def test_cached_pixels_equal_decoded_ones(cache_dir: Path, photos: Photos, side_px: int, enlarge: bool) -> None:
    cached = PhotoCache(cache_dir, side_px, enlarge=enlarge).images(photos)
    assert_like_decoded(cached, photos, side_px, enlarge=enlarge)
    assert cached.image(0).shape[0] == (48 if side_px == 64 and not enlarge else side_px)


def test_real_photos_come_out_as_decoding_gives_them(cache_dir: Path, shared_data: Path) -> None:
    photos = read_kaggle(shared_data / "cassava")[::100]
    for side_px, enlarge in ((280, False), (448, False), (448, True)):
        cached = PhotoCache(cache_dir, side_px, enlarge=enlarge).images(photos)
        assert_like_decoded(cached, photos, side_px, enlarge=enlarge)


def test_pixels_are_read_only_plain_arrays(cache_dir: Path, photos: Photos) -> None:
    image = fill(cache_dir, photos).image(0)
    assert type(image) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_a_second_start_decodes_nothing(cache_dir: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache_dir, photos)
    before = pixel_file(cache_dir).stat().st_mtime_ns
    monkeypatch.setattr(cache, "decode_image", None)
    assert len(fill(cache_dir, photos)) == 12
    assert pixel_file(cache_dir).stat().st_mtime_ns == before


def test_photos_are_known_by_content(cache_dir: Path, photos: Photos, tmp_path: Path) -> None:
    fill(cache_dir, photos)
    copied = photos[0].path.with_name("copy.jpg")
    shutil.copy(photos[0].path, copied)
    shutil.copy(photos[1].path, photos[2].path)  # another content under a name that is known
    changed = (LabeledPhoto("copy.jpg", 0, copied), *photos)
    assert_like_decoded(fill(cache_dir, changed), changed)
    assert records(cache_dir) == 12
    Image.new("RGB", (40, 40), "red").save(photos[3].path)
    assert_like_decoded(fill(cache_dir, changed), changed)
    assert records(cache_dir) == 13


def test_equal_photos_are_decoded_once(cache_dir: Path, photos: Photos) -> None:
    shutil.copy(photos[1].path, photos[2].path)
    assert_like_decoded(fill(cache_dir, photos), photos)
    assert records(cache_dir) == 11


def test_no_photos_need_no_decoding(cache_dir: Path) -> None:
    assert len(fill(cache_dir, ())) == 0


def test_readers_pickle_small_and_read_on(cache_dir: Path, photos: Photos) -> None:
    cached = fill(cache_dir, photos)
    first = cached.image(0)
    pickled = pickle.dumps(cached)
    assert len(pickled) < 4000
    assert np.array_equal(pickle.loads(pickled).image(0), first)  # noqa: S301


def test_bad_photos_are_all_named_and_the_good_ones_kept(cache_dir: Path, photos: Photos) -> None:
    photos[0].path.write_bytes(photos[0].path.read_bytes()[:400])
    photos[5].path.write_text("no image at all")
    Image.new("RGB", (4000, 20)).save(photos[7].path)
    with pytest.raises(DataError) as raised:
        fill(cache_dir, photos)
    message = str(raised.value)
    assert message.startswith("3 of 12 photos cannot be used: ")
    assert all(photos[bad].image_id in message for bad in (0, 5, 7))
    assert "\n" not in message
    assert records(cache_dir) == 9


def test_only_bad_photos_are_an_error_too(cache_dir: Path, photos: Photos) -> None:
    with pytest.raises(DataError, match=r"12 of 12 photos cannot be used.* and 7 more"):
        PhotoCache(cache_dir, 32, enlarge=True).images(photos, DecodeLimits(max_pixels=10))


def test_a_photo_that_changes_meanwhile_is_told(
    cache_dir: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "photo_digests", lambda photos, _: tuple(f"{i:032x}" for i in range(len(photos))))
    with pytest.raises(DataError, match="changed while it was read; run again"):
        fill(cache_dir, photos[:1])


def test_a_full_disk_is_told_before_it_is_full(
    cache_dir: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache_dir.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=cache.RESERVE_BYTES + 1000))
    with pytest.raises(DataError, match=r"needs 0\.1 GB for 12 photos.*paths\.cache_dir=.*data\.cache\.enabled=false"):
        fill(cache_dir, photos)
    assert records(cache_dir) == 0


def test_a_folder_that_cannot_be_written_names_its_key(
    cache_dir: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache_dir, photos[:2])
    photo_digests(photos, cache_dir)  # remembered already, so that it is the store that fails
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(DataError, match=r"failed: No space left on device; type paths\.cache_dir="):
        fill(cache_dir, photos)
    monkeypatch.undo()
    assert_like_decoded(fill(cache_dir, photos), photos)


def _no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_half_a_record_and_stray_pixels_are_cut_off(cache_dir: Path, photos: Photos) -> None:
    fill(cache_dir, photos[:5])
    with index_file(cache_dir).open("ab") as index, pixel_file(cache_dir).open("ab") as pixels:
        index.write(b"half a record")
        pixels.write(b"pixels that no record names" * 9999)
    assert_like_decoded(fill(cache_dir, photos[:5]), photos[:5])
    assert_like_decoded(fill(cache_dir, photos), photos)
    assert records(cache_dir) == 12
    assert pixel_file(cache_dir).stat().st_size == 12 * 32 * 32 * 3


@pytest.mark.parametrize("damage", ["foreign", "other folder", "checksum", "pixels cut", "pixels gone", "empty"])
def test_a_damaged_store_is_built_anew(
    cache_dir: Path, photos: Photos, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader = fill(cache_dir, photos)
    before = reader.image(3).copy()
    index, pixels = index_file(cache_dir), pixel_file(cache_dir)
    content = bytearray(index.read_bytes())
    if damage == "foreign":
        content[:HEADER_BYTES] = b"x" * HEADER_BYTES
    elif damage == "other folder":
        content[:HEADER_BYTES] = content[:HEADER_BYTES].replace(b'"pixels": "', b'"pixels": "../')[:HEADER_BYTES]
    elif damage == "checksum":
        content[HEADER_BYTES + 20] ^= 1
    elif damage == "empty":
        content.clear()
    elif damage == "pixels cut":
        shutil.copy(pixels, pixels.with_suffix(".copy"))
        pixels.unlink()
        pixels.write_bytes(pixels.with_suffix(".copy").read_bytes()[:-1])
    else:
        pixels.unlink()
    index.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert_like_decoded(fill(cache_dir, photos), photos)
    assert "is built anew" in caplog.text
    assert np.array_equal(reader.image(3), before)  # who has mapped the old file keeps it
    assert pixel_file(cache_dir) != pixels
    caplog.clear()
    assert_like_decoded(fill(cache_dir, photos), photos)
    assert not caplog.records


def test_a_store_of_another_size_is_another_store(cache_dir: Path, photos: Photos) -> None:
    fill(cache_dir, photos, 32)
    fill(cache_dir, photos, 40)
    assert len(list(cache_dir.glob("*.index"))) == 2
    assert PixelStore(cache_dir, "nothing").load() is None


def start(data_dir: Path, cache_dir: Path, side_px: int, stderr: int | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FILL, str(data_dir), str(cache_dir), str(side_px)]
    pipe = subprocess.PIPE
    environment = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=environment)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_shows_on_stderr_if_that_is_a_terminal(tmp_path: Path, cache_dir: Path) -> None:
    write_synthetic_dataset(tmp_path / "few", 5, 48, seed=2)
    terminal, end = os.openpty()
    shown = start(tmp_path / "few", cache_dir, 32, stderr=end)
    go(shown)
    assert shown.communicate(timeout=60)[0] == "5\n"
    os.close(end)
    with os.fdopen(terminal, "rb", buffering=0) as file:
        assert b"decoding photos (32 px)" in file.read(4096)
    silent = start(tmp_path / "few", cache_dir, 40, stderr=subprocess.PIPE)
    go(silent)
    assert silent.communicate(timeout=60) == ("5\n", "")


def test_two_runs_that_start_together_decode_every_photo_once(tmp_path: Path, cache_dir: Path) -> None:
    write_synthetic_dataset(tmp_path / "many", 150, 160, seed=2)
    runs = [start(tmp_path / "many", cache_dir, 300) for _ in range(2)]
    for run in runs:
        go(run)
    for run in runs:
        assert run.communicate(timeout=60)[0] == "150\n"
        assert run.returncode == 0
    assert records(cache_dir) == 150
    assert pixel_file(cache_dir).stat().st_size == 150 * 300 * 300 * 3
    photos = read_kaggle(tmp_path / "many")
    assert_like_decoded(fill(cache_dir, photos, 300), photos, 300)


def test_a_run_that_waits_says_so(cache_dir: Path, photos: Photos, caplog: pytest.LogCaptureFixture) -> None:
    fill(cache_dir, photos[:2])
    lock = FileLock(index_file(cache_dir).with_suffix(".lock"))
    lock.acquire()
    with caplog.at_level(logging.INFO):
        results: list[CachedPhotos] = []
        waiting = threading.Thread(target=lambda: results.append(fill(cache_dir, photos)))
        waiting.start()
        deadline = time.monotonic() + 30
        while "waiting for it" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not results
        lock.release()
        waiting.join()
    assert_like_decoded(results[0], photos)


def test_a_writer_killed_half_way_leaves_a_readable_store(tmp_path: Path, cache_dir: Path) -> None:
    write_synthetic_dataset(tmp_path / "many", 400, 160, seed=2)
    run = start(tmp_path / "many", cache_dir, 400)
    go(run)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (list(cache_dir.glob("*.index")) and records(cache_dir) > 0):
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = records(cache_dir)
    assert 0 < kept < 400
    store = PixelStore(cache_dir, index_file(cache_dir).stem).load()
    assert store is not None
    assert len(store.extents) == kept
    photos = read_kaggle(tmp_path / "many")
    pixels = pixel_file(cache_dir)
    assert_like_decoded(fill(cache_dir, photos, 400), photos, 400)
    assert records(cache_dir) == 400
    assert pixel_file(cache_dir) == pixels  # what was there was kept
    assert pixels.stat().st_size == 400 * 400 * 400 * 3
