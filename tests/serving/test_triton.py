"""The service in front of a real tritonserver: its answers, its end, and its return."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found
from triton_server import TritonServer

Asking = Callable[[FastAPI], AbstractContextManager[TestClient]]


def test_triton_answers_goes_away_and_comes_back(  # noqa: PLR0917  fixtures
    build_service: Callable[..., FastAPI],
    asking: Asking,
    eventually: Callable[[Callable[[], object]], None],
    triton_server: TritonServer,
    served_models: tuple[Path, Path],
    photo_bytes: bytes,
) -> None:
    local = load_found(FoundModel(served_models[0], "explicit", served_models), "cpu")
    expected = local.predict_bytes(photo_bytes, name="leaf.jpg")
    url = f"grpc://{triton_server.grpc_address}"
    app = build_service(engine="triton", triton_url=url, checkpoint_path=None, deadline_s=30)
    with asking(app) as client:
        photo = {"file": ("leaf.jpg", photo_bytes, "image/jpeg")}
        answer = client.post("/predict", files=photo).json()
        assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)
        assert (answer["model"]["source"], answer["image"]) == ("triton", "leaf.jpg")
        plant = client.post("/predict/plant", files=[("files", photo["file"])] * 2).json()
        assert [each["image"] for each in plant["photos"]] == ["leaf.jpg"] * 2
        card = client.get("/model").json()
        assert (card["engine"], len(card["members"])) == ("triton", 2)
        assert client.post("/predict", files={"file": ("a.jpg", b"no photo")}).status_code == 415
        assert client.post("/explain", files=photo).status_code == 501
        assert 'cassava_model_info{name="' in client.get("/metrics").text

        triton_server.stop()
        gone = client.post("/predict", files=photo)
        assert (gone.status_code, gone.headers["Retry-After"]) == (503, "5")
        assert set(gone.json()) == {"error", "expected"}
        assert client.get("/ready").status_code == 503

        triton_server.start()
        eventually(lambda: client.get("/ready").status_code == 200)
        assert client.post("/predict", files=photo).json()["probabilities"] == answer["probabilities"]


def test_a_wrong_address_is_told_at_once(build_service: Callable[..., FastAPI]) -> None:
    with pytest.raises(ConfigError, match="expected grpc://HOST:PORT"):
        build_service(engine="triton", triton_url="http://127.0.0.1:8000", checkpoint_path=None)
