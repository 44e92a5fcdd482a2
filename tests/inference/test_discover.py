"""Which model answers, and that each step passed over is told."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.inference import discover
from cassava_leaf_disease.inference.discover import PACKAGED_MODEL, FoundModel, find_model

Config = Callable[..., AppConfig]


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """What a finished run left under `outputs`."""
    path = tmp_path / "outputs" / "runs" / "version_0" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.fixture(scope="module")
def s3_server(random_checkpoint: Path, moto_s3: tuple[str, Any]) -> str:
    """A server whose public bucket `models` holds a checkpoint."""
    url, client = moto_s3
    client.create_bucket(Bucket="models", ACL="public-read")
    client.put_object(Bucket="models", Key="v1.ckpt", Body=random_checkpoint.read_bytes(), ACL="public-read")
    return url


@pytest.fixture
def at_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)


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

    assert found == FoundModel(tmp_path / "artifacts" / "best.ckpt", "s3")
    assert found.path.read_bytes() == random_checkpoint.read_bytes()
    assert warnings_of(caplog) == [f"no best.ckpt under {tmp_path / 'outputs'}"]


@pytest.mark.usefixtures("at_s3")
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


def test_nothing_configured_names_what_to_type(small_config: Config) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint_s3_uri is not set; .*cassava demo.*infer\.checkpoint_path="):
        find_model(small_config())


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
