"""The figures of a whole set of photos are scikit-learn's, under the classes' names."""

import json

import numpy as np
import pytest
from sklearn import metrics

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.scores import Scores, score


def answers(labels: list[int], seed: int = 0) -> np.ndarray:
    """Probabilities (N, C), right more often than not."""
    rng = np.random.default_rng(seed)
    raw = rng.random((len(labels), 5)) + 0.7 * np.eye(5)[labels]
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("classes", [range(5), [0, 1, 3]])
def test_scores_equal_those_of_scikit_learn(classes: list[int]) -> None:
    labels = np.random.default_rng(1).choice(classes, 80)
    probabilities = answers(labels.tolist())
    predicted = probabilities.argmax(axis=1)

    scores = score(labels, probabilities, CLASS_NAMES, 200)

    report = metrics.classification_report(
        labels, predicted, labels=range(5), target_names=CLASS_NAMES, output_dict=True, zero_division=0
    )
    assert scores.photos == 80
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores.f1_macro == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
    assert scores.majority_accuracy == np.bincount(labels).max() / 80
    assert scores.confusion_matrix == metrics.confusion_matrix(labels, predicted, labels=range(5)).tolist()
    assert list(scores.per_class) == list(CLASS_NAMES)
    for name, line in scores.per_class.items():
        expected = report[name]
        assert line.precision == pytest.approx(expected["precision"])
        assert line.recall == pytest.approx(expected["recall"])
        assert line.f1 == pytest.approx(expected["f1-score"])
        assert line.support == expected["support"]


def test_scores_are_reproducible_and_survive_their_json() -> None:
    labels = np.array([0, 1, 2, 3, 4, 3, 3, 2])

    first, again = (score(labels, answers(labels.tolist()), CLASS_NAMES, 300) for _ in range(2))

    assert first == again
    assert Scores.model_validate_json(json.dumps(first.model_dump(mode="json"), allow_nan=False)) == first
    assert set(first.intervals) == {"accuracy", "f1_macro"}
