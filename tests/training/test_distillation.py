"""`cassava distill`: teachers first, then students of what they say together."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found, read_ensemble
from cassava_leaf_disease.training import distillation
from cassava_leaf_disease.training.distillation import distill, student_config, teacher_config
from cassava_leaf_disease.training.fit import find_start

SmallConfig = Callable[..., AppConfig]


@pytest.fixture
def config_for(small_config: SmallConfig, tmp_path: Path) -> SmallConfig:
    write_synthetic_dataset(tmp_path / "leaves", 40, 64, 0)
    overrides = ("data.synthetic.enabled=false", f"paths.data_dir={tmp_path / 'leaves'}", "train.epochs=2")
    few = ("distill.teachers=2", "distill.teacher_epochs=1", "data.split.val_size=0.2", "data.split.test_size=0.2")
    return lambda *more: small_config(*overrides, *few, *more)


def test_students_learn_from_teachers_of_the_same_photos(config_for: SmallConfig) -> None:
    result = distill(config_for("train.seed=5"))

    assert [run.seed for run in result.teachers] == [5, 6]
    assert [run.epochs for run in (*result.teachers, *result.students)] == [1, 1, 2]
    assert len({run.split_hash for run in (*result.teachers, *result.students)}) == 1
    assert result.model == result.students[0].checkpoint
    ensemble = read_ensemble(result.distill_dir / "teachers" / "ensemble.json")
    assert ensemble.combine == "logits"
    written = json.loads((result.distill_dir / "metrics.json").read_text(encoding="utf-8"))
    assert written == result.model_dump(mode="json")


def test_several_students_answer_as_one_and_are_calibrated_as_one(
    config_for: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "ENOUGH_PHOTOS", 5)
    result = distill(config_for("distill.teachers=1", "distill.students=2"))

    assert load_found(FoundModel(result.model, "explicit"), "cpu").identity.name.startswith("2 x ")
    assert read_ensemble(result.model).calibration is not None


def test_resume_trains_only_what_is_missing(config_for: SmallConfig) -> None:
    first = distill(config_for())
    kept = {run.run_dir: (run.run_dir / "metrics.json").stat().st_mtime_ns for run in first.teachers}
    (first.distill_dir / "metrics.json").unlink()
    student = first.students[0].run_dir
    (student / "metrics.json").unlink()

    again = distill(config_for("distill.resume=true"))

    assert again.distill_dir == first.distill_dir
    assert {folder: (folder / "metrics.json").stat().st_mtime_ns for folder in kept} == kept
    assert again.students[0].metrics == pytest.approx(first.students[0].metrics)
    with pytest.raises(ConfigError, match="no unfinished distillation with these settings"):
        distill(config_for("distill.resume=true"))


def test_teachers_have_their_own_epochs_and_smoothing(config_for: SmallConfig, tmp_path: Path) -> None:
    config = config_for("distill.teacher_label_smoothing=0.1", "loss.label_smoothing=0", "train.seed=3")
    teacher, student = teacher_config(config, 1), student_config(config, 0, tmp_path / "t.json")

    assert (teacher.train.seed, teacher.train.epochs, teacher.loss.label_smoothing) == (4, 1, 0.1)
    assert teacher.distill.teacher is None
    assert (student.train.seed, student.train.epochs, student.loss.label_smoothing) == (3, 2, 0)
    assert (student.distill.teacher, student.distill.consistent) == (tmp_path / "t.json", True)
    plain = config_for("distill.teacher_epochs=null", "loss.label_smoothing=0.2")
    assert (teacher_config(plain, 0).train.epochs, teacher_config(plain, 0).loss.label_smoothing) == (2, 0.2)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("distill.teacher=t.ckpt", r"trains its own teachers.*type distill.teacher=null"),
        ("distill.tta=flips", r"distill.tta=flips: .* look at each batch once"),
        ("train.save_checkpoints=false", r"type train.save_checkpoints=true"),
    ],
)
def test_settings_that_contradict_it_are_refused(config_for: SmallConfig, word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        distill(config_for(word))


def test_a_student_s_recipe_without_a_teacher_is_told(
    config_for: SmallConfig, caplog: pytest.LogCaptureFixture
) -> None:
    find_start(config_for(), None)
    find_start(config_for("crossval.distill=true", "distill.teacher=t.ckpt"), None)
    assert not caplog.messages

    find_start(config_for("crossval.distill=true"), None)
    (said,) = caplog.messages
    assert "there is no teacher: it learns from the labels alone; type `cassava distill`" in said


def test_started_by_a_launcher(config_for: SmallConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("TORCHELASTIC_RUN_ID", "x")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"torchrun started this command in several processes"):
        distill(config_for())
