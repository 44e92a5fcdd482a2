"""What servers refuse, and what arrives otherwise than it was sent: one line each."""

import hashlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.storage import s3_transfer
from cassava_leaf_disease.storage.s3 import (
    fetch_s3,
    upload_s3,
)


@pytest.fixture(autouse=True)
def _signed(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are there; a server is named by each test."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[bytes]]]:
    """A server that takes any upload and answers HEAD by a script; gives the bodies that it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, dict[str, str]], get: tuple[int, bytes] = (404, b"")) -> list[bytes]:
        script, bodies = iter(answers), list[bytes]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                status, headers = next(script)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_PUT(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.send_response(get[0])
                self.send_header("Content-Length", str(len(get[1])))
                self.end_headers()
                self.wfile.write(get[1])

            def log_message(self, *_words: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[0].serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers[0].server_port}")
        return bodies

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a server that answers the same raw bytes to every request, and names it in the environment."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> None:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
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


def refusal(status: int, code: str) -> bytes:
    """An answer of S3 that refuses a request."""
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
    return f"{head}<Error><Code>{code}</Code><Message>because</Message></Error>".encode()


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (
                refusal(403, "AccessDenied"),
                "access denied: the credentials in the AWS environment variables or .env may not read it",
            ),
            (
                refusal(403, "SignatureDoesNotMatch"),
                "the server does not accept the credentials in the AWS environment variables",
            ),
            (refusal(400, "ExpiredToken"), "the credentials in .* have expired .*; renew them"),
            (refusal(403, "RequestTimeTooSkewed"), r"this machine's clock is wrong: it says \d{4}-.* UTC; set it"),
            (refusal(503, "ServiceUnavailable"), "http://127.* cannot answer now .*; try again later"),
            (refusal(405, "MethodNotAllowed"), "the server answered MethodNotAllowed: because"),
            (
                b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n<html><p>Please log in",
                "http://127.* does not answer as an S3 server does; is S3_ENDPOINT_URL right",
            ),
            (
                b'HTTP/1.1 200 x\r\nContent-Length: 1\r\nETag: "' + b"0" * 32 + b'"\r\nConnection: close\r\n\r\nx',
                "arrived damaged .MD5 9dd4e461268c8034f5c8564e155c67a6, expected 000",
            ),
        ],
    )
    def test_refusal_is_told_with_its_reason(self, answer: bytes, message: str, answering: Any, tmp_path: Path) -> None:
        answering(answer)

        with pytest.raises(StorageError, match=f"^s3://b-b/k: {message}"):
            fetch_s3("s3://b-b/k", tmp_path / "k")

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (refusal(403, "AccessDenied"), "access denied: the credentials in .* may not write there"),
            (refusal(503, "SlowDown"), "http://127.* cannot answer now"),
            (refusal(403, "InvalidAccessKeyId"), "the server does not accept the credentials"),
        ],
    )
    def test_refused_upload_is_told_with_its_reason(
        self, answer: bytes, message: str, answering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_transfer, "_ASK_ATTEMPTS", 2)
        answering(answer)
        (tmp_path / "k").write_bytes(b"x")

        with pytest.raises(StorageError, match=f"^s3://b-b/k: {message}"):
            upload_s3(tmp_path / "k", "s3://b-b/k")

    def test_download_that_always_breaks_off_leaves_the_old_file(self, answering: Any, tmp_path: Path) -> None:
        destination = tmp_path / "best.ckpt"
        destination.write_bytes(b"old")
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nhalf")

        with pytest.raises(StorageError, match=r"^s3://bbb/k: the connection to http://127.* breaks again and again"):
            fetch_s3("s3://bbb/k", destination)

        assert destination.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [destination]


PRECONDITION = b"<Error><Code>PreconditionFailed</Code></Error>"


class TestWhatArrived:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "k").write_bytes(b"x")
        return tmp_path / "k"

    def test_credentials_that_may_write_but_not_read_are_enough_to_upload(
        self, path: Path, scripted: Callable[..., list[bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "cassava_leaf_disease")
        bodies = scripted((403, {}), (403, {}))

        assert upload_s3(path, "s3://b-b/k").sent
        assert bodies == [b"x"]
        assert "cannot be read back with these credentials" in caplog.text

    @pytest.mark.parametrize(
        "told",
        [
            {"Content-Length": "2", "x-amz-meta-sha256": hashlib.sha256(b"x").hexdigest()},
            {"Content-Length": "1"},
            {"Content-Length": "1", "x-amz-meta-sha256": hashlib.sha256(b"x").hexdigest(), "ETag": f'"{"0" * 32}"'},
        ],
        ids=["size", "sha256", "etag"],
    )
    def test_what_arrives_otherwise_is_told(
        self, told: dict[str, str], path: Path, scripted: Callable[..., list[bytes]]
    ) -> None:
        scripted((404, {}), (200, told))

        with pytest.raises(StorageError, match=r"^s3://b-b/k: what arrived there is not what was sent"):
            upload_s3(path, "s3://b-b/k")

    @pytest.mark.parametrize(
        "etag",
        [
            {"ETag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "aws:kms"},
            {"ETag": '"anything"'},
            {},
        ],
        ids=["encrypted", "no MD5", "none"],
    )
    def test_versions_that_are_no_checksum_are_not_compared(
        self, etag: dict[str, str], path: Path, scripted: Callable[..., list[bytes]]
    ) -> None:
        told = {"Content-Length": "1", "x-amz-meta-sha256": hashlib.sha256(b"x").hexdigest()}
        scripted((404, {}), (200, told | etag))

        assert upload_s3(path, "s3://b-b/k").sent

    @pytest.mark.parametrize(
        ("told", "answer", "message"),
        [
            ((200, {"Content-Length": "2"}), (200, b"x"), "1 bytes arrived, expected 2; type the command again"),
            ((200, {"Content-Length": "1"}), (412, PRECONDITION), "was replaced while it was read; type the command"),
            ((405, {}), (200, b"x"), "the server answered 405: Method Not Allowed"),
        ],
        ids=["short", "replaced", "refused without a reason"],
    )
    def test_object_that_is_not_what_was_told_is_refused(
        self,
        told: tuple[int, dict[str, str]],
        answer: tuple[int, bytes],
        message: str,
        path: Path,
        scripted: Callable[..., list[bytes]],
    ) -> None:
        scripted(told, told, get=answer)

        with pytest.raises(StorageError, match=f"^s3://b-b/k: {message}"):
            fetch_s3("s3://b-b/k", path)
        assert path.read_bytes() == b"x"
