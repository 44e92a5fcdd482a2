"""The service's settings: typed, from the environment, and none that anybody could guess."""

from pathlib import Path

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.serving.app import create_app
from cassava_leaf_disease.serving.settings import ServingSettings, settings_for, with_settings


def test_the_variables_of_the_design_say_which_model_and_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", "best.onnx")
    monkeypatch.setenv("CASSAVA_CHECKPOINT_S3_URI", "s3://bucket/best.ckpt")
    monkeypatch.setenv("CASSAVA_DEVICE", "cpu")

    infer = with_settings(load_config(), ServingSettings.load()).infer

    assert infer.checkpoint_path == tmp_path / "best.onnx"
    assert (infer.checkpoint_s3_uri, infer.device) == ("s3://bucket/best.ckpt", "cpu")
    assert (infer.max_image_bytes, infer.max_image_pixels) == (20_000_000, 40_000_000)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_API_KEY", "")
    monkeypatch.setenv("CASSAVA_PORT", "")

    assert (ServingSettings.load().api_key, ServingSettings.load().port) == (None, 8000)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", r"CASSAVA_PORT=http: .*; expected its port"),
        ("PORT", "70000", r"CASSAVA_PORT=70000: .*65535"),
        ("DEVICE", "tpu", r"CASSAVA_DEVICE=tpu: .*; expected `auto`, `cpu` or `cuda`"),
        ("WORKERS", "0", r"CASSAVA_WORKERS=0: "),
        ("CHECKPOINT_S3_URI", "https://x", r"CASSAVA_CHECKPOINT_S3_URI=https://x: "),
        ("LOG_LEVEL", "LOUD", r"CASSAVA_LOG_LEVEL: expected one of DEBUG, INFO"),
        ("CORS_ORIGINS", "*", r"CASSAVA_CORS_ORIGINS: \*: expected origins such as https://example\.org"),
        ("CORS_ORIGINS", "https://a.org/x", r"CASSAVA_CORS_ORIGINS: https://a\.org/x: expected"),
        ("ENGINE", "triton", r"CASSAVA_ENGINE=triton: needs CASSAVA_TRITON_URL=grpc://host:port"),
        ("MAX_BUFFERED_BYTES", "2000", r"CASSAVA_MAX_BUFFERED_BYTES=2000: expected at least"),
        ("API_KEY", "changeme-changeme-changeme", "CASSAVA_API_KEY: too easy to guess"),
        ("API_KEY", "short", "CASSAVA_API_KEY: too easy to guess"),
        ("API_KEY", "aaaaaaaaaaaaaaaaaaaaaaaa", "CASSAVA_API_KEY: too easy to guess"),
        ("API_KEY", "ключ-из-букв-не-ascii", "CASSAVA_API_KEY: expected ASCII"),
    ],
)
def test_a_wrong_value_is_one_clear_line(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CASSAVA_{name}", value)

    with pytest.raises(ConfigError, match=said) as told:
        ServingSettings.load()

    assert len(str(told.value).splitlines()) == 1
    assert name != "API_KEY" or value not in str(told.value)


def test_the_factory_ends_with_the_line_and_not_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CASSAVA_PORT", "http")

    with pytest.raises(SystemExit) as end:
        create_app()

    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: CASSAVA_PORT=http: ")


def test_what_is_typed_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASSAVA_PORT", "9000")
    monkeypatch.setenv("CASSAVA_QUEUE_SIZE", "3")
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", "of_the_environment.onnx")
    typed = ("serve.port=0", "infer.checkpoint_path=typed.onnx", "infer.device=cpu", "infer.tta=flips")
    more = ("infer.checkpoint_s3_uri=s3://bucket/key",)

    settings = settings_for(load_config([*typed, *more]))

    assert (settings.port, settings.queue_size, settings.device, settings.tta) == (0, 3, "cpu", "flips")
    assert settings.checkpoint_path == tmp_path / "typed.onnx"
    assert settings.checkpoint_s3_uri == "s3://bucket/key"
    assert settings_for(load_config()).port == 9000


def test_several_files_are_refused_with_the_way_to_make_them_one() -> None:
    with pytest.raises(ConfigError, match="write an ensemble with `cassava ensemble`"):
        settings_for(load_config(["infer.checkpoint_path=[a.onnx,b.onnx]"]))


def test_an_unknown_name_is_refused_in_code() -> None:
    with pytest.raises(ConfigError, match="CASSAVA_PROT: no such setting"):
        ServingSettings.load({"prot": 1})


def test_triton_is_typed_as_for_infer_and_brings_its_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(load_config(["infer.engine=triton"]))
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", "best.onnx")

    assert (settings.engine, settings.triton_url) == ("triton", "grpc://127.0.0.1:8001")
    with pytest.raises(ConfigError, match="leave CASSAVA_CHECKPOINT_PATH out"):
        settings_for(load_config(["infer.engine=triton"]))
