"""Two models on the same photos: the test is SciPy's, the differences are those of scikit-learn's figures."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from cassava_leaf_disease.evaluation.report.comparison import Answers, compare, holm, mcnemar


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (3, 9), (9, 3), (7, 7), (7, 8), (40, 61), (900, 1003)])
def test_p_value_is_that_of_the_exact_binomial_test(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-9)


def test_models_that_never_differ_are_not_told_apart() -> None:
    assert mcnemar(0, 0) == 1.0


def test_several_tests_are_corrected_by_holm_s_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def answers(labels: np.ndarray, share_right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < share_right, labels, rng.integers(0, 5, len(labels)))


def test_figures_of_a_comparison_are_those_of_its_photos() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 300)
    ours, theirs = answers(labels, 0.5, 1), answers(labels, 0.8, 2)

    (result,) = compare(labels, ours, [Answers("other", "other.ckpt", theirs)], 400)

    assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, theirs))
    assert result.f1_macro == pytest.approx(metrics.f1_score(labels, theirs, average="macro"))
    assert result.accuracy_difference == pytest.approx(result.accuracy - metrics.accuracy_score(labels, ours))
    assert result.f1_macro_difference == pytest.approx(
        result.f1_macro - metrics.f1_score(labels, ours, average="macro")
    )
    right, other_right = ours == labels, theirs == labels
    assert result.both_right == (right & other_right).sum()
    assert result.only_measured_right == (right & ~other_right).sum()
    assert result.only_other_right == (~right & other_right).sum()
    assert result.both_wrong == (~right & ~other_right).sum()
    discordant = result.only_measured_right + result.only_other_right
    assert result.p_value == pytest.approx(binomtest(result.only_other_right, discordant, 0.5).pvalue)
    for difference, (low, high) in (
        (result.accuracy_difference, result.accuracy_difference_interval),
        (result.f1_macro_difference, result.f1_macro_difference_interval),
    ):
        assert 0 < low < difference < high


def test_intervals_are_paired() -> None:
    """Two models that differ on two photos of a hundred differ by about as much in every sample."""
    labels = np.zeros(100, np.int64)
    ours, theirs = np.repeat([0, 1], 50), np.repeat([0, 1], 50)
    theirs[50:52] = 0

    (result,) = compare(labels, ours, [Answers("other", "", theirs)], 1000)

    low, high = result.accuracy_difference_interval
    assert result.accuracy_difference == pytest.approx(0.02)
    assert 0 <= low < high < 0.08  # two unpaired samples of a hundred would reach 0.15


def test_the_same_answers_are_no_difference() -> None:
    labels = np.array([0, 1, 2, 3, 4])

    first, second = compare(labels, labels, [Answers("a", "", labels), Answers("b", "", labels)], 100)

    assert (first.p_value_holm, first.accuracy_difference, first.accuracy_difference_interval) == (1.0, 0.0, (0.0, 0.0))
    assert second.both_right == 5
