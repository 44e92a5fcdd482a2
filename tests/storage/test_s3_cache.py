"""An object that is kept here and asked about each time."""

import json
import logging
import random
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.paths import newest_best_checkpoint
from cassava_leaf_disease.storage.s3 import (
    fetch_cached_s3,
)
from cassava_leaf_disease.storage.s3_transfer import PART_BYTES


@pytest.fixture(autouse=True)
def _no_settings(no_aws: None) -> None:
    """Only what a test sets has a say."""


@pytest.fixture(scope="module")
def server(moto_s3: tuple[str, Any]) -> str:
    """A server with a public bucket `open`."""
    url, client = moto_s3
    client.create_bucket(Bucket="open", ACL="public-read")
    return url


@pytest.fixture
def client(server: str, moto_s3: tuple[str, Any]) -> Any:
    """A client that may do everything there."""
    assert server == moto_s3[0]
    return moto_s3[1]


@pytest.fixture
def at_server(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, named by one variable."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    return server


@pytest.fixture
def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.mark.usefixtures("at_server")
class TestCachedFetch:
    URI = "s3://open/models/v1/best.ckpt"

    @pytest.fixture
    def put(self, client: Any) -> Callable[[bytes], None]:
        return lambda body: (
            client.put_object(Bucket="open", Key="models/v1/best.ckpt", Body=body, ACL="public-read") and None
        )

    def test_unchanged_object_is_asked_about_but_not_fetched_again(
        self, put: Callable[[bytes], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(b"one")
        first = fetch_cached_s3(self.URI, tmp_path / "models")
        written = first.stat().st_ino
        caplog.clear()
        caplog.set_level(logging.INFO)

        second = fetch_cached_s3(self.URI, tmp_path / "models")

        assert second == first
        assert (second.read_bytes(), second.stat().st_ino) == (b"one", written)
        requests = [message.split('"')[1] for message in caplog.messages if " HTTP/1.1" in message]
        assert len(requests) == 1
        assert "HEAD /open/models/v1/best.ckpt" in requests[0]
        assert "unchanged since it was fetched" in caplog.text

    def test_changed_object_takes_the_place_of_the_old_copy(self, put: Callable[[bytes], None], tmp_path: Path) -> None:
        put(b"one")
        first = fetch_cached_s3(self.URI, tmp_path)
        put(b"two")

        assert fetch_cached_s3(self.URI, tmp_path) == first
        assert first.read_bytes() == b"two"
        assert {path.name for path in tmp_path.iterdir()} == {first.name, f"{first.name}.json"}

    def test_copy_is_no_file_that_the_search_for_the_newest_run_would_find(
        self, put: Callable[[bytes], None], tmp_path: Path
    ) -> None:
        put(b"one")

        fetch_cached_s3(self.URI, tmp_path / "outputs" / "cache" / "models")

        assert newest_best_checkpoint(tmp_path / "outputs") is None

    def test_each_address_has_its_own_copy_under_a_plain_name(self, client: Any, tmp_path: Path) -> None:
        for key in ("a/модель?.ckpt", "b/модель?.ckpt"):
            client.put_object(Bucket="open", Key=key, Body=key.encode(), ACL="public-read")

        copies = [fetch_cached_s3(f"s3://open/{key}/модель?.ckpt", tmp_path) for key in "ab"]

        assert [copy.read_text(encoding="utf-8")[0] for copy in copies] == ["a", "b"]
        assert all(re.fullmatch(r"_-[0-9a-f]{12}\.ckpt", copy.name) for copy in copies)

    def test_unreachable_server_leaves_the_copy_with_a_warning(
        self,
        put: Callable[[bytes], None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        put(b"one")
        going = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        going.start()
        url = f"http://127.0.0.1:{going.get_host_and_port()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        copy = fetch_cached_s3(self.URI, tmp_path)
        going.stop()

        start = time.monotonic()
        assert fetch_cached_s3(self.URI, tmp_path) == copy

        assert time.monotonic() - start < 10
        [warning] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert re.search(
            rf"^{self.URI}: {url} cannot be reached.*; going on with the copy of 20\d\d-.* UTC: {copy}$", warning
        )

    def test_unreachable_server_without_a_copy_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_url: str
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", dead_url)

        with pytest.raises(StorageError, match="cannot be reached"):
            fetch_cached_s3(self.URI, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_object_that_is_gone_is_an_error_in_spite_of_the_copy(
        self, put: Callable[[bytes], None], client: Any, tmp_path: Path
    ) -> None:
        put(b"one")
        fetch_cached_s3(self.URI, tmp_path)
        client.delete_object(Bucket="open", Key="models/v1/best.ckpt")

        with pytest.raises(StorageError, match="holds no such key"):
            fetch_cached_s3(self.URI, tmp_path)

    @pytest.mark.parametrize("note", [None, "{", "[]", "{}", '{"etag": "x", "size_bytes": 3, "mtime_ns": 1}'])
    def test_copy_whose_note_is_missing_damaged_or_about_another_file_is_fetched_again(
        self, note: str | None, put: Callable[[bytes], None], tmp_path: Path
    ) -> None:
        put(b"one")
        copy = fetch_cached_s3(self.URI, tmp_path)
        note_path = copy.with_name(f"{copy.name}.json")
        written = json.loads(note_path.read_text())
        copy.write_bytes(b"xxx")
        if note is None:
            note_path.unlink()
        else:
            note_path.write_text(note)

        assert fetch_cached_s3(self.URI, tmp_path).read_bytes() == b"one"
        assert json.loads(note_path.read_text())["etag"] == written["etag"]

    def test_many_at_once_end_with_one_whole_copy(self, put: Callable[[bytes], None], tmp_path: Path) -> None:
        large = random.Random(1).randbytes(2 * PART_BYTES + 1)  # noqa: S311
        put(large)
        with ThreadPoolExecutor(4) as pool:
            copies = set(pool.map(lambda _: fetch_cached_s3(self.URI, tmp_path), range(4)))

        [copy] = copies
        assert copy.read_bytes() == large
        assert {path.name for path in tmp_path.iterdir()} == {copy.name, f"{copy.name}.json"}
