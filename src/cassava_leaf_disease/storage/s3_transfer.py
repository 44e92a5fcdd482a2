"""One object of S3: found, described, downloaded and uploaded in parts, and checked on arrival."""

import hashlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.log import progress_bar, stderr_is_terminal
from cassava_leaf_disease.storage.files import replacing
from cassava_leaf_disease.storage.s3_connection import Server, has_credentials, open_client
from cassava_leaf_disease.storage.s3_errors import told_in_one_line

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

logger = logging.getLogger(__name__)

PART_BYTES: Final = 8 << 20  # files above this travel in parts, four at a time
_ASK_ATTEMPTS = 4
_TRANSFER_ATTEMPTS = 8  # of each request, pauses growing to 20 s: an outage of half a minute is sat out
_BODY_ATTEMPTS = 10  # of each part whose connection breaks while it is on its way
_HEARTBEAT_S = 10


@dataclass(frozen=True)
class Place:
    """Where an object is, and whether requests about it are signed."""

    bucket: str
    key: str
    server: Server
    signed: bool

    @property
    def uri(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

    def client(self, attempts: int, timeout_s: float = 60) -> AbstractContextManager[Any]:
        """A boto3 client that may ask for it; its connections are closed when the block ends."""
        return closing(open_client(self.server, signed=self.signed, attempts=attempts, timeout_s=timeout_s))


@dataclass(frozen=True)
class S3Object:
    """What a server says of an object.

    `sha256` is there where we put it. `etag` names the version; `md5` is the ETag where it is made of MD5
    sums, 32 digits, or 32 digits, `-` and the number of parts.
    """

    size_bytes: int
    etag: str
    sha256: str | None
    md5: str | None


def find_object(
    bucket: str, key: str, server: Server, *, attempts: int = 3, timeout_s: float = 60
) -> tuple[Place, S3Object]:
    """An object that may be read, and how: as anybody may, or else signed; the log says which.

    Raises:
        StorageError: It is missing, denied or out of reach.
    """
    with told_in_one_line(f"s3://{bucket}/{key}", server):
        from botocore.exceptions import ClientError

        if has_credentials():
            try:
                return _found(Place(bucket, key, server, signed=False), attempts, timeout_s)
            except ClientError as error:
                if not 400 <= _status(error) < 500:
                    raise
        place = Place(bucket, key, server, signed=has_credentials())
        try:
            return _found(place, attempts, timeout_s)
        except ClientError as error:
            raise _with_reason(place, error) from None


def head(place: Place, attempts: int, timeout_s: float = 60) -> S3Object:
    """What the server says of the object.

    Raises:
        ClientError: It refuses; a HEAD answer has no words for the reason.
        StorageError: It is no S3 server.
    """
    with place.client(attempts, timeout_s) as client:
        answer = client.head_object(Bucket=place.bucket, Key=place.key)
    if "ContentLength" not in answer:
        raise StorageError(
            f"{place.uri}: {place.server} does not answer as an S3 server does; is S3_ENDPOINT_URL right?"
        )
    etag, sha256 = str(answer.get("ETag", "")).strip('"'), str(answer.get("Metadata", {}).get("sha256", ""))
    plain = answer.get("ServerSideEncryption") in (None, "AES256") and not answer.get("SSECustomerAlgorithm")
    return S3Object(
        size_bytes=int(answer["ContentLength"]),
        etag=etag,
        sha256=sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None,
        md5=etag if plain and re.fullmatch(r"[0-9a-f]{32}(-\d+)?", etag) else None,
    )


def download(place: Place, about: S3Object, destination: Path) -> None:
    """Downloads an object in parts, checks it, and only then lets it take the place of `destination`.

    Raises:
        StorageError: It broke off again and again, arrived damaged, or there is no room for it.
    """
    with local_errors(place.uri, destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(destination.parent).free
        if free < about.size_bytes:
            raise StorageError(
                f"{place.uri}: {about.size_bytes / 1e6:,.1f} MB do not fit into {destination.parent}, "
                f"where {free / 1e6:,.1f} MB are free"
            )
        with (
            replacing(destination) as file,
            told_in_one_line(place.uri, place.server),
            _progress(destination.name, about.size_bytes) as advance,
            place.client(_TRANSFER_ATTEMPTS) as client,
        ):
            client.download_fileobj(place.bucket, place.key, file, Callback=advance, Config=_transfer_config())
            file.flush()
            _check_download(place, about, Path(file.name))


def upload(place: Place, path: Path) -> bool:
    """Uploads a file, in parts where it is large, and checks what arrived; False where the same was there already.

    Raises:
        StorageError: It cannot be read or put there, or something else arrived.
    """
    with local_errors(place.uri, path), told_in_one_line(place.uri, place.server):
        size, digest = path.stat().st_size, sha256_of(path)
        there = describe_own(place)
        if there is not None and (there.size_bytes, there.sha256) == (size, digest):
            return False
        with (
            path.open("rb") as file,
            _progress(path.name, size) as advance,
            place.client(_TRANSFER_ATTEMPTS) as client,
        ):
            client.upload_fileobj(
                file,
                place.bucket,
                place.key,
                ExtraArgs={"Metadata": {"sha256": digest}},
                Callback=advance,
                Config=_transfer_config(),
            )
        arrived = describe_own(place)
        if arrived is None:
            logger.info("%s: uploaded; it cannot be read back with these credentials to check it", place.uri)
        elif (arrived.size_bytes, arrived.sha256) != (size, digest) or not _agrees(arrived.md5, path):
            raise StorageError(f"{place.uri}: what arrived there is not what was sent; type the command again")
    return True


def describe_own(place: Place) -> S3Object | None:
    """What stands at a place that we write to; None where nothing does, or where we may write but not read.

    Raises:
        BotoCoreError, ClientError: The server is out of reach, or refuses for another reason.
    """
    from botocore.exceptions import ClientError

    try:
        return head(place, _ASK_ATTEMPTS)
    except ClientError as error:
        if _status(error) in (403, 404):
            return None
        raise _with_reason(place, error) from None


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def local_errors(uri: str, path: Path) -> Iterator[None]:
    """Turns what this machine's disk raises into a `StorageError` that names the file.

    Raises:
        StorageError: The file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{uri}: {error.filename or path}: {error.strerror or error}") from error


def _found(place: Place, attempts: int, timeout_s: float) -> tuple[Place, S3Object]:
    about = head(place, attempts, timeout_s)
    how = "signed with the credentials of the environment" if place.signed else "public, without credentials"
    logger.info("%s: read from %s, %s", place.uri, place.server, how)
    return place, about


def _check_download(place: Place, about: S3Object, path: Path) -> None:
    size = path.stat().st_size
    if size != about.size_bytes:
        raise StorageError(f"{place.uri}: {size} bytes arrived, expected {about.size_bytes}; type the command again")
    if about.sha256 is not None:
        name, seen, expected = "SHA-256", sha256_of(path), about.sha256
    elif about.md5 is not None and "-" not in about.md5:
        name, seen, expected = "MD5", _md5_etag(path, parts=False), about.md5
    else:
        return
    if seen != expected:
        raise StorageError(f"{place.uri}: arrived damaged ({name} {seen}, expected {expected}); type the command again")


def _agrees(etag: str | None, path: Path) -> bool:
    """Whether the server's MD5 sums, where it has any that can be compared, are those of the file."""
    if etag is None:
        return True
    parts = path.stat().st_size >= PART_BYTES
    own = _md5_etag(path, parts=parts)
    # Beyond 10,000 parts boto3 makes them larger: other sums, nothing to compare.
    return etag == own or (parts and etag.partition("-")[2] != own.partition("-")[2])


def _md5_etag(path: Path, *, parts: bool) -> str:
    """The ETag that S3 gives a file, sent whole or in parts of `PART_BYTES`."""
    with path.open("rb") as file:
        if not parts:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        sums = [hashlib.md5(part, usedforsecurity=False).digest() for part in iter(lambda: file.read(PART_BYTES), b"")]
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sums)}"


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _with_reason(place: Place, error: "ClientError") -> "ClientError":
    """The same refusal with the server's words: an answer to HEAD has no body, one to GET has."""
    from botocore.exceptions import ClientError

    try:
        with place.client(attempts=1) as client:
            client.get_object(Bucket=place.bucket, Key=place.key)["Body"].close()
    except ClientError as told:
        return told
    return error


def _transfer_config() -> Any:  # noqa: ANN401
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=4,
        num_download_attempts=_BODY_ATTEMPTS,
        preferred_transfer_client="classic",
    )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar by bytes where stderr is a terminal, else a line each ten seconds; any thread may move it."""
    lock, done, said = threading.Lock(), 0, time.monotonic()

    with progress_bar(what, total) as advance_bar:

        def advance(count: int) -> None:
            nonlocal done, said
            with lock:
                done += count
                advance_bar(count)
                if not stderr_is_terminal() and time.monotonic() - said > _HEARTBEAT_S:
                    said = time.monotonic()
                    logger.info("%s: %.1f of %.1f MB", what, done / 1e6, total / 1e6)

        yield advance
