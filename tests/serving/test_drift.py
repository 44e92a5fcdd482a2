"""The service counts its answers, and its gauges tell how far they have moved from the model's reference."""

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.drift.compare import Thresholds
from cassava_leaf_disease.drift.features import count
from cassava_leaf_disease.drift.reference import DriftReference, reference_path
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.serving import drift_watch
from cassava_leaf_disease.storage.database import open_database
from cassava_leaf_disease.storage.files import write_json

Asking = Callable[[FastAPI], AbstractContextManager[TestClient]]
NUMBER = 60


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def leaves(first: int, shade: float = 1.0) -> list[bytes]:
    return [jpeg((draw_leaf(first + n, n % 5, 64) * shade).astype(np.uint8)) for n in range(NUMBER)]


@pytest.fixture
def gated_model(served_models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with a gate, and its reference beside it; sixty photos are enough here."""
    monkeypatch.setattr(drift_watch, "Thresholds", few_are_enough)
    path = tmp_path / "gated.onnx"
    path.write_bytes(served_models[1].read_bytes())
    predictor = load_predictor(FoundModel(path, "explicit"), "cpu")
    answers = [predictor.predict_bytes(photo, name="leaf", top_k=1) for photo in leaves(1000)]
    reference = DriftReference(
        model=predictor.identity.name,
        version=predictor.identity.version,
        data="drawn leaves",
        photos=NUMBER,
        counts=dict(count(answers)),
        created_at="2026-11-25T00:00:00+00:00",
    )
    write_json(reference_path(path), reference.model_dump(mode="json"))
    return path


def few_are_enough() -> Thresholds:
    return Thresholds(min_photos=NUMBER // 2)


def gauges(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    named = [line.split('feature="')[1].split('"} ') for line in lines if line.startswith("cassava_drift_psi{")]
    return {name: float(value) for name, value in named}


def send(client: TestClient, photos: list[bytes]) -> None:
    for photo in photos:
        assert client.post("/predict", files={"file": ("leaf.jpg", photo)}).status_code == 200


def test_darker_photos_move_the_gauges_and_the_same_ones_do_not(
    build_service: Callable[..., FastAPI], asking: Asking, gated_model: Path, eventually: Callable[[Any], None]
) -> None:
    app = build_service(checkpoint_path=gated_model, statistics_url="sqlite:///counts.db")
    with asking(app) as client:
        send(client, leaves(5000))
        app.state.service.drift.update()
        same = gauges(client)
        send(client, leaves(9000, shade=0.35))
        app.state.service.drift.update()
        moved = gauges(client)

    assert same["brightness"] < 0.25
    assert moved["brightness"] > 2 * same["brightness"]
    assert moved["brightness"] > 0.25
    database = open_database("sqlite:///counts.db")
    with database.transaction() as execute:
        assert execute("SELECT SUM(photos) FROM answer_counts WHERE feature = 'verdict'") == [(2 * NUMBER,)]
    database.close()


def test_without_a_reference_there_are_counts_and_no_gauges(
    build_service: Callable[..., FastAPI], asking: Asking, photo_bytes: bytes, tmp_path: Path
) -> None:
    app = build_service()
    with asking(app) as client:
        send(client, [photo_bytes])
        app.state.service.drift.update()
        assert gauges(client) == {}
        counted = app.state.service.drift.recorder._pending
        assert sum(n for (_, _, _, feature, _), n in counted.items() if feature == "verdict") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_reference_is_told_once(
    build_service: Callable[..., FastAPI], asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({}), encoding="utf-8")
    app = build_service(drift_reference=tmp_path / "bad.json")
    with asking(app):
        for _ in range(3):
            app.state.service.drift.update()
    assert caplog.text.count("no figures of drift") == 1


def test_a_server_of_triton_has_no_file_beside_it(build_service: Callable[..., FastAPI], slow: Any) -> None:
    app = build_service(slow)
    app.state.service.drift.update()
    assert b"cassava_drift_psi{" not in app.state.service.metrics.exposition()
