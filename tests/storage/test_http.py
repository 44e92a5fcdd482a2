"""Downloads that are streamed, resumed and checked, from a real server."""

import dataclasses
import datetime
import gzip
import hashlib
import ipaddress
import json
import logging
import random
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.storage import http
from cassava_leaf_disease.storage.http import download, remote_file, without_secrets
from cassava_leaf_disease.storage.partial import check_file, discard
from cassava_leaf_disease.storage.yandex import resolve_link

CONTENT = random.Random(3).randbytes(3_000_000)  # noqa: S311
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]

Get = Callable[..., Any]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of them in earnest."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def get(file_server: Any, tmp_path: Path) -> Get:
    """Downloads `/a.zip` of the server into the test's folder."""
    file_server.files["/a.zip"] = CONTENT
    known = remote_file(f"{file_server.url}/a.zip")

    def fetched(**more: Any) -> Any:
        return download(dataclasses.replace(known, **more), tmp_path / "downloads")

    return fetched


def ranges(server: Any) -> list[int]:
    """Where the requests for a part of a file began, 0 for a whole one."""
    return [int(wanted[6:-1]) if wanted else 0 for _, wanted in server.requests]


def test_gives_the_whole_file_and_its_checksum(get: Get) -> None:
    done = get()
    assert done.path.read_bytes() == CONTENT
    assert (done.size_bytes, done.sha256, done.resumed_at_bytes) == (len(CONTENT), SHA256, 0)


def test_says_what_it_fetches_how_large_it_is_and_where_it_lies(get: Get, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    done = get()
    assert f"a.zip: 3.0 MB, kept meanwhile in {done.path}" in caplog.messages


class TestBrokenConnections:
    def test_go_on_where_they_broke_and_fetch_nothing_twice(
        self, get: Get, file_server: Any, pauses: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        file_server.cut_after = [1_200_000, 500_000]
        assert get().sha256 == SHA256
        first, second, third = ranges(file_server)
        assert first == 0
        assert 1_200_000 - http.CHUNK_BYTES <= second <= 1_200_000
        assert second + 500_000 - http.CHUNK_BYTES <= third <= second + 500_000
        assert file_server.sent_bytes <= len(CONTENT) + 2 * http.CHUNK_BYTES  # but what a cut loses
        assert len(pauses) == 2
        told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 2
        assert told[0].startswith("a.zip: the connection broke (ProtocolError) after 1.")

    def test_go_on_in_a_later_program(self, get: Get, file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        file_server.cut_after = [1_500_000]

        def interrupted(_seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get()
        done = get()
        assert done.sha256 == SHA256
        assert done.resumed_at_bytes >= 1_500_000 - http.CHUNK_BYTES
        assert ranges(file_server) == [0, done.resumed_at_bytes]
        assert file_server.sent_bytes <= len(CONTENT) + http.CHUNK_BYTES

    def test_keep_a_note_of_the_file_beside_its_part(self, get: Get, file_server: Any, tmp_path: Path) -> None:
        file_server.cut_after = [1_500_000] + [0] * http.ATTEMPTS
        with pytest.raises(StorageError, match=r"6 times in a row; what has arrived is kept: type the same command"):
            get()
        part, note = sorted((tmp_path / "downloads").iterdir())
        assert part.name.startswith("a.zip-")
        assert part.suffix == ".part"
        etag = f'"{SHA256[:16]}"'
        url = f"{file_server.url}/a.zip"
        assert json.loads(note.read_text()) == {"url": url, "validator": etag, "size_bytes": len(CONTENT)}

    def test_are_tried_again_as_long_as_bytes_arrive(self, get: Get, file_server: Any) -> None:
        file_server.cut_after = [200_000] * (2 * http.ATTEMPTS)
        assert get().sha256 == SHA256

    def test_end_sometime_where_a_server_knows_no_ranges(self, get: Get, file_server: Any) -> None:
        file_server.serves_ranges = False
        file_server.cut_after = [500_000] * 20
        with pytest.raises(StorageError, match="6 times in a row"):
            get()
        assert len(file_server.requests) == http.ATTEMPTS

    def test_are_noticed_though_the_server_closes_in_good_order(self, get: Get, file_server: Any) -> None:
        file_server.headers["/a.zip"] = {"Content-Length": "", "Connection": "close"}
        file_server.cut_after = [1_000_000]
        assert get(size_bytes=len(CONTENT)).sha256 == SHA256
        assert ranges(file_server) == [0, 1_000_000]


class TestParts:
    @pytest.fixture(autouse=True)
    def half_done(self, get: Get, file_server: Any, tmp_path: Path) -> None:
        file_server.cut_after = [1_500_000] + [0] * http.ATTEMPTS
        with pytest.raises(StorageError):
            get()
        file_server.cut_after = []

    @pytest.mark.parametrize("minds_if_range", [True, False])
    def test_of_a_file_that_has_changed_are_fetched_anew(
        self, get: Get, file_server: Any, minds_if_range: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        file_server.files["/a.zip"] = OTHER
        file_server.minds_if_range = minds_if_range
        done = get()
        assert done.path.read_bytes() == OTHER
        assert done.resumed_at_bytes == 0
        assert "changed" in caplog.text
        assert "starting anew" in caplog.text

    def test_of_a_file_that_is_smaller_now_are_fetched_anew(self, get: Get, file_server: Any) -> None:
        file_server.files["/a.zip"] = OTHER[:100_000]
        file_server.minds_if_range = False
        assert get().path.read_bytes() == OTHER[:100_000]

    def test_are_fetched_anew_where_the_server_has_lost_its_ranges(self, get: Get, file_server: Any) -> None:
        file_server.serves_ranges = False
        done = get()
        assert done.sha256 == SHA256
        assert done.resumed_at_bytes == 0

    def test_without_a_readable_note_are_fetched_anew(self, get: Get, file_server: Any, tmp_path: Path) -> None:
        note = next((tmp_path / "downloads").glob("*.json"))
        note.write_text("{")
        assert get().sha256 == SHA256
        assert ranges(file_server)[-1] == 0

    def test_that_are_complete_are_not_fetched_again(self, get: Get, file_server: Any) -> None:
        get()
        sent = file_server.sent_bytes
        done = get()
        assert (done.sha256, done.resumed_at_bytes) == (SHA256, len(CONTENT))
        assert file_server.sent_bytes == sent


@pytest.mark.parametrize("told", [{"ETag": ""}, {"ETag": 'W/"weak"'}])
def test_nothing_is_resumed_of_which_the_server_does_not_say_whether_it_is_the_same(
    get: Get, file_server: Any, told: dict[str, str]
) -> None:
    file_server.headers["/a.zip"] = told
    file_server.cut_after = [1_500_000]
    assert get().sha256 == SHA256
    assert ranges(file_server) == [0, 0]


def test_a_file_of_unknown_size_is_fetched(get: Get, file_server: Any) -> None:
    file_server.headers["/a.zip"] = {"Content-Length": "", "Connection": "close"}
    assert get().sha256 == SHA256


def test_a_file_that_is_declared_compressed_stays_as_it_is(file_server: Any, tmp_path: Path) -> None:
    """Some servers say so of every `.tar.gz`."""
    packed = gzip.compress(CONTENT[:1000])
    file_server.files["/a.tar.gz"] = packed
    file_server.headers["/a.tar.gz"] = {"Content-Encoding": "gzip"}
    assert download(remote_file(f"{file_server.url}/a.tar.gz"), tmp_path).path.read_bytes() == packed


class TestBusyServers:
    def test_are_asked_again_when_they_say(self, get: Get, file_server: Any, pauses: list[float]) -> None:
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
        file_server.statuses = [
            (503, {"Retry-After": "7"}),
            (429, {"Retry-After": "86400"}),
            (503, {"Retry-After": format_datetime(soon, usegmt=True)}),
            (500, {"Retry-After": "whenever"}),
            (502, {}),
        ]
        assert get().sha256 == SHA256
        assert pauses[:2] == [7, http.LONGEST_WISH_S]
        assert 15 < pauses[2] <= 20
        assert all(0 < pause <= http.LONGEST_WAIT_S for pause in pauses[3:])

    def test_that_are_dead_are_given_up_on_after_growing_pauses(self, tmp_path: Path, pauses: list[float]) -> None:
        with pytest.raises(StorageError, match=r"a.zip: cannot be reached \(ConnectionError\), 6 times in a row"):
            download(remote_file("http://127.0.0.1:9/a.zip"), tmp_path)
        assert len(pauses) == http.ATTEMPTS - 1
        assert pauses[-1] > pauses[0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "message"),
        [
            (404, "the server answers 404 Not Found; check the address"),
            (403, "the server answers 403 Forbidden; it wants a login, or is not public"),
            (451, "the server answers 451 Unavailable For Legal Reasons; check the address"),
            (204, "the server answers 204 No Content; check the address"),
        ],
    )
    def test_are_told_at_once(self, get: Get, file_server: Any, status: int, message: str) -> None:
        file_server.statuses = [(status, {})]
        with pytest.raises(StorageError, match=message):
            get()
        assert len(file_server.requests) == 1

    def test_a_web_page_is_no_file(self, get: Get, file_server: Any) -> None:
        file_server.headers["/a.zip"] = {"Content-Type": "text/html; charset=utf-8"}
        with pytest.raises(StorageError, match="leads to a web page, not to a file; give the address of the archive"):
            get()

    @pytest.mark.parametrize("url", ["http://", "http://[", "http://a..b/", "https://exa mple.org:x/a.zip"])
    def test_an_address_that_is_none_is_told(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(StorageError, match="check the address"):
            download(http.RemoteFile(url, "address", "a.zip"), tmp_path)

    def test_a_server_that_sends_too_much_is_not_believed(self, get: Get, file_server: Any) -> None:
        file_server.headers["/a.zip"] = {"Content-Length": "", "Connection": "close"}
        with pytest.raises(StorageError, match="the server sent 3000000 bytes, announced 2000000"):
            get(size_bytes=2_000_000)

    def test_what_does_not_fit_is_not_begun(self, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
        with pytest.raises(StorageError, match=r"3.0 MB do not fit into .*downloads, where 1.0 MB are free; make room"):
            get()
        assert not list(tmp_path.rglob("*.part"))

    def test_a_full_disk_keeps_what_has_arrived(self, get: Get, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="no limits of file sizes on Windows")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(StorageError, match=r"cannot be written \(File too large\); what has arrived is kept"):
                get()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert get().resumed_at_bytes > 900_000


class TestChecksums:
    def test_of_several_kinds_are_held_to(self, get: Get) -> None:
        sums = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": SHA256.upper()}  # noqa: S324
        assert get(checksums=sums).sha256 == SHA256

    def test_a_wrong_one_removes_the_file(self, get: Get, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=rf"a.zip: the file is damaged .* its sha256 is {SHA256}, expected 000"):
            get(checksums={"sha256": "0" * 64})
        assert not list((tmp_path / "downloads").iterdir())

    def test_of_a_file_here_leave_it_where_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        path.write_bytes(CONTENT)
        with pytest.raises(StorageError, match="the file is damaged or another one"):
            check_file(path, {"md5": "0" * 32}, "a.zip")
        assert path.is_file()


def test_a_download_that_is_of_no_use_can_be_thrown_away(get: Get, tmp_path: Path) -> None:
    discard(get().path)
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/sets/cassava%20leaf.zip?key=1", "cassava leaf.zip"),
        ("https://example.org", "example.org"),
        ("https://example.org/", "example.org"),
    ],
)
def test_a_file_is_named_by_its_address(url: str, name: str) -> None:
    assert remote_file(url).name == name


def test_an_address_that_cannot_be_taken_apart_is_told() -> None:
    with pytest.raises(StorageError, match=r"http://\[: Invalid IPv6 URL; check the address"):
        remote_file("http://[")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://[", "http://["),
        ("https://user:secret@example.org:8443/a.zip?X-Amz-Signature=s#f", "https://example.org:8443/a.zip?…"),
        ("https://example.org/a.zip", "https://example.org/a.zip"),
        ("photos.zip", "photos.zip"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_passwords_and_signatures_stay_out_of_logs(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


class TestRedirects:
    @pytest.fixture
    def https_server(self, file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """The same kind of server, with a certificate of its own that the client trusts."""
        certificate = self_signed(tmp_path / "certificate.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        server = type(file_server)()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        server.server_close()
        thread.join()

    def test_are_followed(self, get: Get, file_server: Any) -> None:
        file_server.statuses = [(302, {"Location": "/a.zip"})]
        assert get(url=f"{file_server.url}/elsewhere").sha256 == SHA256

    def test_to_plain_http_are_refused_before_they_are_followed(
        self, https_server: Any, file_server: Any, tmp_path: Path
    ) -> None:
        file_server.files["/a.zip"] = https_server.files["/b.zip"] = CONTENT
        assert download(remote_file(f"{https_server.url}/b.zip"), tmp_path).sha256 == SHA256
        https_server.statuses = [(302, {"Location": f"{file_server.url}/a.zip"})]
        with pytest.raises(StorageError, match="is redirected to plain http, where anybody on the way may change"):
            download(remote_file(f"{https_server.url}/a.zip"), tmp_path)
        assert file_server.requests == []

    def test_yandexs_own_address_is_not_of_plain_http(
        self, https_server: Any, file_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CASSAVA_YANDEX_API_URL", https_server.url)
        https_server.files["/a.zip"] = CONTENT
        https_server.links["https://disk.yandex.ru/d/x"] = "/a.zip"
        assert resolve_link("https://disk.yandex.ru/d/x").url == f"{https_server.url}/a.zip"
        https_server.url = file_server.url
        with pytest.raises(StorageError, match="names an address that is not of https"):
            resolve_link("https://disk.yandex.ru/d/x")

    def test_a_certificate_that_nobody_vouches_for_is_told_at_once(
        self, https_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
    ) -> None:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        with pytest.raises(StorageError, match="its server's certificate is not trusted"):
            download(remote_file(f"{https_server.url}/a.zip"), tmp_path)
        assert pauses == []


def self_signed(path: Path) -> Path:
    """Writes a key and a certificate for 127.0.0.1."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
