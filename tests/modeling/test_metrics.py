"""Accuracy and F1 are scikit-learn's, from counts; intervals cover what they promise."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cassava_leaf_disease.modeling.metrics import (
    accuracy,
    bootstrap_intervals,
    class_scores,
    confusion_matrix,
    f1_macro,
)

CASES = {
    "all classes": ([0, 1, 2, 3, 4, 3, 3], [0, 1, 2, 3, 4, 2, 3]),
    "one never predicted": ([0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 3, 3]),
    "one absent, yet predicted": ([0, 1, 3, 3], [0, 4, 3, 4]),
    "two absent altogether": ([1, 1, 3, 4], [1, 3, 3, 4]),
    "all wrong": ([0, 1, 2, 3, 4], [1, 2, 3, 4, 0]),
    "all right, one class": ([3, 3], [3, 3]),
}


def random_answers(seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 60))
    return rng.integers(0, 5, size).tolist(), rng.integers(0, 5, size).tolist()


@pytest.mark.parametrize(
    ("targets", "predictions"), [*CASES.values(), *map(random_answers, range(20))], ids=[*CASES, *map(str, range(20))]
)
def test_scores_equal_those_of_scikit_learn(targets: list[int], predictions: list[int]) -> None:
    matrix = confusion_matrix(targets, predictions, 5)
    scores = class_scores(matrix)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        targets, predictions, labels=range(5), zero_division=0
    )

    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(targets, predictions, labels=range(5)))
    assert accuracy(matrix) == pytest.approx(sklearn_metrics.accuracy_score(targets, predictions))
    expected = sklearn_metrics.f1_score(targets, predictions, average="macro", zero_division=0)
    assert f1_macro(matrix) == pytest.approx(expected)
    assert scores.precision == pytest.approx(precision)
    assert scores.recall == pytest.approx(recall)
    assert scores.f1 == pytest.approx(f1)
    assert matrix.sum(axis=1).tolist() == support.tolist()


def test_accuracy_is_micro_and_not_the_mean_of_recalls() -> None:
    matrix = confusion_matrix([3] * 9 + [0], [3] * 10, 5)

    assert accuracy(matrix) == 0.9
    assert class_scores(matrix).recall.tolist() == [0, 0, 0, 1, 0]
    assert f1_macro(matrix) == pytest.approx((0 + 18 / 19) / 2)


def test_no_answers_score_nothing() -> None:
    matrix = confusion_matrix([], [], 5)

    assert (accuracy(matrix), f1_macro(matrix)) == (0.0, 0.0)


def test_scores_of_many_matrices_are_those_of_each() -> None:
    matrices = np.stack([confusion_matrix(*random_answers(seed), 5) for seed in range(4)])  # (4, C, C)

    assert class_scores(matrices).f1 == pytest.approx(np.stack([class_scores(matrix).f1 for matrix in matrices]))


def test_intervals_are_the_same_in_every_call_and_another_with_another_seed() -> None:
    matrix = confusion_matrix(*random_answers(3), 5)

    assert bootstrap_intervals(matrix, 200) == bootstrap_intervals(matrix, 200)
    assert bootstrap_intervals(matrix, 200) != bootstrap_intervals(matrix, 200, seed=1)


def test_intervals_hold_the_score_and_narrow_with_more_photos() -> None:
    few = np.array([[40, 10], [5, 45]])
    widths = []
    for matrix in (few, few * 25):
        intervals = bootstrap_intervals(matrix, 2000)
        for name, value in (("accuracy", accuracy(matrix)), ("f1_macro", f1_macro(matrix))):
            low, high = intervals[name]
            assert 0 <= low < value < high <= 1
        low, high = intervals["accuracy"]
        widths.append(high - low)
    # Normal approximation: 2 * 1.96 * sqrt(0.85 * 0.15 / n)
    assert widths[0] == pytest.approx(3.92 * (0.85 * 0.15 / 100) ** 0.5, rel=0.1)
    assert widths[1] == pytest.approx(widths[0] / 5, rel=0.1)


def test_intervals_cover_the_true_accuracy_about_as_often_as_they_say() -> None:
    truth, photos, trials = 0.8, 200, 400
    right = np.random.default_rng(0).binomial(photos, truth, trials)
    covered = 0
    for trial, hits in enumerate(right):
        low, high = bootstrap_intervals(np.array([[hits, photos - hits], [0, 0]]), 400, seed=trial)["accuracy"]
        covered += low <= truth <= high

    assert 0.91 <= covered / trials <= 0.98


def test_intervals_resample_macro_f1_as_photos_would() -> None:
    targets, predictions = (np.array(answers) for answers in random_answers(7))
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, len(targets), len(targets)) for _ in range(3000)]
    by_photo = [f1_macro(confusion_matrix(targets[index], predictions[index], 5)) for index in drawn]

    intervals = bootstrap_intervals(confusion_matrix(targets, predictions, 5), 3000)

    assert intervals["f1_macro"] == pytest.approx(tuple(np.quantile(by_photo, [0.025, 0.975])), abs=0.02)
