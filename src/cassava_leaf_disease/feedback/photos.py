"""Where given photos lie: a folder, or a prefix in S3. Their names are made of their content."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from cassava_leaf_disease.errors import DataError, StorageError
from cassava_leaf_disease.paths import resolve
from cassava_leaf_disease.storage.files import remove_leftovers, replacing
from cassava_leaf_disease.storage.s3 import check_upload_settings, split_uri
from cassava_leaf_disease.storage.s3_small import delete_object, get_bytes, put_bytes

_CONTENT_TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png"}


def photo_name(data: bytes, suffix: str) -> str:
    """The SHA-256 of a photo in hexadecimal digits, and what kind of file it is."""
    return hashlib.sha256(data).hexdigest() + suffix


class Photos(Protocol):
    """Photos by name; what has been put is on the disk, what has been deleted is gone."""

    def put(self, name: str, data: bytes) -> None:
        """Keeps a photo; nothing happens where it is there already."""
        ...

    def get(self, name: str) -> bytes:
        """The photo, checked against its name; raises a `CassavaError` where it is missing or damaged."""
        ...

    def delete(self, name: str) -> None:
        """Removes a photo; nothing happens where it is not there."""
        ...


def open_photos(place: str) -> Photos:
    """The photos in a folder, or below `s3://bucket/prefix`.

    Raises:
        CassavaError: The folder cannot be made, or S3's settings are wrong.
    """
    if place.startswith("s3://"):
        return S3Photos(place.rstrip("/"))
    return FolderPhotos(resolve(place))


class FolderPhotos:
    """A folder that only its owner may read, with a folder for each first two digits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, name: str, data: bytes) -> None:
        """See `Photos`: when it returns, file and folder entry are on the disk."""
        path = self._path(name)
        if path.is_file() and path.stat().st_size == len(data):
            return
        with replacing(path) as file:
            file.write(data)
        for folder in (path.parent, self._folder):
            _flush_folder(folder)

    def get(self, name: str) -> bytes:
        """See `Photos`."""
        try:
            data = self._path(name).read_bytes()
        except OSError as error:
            raise DataError(f"{self._path(name)}: a given photo cannot be read ({error.strerror})") from None
        return _checked(name, data, str(self._folder))

    def delete(self, name: str) -> None:
        """See `Photos`; what a killed writer left beside it goes, too."""
        path = self._path(name)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            remove_leftovers(path.parent)
            _flush_folder(path.parent)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


class S3Photos:
    """Objects below a prefix; of a bucket with versions all of them are deleted."""

    def __init__(self, prefix: str) -> None:
        split_uri(prefix)
        check_upload_settings(prefix)
        self._prefix = prefix

    def put(self, name: str, data: bytes) -> None:
        """See `Photos`."""
        put_bytes(f"{self._prefix}/{name}", data, _CONTENT_TYPES[PurePosixPath(name).suffix])

    def get(self, name: str) -> bytes:
        """See `Photos`."""
        return _checked(name, get_bytes(f"{self._prefix}/{name}"), self._prefix)

    def delete(self, name: str) -> None:
        """See `Photos`."""
        delete_object(f"{self._prefix}/{name}")


def _checked(name: str, data: bytes, where: str) -> bytes:
    if hashlib.sha256(data).hexdigest() != PurePosixPath(name).stem:
        raise StorageError(f"{where}: the photo {name} is damaged there; expected the content that its name tells")
    return data


def _flush_folder(folder: Path) -> None:
    """Brings a folder's entries to the disk; Windows cannot open folders, and does it by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
