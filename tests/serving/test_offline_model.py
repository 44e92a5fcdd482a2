"""What phones are offered to answer without a network: the right file, all that they need, and whole."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.inference import discover
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.serving import offline

Build = Callable[..., FastAPI]
Asking = Callable[[FastAPI], AbstractContextManager[TestClient]]

CARD, FILE = "/offline/model.json", "/offline/model.onnx"


@pytest.fixture
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "PACKAGED_MODEL", "none.onnx")


def test_the_served_model_is_offered_with_all_that_inference_needs(client: TestClient, exported_model: Path) -> None:
    card = client.get(CARD).json()
    file = client.get(f"/{card['url']}")

    metadata = OnnxEngine(exported_model, "cpu").metadata
    assert file.content == exported_model.read_bytes()
    assert (card["bytes"], card["sha256"]) == (len(file.content), hashlib.sha256(file.content).hexdigest())
    assert file.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert (card["name"], card["version"], card["temperature"]) == (
        *(metadata.name, metadata.version, metadata.temperature),
    )
    assert card["preprocessing"] == metadata.preprocessing.model_dump(mode="json")
    assert card["resize_side_px"] == metadata.preprocessing.resize_side_px
    assert tuple(card["class_names"]) == CLASS_NAMES
    assert (card["input_name"], card["output_names"]) == ("images", ["logits", "features", "maps"])
    assert card["limits"] == {"max_upload_bytes": 20_000_000, "max_image_pixels": 40_000_000, "max_files": 10}
    assert (card["quality"], card["gates"]) == (None, [])


def test_the_gate_and_its_arrays_are_told(
    build_service: Build, asking: Asking, served_models: tuple[Path, Path]
) -> None:
    gated = served_models[1]
    with asking(build_service(offline_model_path=gated)) as client:
        card = client.get(CARD).json()

    engine = OnnxEngine(gated, "cpu")
    assert engine.metadata.gate is not None
    assert engine.gate_arrays is not None
    assert card["quality"] == engine.metadata.gate.quality.model_dump()
    [gate] = card["gates"]
    assert (gate["score"], gate["features"]) == ("knn", [0, None])
    for name, array in engine.gate_arrays.items():
        told = np.frombuffer(base64.b64decode(gate["arrays"][name]["data"]), "<f2")
        assert np.array_equal(told.reshape(gate["arrays"][name]["shape"]), array)


def test_the_model_card_tells_it_in_short(client: TestClient) -> None:
    card, short = client.get(CARD).json(), client.get("/model").json()["offline"]

    assert short == {name: card[name] for name in ("name", "version", "bytes", "sha256")}


def test_a_phone_that_has_it_already_is_told_so(client: TestClient) -> None:
    for path in (CARD, FILE):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


def test_a_download_goes_on_where_it_broke(client: TestClient, exported_model: Path) -> None:
    whole = exported_model.read_bytes()
    rest = client.get(FILE, headers={"Range": "bytes=1000-"})
    other = client.get(FILE, headers={"Range": "bytes=1000-", "If-Range": '"of another file"'})
    beyond = client.get(FILE, headers={"Range": f"bytes={len(whole)}-"})

    assert (rest.status_code, rest.content) == (206, whole[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
    assert [(each.status_code, each.content) for each in (other, beyond)] == [(200, whole)] * 2


def test_another_file_than_the_one_asked_for_is_not_sent(client: TestClient) -> None:
    gone = client.get(FILE, params={"sha256": "0" * 64})
    wrong = client.get(FILE, params={"sha256": "x"})

    assert gone.status_code == 404
    assert "the one that /offline/model.json names" in gone.json()["expected"]
    assert wrong.status_code == 422


@pytest.mark.usefixtures("nothing_shipped")
def test_without_a_light_model_the_words_say_what_to_type(
    build_service: Build, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "MAX_SERVED_BYTES", 1000)
    with asking(build_service()) as client:
        replies = [client.get(CARD), client.get(FILE)]

    assert [reply.status_code for reply in replies] == [404, 404]
    assert "CASSAVA_OFFLINE_MODEL_PATH" in replies[0].json()["expected"]


def test_the_package_steps_in_for_a_large_model(
    build_service: Build,
    asking: Asking,
    monkeypatch: pytest.MonkeyPatch,
    served_models: tuple[Path, Path],
) -> None:
    monkeypatch.setattr(offline, "MAX_SERVED_BYTES", 1000)
    monkeypatch.setattr(offline, "packaged_model", lambda: discover.FoundModel(served_models[1], "package"))
    with asking(build_service()) as client:
        card = client.get(CARD).json()

    assert (card["name"], card["source"]) == ("larger", "package")


@pytest.mark.parametrize("name", ["missing.onnx", "best.ckpt"])
def test_a_path_without_an_exported_model_is_refused_at_the_start(
    name: str, build_service: Build, tmp_path: Path
) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"x")

    with pytest.raises(ConfigError, match=f"{name}: expected a file that ends with .onnx; type CASSAVA_OFFLINE_MODEL"):
        build_service(offline_model_path=tmp_path / name)


def test_a_damaged_file_is_told(build_service: Build, asking: Asking, tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(b"no model")
    with asking(build_service(offline_model_path=tmp_path / "best.onnx")) as client:
        reply = client.get(CARD)
        assert client.get("/model").json()["offline"] is None

    assert reply.status_code == 503
    assert "cannot be read as an ONNX model" in reply.json()["error"]


def test_a_new_file_is_offered_and_a_broken_one_is_not(
    build_service: Build, asking: Asking, served_models: tuple[Path, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(served_models[0], tmp_path / "model.onnx"))
    with asking(build_service(offline_model_path=path)) as client:
        first = client.get(CARD).json()
        put(path, served_models[1].read_bytes())
        second = client.get(CARD).json()
        put(path, b"broken")
        third = client.get(CARD).json()
        path.unlink()
        file = client.get(f"/{second['url']}")

    assert (first["name"], second["name"]) == ("test_resnet", "larger")
    assert third == second
    assert hashlib.sha256(file.content).hexdigest() == second["sha256"]


def put(target: Path, content: bytes) -> None:
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)


def test_the_key_of_the_service_is_asked_for(build_service: Build, asking: Asking) -> None:
    key = "q8f2Lz0-pW7vKx31"
    with asking(build_service(api_key=key)) as client:
        refused = client.get(CARD)
        given = client.get(CARD, headers={"X-API-Key": key})

    assert (refused.status_code, given.status_code) == (401, 200)
    assert json.loads(given.content)["name"] == "test_resnet"


def test_each_network_of_an_ensemble_has_its_own_gate(
    metadata: ModelMetadata, served_models: tuple[Path, Path]
) -> None:
    gated = OnnxEngine(served_models[1], "cpu")
    assert gated.gate_arrays is not None
    both = metadata.model_copy(
        update={"members": (metadata, gated.metadata, gated.metadata), "feature_sizes": (4, 3, 5)}
    )
    arrays = {f"{index}/{name}": array for index in (1, 2) for name, array in gated.gate_arrays.items()}

    gates = offline._gates(both, arrays)

    assert [gate.features for gate in gates] == [(4, 7), (7, 12)]
    assert all(gate.arrays.keys() == gated.gate_arrays.keys() for gate in gates)
