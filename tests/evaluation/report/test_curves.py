"""Curves are scikit-learn's; coverage is counted photo by photo."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.report.curves import coverage_levels, precision_recall


@pytest.fixture
def answered() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120)  # nobody is healthy
    raw = rng.random((120, 5)) + 0.8 * np.eye(5)[labels]
    return labels, raw / raw.sum(axis=1, keepdims=True)


def test_every_class_with_photos_has_its_curve(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answered

    curves = precision_recall(labels, probabilities)

    assert list(curves) == list(CLASS_NAMES[:4])
    for index, curve in enumerate(curves.values()):
        expected = average_precision_score(labels == index, probabilities[:, index])
        assert curve.average_precision == pytest.approx(expected)
        steps = -np.diff(curve.recall) * curve.precision[:-1]
        assert steps.sum() == pytest.approx(expected)
        assert curve.share == pytest.approx((labels == index).mean())


def test_levels_are_points_of_the_curve(answered: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answered

    levels = coverage_levels(labels, probabilities)

    assert [(level.coverage, level.photos) for level in levels][:3] == [(1.0, 120), (0.95, 114), (0.9, 108)]
    assert levels[0].min_confidence == pytest.approx(probabilities.max(axis=1).min())
    for level in levels:
        kept = probabilities.max(axis=1) >= level.min_confidence
        assert kept.sum() == level.photos
        assert level.accuracy == pytest.approx((probabilities[kept].argmax(axis=1) == labels[kept]).mean())
    (alone,) = {level.photos for level in coverage_levels(answered[0][:1], answered[1][:1])}
    assert alone == 1
