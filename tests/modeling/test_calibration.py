"""Temperature scaling and the calibration error, on answers whose truth is known."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cassava_leaf_disease.modeling.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    soften,
)


def honest(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 5), and labels drawn from just these."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(5, 0.4), count)
    labels = (probabilities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return probabilities, np.minimum(labels, 4)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoiled_honest_answers_is_found_again(temperature: float) -> None:
    probabilities, labels = honest(20_000)
    spoiled = soften(probabilities, 1 / temperature)
    assert fit_temperature(spoiled, labels) == pytest.approx(temperature, rel=0.03)
    mended = soften(spoiled, fit_temperature(spoiled, labels))
    assert expected_calibration_error(mended, labels) < 0.015


def test_the_temperature_is_the_minimum_that_scipy_finds() -> None:
    probabilities, labels = honest(300, seed=3)
    probabilities = soften(probabilities, 0.5)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(soften(probabilities, np.exp(log)), labels),
        bounds=(-3, 3),
        method="bounded",
    )
    assert fit_temperature(probabilities, labels) == pytest.approx(float(np.exp(found.x)), rel=1e-3)


def test_answers_that_are_always_right_or_blind_stay_inside_the_range() -> None:
    labels = np.arange(50) % 5
    right = 0.2 + 0.6 * np.eye(5)[labels] - 0.12
    assert fit_temperature(right / right.sum(axis=1, keepdims=True), labels) == pytest.approx(0.05, rel=1e-3)
    wrong = np.roll(right, 1, axis=1)
    assert fit_temperature(wrong / wrong.sum(axis=1, keepdims=True), labels) == pytest.approx(20, rel=1e-3)


def test_certainty_does_not_make_infinities() -> None:
    probabilities, labels = np.eye(5)[[0, 1, 2, 3]], np.array([0, 1, 2, 4])
    temperature = fit_temperature(probabilities, labels)
    assert 0.05 <= temperature <= 20
    assert np.isfinite(soften(probabilities, temperature)).all()


def test_the_error_is_what_one_counts_by_hand() -> None:
    # two answers at 0.9, one of them right; two at 0.6, both right
    probabilities = np.array([[0.9, 0.1, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0.6, 0.4, 0, 0, 0]])
    labels = np.array([0, 1, 0, 0])
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert [(each.photos, each.accuracy) for each in reliability(probabilities, labels, bins=10)] == [
        (2, 1.0),
        (2, 0.5),
    ]


def test_full_confidence_counts_in_the_last_bin() -> None:
    [only] = reliability(np.eye(5)[[2]], np.array([2]), bins=10)
    assert (only.photos, only.confidence, only.accuracy) == (1, 1.0, 1.0)
