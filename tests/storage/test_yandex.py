"""Public links of Yandex Disk, resolved by a server that plays its API."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.storage import http
from cassava_leaf_disease.storage.http import download
from cassava_leaf_disease.storage.yandex import is_public_link, resolve_link

LINK = "https://disk.yandex.ru/d/abc_-9"
CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()  # noqa: S324


@pytest.fixture(autouse=True)
def played(file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_YANDEX_API_URL", f"{file_server.url}/")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    file_server.files["/a.zip"] = CONTENT
    file_server.links[LINK] = "/a.zip"


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        (LINK, True),
        ("https://disk.yandex.com/d/x", True),
        ("https://disk.yandex.com.tr/d/x", True),
        ("https://disk.360.yandex.ru/d/x", True),
        ("https://yadi.sk/i/x", True),
        ("https://disk.yandex.ru/d/x/folder/a.zip", True),
        ("https://disk.yandex.ru/client/disk", False),
        ("https://disk.yandex.evil.org/d/x", False),
        ("https://example.org/d/x", False),
    ],
)
def test_knows_public_links(url: str, is_link: bool) -> None:
    assert is_public_link(url) is is_link


def test_a_link_leads_to_the_file_and_its_checksums(file_server: Any, tmp_path: Path) -> None:
    found = resolve_link(LINK)
    assert (found.url, found.identity, found.name) == (f"{file_server.url}/a.zip", LINK, "a.zip")
    assert (found.size_bytes, found.checksums) == (len(CONTENT), {"md5": MD5, "sha256": SHA256})
    assert download(found, tmp_path).sha256 == SHA256


def test_a_link_may_go_on_with_a_path_in_a_folder(file_server: Any) -> None:
    file_server.links[f"{LINK}/été/a.zip"] = "/a.zip"
    assert resolve_link(f"{LINK}/%C3%A9t%C3%A9/a.zip").checksums["sha256"] == SHA256
    assert resolve_link(f"{LINK}/").checksums["sha256"] == SHA256


def test_a_folder_comes_as_one_zip_of_unknown_size(file_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file_server.folders.add(LINK)
    found = resolve_link(LINK)
    assert (found.name, found.size_bytes, found.checksums) == ("cassava.zip", None, {})
    assert "comes as one zip, which cannot be resumed" in caplog.text


def test_an_address_that_expires_on_the_way_is_asked_for_anew(
    file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = resolve_link(LINK)
    file_server.cut_after = [500_000]

    def expires(_seconds: float) -> None:
        file_server.files["/b.zip"] = file_server.files.pop("/a.zip")
        file_server.links[LINK] = "/b.zip"

    monkeypatch.setattr(time, "sleep", expires)
    assert download(found, tmp_path).sha256 == SHA256
    assert "its address has expired: asking for a new one" in caplog.text
    assert file_server.sent_bytes <= len(CONTENT) + http.CHUNK_BYTES


def test_a_file_that_is_not_what_the_api_says_is_refused(file_server: Any, tmp_path: Path) -> None:
    found = resolve_link(LINK)
    file_server.files["/a.zip"] = CONTENT[::-1]
    with pytest.raises(StorageError, match=rf"the file is damaged or another one: .* expected ({MD5}|{SHA256})"):
        download(found, tmp_path)
    assert not list(tmp_path.iterdir())


class TestTells:
    def test_an_unknown_link(self) -> None:
        with pytest.raises(
            StorageError, match=r"/d/none: Yandex Disk knows no such public link; check it in a browser"
        ):
            resolve_link("https://disk.yandex.ru/d/none")

    def test_no_link_at_all(self) -> None:
        with pytest.raises(StorageError, match="no public link of Yandex Disk"):
            resolve_link("https://example.org")

    def test_a_refusal(self, file_server: Any) -> None:
        file_server.statuses = [(451, {})]
        with pytest.raises(StorageError, match="Yandex Disk answers 451: no reason given"):
            resolve_link(LINK)

    def test_an_answer_without_an_address(self, file_server: Any) -> None:
        file_server.statuses = [(200, {}), (200, {})]
        with pytest.raises(StorageError, match="names no address to fetch it from"):
            resolve_link(LINK)

    def test_a_busy_server_only_when_it_stays_so(self, file_server: Any, caplog: pytest.LogCaptureFixture) -> None:
        file_server.statuses = [(503, {}), (500, {})]
        assert resolve_link(LINK).checksums["sha256"] == SHA256
        assert "answers 503: trying again in" in caplog.text
        file_server.statuses = [(503, {})] * 3
        with pytest.raises(StorageError, match="Yandex Disk answers 503"):
            resolve_link(LINK)

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setenv("CASSAVA_YANDEX_API_URL", "http://127.0.0.1:9")
        with pytest.raises(
            StorageError, match=r"127.0.0.1:9: cannot be reached \(ConnectionError\); check the network"
        ):
            resolve_link(LINK)
        assert caplog.text.count("trying again") == 2
