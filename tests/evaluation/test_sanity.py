"""Sanity checks of heatmaps: maps of a random network are others, and the figures that tell so are right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.evaluation import sanity
from cassava_leaf_disease.evaluation.sanity import (
    check_heatmaps,
    log_odds,
    parts_from_the_top,
    rank_correlation,
    structural_similarity,
)
from cassava_leaf_disease.modeling.metadata import ModelMetadata

WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture(scope="module")
def leaves() -> np.ndarray:
    return np.stack([draw_leaf(index, index, 64) for index in range(4)])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_maps_change_with_the_weights(
    backbone: str,
    leaves: np.ndarray,
    metadata: ModelMetadata,
    write_random_checkpoint: WriteCheckpoint,
    tmp_path: Path,
) -> None:
    path = write_random_checkpoint(tmp_path / "best.ckpt", metadata.model_copy(update={"backbone": backbone}))

    found = check_heatmaps(path, leaves)

    assert found.photos == 4
    assert found.steps[0].rank_correlation == found.steps[0].similarity == found.steps[0].same_answer == 1
    assert [step.randomised for step in found.steps[1:]] == parts_from_the_top(timm.create_model(backbone))
    assert found.steps[-1].rank_correlation < 0.7
    assert found.steps[-1].similarity < 0.9
    assert -1 <= found.other_photos <= 1
    assert check_heatmaps(path, leaves) == found


def test_parts_are_counted_from_the_classifier_down_block_by_block() -> None:
    names = parts_from_the_top(timm.create_model("mobilenetv2_035", num_classes=5))

    assert names[:4] == ["classifier", "bn2", "conv_head", "blocks.6"]
    assert names[-3:] == ["blocks.0", "bn1", "conv_stem"]


def test_network_without_maps_is_told(
    leaves: np.ndarray, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanity, "shows_its_work", lambda *_: False)

    with pytest.raises(CheckpointError, match="test_resnet gives no class maps"):
        check_heatmaps(random_checkpoint, leaves)


def test_log_odds_rank_as_probabilities_do() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 5, 3, 3))
    classes = np.array([4, 1])
    powers = np.exp(maps)
    heat = (powers / powers.sum(axis=1, keepdims=True))[np.arange(2), classes]

    odds = log_odds(maps, classes)

    assert odds == pytest.approx(np.log(heat / (1 - heat)))
    assert np.isfinite(log_odds(1000 * maps, classes)).all()


def test_rank_correlation_knows_order_only() -> None:
    rising = np.arange(12.0).reshape(3, 4)

    assert rank_correlation(rising, rising**3) == pytest.approx(1)
    assert rank_correlation(rising, -rising) == pytest.approx(-1)
    assert rank_correlation(rising, np.ones((3, 4))) == 0
    tied = np.array([[0.0, 0, 1, 1]])
    assert rank_correlation(tied, np.array([[0.0, 1, 2, 3]])) == pytest.approx(0.8944, abs=1e-4)


def test_structural_similarity_is_one_for_the_same_picture_and_near_zero_for_noise() -> None:
    drawn = np.random.default_rng(1)
    one, other = drawn.random((40, 40)), drawn.random((40, 40))

    assert structural_similarity(one, one) == pytest.approx(1)
    assert abs(structural_similarity(one, other)) < 0.1
