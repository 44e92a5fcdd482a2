"""The gate of a training: what lets a new model pass, what refuses it, and what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.evaluation.report.comparison import Answers, compare
from cassava_leaf_disease.evaluation.scores import Scores, score
from model_gate import Decision, Evidence, EvidenceError, Rules, as_markdown, decide, main, read_evidence

PHOTOS = 400
LABELS = np.arange(PHOTOS, dtype=np.int64) % NUM_CLASSES


def answers(wrong: range) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Right but for some photos, whose answer is the next class."""
    predicted = LABELS.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % NUM_CLASSES
    return predicted


def scores_of(predicted: np.ndarray[Any, np.dtype[np.int64]]) -> Scores:
    sure = float((predicted == LABELS).mean())
    probabilities = np.full((PHOTOS, NUM_CLASSES), (1 - sure) / (NUM_CLASSES - 1))
    probabilities[np.arange(PHOTOS), predicted] = sure
    return score(LABELS, probabilities, CLASS_NAMES, 100)


def evidence(new_wrong: range, current_wrong: range) -> Evidence:
    new, current = answers(new_wrong), answers(current_wrong)
    [both] = compare(LABELS, new, [Answers("current", "current/predictions.csv", current)], 100)
    return Evidence(scores_of(new), scores_of(current), both)


def names(decision: Decision) -> list[str]:
    return [reason.partition(":")[0] for reason in decision.reasons]


def test_a_better_model_passes() -> None:
    decision = decide(evidence(range(40), range(80)), Rules(require="better"))
    assert decision.verdict == "pass"
    assert decision.reasons == ()
    assert "40 photos only the new one gets right, 0 only the current" in str(decision.checks)


def test_an_equal_model_passes_unless_it_has_to_be_better() -> None:
    same = evidence(range(80), range(80))
    assert decide(same, Rules()).verdict == "pass"
    assert names(decide(same, Rules(require="better"))) == ["surely better"]


def test_a_surely_worse_model_is_refused_whatever_loss_is_allowed() -> None:
    worse = evidence(range(80), range(40))
    assert names(decide(worse, Rules(max_accuracy_loss=1, max_f1_loss=1, max_recall_loss=1))) == ["not surely worse"]


def test_a_little_loss_is_refused_unless_it_is_allowed() -> None:
    little = evidence(range(82), range(80))
    assert names(decide(little, Rules())) == ["accuracy", "macro-F1"]
    assert decide(little, Rules(max_accuracy_loss=0.01, max_f1_loss=0.01)).verdict == "pass"


def test_a_class_that_falls_is_refused_though_the_rest_gained() -> None:
    fallen = evidence(range(0, 400, 5), range(2, 400, 3))
    assert names(decide(fallen, Rules())) == [f"recall of {CLASS_NAMES[0]}"]
    assert decide(fallen, Rules(min_support=81)).verdict == "pass"


def test_few_photos_a_guess_and_wrong_confidence_are_refused_for_a_first_model_too() -> None:
    guess = score(LABELS, np.eye(NUM_CLASSES)[np.zeros(PHOTOS, np.int64)], CLASS_NAMES, 100)
    decision = decide(Evidence(guess, None, None), Rules(first=True, min_photos=PHOTOS + 1))
    assert names(decision) == ["photos", "better than guessing", "calibration"]


def test_no_current_model_has_to_be_announced() -> None:
    new = scores_of(answers(range(80)))
    assert names(decide(Evidence(new, None, None), Rules())) == ["current model"]
    assert decide(Evidence(new, None, None), Rules(first=True)).verdict == "pass"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    found = evidence(range(40), range(80))
    report, current = tmp_path / "report.json", tmp_path / "metrics.json"
    assert found.comparison is not None
    assert found.current is not None
    comparisons = [found.comparison.model_dump(mode="json")]
    report.write_text(json.dumps({"scores": found.new.model_dump(mode="json"), "comparisons": comparisons}))
    current.write_text(json.dumps({"scores": found.current.model_dump(mode="json")}))
    return report, current


def test_the_exit_code_is_the_decision(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, current = files
    summary = tmp_path / "summary.md"
    assert main([str(report), "--current", str(current), "--summary", str(summary)]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    assert main([str(report), "--current", str(current), "--min-photos", "1000", "--summary", str(summary)]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["reasons"] == ["photos: measured on 400, at least 1000 expected"]
    assert summary.read_text(encoding="utf-8").count("### Model gate") == 2
    assert "| **refuse** | photos |" in summary.read_text(encoding="utf-8")
    assert main([str(report), "--first"]) == 0


def test_markdown_tells_every_check() -> None:
    decision = decide(evidence(range(40), range(80)), Rules())
    assert as_markdown(decision).count("\n| pass |") == len(decision.checks)


def test_files_that_do_not_fit_are_told_in_one_line(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, current = files
    content = json.loads(report.read_text(encoding="utf-8"))
    for broken, told in (
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no report of this version"),
        (json.dumps(content | {"comparisons": []}), "0 comparisons, expected one"),
    ):
        other = tmp_path / "other.json"
        other.write_text(broken)
        with pytest.raises(EvidenceError, match=told):
            read_evidence(other, current)
    assert main([str(tmp_path / "none.json"), "--first"]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_a_current_model_measured_on_other_photos_is_refused(files: tuple[Path, Path]) -> None:
    report, current = files
    content = json.loads(current.read_text(encoding="utf-8"))
    content["scores"]["accuracy"] += 0.01
    current.write_text(json.dumps(content))
    with pytest.raises(EvidenceError, match="not the model and photos"):
        read_evidence(report, current)
