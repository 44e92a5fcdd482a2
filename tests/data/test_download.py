"""`cassava download-data`: the complete, checked data set stands there, or what stood there before."""

import hashlib
import io
import json
import lzma
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.cli import main
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data import install
from cassava_leaf_disease.data.download import DownloadResult, download_data
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.errors import ConfigError, DataError, StorageError

Fetch = Callable[..., DownloadResult]
Files = Mapping[str, bytes]

PHOTOS = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "cassava"
    write_synthetic_dataset(folder, PHOTOS, 64, seed=1)
    return folder


@pytest.fixture(scope="module")
def files(dataset: Path) -> Files:
    """The data set's files below a folder of their own."""
    return {
        f"cassava/{path.relative_to(dataset).as_posix()}": path.read_bytes()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def gzipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content)


def zstandard(content: bytes) -> bytes:
    from backports import zstd

    return zstd.compress(content)


def seven_zipped(files: Files) -> bytes:
    import py7zr

    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(content, name)
    return buffer.getvalue()


def rarred(files: Files) -> bytes:
    """RAR 4, stored, after the format's technical note: no program that writes rar is free."""

    def block(kind: int, flags: int, rest: bytes) -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    parts = [b"Rar!\x1a\x07\x00", block(0x73, 0, bytes(6))]
    for name, content in files.items():
        size, checksum = len(content), zlib.crc32(content)
        fields = struct.pack("<IIBIIBBHI", size, size, 3, checksum, 0x50000000, 29, 0x30, len(name), 0o100644)
        parts += [block(0x74, 0x8000, fields + name.encode()), content]
    return b"".join([*parts, block(0x7B, 0x4000, b"")])


KINDS: dict[str, Callable[[Files], bytes]] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda files: gzipped(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files), preset=0),
    "tar.zst": lambda files: zstandard(tarred(files)),
    "7z": seven_zipped,
    "rar": rarred,
}


@pytest.fixture
def fetch() -> Fetch:
    return lambda url, *overrides: download_data(
        load_config([f"download_data.public_url='{url}'", "paths.data_dir=photos/cassava", *overrides])
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "photos" / "cassava"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "cache" / "downloads"


def what_lies_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != install.lock_path(target))


@pytest.fixture
def stale(target: Path) -> Path:
    """What stood there before."""
    target.mkdir(parents=True)
    (target / "old.txt").write_text("old")
    return target


class TestFromYandexDisk:
    LINK = "https://disk.yandex.ru/d/abc"

    @pytest.fixture(autouse=True)
    def played(self, file_server: Any, monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
        monkeypatch.setenv("CASSAVA_YANDEX_API_URL", file_server.url)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        file_server.files["/set.zip"] = zipped(files)
        file_server.links[self.LINK] = "/set.zip"

    @pytest.mark.parametrize("kind", KINDS)
    def test_brings_the_photos_out_of_every_kind_of_archive(
        self, fetch: Fetch, file_server: Any, target: Path, files: Files, kind: str
    ) -> None:
        content = file_server.files[f"/set.{kind}"] = KINDS[kind](files)
        file_server.links[self.LINK] = f"/set.{kind}"
        result = fetch(self.LINK)
        assert result.photos == len(read_kaggle(target)) == PHOTOS
        assert (result.archive_name, result.archive_bytes) == (f"set.{kind}", len(content))
        assert result.archive_sha256 == hashlib.sha256(content).hexdigest()
        assert (result.unpacked_files, result.unpacked_bytes) == (len(files), sum(map(len, files.values())))
        assert (result.fetched, result.resumed_at_bytes) == (True, 0)
        assert what_lies_beside(target) == ["cassava"]

    def test_keeps_no_archive_that_has_been_unpacked(self, fetch: Fetch, downloads: Path) -> None:
        fetch(self.LINK)
        assert {path.suffix for path in downloads.iterdir()} == {".lock"}

    def test_reports_on_the_photos(self, fetch: Fetch) -> None:
        check = fetch(self.LINK).check
        assert check is not None
        assert check.readable == PHOTOS

    def test_goes_on_after_a_broken_connection(self, fetch: Fetch, file_server: Any) -> None:
        size = len(file_server.files["/set.zip"])
        file_server.cut_after = [size // 2]
        assert fetch(self.LINK).photos == PHOTOS
        first, second = [wanted for path, wanted in file_server.requests if path == "/set.zip"]
        assert first is None
        assert second is not None
        assert second.startswith("bytes=")
        assert file_server.sent_bytes <= size + (1 << 16)

    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child there")
    def test_goes_on_after_ctrl_c(
        self, fetch: Fetch, file_server: Any, target: Path, downloads: Path, files: Files
    ) -> None:
        size = len(file_server.files["/set.zip"])
        file_server.cut_after = [size - 5] + [0] * 10
        words = [f"download_data.public_url={self.LINK}", f"paths.data_dir={target}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "cassava_leaf_disease", "download-data", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        told = [next(line for line in process.stderr if "trying again" in line)]
        process.send_signal(signal.SIGINT)
        told += process.communicate()[1].splitlines()
        assert process.returncode == 130
        assert told[-1] == "interrupted"
        file_server.cut_after = []
        result = fetch(self.LINK)
        assert result.photos == PHOTOS
        assert result.resumed_at_bytes is not None
        assert size - (1 << 16) <= result.resumed_at_bytes < size
        assert file_server.sent_bytes <= size + (1 << 16)

    def test_a_public_folder_comes_as_a_zip_of_what_it_holds(
        self, fetch: Fetch, file_server: Any, files: Files
    ) -> None:
        file_server.files["/set.zip"] = zipped({"Data/read me.txt": b"", "Data/set.rar": rarred(files)})
        file_server.folders.add(self.LINK)
        assert fetch(self.LINK).photos == PHOTOS

    def test_a_second_time_there_is_nothing_to_do(
        self, fetch: Fetch, file_server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        fetch(self.LINK)
        asked = len(file_server.requests)
        caplog.set_level("INFO")
        result = fetch(self.LINK)
        assert (result.fetched, result.photos, result.check) == (False, PHOTOS, None)
        assert len(file_server.requests) == asked
        assert "already: nothing to fetch; download_data.force=true replaces them" in caplog.text

    def test_force_replaces_what_is_there(self, fetch: Fetch, stale: Path) -> None:
        with pytest.raises(ConfigError, match=r"holds something that is no usable data set .*download_data.force=true"):
            fetch(self.LINK)
        assert fetch(self.LINK, "download_data.force=true").fetched
        assert not (stale / "old.txt").exists()

    def test_another_checksum_than_expected_is_told_before_anything_is_fetched(
        self, fetch: Fetch, file_server: Any
    ) -> None:
        with pytest.raises(StorageError, match=f"another file lies there: .* download_data.sha256 expects {'a' * 64}"):
            fetch(self.LINK, f"download_data.sha256={'a' * 64}")
        assert file_server.sent_bytes == 0

    def test_the_command_line_answers_with_json(self, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["download-data", f"download_data.public_url={self.LINK}", f"paths.data_dir={target}"]) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["photos"] == PHOTOS
        assert "INFO set.zip: 0." in shown.err


class TestOldDataStays:
    @pytest.fixture
    def force(self, fetch: Fetch, file_server: Any) -> Callable[..., DownloadResult]:
        def served(content: bytes, *overrides: str) -> DownloadResult:
            file_server.files["/a"] = content
            return fetch(f"{file_server.url}/a", "download_data.force=true", *overrides)

        return served

    @pytest.fixture(autouse=True)
    def nothing_changed(self, stale: Path) -> Any:
        """Whatever happens in the test."""
        yield
        assert (stale / "old.txt").read_text() == "old"
        assert what_lies_beside(stale) == ["cassava"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_when_the_archive_is_damaged(self, force: Any, downloads: Path, files: Files, kind: str) -> None:
        content = KINDS[kind](files)
        with pytest.raises(DataError, match=r"a: the archive is damaged \(.*\); fetch it again"):
            force(content[: len(content) // 2])
        assert {path.suffix for path in downloads.iterdir()} == {".lock"}  # the next try starts clean

    def test_when_the_archive_is_not_the_expected_one(self, force: Any, downloads: Path, files: Files) -> None:
        with pytest.raises(StorageError, match=f"its sha256 is .*, expected {'a' * 64}"):
            force(zipped(files), f"download_data.sha256={'a' * 64}")
        assert {path.suffix for path in downloads.iterdir()} == {".lock"}

    def test_when_the_archive_wants_out(self, force: Any, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a: refused: the name '../../evil.txt' leads out of its folder"):
            force(gzipped(tarred({"../../evil.txt": b""})))
        assert not list(tmp_path.rglob("evil.txt"))

    def test_when_the_archive_is_too_large_and_the_download_is_kept(
        self, force: Any, downloads: Path, files: Files
    ) -> None:
        with pytest.raises(DataError, match=r"a: unpacks to more than 2,000 bytes, .*max_unpacked_bytes=NUMBER"):
            force(zipped(files), "download_data.max_unpacked_bytes=2000")
        inner = zipped({"cassava.zip": zipped(files)})
        assert list(downloads.glob("*.part"))
        with pytest.raises(DataError, match="unpacks to more than"):
            force(inner, f"download_data.max_unpacked_bytes={len(inner) + 5000}")

    def test_when_the_archive_holds_something_else(self, force: Any, downloads: Path) -> None:
        with pytest.raises(
            DataError, match=r"a: no data set in it: expected train.csv .* found cats, dogs; name another source"
        ):
            force(zipped({"cats/1.jpg": b"miaow", "dogs/1.jpg": b"woof"}))
        assert {path.suffix for path in downloads.iterdir()} == {".lock"}

    def test_when_photos_of_the_table_are_missing(self, force: Any, files: Files) -> None:
        some = {name: files[name] for name in list(files)[:5]} | {"cassava/train.csv": files["cassava/train.csv"]}
        with pytest.raises(
            DataError, match=r"a: no usable data set: \d+ of the 60 photos that a/train.csv names are not"
        ):
            force(zipped(some))

    def test_when_it_cannot_be_moved(self, stale: Path, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"cannot be replaced .* what stood there still does"):
            install.swap(tmp_path / "missing", stale)

    def test_when_it_is_interrupted_while_it_is_moved(
        self, stale: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Path.rename

        def interrupted(self: Path, target: Path) -> Path:
            if self == dataset:
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install.swap(dataset, stale)

    def test_while_another_program_fetches(self, force: Any, stale: Path, downloads: Path, files: Files) -> None:
        with (
            install.claimed(install.lock_path(stale), "at work"),
            pytest.raises(ConfigError, match=r"another program is downloading into .*cassava; wait until it has ended"),
        ):
            force(zipped(files))

    def test_while_another_program_fetches_the_same_for_elsewhere(
        self, force: Any, file_server: Any, downloads: Path, files: Files
    ) -> None:
        digest = hashlib.sha256(f"{file_server.url}/a".encode()).hexdigest()[:12]
        with (
            install.claimed(downloads / f"{digest}.lock", "at work"),
            pytest.raises(ConfigError, match=f"another program is fetching {file_server.url}/a; wait until"),
        ):
            force(zipped(files))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_program_that_is_killed_while_it_unpacks_leaves_the_old_data_and_the_next_one_works(
    fetch: Fetch, stale: Path, files: Files, tmp_path: Path
) -> None:
    archive = tmp_path / "large.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in files.items():
            writer.writestr(name, content)
        writer.writestr("last", random.Random(1).randbytes(1 << 20) * 300)  # noqa: S311
    words = [f"download_data.public_url={archive}", f"paths.data_dir={stale}", "download_data.force=true"]
    program = [sys.executable, "-m", "cassava_leaf_disease", "download-data", *words]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    half_done = install.scratch_path(stale) / "last"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not half_done.exists():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert half_done.exists()
    assert half_done.stat().st_size < 300 << 20
    assert (stale / "old.txt").read_text() == "old"
    assert fetch(archive, "download_data.force=true").photos == PHOTOS
    assert what_lies_beside(stale) == ["cassava"]


class TestWhatAKilledProgramLeft:
    def test_a_data_set_that_was_being_replaced_comes_back(
        self, fetch: Fetch, target: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_synthetic_dataset(target.with_name(".cassava.old"), PHOTOS, 64, seed=1)
        assert fetch("nothing.zip").fetched is False
        assert len(read_kaggle(target)) == PHOTOS
        assert "was cut off while it replaced" in caplog.text

    def test_one_that_was_replaced_already_goes(self, fetch: Fetch, stale: Path, files: Files, tmp_path: Path) -> None:
        (tmp_path / "set.zip").write_bytes(zipped(files))
        stale.with_name(".cassava.old").mkdir()
        fetch("set.zip", "download_data.force=true")
        assert what_lies_beside(stale) == ["cassava"]


class TestPlacesThatAreNotReplaced:
    @pytest.fixture(autouse=True)
    def archive(self, tmp_path: Path, files: Files) -> Path:
        (tmp_path / "set.zip").write_bytes(zipped(files))
        return tmp_path / "set.zip"

    @pytest.mark.parametrize("place", [".", "outputs", "..", "/"])
    def test_one_that_holds_more_than_a_data_set(self, fetch: Fetch, archive: Path, place: str) -> None:
        with pytest.raises(ConfigError, match=r"paths.data_dir=.* (is in it and would be lost|is a mount point)"):
            fetch("set.zip", f"paths.data_dir={place}", "download_data.force=true")
        assert archive.is_file()

    def test_one_that_holds_the_archive(self, fetch: Fetch, stale: Path, archive: Path) -> None:
        archive.rename(stale / "set.zip")
        with pytest.raises(ConfigError, match=r"no folder for a data set alone: .*set.zip is in it"):
            fetch("photos/cassava/set.zip", "download_data.force=true")
        assert (stale / "set.zip").is_file()

    def test_one_that_cannot_be_made(self, fetch: Fetch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StorageError, match=r"file: cannot be written \(File exists\)"):
            fetch("set.zip", "paths.data_dir=file/cassava")

    def test_a_file(self, fetch: Fetch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ConfigError, match="file is a file; name a folder"):
            fetch("set.zip", "paths.data_dir=file", "download_data.force=true")
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.skipif(sys.platform != "linux", reason="a mount point that is always there")
    def test_a_mount_point(self, fetch: Fetch) -> None:
        with pytest.raises(ConfigError, match=r"/proc is a mount point, .* paths.data_dir=/proc/cassava"):
            install.refuse_unsafe(Path("/proc"), [])

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
    def test_a_link_stays_and_what_it_points_to_is_replaced(self, fetch: Fetch, tmp_path: Path) -> None:
        real = tmp_path / "disk" / "leaves"
        real.mkdir(parents=True)
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cassava").symlink_to(real)
        assert fetch("set.zip").photos == PHOTOS
        assert (tmp_path / "photos" / "cassava").is_symlink()
        assert len(read_kaggle(real)) == PHOTOS


class TestOtherSources:
    def test_any_address(self, fetch: Fetch, file_server: Any, files: Files) -> None:
        file_server.files["/set.zip"] = zipped(files)
        address = file_server.url.replace("http://", "http://user:secret@")
        result = fetch(f"{address}/set.zip?signature=secret")
        assert result.photos == PHOTOS
        assert result.source == f"{file_server.url}/set.zip?…"

    def test_an_archive_on_this_machine(self, fetch: Fetch, files: Files, tmp_path: Path) -> None:
        content = zipped({name.removeprefix("cassava/"): photo for name, photo in files.items()})
        (tmp_path / "my set.zip").write_bytes(content)
        result = fetch("my set.zip")
        assert result.photos == PHOTOS
        assert (result.archive_name, result.archive_bytes) == ("my set.zip", len(content))
        assert result.archive_sha256 == hashlib.sha256(content).hexdigest()
        assert (tmp_path / "my set.zip").is_file()

    def test_with_a_wrong_checksum(self, fetch: Fetch, files: Files, tmp_path: Path) -> None:
        (tmp_path / "set.zip").write_bytes(zipped(files))
        with pytest.raises(StorageError, match=r"set.zip: the file is damaged or another one"):
            fetch("set.zip", f"download_data.sha256={'0' * 64}")
        assert (tmp_path / "set.zip").is_file()

    def test_a_damaged_one_stays_where_it_is(self, fetch: Fetch, files: Files, tmp_path: Path) -> None:
        (tmp_path / "set.zip").write_bytes(zipped(files)[:-9])
        with pytest.raises(DataError, match=r"set.zip: the archive is damaged"):
            fetch("set.zip")
        assert (tmp_path / "set.zip").is_file()

    @pytest.mark.usefixtures("no_aws")
    def test_s3(
        self,
        fetch: Fetch,
        files: Files,
        moto_s3: tuple[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        downloads: Path,
    ) -> None:
        url, client = moto_s3
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="sets/set.zip", Body=zipped(files))
        for name, value in (("AWS_ENDPOINT_URL", url), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(name, value)
        result = fetch("s3://photos/sets/set.zip")
        assert (result.photos, result.archive_name) == (PHOTOS, "set.zip")
        with pytest.raises(StorageError, match=r"set.zip: the file is damaged or another one"):
            fetch("s3://photos/sets/set.zip", "download_data.force=true", f"download_data.sha256={'0' * 64}")
        assert not [path for path in downloads.rglob("*") if path.is_file() and path.suffix != ".lock"]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("none.zip", "none.zip: no such file; expected a Yandex Disk link, "),
            ("ftp://example.org/a.zip", "no such file; expected a Yandex Disk link, http"),
            ("outputs/..", "a folder; name it with paths.data_dir to use it; expected a Yandex Disk link"),
        ],
    )
    def test_what_is_neither_a_file_nor_an_address(self, fetch: Fetch, source: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            fetch(source)

    def test_an_address_that_cannot_be_one(self, fetch: Fetch) -> None:
        with pytest.raises(StorageError, match="check the address"):
            fetch("http://[/a.zip")

    def test_kaggle_without_credentials(self, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HOME", "KAGGLE_CONFIG_DIR", "KAGGLEHUB_CACHE"):
            monkeypatch.setenv(name, str(tmp_path / "home"))
        with pytest.raises(StorageError, match="Kaggle wants to know who you are; make an API token"):
            fetch("kaggle://competitions/cassava-leaf-disease-classification")

    def test_kaggle_has_no_archive_to_check(self, fetch: Fetch) -> None:
        with pytest.raises(ConfigError, match="sha256 is for archives"):
            fetch("kaggle://competitions/cassava", f"download_data.sha256={'0' * 64}")

    def test_kaggles_folder_takes_its_place(self, fetch: Fetch, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import kagglehub

        monkeypatch.setattr(kagglehub, "dataset_download", lambda _: str(dataset.parent))  # Kaggle's edge
        result = fetch("kaggle://datasets/someone/cassava")
        assert (result.photos, result.archive_name, result.unpacked_files) == (PHOTOS, None, None)
        assert len(read_kaggle(dataset)) == PHOTOS
