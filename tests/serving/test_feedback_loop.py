"""From end to end: a wrong answer is corrected, comes out of the export, and a retrained model answers otherwise."""

import io
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.feedback.export import export_feedback
from cassava_leaf_disease.training.fit import train

CORRECT = 1


def frost(seed: int) -> bytes:
    """Leaves of a kind that no training has seen: blue stripes."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 60, (96, 96, 3), np.uint8)
    pixels[:, (np.arange(96) // 6 + seed) % 2 == 0, 2] = 230
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def ask(client: TestClient, photo: bytes) -> dict[str, object]:
    reply = client.post("/predict", files={"file": ("leaf.jpg", photo)})
    assert reply.status_code == 200
    answer: dict[str, object] = reply.json()
    return answer


@pytest.mark.slow
def test_a_correction_changes_a_retrained_model(
    small_config: Callable[..., AppConfig],
    build_service: Callable[..., FastAPI],
    asking: Callable[[FastAPI], AbstractContextManager[TestClient]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    write_synthetic_dataset(tmp_path / "leaves", 60, 64, 0)
    words = (
        "data.synthetic.enabled=false",
        f"paths.data_dir={tmp_path / 'leaves'}",
        "data.split.val_size=0.2",
        "train.epochs=4",
        "train.lr=0.01",
        "train.keep=last",
        "train.fit_gate=false",
    )
    before = train(small_config(*words))
    photos = [frost(seed) for seed in range(12)]

    with asking(build_service(checkpoint_path=before.checkpoint, feedback_url="sqlite:///given.db")) as client:
        answers = [ask(client, photo) for photo in photos]
        wrong = [answer for answer in answers if answer["predicted_class_id"] != CORRECT]
        for photo, answer in zip(photos[:-2], answers, strict=False):
            form = {"answer": json.dumps(answer), "correct": str(CORRECT), "consent": "true"}
            assert client.post("/feedback", data=form, files={"file": ("leaf.jpg", photo)}).status_code == 200
    assert len(wrong) > 6

    exported = export_feedback(small_config("feedback.url=sqlite:///given.db"))
    assert exported.labelled["Cassava Brown Streak Disease"] == 10
    after = train(
        small_config(
            *words,
            f"data.extra.csv_path={exported.extra_csv}",
            f"data.extra.images_dir={exported.images_dir}",
        )
    )

    with asking(build_service(checkpoint_path=after.checkpoint)) as client:
        corrected = [ask(client, photo)["predicted_class_id"] for photo in photos]
    assert corrected.count(CORRECT) >= 11  # the last two were not among the feedback
