"""The one definition of an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cassava_leaf_disease.domain import (
    CLASS_NAMES,
    NUM_CLASSES,
    Prediction,
    probabilities_by_name,
    rank_classes,
)


def answer(**changes: Any) -> dict[str, Any]:
    """The JSON of an answer as another program may send it."""
    probabilities = dict(zip(CLASS_NAMES, (0.1, 0.2, 0.3, 0.4, 0.0), strict=True))
    return {
        "predicted_class_id": 3,
        "class_name": CLASS_NAMES[3],
        "confidence": 0.4,
        "probabilities": probabilities,
        "top_k": [{"class_id": 3, "class_name": CLASS_NAMES[3], "prob": 0.4}],
        "verdict": "uncertain",
        "reasons": [],
        "checks": [],
        "model": {"name": "m", "version": "1", "source": "explicit", "path": str(Path("best.ckpt"))},
        "image": None,
    } | changes


def test_classes_are_the_competition_s_in_its_order() -> None:
    assert CLASS_NAMES == (
        "Cassava Bacterial Blight",
        "Cassava Brown Streak Disease",
        "Cassava Green Mottle",
        "Cassava Mosaic Disease",
        "Healthy",
    )
    assert NUM_CLASSES == 5


def test_answer_survives_its_json() -> None:
    prediction = Prediction.model_validate(answer())

    text = prediction.model_dump_json()

    assert json.loads(text) == answer()
    assert Prediction.model_validate_json(text) == prediction


@pytest.mark.parametrize("healthy", [0.0, 9e-5])
def test_probabilities_may_sum_to_one_within_rounding(healthy: float) -> None:
    probabilities = answer()["probabilities"] | {"Healthy": healthy}

    assert Prediction.model_validate(answer(probabilities=probabilities)).probabilities["Healthy"] == healthy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": {"Healthy": 0.9}}, "sum to 0.9; expected 1 within 0.0001"),
        ({"probabilities": {"Healthy": float("nan")}}, "finite number"),
        ({"probabilities": {"Healthy": 1.5, "Rust": -0.5}}, "less than or equal to 1"),
        ({"confidence": 1.2}, "less than or equal to 1"),
        ({"verdict": "maybe"}, "diagnosis"),
        ({"klass": 3}, "Extra inputs"),
    ],
)
def test_what_is_no_answer_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Prediction.model_validate(answer(**changes))


@pytest.mark.parametrize("top_k", [1, 3, 5, 9])
def test_ranking_falls_and_has_as_many_lines_as_asked_for(top_k: int) -> None:
    ranking = rank_classes((0.1, 0.5, 0.0, 0.3, 0.1), CLASS_NAMES, top_k)

    assert [line.class_id for line in ranking] == [1, 3, 0, 4, 2][:top_k]
    assert [line.class_name for line in ranking] == [CLASS_NAMES[line.class_id] for line in ranking]
    assert [line.prob for line in ranking] == [0.5, 0.3, 0.1, 0.1, 0.0][:top_k]


def test_equal_probabilities_are_ranked_by_class_id() -> None:
    assert [line.class_id for line in rank_classes((0.2,) * 5, CLASS_NAMES, 5)] == [0, 1, 2, 3, 4]


def test_probabilities_are_named_in_class_order_and_none_is_missing() -> None:
    assert list(probabilities_by_name((0.2,) * 5, CLASS_NAMES)) == list(CLASS_NAMES)
    with pytest.raises(ValueError, match="shorter"):
        probabilities_by_name((0.5, 0.5), CLASS_NAMES)
