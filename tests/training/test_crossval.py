"""Cross-validation: every photo outside the test part is judged once by a model that never saw it."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datasets import DecodedPhotos
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.errors import CassavaError, ConfigError
from cassava_leaf_disease.evaluation.predictions import predict_photos
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found, read_ensemble
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training import children, folds, worker
from cassava_leaf_disease.training.crossval import CrossvalResult, crossval
from cassava_leaf_disease.training.distillation import DistillResult

SmallConfig = Callable[..., AppConfig]


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawn leaves; read only."""
    folder = tmp_path_factory.mktemp("folds") / "leaves"
    write_synthetic_dataset(folder, 60, 64, 0)
    return folder


@pytest.fixture
def fold_config(small_config: SmallConfig, leaves: Path) -> SmallConfig:
    return lambda *more: small_config(*three_folds(leaves), *more)


@pytest.fixture(scope="module")
def finished(leaves: Path, small_words: Sequence[str]) -> CrossvalResult:
    """Three folds, one after another; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASSAVA_ROOT", str(leaves.parent))
        return crossval(load_config([*small_words, *three_folds(leaves)]))


def three_folds(leaves: Path) -> list[str]:
    photos = ["data.synthetic.enabled=false", f"paths.data_dir={leaves}"]
    return [*photos, "train.epochs=1", "data.split.folds=3", "data.split.test_size=0.2"]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_out_of_fold_table_has_every_photo_once_and_no_test_photo(finished: CrossvalResult) -> None:
    rows = read_rows(finished.crossval_dir / "oof.csv")
    assert len({row["image_id"] for row in rows}) == len(rows) == 48
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    for index, fold in enumerate(finished.folds):
        parts = {row["image_id"]: row["part"] for row in read_rows(fold.run_dir / "split.csv")}
        ours = {row["image_id"] for row in rows if row["fold"] == str(index)}
        assert {parts[image_id] for image_id in ours} == {"val"}
        assert not {row["image_id"] for row in rows} & {name for name, part in parts.items() if part == "test"}


def test_figures_agree_with_the_folds(finished: CrossvalResult) -> None:
    assert finished.out_of_fold.photos == 48
    right = sum(fold.metrics["val/acc"] * fold.photos["val"] for fold in finished.folds)
    assert finished.out_of_fold.accuracy == pytest.approx(right / 48, abs=1e-6)
    scores = [fold.metrics["val/acc"] for fold in finished.folds]
    assert finished.spread["val/acc"].mean == pytest.approx(sum(scores) / 3)
    written = json.loads((finished.crossval_dir / "metrics.json").read_text(encoding="utf-8"))
    assert written == finished.model_dump(mode="json")


def test_resume_trains_only_the_folds_that_are_missing(fold_config: SmallConfig) -> None:
    first = crossval(fold_config())
    kept = (first.folds[0].run_dir / "metrics.json").stat().st_mtime_ns
    (first.crossval_dir / "metrics.json").unlink()
    (first.folds[2].run_dir / "metrics.json").unlink()
    (first.folds[2].run_dir / "checkpoints" / "last.ckpt").unlink()

    again = crossval(fold_config("crossval.resume=true"))

    assert again.crossval_dir == first.crossval_dir
    assert (again.folds[0].run_dir / "metrics.json").stat().st_mtime_ns == kept
    assert [fold.metrics for fold in again.folds] == [fold.metrics for fold in first.folds]


def test_nothing_to_resume_and_impossible_settings_are_refused(
    fold_config: SmallConfig, small_config: SmallConfig
) -> None:
    with pytest.raises(ConfigError, match="no unfinished cross-validation"):
        crossval(fold_config("crossval.resume=true"))
    with pytest.raises(ConfigError, match=r"data\.synthetic\.enabled=false"):
        crossval(small_config())
    with pytest.raises(ConfigError, match=r"train\.save_checkpoints=true"):
        crossval(fold_config("train.save_checkpoints=false"))


def test_folds_side_by_side_give_what_folds_in_a_row_give(
    fold_config: SmallConfig, finished: CrossvalResult, capfd: pytest.CaptureFixture[str]
) -> None:
    beside = crossval(fold_config("crossval.parallel=2"))

    assert [fold.metrics for fold in beside.folds] == [pytest.approx(fold.metrics, abs=1e-5) for fold in finished.folds]
    assert beside.out_of_fold.accuracy == finished.out_of_fold.accuracy
    assert {line.partition(" | ")[0] for line in capfd.readouterr().err.splitlines() if " | " in line} == {
        "fold 1 of 3",
        "fold 2 of 3",
        "fold 3 of 3",
    }


def test_students_answer_about_photos_that_their_teachers_have_not_seen_either(
    fold_config: SmallConfig, leaves: Path
) -> None:
    words = ("crossval.distill=true", "distill.teachers=2", "distill.students=2", "data.split.folds=2")
    result = crossval(fold_config(*words, "train.seed=3"))

    assert [run.seed for run in result.folds] == [3, 4, 3, 4]
    assert result.out_of_fold.photos == 48
    assert len(read_ensemble(result.ensemble).members) == 4
    rows = read_rows(result.crossval_dir / "oof.csv")
    for index in (0, 1):
        fold = result.crossval_dir / f"fold_{index}"
        ours = [row for row in rows if row["fold"] == str(index)]
        for run_dir in (fold / part / f"seed_{seed}" for part in ("teachers", "students") for seed in (3, 4)):
            unseen = {row["image_id"] for row in read_rows(run_dir / "split.csv") if row["part"] == "val"}
            assert unseen == {row["image_id"] for row in ours}
        students = load_found(FoundModel(fold / "students" / "ensemble.json", "explicit"), "cpu")
        photos = [LabeledPhoto(row["image_id"], 0, leaves / "train_images" / row["image_id"]) for row in ours]
        source = DecodedPhotos(photos, students.photo_side_px, enlarge=True)
        answers = predict_photos(students, source, 8)
        assert [float(row["prob_0"]) for row in ours] == pytest.approx(answers[:, 0].tolist(), abs=1e-5)


def test_a_process_of_its_own_distils_a_fold(fold_config: SmallConfig, tmp_path: Path) -> None:
    config = fold_config("distill.teachers=1", "data.split.strategy=kfold")
    task = children.Task(config=config, run_dir=tmp_path / "fold_0", distilled=True)
    write_json(tmp_path / children.TASK_FILE, task.model_dump(mode="json"))

    worker.run_task(tmp_path)  # what such a process does

    answer = (tmp_path / children.ANSWER_FILE).read_text(encoding="utf-8")
    assert answer == (tmp_path / "fold_0" / "metrics.json").read_text(encoding="utf-8")
    assert DistillResult.model_validate_json(answer).model.parent.parent.parent == tmp_path / "fold_0" / "students"


def test_folds_of_students_are_given_to_processes_as_such(fold_config: SmallConfig, tmp_path: Path) -> None:
    nursery = mock.create_autospec(children.Nursery, instance=True)
    folds._start(nursery, fold_config("crossval.distill=true"), tmp_path, 1, {})
    folds._start(nursery, fold_config(), tmp_path, 2, {})

    tasks = [call.args[1] for call in nursery.start.call_args_list]
    assert [(task.distilled, task.run_dir) for task in tasks] == [
        (True, tmp_path / "fold_1"),
        (False, tmp_path / "fold_2"),
    ]


def test_a_fold_of_students_goes_on_where_it_was_cut_off(fold_config: SmallConfig) -> None:
    words = ("crossval.distill=true", "distill.teachers=1", "data.split.folds=2")
    first = crossval(fold_config(*words))
    (teacher,) = first.crossval_dir.glob("fold_1/teachers/seed_*/metrics.json")
    kept = teacher.stat().st_mtime_ns
    for cut in (first.crossval_dir, first.crossval_dir / "fold_1", first.folds[1].run_dir):
        (cut / "metrics.json").unlink()

    again = crossval(fold_config(*words, "crossval.resume=true"))

    assert again.crossval_dir == first.crossval_dir
    assert teacher.stat().st_mtime_ns == kept
    assert again.out_of_fold == first.out_of_fold
    (again.crossval_dir / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="no unfinished cross-validation"):
        crossval(fold_config("data.split.folds=2", "crossval.resume=true"))


def test_a_fold_of_students_needs_no_other_teacher(fold_config: SmallConfig) -> None:
    with pytest.raises(ConfigError, match=r"a distillation trains its own teachers"):
        crossval(fold_config("crossval.distill=true", "distill.teacher=t.ckpt"))


def test_a_fold_that_fails_ends_all_and_what_is_finished_stays(fold_config: SmallConfig) -> None:
    first = crossval(fold_config())
    (first.crossval_dir / "metrics.json").unlink()
    for index in (1, 2):
        (first.folds[index].run_dir / "metrics.json").unlink()
        (first.folds[index].run_dir / "checkpoints" / "last.ckpt").write_bytes(b"damaged")

    with pytest.raises(CassavaError, match=r"last\.ckpt"):
        crossval(fold_config("crossval.resume=true", "crossval.parallel=2"))

    for index in (1, 2):
        (first.folds[index].run_dir / "checkpoints" / "last.ckpt").unlink()
    again = crossval(fold_config("crossval.resume=true"))
    assert again.crossval_dir == first.crossval_dir
    assert [fold.metrics for fold in again.folds] == [fold.metrics for fold in first.folds]


def test_folds_get_the_gpus_in_turn(fold_config: SmallConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "resolve_accelerator", lambda train: "cuda")  # the edge of this machine
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7f")
    assert folds.folds_at_once(fold_config()) == 2
    assert folds.folds_at_once(fold_config("train.devices=2")) == 1
    assert folds.folds_at_once(fold_config("crossval.parallel=4")) == 4
    places = [place["CUDA_VISIBLE_DEVICES"] for place in folds._places(fold_config(), 3)]
    assert places == ["5", "GPU-7f", "5"]
