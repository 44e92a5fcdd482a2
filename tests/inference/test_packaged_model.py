"""The model in the package: light, calibrated, gated, and the one that answers when there is no other."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.explain import class_map
from cassava_leaf_disease.inference.infer import infer
from cassava_leaf_disease.inference.predictor import AnyPredictor

REPOSITORY = Path(__file__).resolve().parents[2]
RECORD = REPOSITORY / "docs" / "results" / "default_model.json"
Config = Callable[..., AppConfig]


@pytest.fixture
def found(small_config: Config) -> FoundModel:
    return find_model(small_config())


@pytest.fixture
def packaged(found: FoundModel) -> AnyPredictor:
    return load_found(found, "cpu")


def test_is_what_answers_when_there_is_no_other(found: FoundModel) -> None:
    assert found.source == "package"
    assert found.path.stat().st_size < 6_000_000


def test_tells_where_it_comes_from_and_is_the_one_of_the_card(packaged: AnyPredictor, found: FoundModel) -> None:
    (member,) = packaged.members
    file, record = member.metadata, json.loads(RECORD.read_text(encoding="utf-8"))

    assert file.precision == record["file"]["precision"]
    assert file.precision in {"fp16_weights", "int8_weights"}  # the same answers on every processor
    assert file.thresholds.rule is not None
    assert file.class_prior is not None
    assert record["file"]["bytes"] == found.path.stat().st_size
    for network, trained in zip(packaged.described, record["training"]["members"], strict=True):
        assert network.gate is not None
        assert (network.git_commit, network.data_fingerprint, network.version) == tuple(
            trained[name] for name in ("git_commit", "data_fingerprint", "version")
        )


def test_card_holds_the_figures_that_were_measured() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    card = (REPOSITORY / "docs" / "model-card.md").read_text(encoding="utf-8")
    for key in ("shipped", "checkpoint"):
        scores = record[key]["scores"]
        assert f"| {scores['photos']} | {scores['accuracy']:.3f} [" in card
        assert f"| {scores['f1_macro']:.3f} [" in card


def test_has_heatmaps(packaged: AnyPredictor) -> None:
    heat = class_map(packaged, draw_leaf(1, 3, 300))
    assert heat.shape == (300, 300)
    assert np.ptp(heat) > 0


def test_refuses_what_shows_no_leaf(small_config: Config, tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), "black").save(tmp_path / "black.png")
    answer = infer(small_config("infer.image_path=black.png"))
    assert isinstance(answer, Prediction)
    assert answer.verdict == "poor_photo"
    assert answer.model.source == "package"


def test_diagnoses_real_leaves(packaged: AnyPredictor, shared_data: Path) -> None:
    """Photos of its own training: this tells that the file works, not how good it is."""
    table = (shared_data / "cassava" / "train.csv").read_text().splitlines()[1:201:5]
    labels = {name: int(label) for name, label in (line.split(",") for line in table)}
    answers = [
        packaged.predict_bytes((shared_data / "cassava" / "train_images" / name).read_bytes(), name=name)
        for name in labels
    ]
    right = [answer.predicted_class_id == label for answer, label in zip(answers, labels.values(), strict=True)]
    assert np.mean(right) > 0.75
    assert np.mean([answer.verdict in {"diagnosis", "uncertain"} for answer in answers]) > 0.9


def test_command_needs_no_torch(tmp_path: Path) -> None:
    Image.fromarray(draw_leaf(1, 3, 300)).save(tmp_path / "photo.jpg")
    script = (
        "import sys; from cassava_leaf_disease.cli import main; sys.argv = ['cassava', 'infer', "
        "'infer.image_path=photo.jpg']; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["model"]["source"] == "package"
