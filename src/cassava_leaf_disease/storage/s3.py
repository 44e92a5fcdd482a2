"""Files from and to S3 and what speaks its language (MinIO, Yandex Object Storage …).

`find_server` says which server is asked. What is public is read without credentials; for the rest requests are
signed with the usual AWS variables, from the environment or from `.env`. A file that we put there carries its
SHA-256 as metadata: what is fetched is checked against it, and what is there already is not sent again.
"""

import hashlib
import json
import logging
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.storage.s3_connection import Server, find_server, open_client
from cassava_leaf_disease.storage.s3_errors import UnreachableError, told_in_one_line
from cassava_leaf_disease.storage.s3_transfer import (
    Place,
    S3Object,
    download,
    find_object,
    local_errors,
    upload,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """What came of an upload; `sent` is False where the same content was there already."""

    uri: str
    size_bytes: int
    sent: bool


def fetch_s3(uri: str, destination: Path) -> Path:
    """Downloads `s3://bucket/key` to `destination`, whole and checked or not at all, and returns `destination`.

    Raises:
        ConfigError: `uri` is not of the form `s3://bucket/key`, or the server's address is no address.
        MissingDependencyError: boto3 is not installed.
        StorageError: The object is missing, denied, out of reach or damaged, or there is no room for it.
    """
    place, about = find_object(*split_uri(uri), _server(uri))
    download(place, about, destination)
    return destination


def fetch_cached_s3(uri: str, cache_dir: Path) -> Path:
    """The object as a file in `cache_dir`, downloaded only where the server has another version of it.

    The server is asked each time. Where it cannot be reached, the copy that is there answers, with a warning.

    Raises:
        CassavaError: As for `fetch_s3`; out of reach only where there is no copy.
    """
    bucket, key = split_uri(uri)
    server = _server(uri)
    copy = _copy_path(uri, server, cache_dir)
    is_there = copy.is_file()
    try:
        # With a copy at hand nobody is kept waiting for a network that is not there.
        place, about = find_object(bucket, key, server, **({"attempts": 2, "timeout_s": 5} if is_there else {}))
        if is_there and _is_version(copy, about):
            logger.info("%s: unchanged since it was fetched: %s", uri, copy)
            return copy
        _renew(copy, place, about)
    except UnreachableError as error:
        if not is_there:
            raise
        fetched_at = datetime.fromtimestamp(copy.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
        logger.warning("%s; going on with the copy of %s: %s", error, fetched_at, copy)
    return copy


def describe_s3(uri: str) -> S3Object:
    """What the server says of `s3://bucket/key`, found the way `fetch_s3` finds it.

    Raises:
        CassavaError: As for `fetch_s3`.
    """
    return find_object(*split_uri(uri), _server(uri))[1]


def upload_s3(path: Path, uri: str) -> Upload:
    """Puts a file at `s3://bucket/key`, signed, in parts where it is large, unless the same content is there.

    Raises:
        ConfigError: `uri` is not of the form `s3://bucket/key`, or the server's address is no address.
        MissingDependencyError: boto3 is not installed.
        StorageError: It could not be read or put there, or it arrived damaged.
    """
    place = Place(*split_uri(uri), _server(uri), signed=True)
    sent = upload(place, path)
    logger.info("%s: %s", uri, "uploaded" if sent else "the same content is there already")
    return Upload(uri, path.stat().st_size, sent)


def check_upload_settings(prefix: str) -> None:
    """Finds without a request what would fail every upload below `prefix`: no boto3, no credentials, no such profile.

    Raises:
        CassavaError: What is missing or wrong.
    """
    server = _server(prefix)
    with told_in_one_line(prefix, server):
        open_client(server, signed=True, attempts=1).close()


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key.

    Raises:
        ConfigError: It is no `s3://bucket/key`.
    """
    parts = re.fullmatch(r"s3://([^/]+)/(.+)", uri)
    if parts is None:
        raise ConfigError(f"{uri}: expected s3://bucket/key")
    return parts[1], parts[2]


def _server(uri: str) -> Server:
    with told_in_one_line(uri):
        return find_server()


def _copy_path(uri: str, server: Server, cache_dir: Path) -> Path:
    """One file for each address at each server, never called `best.ckpt`: the newest run is searched by that name."""
    name = Path(re.sub(r"[^A-Za-z0-9._-]+", "_", uri.rpartition("/")[2])[-60:])
    digest = hashlib.sha256(f"{server} {uri}".encode()).hexdigest()[:12]
    return cache_dir / f"{name.stem}-{digest}{name.suffix}"


def _renew(copy: Path, place: Place, about: S3Object) -> None:
    """Replaces the copy, then the note about it.

    The note tells the file that it is about by its time: a process killed in between, or two that fetch at
    once, may leave one that belongs to another file, which is then fetched again.
    """
    fetched = copy.with_name(f".{copy.name}.{secrets.token_hex(4)}.tmp")
    try:
        download(place, about, fetched)
        with local_errors(place.uri, copy):
            written_ns = fetched.stat().st_mtime_ns
            fetched.replace(copy)
            note = {"uri": place.uri, "server": str(place.server), "etag": about.etag, "size_bytes": about.size_bytes}
            write_json(_note_path(copy), {**note, "mtime_ns": written_ns})
    finally:
        fetched.unlink(missing_ok=True)


def _is_version(copy: Path, about: S3Object) -> bool:
    """Whether the copy is the version that the server has."""
    try:
        note = json.loads(_note_path(copy).read_text(encoding="utf-8"))
        known = (note["etag"], note["size_bytes"], note["mtime_ns"])
    except (OSError, ValueError, KeyError, TypeError):  # no note, or a damaged one: not known
        return False
    seen = copy.stat()
    return bool(about.etag) and known == (about.etag, seen.st_size, seen.st_mtime_ns)


def _note_path(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.json")
