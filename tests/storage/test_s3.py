"""Files from and to a real S3 server, also over connections that break."""

import builtins
import hashlib
import io
import logging
import random
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError, StorageError
from cassava_leaf_disease.storage import s3_transfer
from cassava_leaf_disease.storage.s3 import (
    check_upload_settings,
    describe_s3,
    fetch_s3,
    upload_s3,
)
from cassava_leaf_disease.storage.s3_transfer import PART_BYTES

KEY = "models/best model (1).ckpt"


@pytest.fixture(autouse=True)
def _no_settings(no_aws: None) -> None:
    """Only what a test sets has a say."""


@pytest.fixture(scope="session")
def content() -> bytes:
    """What the object under `models/` is made of: two parts."""
    return random.Random(1).randbytes(PART_BYTES + 7)  # noqa: S311


@pytest.fixture(scope="session")
def large() -> bytes:
    """17.8 MB: three parts."""
    return random.Random(2).randbytes(2 * PART_BYTES + 1_000_003)  # noqa: S311


@pytest.fixture(scope="module")
def server(moto_s3: tuple[str, Any], content: bytes) -> str:
    """A server with a public bucket `open` and a bucket `closed` that holds the same object."""
    url, client = moto_s3
    client.create_bucket(Bucket="open", ACL="public-read")
    client.put_object(Bucket="open", Key=KEY, Body=content, ACL="public-read")
    client.create_bucket(Bucket="closed")
    client.put_object(Bucket="closed", Key=KEY, Body=content)
    return url


@pytest.fixture
def client(server: str, moto_s3: tuple[str, Any]) -> Any:
    """A client that may do everything there."""
    assert server == moto_s3[0]
    return moto_s3[1]


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


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts credentials into the environment."""

    def put() -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    return put


@pytest.fixture
def signed(at_server: str, sign: Callable[[], None]) -> str:
    """The server, and credentials for it."""
    sign()
    return at_server


@pytest.fixture
def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


class CuttingProxy:
    """Passes TCP on to a server and cuts each of the first connections that carried many bytes one way."""

    def __init__(self, target: str, cuts: int, after_bytes: int) -> None:
        self.cuts_left, self.after_bytes, self.lock = cuts, after_bytes, threading.Lock()
        host, port = target.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                for source, sink in ((near, far), (far, near)):
                    self.threads.append(threading.Thread(target=self._pass_on, args=(source, sink), daemon=True))
                    self.threads[-1].start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
                passed += len(chunk)
                with self.lock:
                    cut = passed > self.after_bytes and self.cuts_left > 0
                    self.cuts_left -= cut
                if cut:
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def stop(self) -> None:
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def cutting(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], CuttingProxy]]:
    """Puts a proxy that breaks connections before the server."""
    proxies = []

    def start(cuts: int, after_bytes: int) -> CuttingProxy:
        proxies.append(CuttingProxy(server, cuts, after_bytes))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxies[0].url)
        return proxies[0]

    yield start
    for proxy in proxies:
        proxy.stop()


@pytest.fixture
def hide_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes libraries whose names begin so look as if they were not installed."""

    def hide(prefix: str) -> None:
        real_import = builtins.__import__

        def without(
            name: str,
            globals: Mapping[str, object] | None = None,  # noqa: A002
            locals: Mapping[str, object] | None = None,  # noqa: A002
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> Any:
            if name.startswith(prefix):
                raise ModuleNotFoundError(name)
            return real_import(name, globals, locals, fromlist or (), level)

        monkeypatch.setattr(builtins, "__import__", without)

    return hide


class TestFetch:
    @pytest.mark.usefixtures("endpoint")
    def test_public_object_needs_no_credentials(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        caplog.set_level(logging.INFO, "cassava_leaf_disease")
        destination = tmp_path / "deep" / "best.ckpt"

        assert fetch_s3(f"s3://open/{KEY}", destination) == destination
        assert destination.read_bytes() == content
        assert list(destination.parent.iterdir()) == [destination]
        assert "public, without credentials" in caplog.text

    @pytest.mark.usefixtures("signed")
    def test_private_object_is_fetched_with_credentials(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        caplog.set_level(logging.INFO, "cassava_leaf_disease")

        assert fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt").read_bytes() == content
        assert "signed with the credentials of the environment" in caplog.text

    @pytest.mark.usefixtures("at_server")
    def test_half_credentials_do_not_stand_in_the_way_of_what_is_public(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")

        assert fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt").read_bytes() == content

    @pytest.mark.usefixtures("at_server")
    @pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_half_of_the_credentials_is_told(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "somebody")

        with pytest.raises(StorageError, match="credentials are missing or incomplete; set AWS_ACCESS_KEY_ID and AWS"):
            fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt")

    @pytest.mark.usefixtures("at_server")
    def test_private_object_without_credentials_is_denied(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"access denied: it is not public, or .*; to read .* set AWS_ACCESS"):
            fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("signed")
    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("s3://open/nothing.ckpt", "s3://open/nothing.ckpt: the bucket open holds no such key"),
            ("s3://nowhere/a.ckpt", "s3://nowhere/a.ckpt: there is no bucket nowhere at http://127.0.0.1"),
        ],
    )
    def test_what_is_missing_is_named_and_nothing_is_left_behind(self, uri: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(StorageError) as error:
            fetch_s3(uri, tmp_path / "best.ckpt")

        assert str(error.value).startswith(message)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("at_server")
    def test_bucket_name_that_cannot_be_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"^s3://no such bucket/a: .*Invalid bucket name[^\n]*$"):
            fetch_s3("s3://no such bucket/a", tmp_path / "a")

    @pytest.mark.parametrize("uri", ["best.ckpt", "s3://bucket", "s3:///key", "https://a/b"])
    def test_address_of_another_kind_is_refused(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"expected s3://bucket/key"):
            fetch_s3(uri, tmp_path / "a")

    @pytest.mark.usefixtures("at_server")
    def test_object_without_a_byte_is_fetched(self, client: Any, tmp_path: Path) -> None:
        client.put_object(Bucket="open", Key="empty", Body=b"", ACL="public-read")

        assert fetch_s3("s3://open/empty", tmp_path / "empty").read_bytes() == b""

    @pytest.mark.usefixtures("at_server")
    def test_object_that_others_sent_in_parts_is_fetched_by_its_size(
        self, client: Any, tmp_path: Path, large: bytes
    ) -> None:
        client.upload_fileobj(io.BytesIO(large), "open", "parts", ExtraArgs={"ACL": "public-read"})

        assert describe_s3("s3://open/parts").etag.endswith("-3")
        assert fetch_s3("s3://open/parts", tmp_path / "best.ckpt").read_bytes() == large

    @pytest.mark.usefixtures("at_server")
    def test_description_tells_size_and_version(self, content: bytes) -> None:
        about = describe_s3(f"s3://open/{KEY}")

        assert (about.size_bytes, about.etag) == (len(content), hashlib.md5(content).hexdigest())  # noqa: S324

    @pytest.mark.usefixtures("at_server")
    def test_content_that_is_not_what_was_sent_leaves_the_old_file(self, client: Any, tmp_path: Path) -> None:
        told = {"sha256": "0" * 64}
        client.put_object(Bucket="open", Key="bad", Body=b"x", ACL="public-read", Metadata=told)
        (tmp_path / "a").write_bytes(b"old")

        with pytest.raises(StorageError, match=r"s3://open/bad: arrived damaged \(SHA-256 2d71.*, expected 000"):
            fetch_s3("s3://open/bad", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [tmp_path / "a"]

    @pytest.mark.usefixtures("at_server")
    def test_file_that_is_larger_than_the_room_for_it_is_not_begun(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)

        with pytest.raises(StorageError, match=r"8\.4 MB do not fit into .*, where 1\.0 MB are free"):
            fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
    @pytest.mark.usefixtures("at_server")
    def test_disk_that_fills_up_meanwhile_is_told_with_the_file(self, tmp_path: Path) -> None:
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(StorageError, match=r"best\.ckpt: File too large"):
                fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("at_server")
    def test_destination_below_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(StorageError, match=r"^s3://open/.*file: (File exists|Not a directory)"):
            fetch_s3(f"s3://open/{KEY}", tmp_path / "file" / "best.ckpt")

    def test_without_boto3_the_extra_is_named(self, tmp_path: Path, hide_module: Callable[[str], None]) -> None:
        hide_module("boto")

        with pytest.raises(MissingDependencyError, match=r"boto3 .*cassava-leaf-disease\[track\]"):
            fetch_s3("s3://open/a", tmp_path / "a")


class TestUpload:
    @pytest.mark.usefixtures("signed")
    def test_large_file_travels_in_parts_and_comes_back_the_same(
        self, client: Any, tmp_path: Path, large: bytes
    ) -> None:
        (tmp_path / "best.ckpt").write_bytes(large)

        upload = upload_s3(tmp_path / "best.ckpt", "s3://closed/large")

        assert (upload.uri, upload.size_bytes, upload.sent) == ("s3://closed/large", len(large), True)
        there = client.head_object(Bucket="closed", Key="large")
        assert there["ETag"].endswith('-3"')
        assert there["Metadata"] == {"sha256": hashlib.sha256(large).hexdigest()}
        assert fetch_s3("s3://closed/large", tmp_path / "back.ckpt").read_bytes() == large

    @pytest.mark.usefixtures("signed")
    def test_same_content_is_not_sent_again_and_other_content_is(self, client: Any, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        path.write_bytes(b"one")

        sent = [upload_s3(path, "s3://closed/m").sent, upload_s3(path, "s3://closed/m").sent]
        path.write_bytes(b"two")
        sent.append(upload_s3(path, "s3://closed/m").sent)

        assert sent == [True, False, True]
        assert client.get_object(Bucket="closed", Key="m")["Body"].read() == b"two"

    @pytest.mark.usefixtures("at_server")
    def test_nothing_is_uploaded_without_credentials(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()

        with pytest.raises(StorageError, match=r"^s3://open/a: credentials are missing or incomplete; set AWS_ACCESS"):
            upload_s3(tmp_path / "a", "s3://open/a")

    @pytest.mark.usefixtures("signed")
    def test_missing_bucket_and_missing_file_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"^s3://open/a: .*gone: No such file"):
            upload_s3(tmp_path / "gone", "s3://open/a")
        (tmp_path / "a").touch()
        with pytest.raises(StorageError, match=r"^s3://nowhere/a: there is no bucket nowhere at http"):
            upload_s3(tmp_path / "a", "s3://nowhere/a")

    @pytest.mark.usefixtures("at_server")
    def test_settings_that_would_fail_every_upload_are_found_without_a_request(
        self, monkeypatch: pytest.MonkeyPatch, sign: Callable[[], None], dead_url: str
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", dead_url)
        with pytest.raises(StorageError, match=r"^s3://open/runs: credentials are missing"):
            check_upload_settings("s3://open/runs")
        sign()
        check_upload_settings("s3://open/runs")


class TestBrokenConnections:
    def test_download_whose_connections_break_half_way_ends_whole(
        self, cutting: Callable[[int, int], Any], client: Any, tmp_path: Path, large: bytes
    ) -> None:
        client.put_object(Bucket="open", Key="large", Body=large, ACL="public-read")
        proxy = cutting(3, PART_BYTES // 2)

        assert fetch_s3("s3://open/large", tmp_path / "best.ckpt").read_bytes() == large
        assert proxy.cuts_left == 0

    def test_upload_whose_connections_break_half_way_ends_whole(
        self,
        cutting: Callable[[int, int], Any],
        client: Any,
        tmp_path: Path,
        large: bytes,
        sign: Callable[[], None],
    ) -> None:
        sign()
        (tmp_path / "best.ckpt").write_bytes(large)
        proxy = cutting(2, PART_BYTES // 2)

        assert upload_s3(tmp_path / "best.ckpt", "s3://closed/broken").sent
        assert proxy.cuts_left == 0
        assert client.get_object(Bucket="closed", Key="broken")["Body"].read() == large

    def test_server_that_is_not_there_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_url: str
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", dead_url)

        with pytest.raises(StorageError, match=rf"{dead_url} cannot be reached, or the connection broke \(Endpoint"):
            fetch_s3("s3://open/a", tmp_path / "a")

    @pytest.mark.usefixtures("at_server")
    def test_long_download_says_how_far_it_is_where_there_is_no_terminal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(s3_transfer, "_HEARTBEAT_S", 0)
        caplog.set_level(logging.INFO, "cassava_leaf_disease")

        fetch_s3(f"s3://open/{KEY}", tmp_path / "best.ckpt")

        assert "best.ckpt: 8.4 of 8.4 MB" in caplog.messages
