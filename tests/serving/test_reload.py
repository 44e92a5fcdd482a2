"""Another model file: checked before it answers, and the old one answers until then."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata

Build = Callable[..., FastAPI]
Asking = Callable[[FastAPI], AbstractContextManager[TestClient]]
Eventually = Callable[[Callable[[], object]], None]


def with_version(source: Path, target: Path, version: str, metadata: ModelMetadata) -> None:
    """The same network under another version, moved into place."""
    import onnx

    model = onnx.load(source)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = metadata.model_copy(update={"version": version}).model_dump_json()
    put(target, model.SerializeToString())


def put(target: Path, content: bytes) -> None:
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)


def version(client: TestClient) -> str:
    return str(client.get("/model").json()["model"]["version"])


def count(client: TestClient, figure: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(dict(line.rsplit(" ", 1) for line in lines).get(figure, 0))


@pytest.fixture
def model_file(tmp_path: Path, exported_model: Path) -> Path:
    return Path(shutil.copy(exported_model, tmp_path / "model.onnx"))


def test_a_new_file_answers_after_it_was_checked(
    build_service: Build, asking: Asking, eventually: Eventually, model_file: Path, metadata: ModelMetadata
) -> None:
    with asking(build_service(checkpoint_path=model_file, reload_s=0.05)) as client:
        assert version(client) == metadata.version
        with_version(model_file, model_file, "2.0.0", metadata)
        eventually(lambda: version(client) == "2.0.0")

        assert count(client, 'cassava_model_reloads_total{result="ok"}') == 1
        assert count(client, 'cassava_model_info{name="test_resnet",version="2.0.0"}') == 1
        assert count(client, f'cassava_model_info{{name="test_resnet",version="{metadata.version}"}}') == 0


def test_answers_go_on_while_files_change(  # noqa: PLR0917  fixtures
    build_service: Build,
    asking: Asking,
    eventually: Eventually,
    model_file: Path,
    metadata: ModelMetadata,
    photo_bytes: bytes,
) -> None:
    seen: set[str] = set()
    with asking(build_service(checkpoint_path=model_file, reload_s=0.05)) as client:
        for number in range(3):
            with_version(model_file, model_file, f"3.0.{number}", metadata)

            def answered(number: int = number) -> bool:
                reply = client.post("/predict", files={"file": ("a.jpg", photo_bytes, "image/jpeg")})
                assert reply.status_code == 200
                seen.add(reply.json()["model"]["version"])
                return f"3.0.{number}" in seen

            eventually(answered)

    assert {"3.0.0", "3.0.1", "3.0.2"} <= seen


@pytest.mark.parametrize("broken", [b"", b"no model", None], ids=["empty", "text", "cut"])
def test_a_broken_file_is_told_once_and_the_old_one_stays(  # noqa: PLR0917  fixtures
    broken: bytes | None,
    build_service: Build,
    asking: Asking,
    eventually: Eventually,
    model_file: Path,
    metadata: ModelMetadata,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = model_file.read_bytes()
    with asking(build_service(checkpoint_path=model_file, reload_s=0.05)) as client:
        put(model_file, good[:50_000] if broken is None else broken)
        eventually(lambda: count(client, 'cassava_model_reloads_total{result="failed"}') == 1)
        time.sleep(0.3)

        assert client.get("/ready").status_code == 200
        assert version(client) == metadata.version
        assert count(client, 'cassava_model_reloads_total{result="failed"}') == 1
        assert f"was not taken, {metadata.version} still answers" in caplog.text

        with_version_of(good, model_file, "4.0.0", metadata)
        eventually(lambda: version(client) == "4.0.0")


def with_version_of(content: bytes, target: Path, version: str, metadata: ModelMetadata) -> None:
    source = target.with_suffix(".good")
    source.write_bytes(content)
    with_version(source, target, version, metadata)


def test_a_file_that_goes_away_changes_nothing(
    build_service: Build, asking: Asking, model_file: Path, metadata: ModelMetadata
) -> None:
    with asking(build_service(checkpoint_path=model_file, reload_s=0.05)) as client:
        model_file.unlink()
        time.sleep(0.3)

        assert version(client) == metadata.version


def test_not_ready_until_a_model_is_there(
    build_service: Build, eventually: Eventually, tmp_path: Path, exported_model: Path, photo_bytes: bytes
) -> None:
    with TestClient(build_service(checkpoint_path=tmp_path / "later.onnx", reload_s=0.05)) as client:
        ready, alive = client.get("/ready"), client.get("/health")
        asked = client.post("/predict", files={"file": ("a.jpg", photo_bytes, "image/jpeg")})
        assert (ready.status_code, alive.status_code, asked.status_code) == (503, 200, 503)
        assert asked.json()["error"] == "no model is loaded yet"
        assert client.get("/model").status_code == 503
        put(tmp_path / "later.onnx", exported_model.read_bytes())

        eventually(lambda: client.get("/ready").status_code == 200)


def test_a_newer_run_takes_over(  # noqa: PLR0917  fixtures
    build_service: Build,
    asking: Asking,
    eventually: Eventually,
    tmp_path: Path,
    metadata: ModelMetadata,
    write_random_checkpoint: Callable[[Path, ModelMetadata], Path],
) -> None:
    first, second = (tmp_path / f"outputs/runs/version_{number}/checkpoints/best.ckpt" for number in (0, 1))
    for path in (first, second):
        path.parent.mkdir(parents=True)
    write_random_checkpoint(first, metadata)
    with asking(build_service(checkpoint_path=None, reload_s=0.05)) as client:
        assert client.get("/model").json()["model"]["source"] == "outputs"
        write_random_checkpoint(second, metadata.model_copy(update={"version": "5.0.0"}))
        os.utime(second, (2e9, 2e9))

        eventually(lambda: version(client) == "5.0.0")


def test_a_network_that_answers_with_nan_is_not_taken(
    build_service: Build,
    asking: Asking,
    eventually: Eventually,
    model_file: Path,
    metadata: ModelMetadata,
) -> None:
    import onnx
    from onnx import numpy_helper

    model: Any = onnx.load(model_file)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            tensor.CopyFrom(numpy_helper.from_array(values * float("nan"), tensor.name))
    with asking(build_service(checkpoint_path=model_file, reload_s=0.05)) as client:
        put(model_file, model.SerializeToString())
        eventually(lambda: count(client, 'cassava_model_reloads_total{result="failed"}') == 1)

        assert version(client) == metadata.version
