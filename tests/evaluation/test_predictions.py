"""The table of a model's answers."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease.data.datasets import SyntheticPhotos
from cassava_leaf_disease.evaluation.predictions import predict_photos, write_predictions
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor


def test_table_has_a_row_a_photo_and_the_extra_columns(tmp_path: Path) -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]])

    write_predictions(tmp_path / "a.csv", ["x.jpg", "y,z.jpg"], np.array([3, 1]), probabilities, {"fold": [0, 1]})

    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == (
        "image_id,label,predicted,prob_0,prob_1,prob_2,prob_3,prob_4,fold\n"
        "x.jpg,3,3,0.100000,0.200000,0.300000,0.400000,0.000000,0\n"
        '"y,z.jpg",1,0,0.333333,0.333333,0.333333,0.000000,0.000000,1\n'
    )


def test_answers_and_photos_must_be_as_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer"):
        write_predictions(tmp_path / "a.csv", ["x.jpg"], np.array([3, 1]), np.full((2, 5), 0.2))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only_and_never_on_stdout(
    terminal: bool, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    predictor = load_predictor(FoundModel(random_checkpoint, "explicit"), "cpu")

    probabilities = predict_photos(predictor, SyntheticPhotos([0, 1, 2], 0, 80), batch_size=2)

    assert probabilities.shape == (3, 5)
    assert ("predicting" in screen.getvalue()) is terminal
    assert capsys.readouterr().out == ""
