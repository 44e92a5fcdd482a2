"""Which model answers, and that each step passed over is told."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CheckpointError, MissingDependencyError
from cassava_leaf_disease.inference import discover
from cassava_leaf_disease.inference.discover import PACKAGED_MODEL, FoundModel, find_model
from cassava_leaf_disease.storage import dvc

Config = Callable[..., AppConfig]


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """What a finished run left under `outputs`."""
    path = tmp_path / "outputs" / "runs" / "version_0" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.fixture(scope="module")
def s3_server(random_checkpoint: Path, exported_model: Path, moto_s3: tuple[str, Any]) -> str:
    """A server whose public bucket `models` holds a checkpoint, and the same as an ONNX file."""
    url, client = moto_s3
    client.create_bucket(Bucket="models", ACL="public-read")
    client.put_object(Bucket="models", Key="v1.ckpt", Body=random_checkpoint.read_bytes(), ACL="public-read")
    client.put_object(Bucket="models", Key="v1.onnx", Body=exported_model.read_bytes(), ACL="public-read")
    return url


@pytest.fixture
def at_s3(s3_server: str, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path, s3_server: str) -> Path:
    """A folder with two files and a remote, which the first test that needs it has tracked and pushed by DVC."""
    root = tmp_path_factory.mktemp("tracked")
    (root / ".dvc" / "tmp").mkdir(parents=True)
    remote = f"url = s3://models/tracked\nendpointurl = {s3_server}\n"
    keys = "access_key_id = key\nsecret_access_key = key\n"
    settings = f"[core]\nno_scm = True\nremote = store\n['remote \"store\"']\n{remote}{keys}"
    (root / ".dvc" / "config").write_text(settings, encoding="utf-8")
    (root / "artifacts").mkdir()
    (root / "artifacts" / "best.ckpt").write_bytes(random_checkpoint.read_bytes())
    (root / "artifacts" / "other.ckpt").write_bytes(b"other")
    return root


@pytest.fixture
def tracked(tmp_path: Path, project: Path, no_aws: None, run_dvc: Callable[..., str]) -> Path:
    """A checkpoint that DVC tracks and a remote has, and that is missing here; so is another one beside it."""
    files = sorted((project / "artifacts").glob("*.ckpt"))
    if files:
        run_dvc(project, "add", *map(str, files))
        run_dvc(project, "push")
        shutil.rmtree(project / ".dvc" / "cache")
        for file in files:
            file.unlink()
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    return tmp_path / "artifacts" / "best.ckpt"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.usefixtures("best")
def test_explicit_path_answers_silently(
    small_config: Config, random_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_model(small_config(f"infer.checkpoint_path={random_checkpoint}"))

    assert found == FoundModel(random_checkpoint, "explicit")
    assert warnings_of(caplog) == []


@pytest.mark.usefixtures("best")
def test_folder_as_explicit_path_is_taken_so_that_loading_can_refuse_it(small_config: Config, tmp_path: Path) -> None:
    assert find_model(small_config(f"infer.checkpoint_path={tmp_path}")) == FoundModel(tmp_path, "explicit")


def test_missing_explicit_path_is_a_warning_and_the_newest_run_answers(
    small_config: Config, best: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    found = find_model(small_config("infer.checkpoint_path=gone.ckpt"))

    assert found == FoundModel(best, "outputs")
    assert warnings_of(caplog) == [f"infer.checkpoint_path={tmp_path / 'gone.ckpt'}: no such file"]


def test_newest_run_answers_silently(small_config: Config, best: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_model(small_config()) == FoundModel(best, "outputs")
    assert warnings_of(caplog) == []


def test_newest_run_comes_before_s3_and_says_so(
    small_config: Config, best: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_model(small_config("infer.checkpoint_s3_uri=s3://models/v1.ckpt"))

    assert found == FoundModel(best, "outputs")
    assert warnings_of(caplog) == [f"{best} comes before infer.checkpoint_s3_uri, which was not fetched"]


@pytest.mark.usefixtures("at_s3")
def test_s3_answers_where_there_is_no_run(
    small_config: Config, random_checkpoint: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    found = find_model(small_config("infer.checkpoint_s3_uri=s3://models/v1.ckpt"))

    assert (found.source, found.path.parent) == ("s3", tmp_path / "outputs" / "cache" / "models")
    assert found.path.read_bytes() == random_checkpoint.read_bytes()
    assert warnings_of(caplog) == [f"no best.ckpt under {tmp_path / 'outputs'}"]


@pytest.mark.usefixtures("at_s3", "no_packaged_model")
def test_what_s3_gave_is_no_run_of_ours(small_config: Config) -> None:
    config = small_config("infer.checkpoint_s3_uri=s3://models/v1.ckpt")

    assert find_model(config) == find_model(config)
    with pytest.raises(CheckpointError, match=r"no best\.ckpt under"):
        find_model(small_config())


def test_missing_file_that_dvc_tracks_is_pulled_alone(
    small_config: Config, tracked: Path, random_checkpoint: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    found = find_model(small_config("infer.checkpoint_path=artifacts/best.ckpt"))

    assert found == FoundModel(tracked, "explicit")
    assert tracked.read_bytes() == random_checkpoint.read_bytes()
    cached = [path for path in (tmp_path / ".dvc" / "cache").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in cached] == [random_checkpoint.read_bytes()]
    assert not tracked.with_name("other.ckpt").exists()
    assert warnings_of(caplog) == []


def test_file_that_dvc_tracks_is_not_pulled_where_it_is_there(
    small_config: Config, tracked: Path, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.write_bytes(b"another one")
    monkeypatch.setattr(subprocess, "run", None)  # nothing runs DVC

    assert find_model(small_config("infer.checkpoint_path=artifacts/best.ckpt")) == FoundModel(tracked, "explicit")
    assert tracked.read_bytes() == b"another one"


@pytest.mark.usefixtures("best")
def test_file_that_the_remote_does_not_have_is_a_warning_and_the_next_step_answers(
    small_config: Config, tracked: Path, best: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dvc_file = tracked.with_name("best.ckpt.dvc")
    text = dvc_file.read_text(encoding="utf-8")
    dvc_file.write_text(re.sub("md5: [0-9a-f]{4}", "md5: 0000", text), encoding="utf-8")

    assert find_model(small_config("infer.checkpoint_path=artifacts/best.ckpt")) == FoundModel(best, "outputs")

    (line,) = warnings_of(caplog)
    assert line.startswith(
        f"infer.checkpoint_path is not here, and DVC cannot fetch it: {tracked}: DVC's remote store ("
    )
    assert line.endswith(") does not hold it, or cannot be reached")


def test_missing_dvc_is_told_with_the_extra(
    small_config: Config, tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]

    with pytest.raises(MissingDependencyError, match=r"dvc is not installed; type: pip install '.*\[track\]'"):
        find_model(small_config(f"infer.checkpoint_path={tracked}"))


def test_infer_with_a_file_that_is_there_imports_neither_dvc_nor_boto3(
    random_checkpoint: Path, photo_bytes: bytes, tmp_path: Path
) -> None:
    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    words = ["infer", "infer.image_path=leaf.jpg", f"infer.checkpoint_path={random_checkpoint}"]
    code = (
        "import sys; from cassava_leaf_disease.cli import main\n"
        f"code = main({words!r}); sys.exit(code or bool({{'dvc', 'boto3', 'botocore'}} & set(sys.modules)))"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(answer.stdout)["model"]["source"] == "explicit"


@pytest.mark.usefixtures("at_s3")
@pytest.mark.usefixtures("no_packaged_model")
def test_every_step_passed_over_is_a_warning_and_named_in_the_error(
    small_config: Config, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = small_config("infer.checkpoint_path=gone.ckpt", "infer.checkpoint_s3_uri=s3://models/gone.ckpt")

    with pytest.raises(CheckpointError) as error:
        find_model(config)

    steps = [
        f"infer.checkpoint_path={tmp_path / 'gone.ckpt'}: no such file",
        f"no best.ckpt under {tmp_path / 'outputs'}",
        "s3://models/gone.ckpt: the bucket models holds no such key",
        "this version ships no model in the package",
    ]
    assert warnings_of(caplog) == steps
    assert str(error.value).startswith(f"no model to answer with: {'; '.join(steps)}; train one with `cassava train`")
    assert list(tmp_path.rglob("*.ckpt")) == []


@pytest.mark.usefixtures("no_packaged_model")
def test_nothing_configured_names_what_to_type(small_config: Config) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint_s3_uri is not set; .*cassava demo.*infer\.checkpoint_path="):
        find_model(small_config())


@pytest.mark.usefixtures("no_packaged_model")
def test_half_written_checkpoint_is_no_model(small_config: Config, best: Path) -> None:
    best.rename(best.with_name(".best.ckpt.0a1b2c3d.tmp"))

    with pytest.raises(CheckpointError, match=r"no best\.ckpt under"):
        find_model(small_config())


def test_model_shipped_in_the_package_is_the_last_resort(
    small_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "installed"
    (package / "assets").mkdir(parents=True)
    (package / "assets" / PACKAGED_MODEL).touch()
    monkeypatch.setattr(discover, "files", lambda _package: package)

    assert find_model(small_config()) == FoundModel(package / "assets" / PACKAGED_MODEL, "package")


@pytest.mark.slow
@pytest.mark.usefixtures("at_s3")
def test_command_line_answers_with_a_model_from_s3_and_asks_only_once_for_its_content(
    photo_bytes: bytes, tmp_path: Path
) -> None:
    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    line = ["infer", "--ckpt_s3", "s3://models/v1.onnx", "--image", "leaf.jpg", "--top_k", "1"]
    command = [sys.executable, "-m", "cassava_leaf_disease.fire_cli", *line]

    first, second = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))

    answer = json.loads(first.stdout)
    assert answer["model"]["source"] == "s3"
    assert Path(answer["model"]["path"]).parent == tmp_path / "outputs" / "cache" / "models"
    assert json.loads(second.stdout) == answer
    assert "s3://models/v1.onnx: unchanged since it was fetched" in second.stderr
