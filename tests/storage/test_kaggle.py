"""Kaggle's own client against a server that plays Kaggle's API."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cassava_leaf_disease.errors import ConfigError, StorageError
from cassava_leaf_disease.storage.kaggle import fetch_kaggle

COMPETITION = "kaggle://competitions/cassava-leaf-disease-classification"
DATASET = "kaggle://datasets/someone/cassava"


class KaggleServer(ThreadingHTTPServer):
    """Hands out `files` as a zip to whoever has a token, unless `refusal` is a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {"train.csv": b"image_id,label\n", "train_images/1.jpg": b"photo"}
        self.refusal: int | None = None
        self.requests: list[tuple[str, str | None]] = []  # method of the API and who asks


class _Handler(BaseHTTPRequestHandler):
    server: KaggleServer

    def do_POST(self) -> None:
        method = self.path.rpartition("/")[2]
        self.server.requests.append((method, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.server.refusal:
            said = {"code": self.server.refusal, "message": "no"}
            self.answer(self.server.refusal, json.dumps(said).encode(), "application/json")
        elif method == "GetDataset":
            self.answer(200, json.dumps({"currentVersionNumber": 3}).encode(), "application/json")
        else:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, content in self.server.files.items():
                    archive.writestr(name, content)
            self.answer(200, buffer.getvalue(), "application/zip")

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Tests read `requests` instead."""


@pytest.fixture(autouse=True)
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """The server, and a user with a token and nothing else of Kaggle's."""
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
    server = KaggleServer()
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    # It looks for Keras in the call stack: for 1.2 s where tests have loaded thousands of modules.
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    local = kaggle_env.KaggleEnv.LOCAL
    monkeypatch.setitem(kaggle_env._env_to_endpoint, local, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("uri", [COMPETITION, DATASET, f"{DATASET}/versions/2"])
def test_brings_the_files_with_the_users_own_token(kaggle: KaggleServer, tmp_path: Path, uri: str) -> None:
    fetch_kaggle(uri, tmp_path / "new")
    assert (tmp_path / "new" / "train.csv").read_bytes() == kaggle.files["train.csv"]
    photo = tmp_path / "new" / "train_images" / "1.jpg"
    assert photo.read_bytes() == b"photo"
    assert photo.stat().st_nlink == 2  # it shares its place with the client's cache
    assert {who for _, who in kaggle.requests} == {"Bearer token"}


def test_a_cache_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_links)
    fetch_kaggle(COMPETITION, tmp_path / "new")
    assert (tmp_path / "new" / "train_images" / "1.jpg").stat().st_nlink == 1


class TestTells:
    def test_missing_credentials_before_anything_is_asked(
        self, kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        with pytest.raises(StorageError) as told:
            fetch_kaggle(COMPETITION, tmp_path / "new")
        assert str(told.value) == (
            f"{COMPETITION}: Kaggle wants to know who you are; make an API token at kaggle.com/settings and put it "
            "into KAGGLE_API_TOKEN, into KAGGLE_USERNAME and KAGGLE_KEY, or into ~/.kaggle/kaggle.json"
        )
        assert kaggle.requests == []

    @pytest.mark.parametrize(
        ("uri", "status", "message"),
        [
            (COMPETITION, 401, "Kaggle refuses the credentials; make an API token"),
            (COMPETITION, 403, r"accept the competition's rules at kaggle.com/competitions/cassava.*/rules with the"),
            (DATASET, 403, "the data set is not public, or the credentials are missing; make an API token"),
            (DATASET, 404, "Kaggle knows no such competition or data set; check the name"),
            (COMPETITION, 500, "Kaggle answers 500"),
        ],
    )
    def test_refusals(self, kaggle: KaggleServer, tmp_path: Path, uri: str, status: int, message: str) -> None:
        kaggle.refusal = status
        with pytest.raises(StorageError, match=f"{uri}: .*{message}"):
            fetch_kaggle(uri, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_damaged_file_of_credentials(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "kaggle.json").write_text("{")
        with pytest.raises(
            StorageError, match=r"Kaggle's client failed .*Invalid Kaggle credentials file at .*kaggle.json"
        ):
            fetch_kaggle(COMPETITION, tmp_path / "new")

    def test_no_network(self, kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kaggle_env = pytest.importorskip("kagglesdk.kaggle_env")
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:9")
        with pytest.raises(StorageError, match=r"Kaggle cannot be reached \(ConnectionError\); check the network"):
            fetch_kaggle(COMPETITION, tmp_path / "new")

    def test_a_folder_that_cannot_be_filled(self, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("a file")
        with pytest.raises(StorageError, match=r"cannot be copied to .*new"):
            fetch_kaggle(COMPETITION, tmp_path / "new")

    @pytest.mark.parametrize("uri", ["kaggle://cassava", "kaggle://datasets/cassava", "kaggle://competitions/"])
    def test_what_names_nothing(self, tmp_path: Path, uri: str) -> None:
        with pytest.raises(ConfigError, match="expected kaggle://competitions/NAME or kaggle://datasets/OWNER/NAME"):
            fetch_kaggle(uri, tmp_path / "new")
