"""Which server is asked, and with whose credentials."""

import builtins
import logging
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError, StorageError
from cassava_leaf_disease.storage import s3
from cassava_leaf_disease.storage.environment import load_env_file
from cassava_leaf_disease.storage.s3 import (
    fetch_s3,
)
from cassava_leaf_disease.storage.s3_connection import PUBLIC_ENDPOINT, Server, find_server, open_client
from cassava_leaf_disease.storage.s3_transfer import PART_BYTES

KEY = "models/best model (1).ckpt"


@pytest.fixture(autouse=True)
def _no_settings(no_aws: None) -> None:
    """Only what a test sets has a say."""


@pytest.fixture(scope="session")
def content() -> bytes:
    """What the object under `models/` is made of: two parts."""
    return random.Random(1).randbytes(PART_BYTES + 7)  # noqa: S311


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
def sign(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts credentials into the environment."""

    def put() -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    return put


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


class TestWhichServer:
    def test_without_settings_it_is_the_public_one(self) -> None:
        assert find_server() == Server(PUBLIC_ENDPOINT, named=False)

    def test_with_credentials_alone_it_is_aws(self, sign: Callable[[], None]) -> None:
        sign()

        assert find_server() == Server(None, named=False)
        assert str(find_server()) == "AWS"

    def test_public_object_is_asked_for_at_its_plain_address(self) -> None:
        with closing(open_client(find_server(), signed=False, attempts=1)) as client:
            address = client.generate_presigned_url(
                "get_object", Params={"Bucket": "mlops-cassava-project", "Key": "a/b"}
            )

        assert address == "https://storage.yandexcloud.net/mlops-cassava-project/a/b"

    def test_own_variable_comes_before_those_of_aws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
        monkeypatch.setenv("S3_ENDPOINT_URL", "http://one/")

        assert find_server() == Server("http://one", named=True)

    @pytest.mark.parametrize(
        "content",
        [
            "[profile lab]\nendpoint_url = http://lab\n",
            "[profile lab]\nservices = near\n[services near]\ns3 =\n  endpoint_url = http://lab\n",
        ],
    )
    def test_profile_names_it(self, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text(content)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "lab")

        assert find_server() == Server("http://lab", named=True)

    @pytest.mark.parametrize(
        "url", ["localhost:9000", "ftp://a", "http://", "http://a b", "http://a:port", "http://[::1"]
    )
    def test_what_is_no_address_is_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", url)

        with pytest.raises(
            ConfigError, match=rf"^S3_ENDPOINT_URL={re.escape(url)}: expected an address such as https://storage"
        ):
            find_server()

    @pytest.mark.parametrize("at_aws", [False, True])
    def test_bucket_that_is_not_there_says_where_else_it_could_be(
        self, at_aws: bool, answering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering(b"HTTP/1.1 404 x\r\nConnection: close\r\n\r\n<Error><Code>NoSuchBucket</Code></Error>")
        nearby = Server(None if at_aws else find_server().url, named=False)
        monkeypatch.setattr(s3, "find_server", lambda: nearby)  # neither of the two real ones is on this machine

        with pytest.raises(StorageError) as error:
            fetch_s3("s3://bbb/k", tmp_path / "k")

        here, other = ("AWS", PUBLIC_ENDPOINT) if at_aws else (nearby.url, "https://s3.REGION.amazonaws.com")
        assert str(error.value) == (
            f"s3://bbb/k: there is no bucket bbb at {here}, where buckets are looked for unless S3_ENDPOINT_URL "
            f"names another server, such as {other}"
        )

    def test_profile_that_does_not_exist_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")

        with pytest.raises(StorageError, match=r"^s3://open/a: The config profile \(nobody\) could not be found"):
            fetch_s3("s3://open/a", tmp_path / "a")

    def test_region_may_be_named_as_in_other_kits(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        assert region(server) == "eu-west-1"
        monkeypatch.setenv("AWS_DEFAULT_REGION", "ru-central1")
        assert region(server) == "ru-central1"

    def test_address_over_tls_with_a_certificate_of_nobody_is_told(
        self, answering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
        monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL"].replace("http:", "https:"))

        with pytest.raises(
            StorageError, match=r"^s3://bbb/k: the certificate of https://127.* is not trusted; is this"
        ):
            fetch_s3("s3://bbb/k", tmp_path / "k")


def region(server: str) -> str:
    with closing(open_client(Server(server, named=True), signed=False, attempts=1)) as client:
        return str(client.meta.region_name)


class TestEnvFile:
    @pytest.fixture
    def write_env(self, server: str, tmp_path: Path) -> Callable[[str], None]:
        """Writes `.env` into the root; the server's address is in it, and nowhere else."""

        def write(text: str) -> None:
            (tmp_path / ".env").write_text(f"S3_ENDPOINT_URL={server}\n{text}", encoding="utf-8")

        return write

    def test_credentials_and_address_come_from_it_and_are_not_logged(
        self, write_env: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        caplog.set_level(logging.INFO, "cassava_leaf_disease")
        write_env("# keys\nexport AWS_ACCESS_KEY_ID=from-file\nAWS_SECRET_ACCESS_KEY='se${HOME}cret'\nOTHER=1\n")

        assert fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt").read_bytes() == content
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == "se${HOME}cret"  # noqa: S105
        assert "OTHER" not in os.environ
        assert f"{tmp_path / '.env'}: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, S3_ENDPOINT_URL" in caplog.text
        assert "cret" not in caplog.text.replace("SECRET", "")
        assert "from-file" not in caplog.text

    def test_environment_wins_and_credentials_are_never_mixed(
        self, write_env: Callable[[str], None], sign: Callable[[], None]
    ) -> None:
        sign()
        write_env("AWS_ACCESS_KEY_ID=other\nAWS_SESSION_TOKEN=other\nAWS_REGION=eu-west-1\nAWS_CA_BUNDLE=\n")

        load_env_file()

        assert os.environ["AWS_ACCESS_KEY_ID"] == "somebody"
        assert os.environ["AWS_REGION"] == "eu-west-1"
        assert {"AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"}.isdisjoint(os.environ)

    def test_empty_variables_count_as_missing(
        self, write_env: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
    ) -> None:
        for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "S3_ENDPOINT_URL"):
            monkeypatch.setenv(name, "")
        write_env("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")

        assert fetch_s3(f"s3://closed/{KEY}", tmp_path / "best.ckpt").read_bytes() == content

    def test_mark_of_windows_editors_is_no_part_of_a_name(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes("AWS_REGION=eu-west-1\r\n".encode("utf-8-sig"))

        load_env_file()

        assert os.environ["AWS_REGION"] == "eu-west-1"

    def test_text_of_another_encoding_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes("AWS_REGION=eu-west-1\r\n".encode("utf-16"))

        with pytest.raises(ConfigError, match=r"\.env: no UTF-8 text; save it as UTF-8"):
            load_env_file()

    def test_without_python_dotenv_the_extra_is_named(
        self, write_env: Callable[[str], None], hide_module: Callable[[str], None]
    ) -> None:
        write_env("")
        hide_module("dotenv")

        with pytest.raises(MissingDependencyError, match=r"python-dotenv .*cassava-leaf-disease\[track\]"):
            load_env_file()
