"""`cassava download-model`: fetched, checked, put in place, tracked, pushed."""

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError, MissingDependencyError, StorageError
from cassava_leaf_disease.inference import model_files
from cassava_leaf_disease.inference.fetch import download_model
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata
from cassava_leaf_disease.storage import dvc

Config = Callable[..., AppConfig]
Run = Callable[..., str]

URI = "download_model.s3_uri=s3://models/v1.ckpt"


@pytest.fixture(scope="module")
def bucket(random_checkpoint: Path, moto_s3: tuple[str, Any], metadata: ModelMetadata) -> tuple[str, Any]:
    """A server whose public bucket `models` holds a model, and files that are none; and a bucket for DVC."""
    url, client = moto_s3
    client.create_bucket(Bucket="models", ACL="public-read")
    client.create_bucket(Bucket="dvc-store", ACL="public-read")
    good = random_checkpoint.read_bytes()
    loaded = torch.load(random_checkpoint, weights_only=True)
    other = {"state_dict": {}, METADATA_KEY: metadata.model_dump_json()}
    renamed = {**loaded, METADATA_KEY: metadata.model_copy(update={"backbone": "test_vit"}).model_dump_json()}
    files = {
        "v1.ckpt": good,
        "cut.ckpt": good[: len(good) // 2],
        "text.ckpt": b"<html>not found</html>",
        "code.ckpt": pickle.dumps({"a": os.getcwd}),
        "empty.ckpt": b"",
    }
    for name, content in files.items():
        client.put_object(Bucket="models", Key=name, Body=content, ACL="public-read")
    for name, saved in {"no_weights.ckpt": other, "other_net.ckpt": renamed, "foreign.ckpt": {"model": 1}}.items():
        path = random_checkpoint.with_name(name)
        torch.save(saved, path)
        client.put_object(Bucket="models", Key=name, Body=path.read_bytes(), ACL="public-read")
    return url, client


@pytest.fixture
def project(
    bucket: tuple[str, Any], run_dvc: Run, no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A DVC repository as a clone of this project has it: a default remote that can only be read, and one for S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket[0])
    store = f"dvc-store/{tmp_path.name}"
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "config").write_text(
        f"""[core]
    no_scm = True
    remote = public_http
['remote "public_http"']
    url = {bucket[0]}/{store}
['remote "yandex_s3"']
    url = s3://{store}
    endpointurl = {bucket[0]}
""",
        encoding="utf-8",
    )
    keys = "    access_key_id = key\n    secret_access_key = key\n"
    (tmp_path / ".dvc" / "config.local").write_text(f"['remote \"yandex_s3\"']\n{keys}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def without_dvc(bucket: tuple[str, Any], no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in no DVC repository."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket[0])
    return tmp_path


def pushed(bucket: tuple[str, Any], project: Path) -> list[str]:
    listed = bucket[1].list_objects_v2(Bucket="dvc-store", Prefix=f"{project.name}/")
    return [found["Key"] for found in listed.get("Contents", [])]


def test_model_is_checked_put_in_place_and_described(
    small_config: Config, without_dvc: Path, random_checkpoint: Path, metadata: ModelMetadata
) -> None:
    result = download_model(small_config(URI))

    content = random_checkpoint.read_bytes()
    assert result.path == without_dvc / "artifacts" / "best.ckpt"
    assert result.path.read_bytes() == content
    assert (result.changed, result.size_bytes) == (True, len(content))
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert (result.model.name, result.model.version) == (metadata.name, metadata.version)
    assert (result.model.metrics, result.model.image_size_px) == (metadata.metrics, 64)
    assert (result.tracked_by, result.pushed_to) == (None, None)
    assert list(result.path.parent.iterdir()) == [result.path]


def test_other_folder_is_taken(small_config: Config, without_dvc: Path) -> None:
    assert (
        download_model(small_config(URI, "download_model.dst_dir=my models")).path
        == without_dvc / "my models/best.ckpt"
    )


@pytest.mark.usefixtures("without_dvc")
def test_same_model_in_place_is_told_and_left(small_config: Config, caplog: pytest.LogCaptureFixture) -> None:
    first = download_model(small_config(URI))
    written_ns = first.path.stat().st_mtime_ns

    with caplog.at_level(logging.INFO):
        again = download_model(small_config(URI))

    assert again == first.model_copy(update={"changed": False})
    assert again.path.stat().st_mtime_ns == written_ns
    assert f"{again.path}: the same model stands there already" in caplog.messages


def test_other_file_in_place_is_replaced_only_where_that_is_allowed(
    small_config: Config, without_dvc: Path, random_checkpoint: Path
) -> None:
    old = without_dvc / "artifacts" / "best.ckpt"
    old.parent.mkdir()
    old.write_bytes(b"old")

    with pytest.raises(
        ConfigError, match=r"best\.ckpt: another file stands there; type download_model\.overwrite=true"
    ):
        download_model(small_config(URI))
    assert [path.read_bytes() for path in old.parent.iterdir()] == [b"old"]

    assert download_model(small_config(URI, "download_model.overwrite=true")).changed
    assert old.read_bytes() == random_checkpoint.read_bytes()


def test_folder_in_place_is_told(small_config: Config, without_dvc: Path) -> None:
    (without_dvc / "artifacts" / "best.ckpt").mkdir(parents=True)

    with pytest.raises(ConfigError, match="a folder stands there"):
        download_model(small_config(URI, "download_model.overwrite=true"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut", "cannot be read as a checkpoint"),
        ("text", "not a plain checkpoint"),
        ("code", "not a plain checkpoint"),
        ("empty", "cannot be read as a checkpoint"),
        ("foreign", "not a CassavaVision checkpoint"),
        ("no_weights", "its weights do not fit the backbone test_resnet"),
        ("other_net", "its weights do not fit the backbone test_vit"),
    ],
)
def test_what_is_no_model_replaces_nothing(small_config: Config, without_dvc: Path, name: str, said: str) -> None:
    old = without_dvc / "artifacts" / "best.ckpt"
    old.parent.mkdir()
    old.write_bytes(b"old")

    with pytest.raises(CheckpointError) as error:
        download_model(small_config(f"download_model.s3_uri=s3://models/{name}.ckpt", "download_model.overwrite=true"))

    message = str(error.value)
    assert message.startswith(f"s3://models/{name}.ckpt: {said}")
    assert message.endswith("; nothing was replaced")
    assert ".download-" not in message
    assert [path.read_bytes() for path in old.parent.iterdir()] == [b"old"]


def test_missing_object_leaves_no_trace(small_config: Config, without_dvc: Path) -> None:
    with pytest.raises(StorageError, match=r"s3://models/gone\.ckpt: "):
        download_model(small_config("download_model.s3_uri=s3://models/gone.ckpt"))

    assert [path for path in without_dvc.rglob("*") if path.is_file()] == []


def test_nothing_to_fetch_is_told_with_an_example(small_config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"download_model\.s3_uri is not set; type download_model\.s3_uri=s3://bucket/"
    ):
        download_model(small_config())


def test_missing_pytorch_is_told_before_anything_is_fetched(
    small_config: Config, without_dvc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]

    with pytest.raises(MissingDependencyError, match=r"PyTorch, which download-model needs, .*\[train\]"):
        download_model(small_config(URI))
    assert list(without_dvc.iterdir()) == []


def test_model_in_a_repository_is_tracked(small_config: Config, project: Path) -> None:
    result = download_model(small_config(URI))

    assert result.tracked_by == project / "artifacts" / "best.ckpt.dvc"
    md5 = hashlib.md5(result.path.read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5: {md5}" in result.tracked_by.read_text(encoding="utf-8")
    assert dvc.is_tracked(result.path)


@pytest.mark.usefixtures("project")
def test_tracking_can_be_left_out(small_config: Config) -> None:
    result = download_model(small_config(URI, "download_model.track=false"))

    assert result.tracked_by is None
    assert not dvc.is_tracked(result.path)


def test_pushed_model_is_the_one_object_in_the_remote(
    small_config: Config, project: Path, bucket: tuple[str, Any]
) -> None:
    result = download_model(small_config(URI, "download_model.push=true", "download_model.remote=yandex_s3"))

    assert result.pushed_to is not None
    assert (result.pushed_to.remote, result.pushed_to.url) == ("yandex_s3", f"s3://dvc-store/{project.name}")
    (key,) = pushed(bucket, project)
    assert bucket[1].get_object(Bucket="dvc-store", Key=key)["Body"].read() == result.path.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            [],
            "the DVC remote public_http (http://{host}) is plain HTTP, which can only be read; type "
            "download_model.remote=yandex_s3",
        ),
        (
            ["download_model.remote=nowhere"],
            "download_model.remote=nowhere: no such DVC remote; there are: public_http, yandex_s3",
        ),
        (
            ["download_model.track=false"],
            "download_model.push=true: only what DVC tracks is pushed; type download_model.track=auto",
        ),
    ],
)
def test_push_that_cannot_work_is_told_before_anything_is_fetched(
    small_config: Config, project: Path, settings: list[str], message: str, bucket: tuple[str, Any]
) -> None:
    with pytest.raises(ConfigError) as error:
        download_model(small_config(URI, "download_model.push=true", *settings))

    place = f"{bucket[0].removeprefix('http://')}/dvc-store/{project.name}"
    assert message.replace("{host}", place) in str(error.value)
    assert not (project / "artifacts").exists()


def test_repository_without_a_writable_remote_says_how_to_add_one(small_config: Config, project: Path) -> None:
    (project / ".dvc" / "config.local").unlink()
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = True\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"has no default remote; type: dvc remote add NAME s3://bucket/path"):
        download_model(small_config(URI, "download_model.push=true"))


@pytest.mark.usefixtures("without_dvc")
@pytest.mark.parametrize("setting", ["download_model.track=true", "download_model.push=true"])
def test_no_repository_to_track_in_is_told(small_config: Config, setting: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{setting}: .*artifacts lies in no DVC repository; type download_model\.dst_dir"
    ):
        download_model(small_config(URI, setting))


def test_push_that_fails_leaves_the_model_and_says_so(
    small_config: Config, project: Path, bucket: tuple[str, Any]
) -> None:
    (project / ".dvc" / "config.local").unlink()
    wanted = small_config(URI, "download_model.push=true", "download_model.remote=yandex_s3")

    with pytest.raises(StorageError, match=r"wants credentials; .*; the model is in its place and tracked: the same"):
        download_model(wanted)

    assert (project / "artifacts" / "best.ckpt").is_file()
    assert pushed(bucket, project) == []


def test_model_that_dvc_refuses_to_track_stands_and_says_so(small_config: Config, project: Path) -> None:
    (project / ".dvcignore").write_text("artifacts\n", encoding="utf-8")

    with pytest.raises(
        StorageError, match=r"; the model is in its place; download_model\.track=false leaves it at that"
    ):
        download_model(small_config(URI))

    assert (project / "artifacts" / "best.ckpt").is_file()


def test_missing_dvc_is_told_before_anything_is_fetched(
    small_config: Config, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dvc.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        dvc.importlib.util,  # type: ignore[attr-defined]
        "find_spec",
        lambda name: None if name == "dvc" else found(name),
    )

    with pytest.raises(
        MissingDependencyError, match=r"dvc \(download_model\.track=false does without it\) is not installed"
    ):
        download_model(small_config(URI))
    assert not (project / "artifacts").exists()


@pytest.mark.slow
def test_fire_command_line_fetches_tracks_and_pushes_and_infer_pulls_it_back(
    project: Path, bucket: tuple[str, Any], photo_bytes: bytes
) -> None:
    fire = [sys.executable, "-m", "cassava_leaf_disease.fire_cli"]
    line = ["download-model", "--push", "--s3_uri", "s3://models/v1.ckpt", "download_model.remote=yandex_s3"]

    answer = subprocess.run([*fire, *line], capture_output=True, text=True, check=True, cwd=project)

    told = json.loads(answer.stdout)
    assert told["pushed_to"]["remote"] == "yandex_s3"
    assert len(pushed(bucket, project)) == 1
    model = Path(told["path"])
    model.unlink()
    for copy in (project / ".dvc" / "cache").rglob("*"):
        if copy.is_file():
            copy.unlink()
    (project / "leaf.jpg").write_bytes(photo_bytes)

    diagnosed = subprocess.run(
        [*fire, "infer", "--image", "leaf.jpg", "--ckpt", "artifacts/best.ckpt"],
        capture_output=True,
        text=True,
        check=True,
        cwd=project,
    )

    assert json.loads(diagnosed.stdout)["model"] == {
        **{name: told["model"][name] for name in ("name", "version")},
        "source": "explicit",
        "path": str(model),
    }
    assert "pulling best.ckpt with DVC" in diagnosed.stderr
