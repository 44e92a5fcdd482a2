"""Fetching a model from S3, against a real server on this machine."""

import builtins
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError, StorageError
from cassava_leaf_disease.storage.s3 import CHUNK_BYTES, fetch_s3

KEY = "models/best model (1).ckpt"
CONTENT = os.urandom(CHUNK_BYTES + 7)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the home of whoever runs the tests has a say."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def server(moto_s3: tuple[str, Any]) -> str:
    """A server with a public bucket `open` and a bucket `closed` that holds the same object."""
    url, client = moto_s3
    client.create_bucket(Bucket="open", ACL="public-read")
    client.put_object(Bucket="open", Key=KEY, Body=CONTENT, ACL="public-read")
    client.create_bucket(Bucket="closed")
    client.put_object(Bucket="closed", Key=KEY, Body=CONTENT)
    return url


@pytest.fixture(params=["S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def endpoint(request: pytest.FixtureRequest, server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, named by each of the variables that can name it."""
    monkeypatch.setenv(request.param, server)
    return server


@pytest.fixture
def at_server(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, named by one variable."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    return server


def sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("endpoint")
def test_public_object_needs_no_credentials(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "best.ckpt"

    assert fetch_s3(f"s3://open/{KEY}", destination) == destination
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.usefixtures("at_server")
def test_private_object_is_fetched_with_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(monkeypatch)

    assert fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt").read_bytes() == CONTENT


@pytest.mark.usefixtures("at_server")
def test_private_object_without_credentials_is_denied(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"access denied: the bucket is not public; set AWS_ACCESS_KEY_ID"):
        fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_server")
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://open/nothing.ckpt", "s3://open/nothing.ckpt: the bucket open holds no such key"),
        ("s3://nowhere/a.ckpt", "s3://nowhere/a.ckpt: there is no bucket nowhere at http://127.0.0.1"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_left_behind(
    uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(monkeypatch)

    with pytest.raises(StorageError) as error:
        fetch_s3(uri, tmp_path / "best.ckpt")

    assert str(error.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_server")
def test_bucket_name_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^s3://no such bucket/a: .*Invalid bucket name[^\n]*$"):
        fetch_s3("s3://no such bucket/a", tmp_path / "a")


@pytest.mark.usefixtures("at_server")
def test_half_of_the_credentials_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")

    with pytest.raises(StorageError, match="credentials are incomplete; set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt")


@pytest.mark.usefixtures("at_server")
def test_profile_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(StorageError, match=r"The config profile \(nobody\) could not be found"):
        fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt")


def test_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    with pytest.raises(StorageError, match=rf"{url} cannot be reached, or the connection broke \(Endpoint"):
        fetch_s3("s3://open/a", tmp_path / "a")


def refusal(status: int, code: str) -> bytes:
    """An answer of S3 that refuses a request."""
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    return f"{head}<Error><Code>{code}</Code><Message>because</Message></Error>".encode()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a server that answers raw bytes and names it in the environment."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> None:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[0].start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            refusal(403, "AccessDenied"),
            "access denied: the credentials in the AWS environment variables may not read it",
        ),
        (
            refusal(403, "SignatureDoesNotMatch"),
            "the server does not accept the credentials in the AWS environment variables",
        ),
        (refusal(405, "MethodNotAllowed"), "the server answered MethodNotAllowed: because"),
    ],
)
def test_refusal_is_told_with_its_reason(
    answer: bytes, message: str, answering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(monkeypatch)
    answering(answer)

    with pytest.raises(StorageError, match=f"^s3://b-b/k: {message}"):
        fetch_s3("s3://b-b/k", tmp_path / "k")


def test_download_that_breaks_off_leaves_the_old_file(answering: Any, tmp_path: Path) -> None:
    destination = tmp_path / "best.ckpt"
    destination.write_bytes(b"old")
    answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nhalf")

    with pytest.raises(StorageError, match=r"^s3://bbb/k: "):
        fetch_s3("s3://bbb/k", destination)

    assert destination.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [destination]


@pytest.mark.parametrize("uri", ["best.ckpt", "s3://bucket", "s3:///key", "https://a/b"])
def test_address_of_another_kind_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected s3://bucket/key"):
        fetch_s3(uri, tmp_path / "a")


def test_without_boto3_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_boto3(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name.startswith("boto"):
            raise ModuleNotFoundError(name)
        return real_import(name, globals, locals, fromlist or (), level)

    monkeypatch.setattr(builtins, "__import__", without_boto3)

    with pytest.raises(MissingDependencyError, match=r"cassava-leaf-disease\[track\]"):
        fetch_s3("s3://open/a", tmp_path / "a")
