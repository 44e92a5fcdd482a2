"""Distances from the leaves of the training, on features whose truth is known."""

import numpy as np
import numpy.typing as npt
import pytest

from cassava_leaf_disease.config.schema import OodScore
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.ood import check_arrays, energy, fit_arrays, score_outputs

DISTANCES: tuple[OodScore, ...] = ("knn", "mahalanobis")


def blobs(count: int, seed: int) -> tuple[EngineOutputs, npt.NDArray[np.int64]]:
    """Five classes along five of 24 axes, with a little of everything else."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    features = 0.05 * rng.normal(size=(count, 24))
    features[np.arange(count), labels] += 1
    return EngineOutputs(np.zeros((count, 5), np.float32), (3 * features).astype(np.float32)), labels


def along(axis: int) -> EngineOutputs:
    return EngineOutputs(np.zeros((1, 5), np.float32), np.eye(24, dtype=np.float32)[[axis]])


def test_energy_is_minus_the_log_of_the_sum_of_exponentials() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, 0.0]])
    assert energy(logits) == pytest.approx([-np.log(np.exp(logits[0]).sum()), -1000.0])


@pytest.mark.parametrize("score", DISTANCES)
@pytest.mark.parametrize("dimensions", [4, 8, 100])
def test_what_no_leaf_looks_like_is_far(score: OodScore, dimensions: int) -> None:
    outputs, labels = blobs(200, 0)
    arrays = fit_arrays(score, outputs, labels, dimensions)
    leaves = score_outputs(score, arrays, blobs(100, 1)[0], 5)
    assert score_outputs(score, arrays, along(20), 5)[0] > 2 * leaves.max()
    assert score_outputs(score, arrays, along(2), 5)[0] < leaves.max() * 1.5


@pytest.mark.parametrize("score", DISTANCES)
def test_the_length_of_features_does_not_matter(score: OodScore) -> None:
    outputs, labels = blobs(200, 0)
    arrays = fit_arrays(score, outputs, labels, 8)
    assert outputs.features is not None
    longer = EngineOutputs(outputs.logits, 7 * outputs.features)
    assert score_outputs(score, arrays, longer, 5) == pytest.approx(score_outputs(score, arrays, outputs, 5), rel=1e-3)


def test_knn_is_the_distance_to_the_nth_nearest_leaf() -> None:
    outputs, labels = blobs(60, 0)
    assert outputs.features is not None
    arrays = fit_arrays("knn", outputs, labels, 24)
    unit = outputs.features / np.linalg.norm(outputs.features, axis=1, keepdims=True)
    expected = np.sort(np.linalg.norm(unit[:, None] - unit[None], axis=2), axis=1)[:, 3]
    assert score_outputs("knn", arrays, outputs, 4) == pytest.approx(expected, abs=5e-3)
    assert np.isfinite(score_outputs("knn", arrays, outputs, 1000)).all()


def test_leaves_of_a_class_have_variance_one_for_mahalanobis() -> None:
    outputs, labels = blobs(2000, 0)
    arrays = fit_arrays("mahalanobis", outputs, labels, 16)
    squares = score_outputs("mahalanobis", arrays, outputs, 1) ** 2
    assert squares.mean() == pytest.approx(24, rel=0.05)  # 16 along the components, 8 beside them


def test_a_class_without_photos_has_no_center() -> None:
    outputs, labels = blobs(60, 0)
    arrays = fit_arrays("mahalanobis", outputs, np.where(labels == 4, 3, labels), 8)
    assert arrays["centers"].shape == (4, 8)
    check_arrays("mahalanobis", arrays)


@pytest.mark.parametrize("score", DISTANCES)
def test_arrays_that_do_not_fit_together_are_refused(score: OodScore) -> None:
    arrays = fit_arrays(score, *blobs(60, 0), 8)
    check_arrays(score, arrays)
    for name, array in arrays.items():
        with pytest.raises(ValueError, match="for the score"):
            check_arrays(score, {**arrays, name: array[..., :-1]})
        with pytest.raises(ValueError, match="for the score"):
            check_arrays(score, {kept: values for kept, values in arrays.items() if kept != name})


def test_energy_needs_no_arrays() -> None:
    outputs, labels = blobs(10, 0)
    assert fit_arrays("energy", outputs, labels, 8) == {}
    check_arrays("energy", {})
    with pytest.raises(ValueError, match="needs the network's features"):
        fit_arrays("knn", EngineOutputs(outputs.logits), labels, 8)
