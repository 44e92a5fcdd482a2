"""The verdict: which check comes first, what its words say, and what a model file must hold for it."""

import numpy as np
import numpy.typing as npt
import pytest

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.gate import Gate, judge, loosest, open_gate
from cassava_leaf_disease.inference.vote import combine_foreign
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata, OtherTrouble, QualityLimits, Thresholds

LIMITS = QualityLimits(
    min_sharpness=50,
    min_brightness=0.1,
    max_brightness=0.8,
    min_contrast=0.05,
    max_dark=0.6,
    max_bright=0.6,
    min_colors=300,
)
SURE = Thresholds(min_confidence=0.6)
GOOD = PhotoQuality(sharpness=900, brightness=0.45, contrast=0.2, dark=0.01, bright=0.0, colors=3000)


def quality(**changed: float) -> PhotoQuality:
    return PhotoQuality(**{**GOOD.__dict__, **changed})


def record(**changed: object) -> GateRecord:
    return GateRecord.model_validate(
        {
            "score": "energy",
            "typical": -5.0,
            "limit": -1.0,
            "neighbors": 1,
            "max_refused": 0.01,
            "quality": LIMITS,
            "photos": {"train": 10, "val": 5},
            **changed,
        }
    )


def logits(*largest: float) -> npt.NDArray[np.float32]:
    """Rows whose energy is minus the given numbers, nearly."""
    return np.array([[value, -50, -50, -50, -50] for value in largest], np.float32)


def test_a_good_photo_of_a_leaf_gets_a_diagnosis() -> None:
    judged = judge(0.9, SURE, GOOD, LIMITS, 0.2)
    assert (judged.verdict, judged.reasons) == ("diagnosis", ())
    assert [check.name for check in judged.checks] == [
        *("brightness", "dark", "bright", "contrast", "sharpness"),
        *("foreign", "confidence"),
    ]
    assert all(check.passed for check in judged.checks)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"brightness": 0.03}, "too dark: brightness 3%, expected at least 10%"),
        ({"brightness": 0.9}, "too bright: brightness 90%, expected at most 80%"),
        ({"dark": 0.7}, "too dark: 70% of it is black, expected at most 60%"),
        ({"bright": 0.7}, "overexposed: 70% of it is white, expected at most 60%"),
        ({"contrast": 0.01}, "hardly anything to see: contrast 1.0%, expected at least 5.0%"),
        ({"sharpness": 12.0}, "blurred, or too small: sharpness 12, expected at least 50"),
    ],
)
def test_a_poor_photo_says_what_is_wrong(changed: dict[str, float], words: str) -> None:
    judged = judge(0.99, SURE, quality(**changed), LIMITS, 0.0)
    assert judged.verdict == "poor_photo"
    [reason] = judged.reasons
    assert reason.startswith(words)


def test_the_photo_is_judged_before_its_subject_and_that_before_the_answer() -> None:
    assert judge(0.1, SURE, quality(sharpness=1.0), LIMITS, 3.0).verdict == "poor_photo"
    foreign = judge(0.1, SURE, GOOD, LIMITS, 3.0)
    assert foreign.verdict == "not_cassava"
    assert foreign.reasons[0].startswith("not like the cassava leaves of the training: 3.00 on a scale")
    unsure = judge(0.1, SURE, GOOD, LIMITS, 1.0)
    assert unsure.verdict == "uncertain"
    assert unsure.reasons[0].startswith("not sure enough: confidence 10%, expected at least 60%")


def test_an_answer_as_unsure_as_those_about_other_troubles_has_a_limit_of_its_own() -> None:
    thresholds = Thresholds(min_confidence=0.6, other_trouble=OtherTrouble(below=0.3, within=1.8))
    assert judge(0.25, thresholds, GOOD, LIMITS, 1.7).verdict == "uncertain"
    assert judge(0.3, thresholds, GOOD, LIMITS, 1.7).verdict == "not_cassava"
    beyond = judge(0.25, thresholds, GOOD, LIMITS, 1.9)
    assert beyond.verdict == "not_cassava"
    assert "1.90 on a scale where they end at 1.80" in beyond.reasons[0]
    assert judge(0.25, SURE, GOOD, LIMITS, 1.7).verdict == "not_cassava"


def test_what_lets_other_troubles_pass_gives_no_diagnosis() -> None:
    thresholds = Thresholds(min_confidence=0.6, other_trouble=OtherTrouble(below=0.9, within=1.8))
    assert judge(0.7, thresholds, GOOD, LIMITS, 1.7).verdict == "not_cassava"
    assert judge(0.59, thresholds, GOOD, LIMITS, 1.7).verdict == "uncertain"


def test_what_was_not_looked_at_is_not_among_the_checks() -> None:
    judged = judge(0.9, SURE)
    assert judged.verdict == "diagnosis"
    assert [check.name for check in judged.checks] == ["confidence"]


def test_the_exposure_of_a_page_or_a_screen_is_not_held_against_it() -> None:
    page = quality(brightness=0.95, bright=0.9, colors=60)
    judged = judge(0.9, SURE, page, LIMITS, 2.0)
    assert judged.verdict == "not_cassava"
    assert {check.name for check in judged.checks} == {"contrast", "sharpness", "foreign", "confidence"}
    empty = quality(brightness=1.0, bright=1.0, contrast=0.0, sharpness=0.0, colors=1)
    assert judge(0.9, SURE, empty, LIMITS, 2.0).verdict == "poor_photo"


def test_a_score_is_told_between_a_typical_leaf_and_the_limit() -> None:
    gate = Gate(record(), {})
    assert gate.foreign(EngineOutputs(logits(5.0, 3.0, 1.0, -1.0))) == pytest.approx([0, 0.5, 1, 1.5], abs=1e-6)


def test_several_models_refuse_by_the_mean_of_those_that_have_a_gate() -> None:
    without = [np.nan, np.nan]
    assert combine_foreign(np.array([[0.0, 2.0], without, [1.0, 1.0]])) == [0.5, 1.5]
    assert combine_foreign(np.array([without])) == [None, None]


def test_a_photo_is_poor_only_where_it_breaks_the_limits_of_every_model() -> None:
    stricter = LIMITS.model_copy(update={"min_sharpness": 80.0, "max_dark": 0.4, "min_contrast": 0.01})
    assert loosest([LIMITS, stricter]) == LIMITS.model_copy(update={"min_contrast": 0.01})
    assert loosest([]) is None


def test_a_file_without_a_gate_opens_none(metadata: ModelMetadata) -> None:
    assert open_gate(metadata, None, "best.ckpt") is None


def test_a_gate_whose_arrays_are_lost_is_an_error(metadata: ModelMetadata) -> None:
    described = metadata.model_copy(update={"gate": record(score="knn")})
    with pytest.raises(CheckpointError, match=r"best\.onnx: the arrays of its gate are missing or damaged; type cass"):
        open_gate(described, None, "best.onnx")


def test_a_network_without_features_is_an_error() -> None:
    arrays = {"mean": np.zeros(4), "components": np.eye(2, 4), "bank": np.zeros((3, 2))}
    with pytest.raises(CheckpointError, match=r"does not fit its network's features"):
        Gate(record(score="knn"), arrays).foreign(EngineOutputs(logits(1.0)))
    with pytest.raises(CheckpointError, match=r"does not fit its network's features"):
        Gate(record(score="knn"), arrays).foreign(EngineOutputs(logits(1.0), np.zeros((1, 5), np.float32)))


def test_a_limit_at_the_typical_score_is_refused() -> None:
    with pytest.raises(ValueError, match="the limit -5 is not above the typical score -5"):
        record(limit=-5.0)
