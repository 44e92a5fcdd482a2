"""A student learns a teacher's probabilities, and no teacher that knows what the student is measured on."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.extra import probability_table, read_probabilities
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.errors import CheckpointError, ConfigError, DataError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.calibration import soften
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model
from cassava_leaf_disease.training.crossval import crossval
from cassava_leaf_disease.training.distill import mix_targets, soften_targets
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]
Teacher = Callable[..., Path]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


def prepared(config: AppConfig) -> tuple[LeafDataModule, str | None]:
    data = LeafDataModule(config)
    data.setup("fit")
    return data, soften_targets(config, data, None)


def answers_of(path: Path, photos: list[Path]) -> list[list[float]]:
    predictor = load_predictor(FoundModel(path, "explicit"), "cpu")
    answers = [predictor.predict_bytes(photo.read_bytes(), name="a") for photo in photos]
    return [list(answer.probabilities.values()) for answer in answers]


LABELLED = np.eye(5, dtype=np.float32)  # what people say of photos of each class


class TestTargets:
    ANSWERS = np.array([[0.7, 0.1, 0.1, 0.05, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2], [1.0, 0.0, 0.0, 0.0, 0.0]])

    def test_temperature_is_that_of_the_softmax(self) -> None:
        logits = np.random.default_rng(0).normal(0, 2, (6, 5))
        at_one = torch.softmax(torch.tensor(logits), dim=1).numpy()

        for temperature in (0.5, 2.0, 7.0):
            expected = torch.softmax(torch.tensor(logits) / temperature, dim=1).numpy()
            np.testing.assert_allclose(soften(at_one, temperature), expected, atol=1e-6)
        np.testing.assert_allclose(soften(at_one, 1.0), at_one / at_one.sum(axis=1, keepdims=True), rtol=1e-12)

    def test_labelled_photos_mix_both_and_others_have_the_teacher_s_alone(self) -> None:
        targets = mix_targets(self.ANSWERS, LABELLED[[3, 0]], alpha=0.25, temperature=1)

        assert targets.dtype == np.float32
        np.testing.assert_allclose(targets[0], 0.25 * self.ANSWERS[0] + 0.75 * np.eye(5)[3], atol=1e-7)
        np.testing.assert_allclose(targets[1], [0.8, 0.05, 0.05, 0.05, 0.05], atol=1e-7)
        np.testing.assert_allclose(targets[2], self.ANSWERS[2], atol=1e-7)

    @pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
    @pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
    def test_targets_are_probabilities(self, alpha: float, temperature: float) -> None:
        targets = mix_targets(self.ANSWERS, LABELLED[[3, 0, 1]], alpha, temperature)

        assert (targets >= 0).all()
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)

    def test_without_the_teacher_s_share_targets_are_the_labels(self) -> None:
        assert np.array_equal(mix_targets(self.ANSWERS, LABELLED[[3, 0, 1]], 0, 2), LABELLED[[3, 0, 1]])


@pytest.mark.parametrize("tta", ["none", "flips"])
def test_run_learns_the_teacher_s_answers_about_its_training_photos(
    tta: str, config_for: Config, teacher: Teacher
) -> None:
    path = teacher("a")
    config = config_for(f"distill.teacher={path}", "distill.alpha=1", f"distill.tta={tta}")

    data, table = prepared(config)

    assert table is not None
    assert data.split is not None
    photos = [photo.path for photo in data.training_photos()]
    targets = np.asarray(data.training_targets())
    assert targets.shape == (len(photos), 5)
    plain = np.array(answers_of(path, photos))
    if tta == "none":
        np.testing.assert_allclose(targets, plain, atol=1e-5)
    else:
        assert np.abs(targets - plain).max() > 1e-3
    _, targets_of_batches = zip(*data.train_dataloader(), strict=True)
    drawn = torch.cat(targets_of_batches).numpy()
    assert np.abs(drawn[:, None] - targets).max(axis=2).min(axis=1).max() < 1e-6  # each is one of them


def test_run_keeps_the_answers_and_a_resumed_one_does_not_ask_again(
    config_for: Config, teacher: Teacher, tmp_path: Path
) -> None:
    path = teacher("a")
    config = config_for(f"distill.teacher={path}", "train.epochs=2")
    whole = train(config)
    kept = whole.run_dir / "soft_targets.csv"
    names, _ = read_probabilities(kept, "image_id")
    assert names == prepared(config)[0].image_ids("train")
    (whole.run_dir / "metrics.json").unlink()
    (whole.run_dir / "checkpoints" / "last.ckpt").unlink()
    path.unlink()

    again = train(config_for(f"distill.teacher={path}", "train.epochs=2", "train.resume=true"))

    assert again.run_dir == whole.run_dir
    assert again.metrics == whole.metrics
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        train(config)


def test_answers_about_other_photos_are_not_used(config_for: Config, teacher: Teacher, tmp_path: Path) -> None:
    config = config_for(f"distill.teacher={teacher('a')}")
    data, table = prepared(config)
    assert table is not None
    (tmp_path / "soft_targets.csv").write_text(table.replace(data.image_ids("train")[0], "other.jpg"), encoding="utf-8")

    with pytest.raises(DataError, match=r"soft_targets\.csv: about other photos than this run trains on"):
        soften_targets(config, data, tmp_path)


def test_training_without_a_teacher_is_as_it_was(config_for: Config) -> None:
    data, table = prepared(config_for())

    assert table is None
    assert data.training_targets() is data.labels("train")
    assert not list(train(config_for()).run_dir.glob("soft_targets*"))


def test_teacher_s_share_changes_what_is_learned_and_none_of_it_does_not(config_for: Config, teacher: Teacher) -> None:
    path = teacher("a")
    plain = train(config_for())
    labels_only = train(config_for(f"distill.teacher={path}", "distill.alpha=0"))
    taught = train(config_for(f"distill.teacher={path}", "distill.alpha=1", "distill.temperature=2"))

    assert labels_only.metrics == plain.metrics
    assert taught.metrics != plain.metrics


def test_ensemble_of_other_sizes_teaches_with_its_mean(config_for: Config, teacher: Teacher, tmp_path: Path) -> None:
    paths = [teacher("a"), teacher("b", "augment.image_size=96", "model.backbone=test_vit")]
    write_ensemble(tmp_path / "ensemble.json", paths, "probabilities", "equal")

    data, _ = prepared(config_for("distill.teacher=ensemble.json", "distill.alpha=1"))

    photos = [photo.path for photo in data.training_photos()][:5]
    expected = np.mean([answers_of(path, photos) for path in paths], axis=0)
    np.testing.assert_allclose(np.asarray(data.training_targets())[:5], expected, atol=1e-5)


def test_drawn_leaves_teach_drawn_leaves(small_config: Config, tmp_path: Path) -> None:
    first = train(small_config("train.epochs=1"))

    student = train(small_config("train.epochs=1", f"distill.teacher={first.checkpoint}"))

    names, _ = read_probabilities(student.run_dir / "soft_targets.csv", "image_id")
    assert names == [f"synthetic-{index}" for index in range(40)]


class TestLeaks:
    @pytest.mark.parametrize(
        "other",
        [["data.split.seed=1"], ["data.split.test_size=0.1"], ["data.split.seed=5", "data.split.strategy=kfold"]],
    )
    def test_teacher_that_knows_test_photos_is_refused_before_a_run_folder_is_made(
        self, other: list[str], config_for: Config, teacher: Teacher, tmp_path: Path
    ) -> None:
        path = teacher("a", *other)

        for out_of_fold in ("false", "true"):
            with pytest.raises(DataError, match=r"distill\.teacher=.*a\.ckpt: it knows \d+ of the 12 photos that test"):
                train(config_for(f"distill.teacher={path}", f"distill.out_of_fold={out_of_fold}"))
        assert not (tmp_path / "outputs" / "runs").exists()

    def test_teacher_that_was_chosen_by_test_photos_is_refused(self, config_for: Config, teacher: Teacher) -> None:
        path = teacher("a", "data.split.test_size=0.1", "data.limits.max_train_samples=5")

        with pytest.raises(DataError, match="photos that test this run"):
            prepared(config_for(f"distill.teacher={path}"))

    def test_one_such_member_is_enough(self, config_for: Config, teacher: Teacher, tmp_path: Path) -> None:
        paths = [teacher("a"), teacher("b", "data.split.seed=1")]
        write_ensemble(tmp_path / "ensemble.json", paths, "probabilities", "equal")

        with pytest.raises(DataError, match="photos that test this run"):
            prepared(config_for("distill.teacher=ensemble.json"))

    def test_teacher_that_learned_validation_photos_is_refused(self, config_for: Config, teacher: Teacher) -> None:
        path = teacher("a", "data.split.strategy=kfold")

        with pytest.raises(
            DataError, match=r"it learned \d+ of the 12 photos that validate .*distill\.out_of_fold=true"
        ):
            prepared(config_for(f"distill.teacher={path}"))

    def test_teacher_whose_photos_are_unknown_is_refused(
        self, config_for: Config, teacher: Teacher, photos_dir: Path, tmp_path: Path
    ) -> None:
        path = teacher("a")
        other = tmp_path / "other"
        shutil.copytree(photos_dir, other)
        photo = read_kaggle(other)[0]
        table = (other / "train.csv").read_text(encoding="utf-8")
        (other / "train.csv").write_text(table.replace(f"{photo.image_id},{photo.label}", f"{photo.image_id},0"))
        assert photo.label != 0 or read_kaggle(other)[0].label == 0
        (other / "train.csv").write_text(table.replace(photo.image_id, "renamed.jpg"))
        photo.path.rename(photo.path.with_name("renamed.jpg"))

        with pytest.raises(DataError, match=r"what .*a\.ckpt learned is unknown.*expected .*paths\.data_dir"):
            prepared(config_for(f"distill.teacher={path}", f"paths.data_dir={other}"))

    def test_copies_of_test_photos_under_other_names_count(
        self, config_for: Config, write_random_checkpoint: WriteCheckpoint, photos_dir: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "twice"
        shutil.copytree(photos_dir, folder)
        with (folder / "train.csv").open("a", encoding="utf-8") as file:
            for photo in read_kaggle(photos_dir):
                shutil.copy(photo.path, photo.path.parent / "unused.tmp")
                shutil.copy(photo.path, folder / "train_images" / f"copy-{photo.image_id}")
                file.write(f"copy-{photo.image_id},{photo.label}\n")
        for leftover in photos_dir.rglob("unused.tmp"):
            leftover.unlink()
        settings = (f"paths.data_dir={folder}", "data.limits.max_train_samples=10")
        config = config_for("augment.image_size=64", *settings, "data.split.seed=1")
        data = LeafDataModule(config)
        data.divide()
        path = write_random_checkpoint(tmp_path / "a.ckpt", describe_model(config, data))

        with pytest.raises(DataError, match="photos that test this run"):
            prepared(config_for(f"distill.teacher={path}", *settings))

    def test_teacher_of_other_drawn_leaves_knows_none_of_these(self, small_config: Config) -> None:
        first = train(small_config("train.epochs=1", "data.split.seed=1"))

        data, table = prepared(small_config(f"distill.teacher={first.checkpoint}"))

        assert table is not None
        assert len(np.asarray(data.training_targets())) == 40


class TestOutOfFold:
    @pytest.fixture
    def folds(self, config_for: Config) -> Path:
        return crossval(config_for("data.split.folds=2")).crossval_dir

    def test_each_photo_gets_the_answer_of_the_fold_that_did_not_learn_it(
        self, folds: Path, config_for: Config, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = config_for(f"distill.teacher={folds}", "distill.out_of_fold=true", "distill.alpha=1")

        data, _ = prepared(config)

        with (folds / "oof.csv").open(encoding="utf-8", newline="") as file:
            table = {row["image_id"]: row for row in csv.DictReader(file)}
        for photo, target in zip(data.training_photos(), np.asarray(data.training_targets()), strict=True):
            row = table[photo.image_id]
            assert target.tolist() == pytest.approx([float(row[f"prob_{index}"]) for index in range(5)], abs=1e-5)
            fold = folds / f"fold_{row['fold']}"
            with (fold / "split.csv").open(encoding="utf-8", newline="") as file:
                parts = {line["image_id"]: line["part"] for line in csv.DictReader(file)}
            assert parts[photo.image_id] == "val"
            [expected] = answers_of(fold / "checkpoints" / "best.ckpt", [photo.path])
            assert target.tolist() == pytest.approx(expected, abs=1e-4)
        assert "12 of the 12 photos that validate this run: validation comes out a little too well" in caplog.text

    def test_extra_photos_get_the_ensemble_s_answer(self, folds: Path, config_for: Config, tmp_path: Path) -> None:
        write_synthetic_dataset(tmp_path / "more", 6, 72, seed=77)
        more = [photo.path for photo in read_kaggle(tmp_path / "more")]
        table = probability_table("path", [path.name for path in more], np.full((6, 5), 0.2))
        (tmp_path / "pseudo_labels.csv").write_text(table, encoding="utf-8")
        config = config_for(
            *(f"distill.teacher={folds}", "distill.out_of_fold=true", "distill.alpha=0.5"),
            *("data.extra.csv_path=pseudo_labels.csv", f"data.extra.images_dir={tmp_path / 'more' / 'train_images'}"),
        )

        data, written = prepared(config)

        assert written is not None
        assert [line.split(",")[0] for line in written.splitlines()[-6:]] == [f"extra/{path.name}" for path in more]
        checkpoints = [folds / f"fold_{index}" / "checkpoints" / "best.ckpt" for index in range(2)]
        expected = np.mean([answers_of(path, more) for path in checkpoints], axis=0)
        np.testing.assert_allclose(np.asarray(data.training_targets())[-6:], expected, atol=1e-5)

    def test_answers_that_are_missing_are_named(self, folds: Path, config_for: Config) -> None:
        lines = (folds / "oof.csv").read_text(encoding="utf-8").splitlines()
        (folds / "oof.csv").write_text("\n".join(lines[:20]), encoding="utf-8")
        settings = (f"distill.teacher={folds}", "distill.out_of_fold=true")

        with pytest.raises(DataError, match=r"oof\.csv has no answer about \d+ of the 36 photos that train"):
            prepared(config_for(*settings))
        (folds / "oof.csv").unlink()
        with pytest.raises(ConfigError, match=r"no oof\.csv beside .*finished `cassava crossval`"):
            prepared(config_for(*settings))


def test_out_of_fold_answers_need_a_teacher(config_for: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"distill\.out_of_fold=true: there is no teacher; type distill\.teacher=FOLDER"
    ):
        config_for("distill.out_of_fold=true")


@pytest.mark.parametrize("loss", ["cross_entropy", "bi_tempered", "focal", "class_balanced"])
def test_every_loss_takes_the_teacher_s_targets(loss: str, config_for: Config, teacher: Teacher) -> None:
    result = train(config_for(f"distill.teacher={teacher('a')}", f"loss={loss}", "augment.mix.p=1"))

    assert np.isfinite(result.metrics["val/loss"])
