"""What lies below a prefix of S3, and objects that are read into memory, several threads at a time."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, Final, Self

from cassava_leaf_disease.errors import ConfigError, ImageTooLargeError
from cassava_leaf_disease.storage.s3_connection import Server, find_server, has_credentials, open_client
from cassava_leaf_disease.storage.s3_errors import told_in_one_line

_ATTEMPTS: Final = 6  # of each request, pauses growing to 20 s: an outage of some seconds is sat out
_BODY_ATTEMPTS: Final = 4  # of an object whose connection breaks while it is on its way


def split_prefix(uri: str) -> tuple[str, str]:
    """Bucket and prefix, which may be empty.

    Raises:
        ConfigError: It is no `s3://bucket/prefix`.
    """
    parts = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", uri)
    if parts is None:
        raise ConfigError(f"{uri}: expected s3://bucket/prefix")
    return parts[1], parts[2] or ""


def list_objects(uri: str) -> Iterator[str]:
    """The addresses of all objects below `s3://bucket/prefix`, a page of a thousand in memory, in S3's own order.

    Raises:
        ConfigError: `uri` is not of that form, or the server's address is no address.
        MissingDependencyError: boto3 is not installed.
        StorageError: The bucket is missing, denied or out of reach.
    """
    bucket, prefix = split_prefix(uri)
    server = _server(uri)
    with (
        told_in_one_line(uri, server),
        closing(open_client(server, signed=has_credentials(), attempts=_ATTEMPTS)) as s3,
    ):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from (f"s3://{bucket}/{entry['Key']}" for entry in page.get("Contents", ()))


class S3Reader:
    """Reads whole objects. Any number of threads may ask it; each has a connection of its own.

    Requests are signed where there are credentials.
    """

    def __init__(self) -> None:
        self._server: Server | None = None
        self._lock = threading.Lock()
        self._own = threading.local()
        self._clients = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clients.close()

    def read(self, uri: str, max_bytes: int) -> bytes:
        """The content of `s3://bucket/key`.

        Raises:
            ConfigError: `uri` is not of that form, or the server's address is no address.
            MissingDependencyError: boto3 is not installed.
            ImageTooLargeError: It has more than `max_bytes`.
            UnreachableError: The server cannot be reached.
            StorageError: The object is missing or denied.
        """
        bucket, key = split_prefix(uri)
        client = self._client(uri)
        with told_in_one_line(uri, self._server):
            return _content(client, bucket, key, max_bytes)

    def _client(self, uri: str) -> Any:  # noqa: ANN401
        if not hasattr(self._own, "client"):
            with self._lock, told_in_one_line(uri):  # boto3 makes clients in one thread at a time
                self._server = self._server or find_server()
                made = open_client(self._server, signed=has_credentials(), attempts=_ATTEMPTS)
                self._own.client = self._clients.enter_context(closing(made))
        return self._own.client


def _content(client: Any, bucket: str, key: str, max_bytes: int) -> bytes:  # noqa: ANN401
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    attempt = 1
    while True:
        answer = client.get_object(Bucket=bucket, Key=key)
        size = int(answer["ContentLength"])
        with closing(answer["Body"]) as body:
            if size > max_bytes:
                raise ImageTooLargeError(f"s3://{bucket}/{key}: {size:,} bytes; expected at most {max_bytes:,}")
            try:
                content: bytes = body.read()
            except (HTTPClientError, IncompleteReadError):
                if attempt == _BODY_ATTEMPTS:
                    raise
            else:
                return content
        attempt += 1


def _server(uri: str) -> Server:
    with told_in_one_line(uri):
        return find_server()
