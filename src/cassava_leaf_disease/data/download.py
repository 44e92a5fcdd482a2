"""`cassava download-data`: the photos, fetched, unpacked and checked; only then they replace what stood there."""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data import install
from cassava_leaf_disease.data.check import check_data
from cassava_leaf_disease.data.check_report import DataReport
from cassava_leaf_disease.data.locate import find_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.errors import ConfigError, DataError, StorageError
from cassava_leaf_disease.paths import resolve
from cassava_leaf_disease.storage.archive import Unpacked, unpack
from cassava_leaf_disease.storage.archive_guard import TooLargeError
from cassava_leaf_disease.storage.files import remove_leftovers
from cassava_leaf_disease.storage.http import RemoteFile, download, remote_file, without_secrets
from cassava_leaf_disease.storage.kaggle import fetch_kaggle
from cassava_leaf_disease.storage.partial import Download, check_file, discard
from cassava_leaf_disease.storage.yandex import is_public_link, resolve_link

logger = logging.getLogger(__name__)


class DownloadResult(BaseModel):
    """What stands in `paths.data_dir` now, and where it came from.

    `fetched` is false where a usable data set was there already and `download_data.force` did not ask for
    another; then nothing else is told but its photos. Kaggle's client unpacks by itself and shows no archive.
    `resumed_at_bytes` of the archive had arrived in an earlier try. `check` is the report of `check-data`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    source: str
    fetched: bool
    photos: int
    archive_name: str | None = None
    archive_bytes: int | None = None
    archive_sha256: str | None = None
    resumed_at_bytes: int | None = None
    unpacked_files: int | None = None
    unpacked_bytes: int | None = None
    check: DataReport | None = None


@dataclass(frozen=True)
class _Archive:
    """A checked archive on this machine; `ours` if it is a download and no file of the user's."""

    name: str
    file: Download
    ours: bool


@dataclass(frozen=True)
class _Arrived:
    """A usable data set that waits to take its place."""

    folder: Path
    photos: int
    archive: _Archive | None
    unpacked: Unpacked | None


def download_data(config: AppConfig) -> DownloadResult:
    """Brings the data set that `download_data.public_url` names to `paths.data_dir`.

    Raises:
        ConfigError: Something else stands there, or the source cannot be one.
        DataError: What was fetched is no usable data set, or a harmful archive; what stood there stays.
        StorageError: It cannot be fetched or unpacked; what has arrived is kept for the next try.
    """
    target = install.real_place(config.paths.data_dir)
    if _stands(target) and not config.download_data.force:
        return _already_there(config)
    install.refuse_unsafe(target, _needed(config))
    with install.claimed(install.lock_path(target), f"downloading into {target}"):
        install.clear_leftovers(target)
        if _stands(target) and not config.download_data.force:  # brought back, or brought by the other program
            return _already_there(config)
        with _source_claimed(config):
            arrived = _bring(config, target)
    logger.info("%d photos in %s", arrived.photos, config.paths.data_dir)
    return _result(config, arrived)


def _bring(config: AppConfig, target: Path) -> _Arrived:
    scratch = install.scratch_path(target)
    try:
        arrived = _fetch(config, scratch)
        install.swap(arrived.folder, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if arrived.archive and arrived.archive.ours:
        discard(arrived.archive.file.path)
    return arrived


def _fetch(config: AppConfig, scratch: Path) -> _Arrived:
    """Fills `scratch`, and finds a usable data set in it."""
    source, limit = config.download_data.public_url, config.download_data.max_unpacked_bytes
    if source.startswith("kaggle://"):
        if config.download_data.sha256 is not None:
            raise ConfigError("download_data.sha256 is for archives, and Kaggle's client shows none; leave it out")
        fetch_kaggle(source, scratch)
        return _accepted(source, scratch, _Counted(limit), None)
    archive = _local_archive(config) or _download(config)
    try:
        counted = _Counted(limit)
        logger.info("%s: unpacking it beside %s", archive.name, config.paths.data_dir)
        counted.unpack_into(archive.file.path, scratch, archive.name)
        return _accepted(archive.name, scratch, counted, archive)
    except DataError as error:
        if archive.ours and not isinstance(error, TooLargeError):
            discard(archive.file.path)  # it would be as bad the next time
        raise


class _Counted:
    """Unpacks an archive and those inside it, all together within one limit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.unpacked = Unpacked(0, 0)

    def unpack_into(self, archive: Path, folder: Path, name: str | None = None) -> None:
        done = unpack(archive, folder, self._max_bytes - self.unpacked.size_bytes, name)
        self.unpacked = Unpacked(self.unpacked.files + done.files, self.unpacked.size_bytes + done.size_bytes)


def _accepted(name: str, scratch: Path, counted: _Counted, archive: _Archive | None) -> _Arrived:
    try:
        folder = find_dataset(scratch, counted.unpack_into)
    except TooLargeError:
        raise
    except DataError as error:
        raise DataError(f"{name}: {error}; name another source with download_data.public_url") from error
    try:
        photos = len(read_kaggle(folder))
    except DataError as error:
        fault = str(error).replace(f"{folder}", name)  # the folder is gone when this is read
        raise DataError(f"{name}: no usable data set: {fault}") from error
    return _Arrived(folder, photos, archive, counted.unpacked if archive else None)


def _local_archive(config: AppConfig) -> _Archive | None:
    """The archive on this machine that is named; None where an address is."""
    source, path = config.download_data.public_url, resolve(config.download_data.public_url)
    if source.startswith(("http://", "https://", "s3://")):
        return None
    if not path.is_file():
        seen = "a folder; name it with paths.data_dir to use it" if path.is_dir() else "no such file"
        raise ConfigError(
            f"download_data.public_url={source}: {seen}; expected a Yandex Disk link, http(s)://…, s3://bucket/key, "
            "kaggle://competitions/NAME, kaggle://datasets/OWNER/NAME or the path of an archive"
        )
    return _Archive(path.name, check_file(path, _expected(config), path.name), ours=False)


def _download(config: AppConfig) -> _Archive:
    source, folder = config.download_data.public_url, _downloads(config)
    if source.startswith("s3://"):
        return _download_s3(source, folder, _expected(config))
    logger.info("fetching %s", without_secrets(source))
    remote = resolve_link(source) if is_public_link(source) else remote_file(source)
    return _Archive(remote.name, download(_with_expected(remote, config), folder), ours=True)


def _download_s3(uri: str, folder: Path, expected: Mapping[str, str]) -> _Archive:
    from cassava_leaf_disease.storage.s3 import fetch_s3

    own_folder, name = folder / f"s3-{_digest(uri)}", uri.rpartition("/")[2]
    remove_leftovers(own_folder)
    path = fetch_s3(uri, own_folder / "archive")
    try:
        return _Archive(name, check_file(path, expected, name), ours=True)
    except StorageError:
        discard(path)
        raise


def _with_expected(remote: RemoteFile, config: AppConfig) -> RemoteFile:
    """The file with the checksum that the user expects; one that its server contradicts is not worth fetching."""
    expected = _expected(config)
    for kind, wanted in expected.items():
        told = remote.checksums.get(kind, wanted)
        if told.lower() != wanted.lower():
            raise StorageError(
                f"{remote.name}: another file lies there: its {kind} is {told}, download_data.{kind} expects {wanted}"
            )
    return replace(remote, checksums={**remote.checksums, **expected})


def _expected(config: AppConfig) -> dict[str, str]:
    return {} if config.download_data.sha256 is None else {"sha256": config.download_data.sha256}


@contextmanager
def _source_claimed(config: AppConfig) -> Iterator[None]:
    """Two programs that fetch one file for two folders would write into one part."""
    source = config.download_data.public_url
    if resolve(source).is_file():
        yield
        return
    with install.claimed(_downloads(config) / f"{_digest(source)}.lock", f"fetching {without_secrets(source)}"):
        yield


def _downloads(config: AppConfig) -> Path:
    return config.paths.cache_dir / "downloads"


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _needed(config: AppConfig) -> list[Path]:
    paths = config.paths
    return [paths.outputs_dir, paths.cache_dir, paths.artifacts_dir, resolve(config.download_data.public_url)]


def _stands(target: Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def _already_there(config: AppConfig) -> DownloadResult:
    target = config.paths.data_dir
    try:
        photos = len(read_kaggle(target))
    except DataError as error:
        raise ConfigError(
            f"paths.data_dir={target} holds something that is no usable data set ({error}); type "
            "download_data.force=true to replace it, or name another folder"
        ) from error
    logger.info("%d photos are in %s already: nothing to fetch; download_data.force=true replaces them", photos, target)
    source = without_secrets(config.download_data.public_url)
    return DownloadResult(data_dir=target, source=source, fetched=False, photos=photos)


def _result(config: AppConfig, arrived: _Arrived) -> DownloadResult:
    archive, unpacked = arrived.archive, arrived.unpacked
    return DownloadResult(
        data_dir=config.paths.data_dir,
        source=without_secrets(config.download_data.public_url),
        fetched=True,
        photos=arrived.photos,
        archive_name=archive and archive.name,
        archive_bytes=archive and archive.file.size_bytes,
        archive_sha256=archive and archive.file.sha256,
        resumed_at_bytes=archive and archive.file.resumed_at_bytes,
        unpacked_files=unpacked and unpacked.files,
        unpacked_bytes=unpacked and unpacked.size_bytes,
        check=check_data(config),
    )
