"""`cassava plants`: groups of photos of one class, drawn as they say, and what their answers are worth."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease.config.schema import AppConfig, PlantsConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.evaluation.plant_groups import (
    LabelledAnswers,
    arrange,
    classes_of_plants,
    distinct,
    draw_alike,
    draw_independent,
)
from cassava_leaf_disease.evaluation.plants import PlantsRow, add_intervals, measure, plants, rules
from cassava_leaf_disease.evaluation.predictions import write_predictions
from cassava_leaf_disease.inference.aggregate import DEFAULT_POOLING

Config = Callable[..., AppConfig]

EVEN = replace(DEFAULT_POOLING, prior=(0.2,) * 5)


def drawn_answers(sizes: tuple[int, ...] = (12, 14, 40, 60, 30), right: float = 0.75) -> LabelledAnswers:
    """Answers that are right so often, and else name the next class; features tell the right ones from the wrong."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(5), sizes))
    said = np.where(random.random(len(labels)) < right, labels, (labels + 1) % 5)
    probabilities = np.full((len(labels), 5), 0.08)
    probabilities[np.arange(len(labels)), said] = 0.68
    features = np.eye(5)[said] + 0.01 * random.random((len(labels), 5))
    return arrange(probabilities, labels, features / np.linalg.norm(features, axis=1, keepdims=True), 20)


def rows_of(answers: LabelledAnswers, photos: int) -> dict[tuple[str, str, str], PlantsRow]:
    rows = measure(answers, photos, rules(EVEN), 0.6, settings())
    return {(row.rule, row.draw, row.prevalence): row for row in rows}


def settings(groups: int = 2000) -> PlantsConfig:
    return PlantsConfig(answers_csv=None, max_photos=10, groups=groups, bootstrap_samples=50, seed=0, output_dir=None)


def test_numbers_of_a_group_are_different_and_all_equally_likely() -> None:
    sizes = np.repeat([4, 7], 6000)

    chosen = distinct(sizes, 4, np.random.default_rng(0))

    assert all(len(set(group)) == 4 for group in chosen.tolist())
    assert (chosen < sizes[:, None]).all()
    counts = np.bincount(chosen[6000:].ravel(), minlength=7)
    assert np.abs(counts / counts.sum() - 1 / 7).max() < 0.01


@pytest.mark.parametrize("draw", [draw_independent, draw_alike])
def test_groups_hold_different_photos_of_the_plants_class(
    draw: Callable[[LabelledAnswers, np.ndarray, int, np.random.Generator], np.ndarray],
) -> None:
    answers, classes = drawn_answers(), np.repeat(np.arange(5), 50)

    chosen = draw(answers, classes, 10, np.random.default_rng(0))

    assert chosen.shape == (250, 10)
    assert (answers.labels[chosen] == classes[:, None]).all()
    assert all(len(set(group)) == 10 for group in chosen.tolist())


def test_photos_that_look_alike_err_together() -> None:
    independent, alike = (
        rows_of(drawn_answers(), 6)["default", draw, "balanced"].accuracy for draw in ("independent", "alike")
    )

    assert independent > 0.85
    assert alike < independent - 0.05


def test_more_photos_answer_better_and_one_answers_as_itself() -> None:
    answers = drawn_answers()
    one, six = (rows_of(answers, photos)["default", "independent", "natural"] for photos in (1, 6))

    said = answers.probabilities.argmax(axis=1)
    assert one.accuracy == pytest.approx((said == answers.labels).mean(), abs=0.03)
    assert six.accuracy > one.accuracy + 0.1
    assert {row.accuracy for key, row in rows_of(answers, 1).items() if key[1:] == ("independent", "natural")} == {
        one.accuracy
    }


def test_every_rule_answers_about_the_same_groups() -> None:
    rows = rows_of(drawn_answers(), 3)

    assert {rule for rule, _, _ in rows} == set(rules(EVEN))
    same = rows["logarithms, correlation 0.5", "independent", "natural"]
    assert rows["logarithms, correlation 0", "independent", "natural"].confidence > same.confidence


def test_without_features_there_are_no_photos_that_look_alike() -> None:
    answers = drawn_answers()
    blind = arrange(answers.probabilities, answers.labels, None, 20)

    assert {row.draw for row in measure(blind, 2, rules(EVEN), 0.6, settings(100))} == {"independent"}


def test_classes_are_as_frequent_as_asked() -> None:
    counts = np.array([10, 0, 30, 60, 100])

    assert np.bincount(classes_of_plants(counts, 400, "natural"), minlength=5).tolist() == [20, 0, 60, 120, 200]
    assert np.bincount(classes_of_plants(counts, 400, "balanced"), minlength=5).tolist() == [100, 0, 100, 100, 100]


def test_no_one_is_sure_where_no_answer_reaches_the_threshold() -> None:
    [row, *_] = measure(drawn_answers(), 1, rules(EVEN), 1.0, settings(100))

    assert row.answered == 0
    assert row.accuracy_of_answered is None


def test_intervals_hold_the_figure_and_are_wider_for_fewer_photos() -> None:
    widths = []
    for times in (1, 8):
        answers = drawn_answers(tuple(times * size for size in (12, 14, 40, 60, 30)))
        row = add_intervals(rows_of(answers, 3)["default", "independent", "natural"], answers, EVEN, settings(500))
        assert row.accuracy_interval is not None
        assert row.f1_macro_interval is not None
        low, high = row.accuracy_interval
        assert low < row.accuracy < high
        widths.append(high - low)
    assert widths[1] < widths[0]


@pytest.mark.draws
def test_command_writes_table_figure_and_json(small_config: Config, random_checkpoint: Path, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "leaves", 40, 64, 0)

    result = plants(
        small_config(
            f"infer.checkpoint_path={random_checkpoint}",
            *("evaluate.csv_path=leaves/train.csv", "plants.max_photos=4", "plants.groups=100"),
            *("plants.bootstrap_samples=20", "plants.output_dir=plants"),
        )
    )

    assert [row.photos for row in result.rows if (row.draw, row.prevalence) == ("alike", "balanced")] == [1, 2, 3, 4]
    folder = tmp_path / "plants"
    assert sorted(path.name for path in folder.iterdir()) == ["plants.csv", "plants.json", "plants.png"]
    assert json.loads((folder / "plants.json").read_text(encoding="utf-8")) == result.model_dump(mode="json")
    rows = list(csv.DictReader(io.StringIO((folder / "plants.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 4 * len(rules(EVEN)) * 2 * 2
    assert float(rows[0]["accuracy_low"]) <= float(rows[0]["accuracy"]) <= float(rows[0]["accuracy_high"])


def test_smallest_class_bounds_the_groups(
    small_config: Config, random_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_synthetic_dataset(tmp_path / "leaves", 10, 64, 0)

    result = plants(
        small_config(
            f"infer.checkpoint_path={random_checkpoint}",
            *("evaluate.csv_path=leaves/train.csv", "plants.groups=100", "plants.bootstrap_samples=20"),
        )
    )

    assert max(row.photos for row in result.rows) == 2
    assert "the smallest class has 2 photos" in caplog.text
    assert result.output_dir == tmp_path / "outputs" / "evaluation" / "leaves-train" / "plants"


def test_answers_of_a_table_need_no_model_and_no_photos(small_config: Config, tmp_path: Path) -> None:
    answers = drawn_answers()
    names = [f"{index}.jpg" for index in range(len(answers.labels))]
    write_predictions(tmp_path / "oof.csv", names, answers.labels, answers.probabilities)
    short = ("plants.groups=100", "plants.bootstrap_samples=20", "plants.max_photos=2")

    result = plants(small_config("plants.answers_csv=oof.csv", *short))

    assert result.checkpoint is None
    assert list(result.photos.values()) == [12, 14, 40, 60, 30]
    assert {row.draw for row in result.rows} == {"independent"}
    assert (tmp_path / "outputs" / "plants" / "plants.png").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,label\na.jpg,1\n", "no table of probabilities"),
        ("image_id,label,prob_0,prob_1,prob_2,prob_3,prob_4\na.jpg,,1,0,0,0,0\n", r"no class id as label of a\.jpg"),
        ("image_id,label,prob_0,prob_1,prob_2,prob_3,prob_4\n", "no rows"),
    ],
)
def test_what_is_no_table_of_answers_is_told(text: str, message: str, small_config: Config, tmp_path: Path) -> None:
    (tmp_path / "oof.csv").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=f"{message}.*type the oof\\.csv"):
        plants(small_config("plants.answers_csv=oof.csv"))
