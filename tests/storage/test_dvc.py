"""Files in DVC's care: real repositories, DVC's own command line, a real S3 server."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from zc.lockfile import LockFile  # type: ignore[import-untyped]

from cassava_leaf_disease.errors import MissingDependencyError, StorageError
from cassava_leaf_disease.storage import dvc
from cassava_leaf_disease.storage.dvc import (
    Remote,
    find_repository,
    is_tracked,
    pull_target,
    push_target,
    read_remotes,
    require_dvc,
    track,
)

Run = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path, run_dvc: Run) -> Path:
    """A DVC repository without git and without remotes."""
    write(tmp_path / "my project" / ".dvc" / "config", "[core]\n    no_scm = True\n")
    (tmp_path / "my project" / ".dvc" / "tmp").mkdir()
    return tmp_path / "my project"


@pytest.fixture(scope="module")
def bucket(moto_s3: tuple[str, Any]) -> tuple[str, Any]:
    """The address of a server with a public bucket `storage`, and a client of it."""
    url, client = moto_s3
    client.create_bucket(Bucket="storage", ACL="public-read")
    return url, client


@pytest.fixture
def with_remotes(repository: Path, bucket: tuple[str, Any], no_aws: None) -> Path:
    """A repository with the S3 remote `store`, and the same place over plain HTTP as `public`, the default."""
    place = f"storage/{repository.parent.name}"
    add_s3_remote(repository, bucket[0], f"s3://{place}")
    settings = (repository / ".dvc" / "config").read_text(encoding="utf-8")
    settings = settings.replace("[core]", "[core]\n    remote = public")
    write(repository / ".dvc" / "config", f"{settings}['remote \"public\"']\n    url = {bucket[0]}/{place}\n")
    return repository


def add_s3_remote(root: Path, endpoint: str, url: str = "s3://storage/files") -> Remote:
    """With credentials of its own, in the file that git ignores."""
    section = "['remote \"store\"']"
    with (root / ".dvc" / "config").open("a", encoding="utf-8") as file:
        file.write(f"{section}\n    url = {url}\n    endpointurl = {endpoint}\n")
    keys = "    access_key_id = key\n    secret_access_key = key\n"
    write(root / ".dvc" / "config.local", f"{section}\n{keys}")
    return Remote("store", url)


def write(path: Path, text: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def cached(root: Path) -> list[Path]:
    return [path for path in (root / ".dvc" / "cache").rglob("*") if path.is_file()]


def forget(*files: Path) -> None:
    """Leaves nothing of files but their `.dvc` files."""
    for file in files:
        root = find_repository(file)
        assert root is not None
        for copy in [file, *cached(root)]:
            copy.chmod(0o600)
            copy.unlink()


def test_repository_is_the_nearest_folder_above_with_dvc_in_it(repository: Path, tmp_path: Path) -> None:
    assert find_repository(repository / "a" / "b.ckpt") == repository
    assert find_repository(tmp_path / "b.ckpt") is None


def test_tracked_file_is_named_by_a_dvc_file_beside_it(repository: Path) -> None:
    model = write(repository / "artifacts" / "best model é.ckpt")
    assert not is_tracked(model)

    assert track(model) == repository / "artifacts" / "best model é.ckpt.dvc"

    assert is_tracked(model)
    assert "md5: " in track(model).read_text(encoding="utf-8")
    assert model.read_text(encoding="utf-8") == "weights"


def test_file_in_a_tracked_folder_is_tracked_and_pulled_alone(with_remotes: Path, run_dvc: Run) -> None:
    one, two = write(with_remotes / "models" / "one.ckpt", "one"), write(with_remotes / "models" / "two.ckpt", "two")
    run_dvc(with_remotes, "add", "models")
    run_dvc(with_remotes, "push", "--remote", "store", "models")
    forget(one)
    two.unlink()

    assert is_tracked(two)
    assert pull_target(two) == two

    assert two.read_text(encoding="utf-8") == "two"
    assert not one.exists()


def test_output_of_a_finished_pipeline_is_tracked(repository: Path) -> None:
    lock = "schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - path: out/best.ckpt\n    - path: ../plots\n"
    write(repository / "pipeline" / "dvc.lock", lock)

    assert is_tracked(repository / "pipeline" / "out" / "best.ckpt")
    assert is_tracked(repository / "plots" / "deep" / "a.png") is False  # that lock file lies in no folder above
    assert not is_tracked(repository / "pipeline" / "out" / "last.ckpt")


@pytest.mark.parametrize("content", [b"stages: [", b"- a", b"stages:\n  a: 1", b"\xff"])
def test_damaged_lock_file_is_told(repository: Path, content: bytes) -> None:
    (repository / "dvc.lock").write_bytes(content)

    with pytest.raises(StorageError, match=r"dvc\.lock: "):
        is_tracked(repository / "best.ckpt")


def test_asking_whether_a_file_is_tracked_imports_neither_dvc_nor_boto3(repository: Path) -> None:
    write(repository / "a.ckpt.dvc", "")
    code = (
        "import sys; from pathlib import Path; from cassava_leaf_disease.storage.dvc import is_tracked\n"
        f"print(is_tracked(Path({str(repository / 'a.ckpt')!r})), 'dvc' in sys.modules, 'boto3' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["True", "False", "False"]


def test_pushed_file_comes_back_from_s3_and_from_plain_http_alone(with_remotes: Path, bucket: tuple[str, Any]) -> None:
    wanted, other = write(with_remotes / "a.ckpt", "wanted"), write(with_remotes / "b.ckpt", "other")
    for file in (wanted, other):
        track(file)
    store = Remote("store", read_remotes(with_remotes).urls["store"])

    push_target(wanted, store)
    assert (
        len(bucket[1].list_objects_v2(Bucket="storage", Prefix=store.url.removeprefix("s3://storage/"))["Contents"])
        == 1
    )

    push_target(other, store)
    forget(wanted)
    other.unlink()
    assert pull_target(wanted) == wanted
    assert wanted.read_text(encoding="utf-8") == "wanted"
    assert [path.read_text(encoding="utf-8") for path in cached(with_remotes)] == ["wanted"]
    assert not other.exists()


def test_progress_is_shown_on_a_terminal(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc, "stderr_is_terminal", lambda: True)

    assert track(write(repository / "a.ckpt")).is_file()


def test_remotes_are_read_with_their_default(with_remotes: Path, bucket: tuple[str, Any]) -> None:
    remotes = read_remotes(with_remotes)

    assert remotes.default == "public"
    assert set(remotes.urls) == {"public", "store"}
    assert remotes.urls["public"].startswith(f"{bucket[0]}/storage/")


def test_repository_without_remotes_has_no_default(repository: Path) -> None:
    assert read_remotes(repository).default is None
    assert read_remotes(repository).urls == {}


def test_broken_settings_are_one_line(repository: Path) -> None:
    write(repository / ".dvc" / "config", "[core")

    with pytest.raises(
        StorageError, match=r"the settings of its DVC repository cannot be read: .*Invalid line"
    ) as error:
        read_remotes(repository)
    assert "\n" not in str(error.value)


def test_file_outside_any_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"best\.ckpt: lies in no DVC repository; type `dvc init`"):
        track(tmp_path / "best.ckpt")


def test_file_that_nobody_tracks_is_not_pulled(repository: Path) -> None:
    with pytest.raises(StorageError, match=r"best\.ckpt: DVC does not track it; type: dvc add best\.ckpt"):
        pull_target(repository / "best.ckpt")


def test_file_that_is_missing_in_the_remote_is_told(with_remotes: Path) -> None:
    model = write(with_remotes / "best.ckpt")
    track(model)
    forget(model)

    with pytest.raises(StorageError) as error:
        pull_target(model)

    url = read_remotes(with_remotes).urls["public"]
    assert str(error.value) == f"{model}: DVC's remote public ({url}) does not hold it, or cannot be reached"


def test_no_remote_to_pull_from_is_told(repository: Path) -> None:
    model = write(repository / "best.ckpt")
    track(model)
    forget(model)

    with pytest.raises(
        StorageError, match=r"best\.ckpt: the DVC repository has no default remote to ask; type: dvc remote add"
    ):
        pull_target(model)


def test_missing_credentials_are_told_with_what_to_type(with_remotes: Path) -> None:
    (with_remotes / ".dvc" / "config.local").unlink()
    model = write(with_remotes / "best.ckpt")
    track(model)

    with pytest.raises(
        StorageError, match=r"wants credentials; type: dvc remote modify --local store access_key_id … "
    ):
        push_target(model, Remote("store", "s3://storage/x"))


def test_credentials_from_env_file_serve_dvc(with_remotes: Path, tmp_path: Path) -> None:
    (with_remotes / ".dvc" / "config.local").unlink()
    write(tmp_path / ".env", "AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=key\n")
    model = write(with_remotes / "best.ckpt")
    track(model)

    push_target(model, Remote("store", "s3://storage/x"))
    forget(model)
    pull_target(model)

    assert model.is_file()


class _Refuses(BaseHTTPRequestHandler):
    """A server to whom nobody is good enough."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.usefixtures("no_aws")
def test_refused_credentials_are_told_with_what_to_type(repository: Path, refusing_server: str) -> None:
    remote = add_s3_remote(repository, refusing_server)
    model = write(repository / "best.ckpt")
    track(model)

    with pytest.raises(StorageError, match=r"refuses access \(.*\); type: dvc remote modify --local store"):
        push_target(model, remote)


@pytest.mark.usefixtures("no_aws")
def test_remote_out_of_reach_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    remote = add_s3_remote(repository, "http://127.0.0.1:9")
    model = write(repository / "best.ckpt")
    track(model)

    with pytest.raises(StorageError, match=r"DVC's remote store \(s3://storage/files\) cannot be reached \(.*:9"):
        push_target(model, remote)


def test_dvc_at_work_elsewhere_is_told(repository: Path) -> None:
    lock = LockFile(str(repository / ".dvc" / "tmp" / "lock"))  # what DVC takes itself
    try:
        with pytest.raises(StorageError, match="another DVC command is at work in this repository"):
            track(write(repository / "best.ckpt"))
    finally:
        lock.close()


def test_what_dvc_refuses_is_passed_on_in_its_words(tmp_path: Path, run_dvc: Run) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    run_dvc(tmp_path, "init", "--quiet")
    write(tmp_path / ".gitignore", "/artifacts/\n")

    with pytest.raises(StorageError, match=r"best\.ckpt: bad DVC file name .* is git-ignored"):
        track(write(tmp_path / "artifacts" / "best.ckpt"))


def test_module_of_the_user_called_dvc_is_not_taken_for_it(repository: Path) -> None:
    write(repository / "dvc.py", "raise SystemExit('not DVC')")

    assert track(write(repository / "best.ckpt")).is_file()


def test_missing_dvc_names_the_extra(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]

    for work in (require_dvc, lambda: track(repository / "a"), lambda: read_remotes(repository)):
        with pytest.raises(MissingDependencyError, match=r"dvc is not installed; type: pip install '.*\[track\]'"):
            work()
