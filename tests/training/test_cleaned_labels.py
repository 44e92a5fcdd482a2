"""What an audit wrote changes what a training learns, and nothing that measures it."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.cleaning import read_excluded
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.extra import PROBABILITY_COLUMNS, probability_table
from cassava_leaf_disease.data.splits import Part
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.training.crossval import crossval
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]
SOFT = (0.1, 0.1, 0.6, 0.1, 0.1)


@pytest.fixture
def whole(config_for: Config) -> Mapping[Part, tuple[LabeledPhoto, ...]]:
    """The parts without any cleaning."""
    data = LeafDataModule(config_for())
    data.divide()
    assert data.split is not None
    return data.split.parts


def exclude(path: Path, photos: Iterable[LabeledPhoto]) -> Path:
    rows = [f"{photo.image_id},{photo.label}\n" for photo in photos]
    path.write_text("image_id,label\n" + "".join(rows), encoding="utf-8")
    return path


def soft_labels(path: Path, photos: Iterable[LabeledPhoto]) -> Path:
    rows = [f"{photo.image_id},{photo.label},{','.join(map(str, SOFT))}\n" for photo in photos]
    path.write_text(f"image_id,label,{','.join(PROBABILITY_COLUMNS)}\n" + "".join(rows), encoding="utf-8")
    return path


class TestExclude:
    def test_only_training_photos_are_left_out(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        named = [part[0] for part in whole.values()] + [whole["train"][5]]
        data = LeafDataModule(config_for(f"data.exclude_csv={exclude(tmp_path / 'a.csv', named)}"))
        data.setup("fit")

        assert data.split is not None
        kept = [photo for index, photo in enumerate(whole["train"]) if index not in {0, 5}]
        assert list(data.split.parts["train"]) == kept
        assert data.labels("train").tolist() == [photo.label for photo in kept]
        assert {part: data.split.parts[part] for part in ("val", "test")} == {p: whole[p] for p in ("val", "test")}
        assert len(data.train_dataloader()) == len(kept) // 10

    def test_model_is_measured_on_the_same_split_as_without(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        plain = LeafDataModule(config_for())
        plain.divide()
        path = exclude(tmp_path / "a.csv", whole["train"][:4])
        config = config_for(f"data.exclude_csv={path}")

        result = train(config)

        assert result.split_hash == plain.split_hash
        assert result.photos == {"train": 32, "val": 12, "test": 12, "excluded": 4}
        with (result.run_dir / "split.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == 60
        assert result.checkpoint is not None
        for measured in (config_for(), config):
            again = evaluate(measured.changed(infer=measured.infer.changed(checkpoint_path=result.checkpoint)))
            assert again.scores.accuracy == pytest.approx(result.metrics["test/acc"])

    def test_every_fold_leaves_them_out_and_judges_them(self, config_for: Config, tmp_path: Path) -> None:
        photos = read_kaggle(config_for().paths.data_dir)
        path = exclude(tmp_path / "a.csv", photos[:6])

        result = crossval(config_for(f"data.exclude_csv={path}", "data.split.folds=2", "data.split.test_size=0"))

        assert sum(fold.photos["excluded"] for fold in result.folds) == 6
        assert result.out_of_fold.photos == 60

    def test_decisions_of_an_expert_keep_what_is_right(self, config_for: Config, tmp_path: Path) -> None:
        photos = read_kaggle(config_for().paths.data_dir)
        path = tmp_path / "decisions.csv"
        decided = zip(photos, ("keep", "leave_out", "relabel"), strict=False)
        rows = [f"{photo.image_id},{photo.label},{decision},\n" for photo, decision in decided]
        path.write_text("image_id,label,decision,right_label\n" + "".join(rows), encoding="utf-8")

        assert read_excluded(path, photos) == {photos[1].image_id, photos[2].image_id}

    def test_class_must_keep_a_photo(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        path = exclude(tmp_path / "a.csv", [photo for photo in whole["train"] if photo.label == 1])

        with pytest.raises(DataError, match="no training photo of Cassava Brown Streak Disease would be left"):
            LeafDataModule(config_for(f"data.exclude_csv={path}")).divide()

    @pytest.mark.parametrize(
        ("name", "label", "seen"),
        [
            ("stranger.jpg", 0, "1 of its 1 photos are not in the table of paths.data_dir: stranger.jpg"),
            (None, 1, r"1 of its 1 photos have another label now: \S+ \(\d, in the table \d\)"),
            (None, None, r"1 of its 1 photos have another label now: \S+ \(no label, in the table \d\)"),
        ],
    )
    def test_table_about_others_is_refused(
        self, name: str | None, label: int | None, seen: str, config_for: Config, tmp_path: Path
    ) -> None:
        photo = read_kaggle(config_for().paths.data_dir)[0]
        wrong = "" if label is None else (photo.label + label) % 5
        path = tmp_path / "a.csv"
        path.write_text(f"image_id,label\n{name or photo.image_id},{wrong}\n", encoding="utf-8")

        with pytest.raises(DataError, match=seen):
            LeafDataModule(config_for(f"data.exclude_csv={path}")).divide()


class TestSoftLabels:
    def test_training_photos_in_the_table_get_its_targets(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        path = soft_labels(tmp_path / "a.csv", whole["train"][:7])
        data = LeafDataModule(config_for(f"data.soft_labels_csv={path}"))
        data.setup("fit")

        targets = np.asarray(data.training_targets())
        np.testing.assert_allclose(targets[:7], [SOFT] * 7, atol=1e-6)
        assert np.array_equal(targets[7:], np.eye(5)[data.labels("train")[7:]])
        assert np.array_equal(data.labels("val"), [photo.label for photo in whole["val"]])
        _, batches = zip(*data.train_dataloader(), strict=True)
        assert torch.cat(list(batches)).shape == (30, 5)
        data.setup("fit")
        assert data.training_targets() is not None

    def test_run_trains_with_them(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        path = soft_labels(tmp_path / "soft.csv", whole["train"])
        excluded = exclude(tmp_path / "exclude.csv", whole["train"][:2])

        result = train(config_for(f"data.soft_labels_csv={path}", f"data.exclude_csv={excluded}", "loss=bi_tempered"))

        assert result.photos["train"] == 34
        assert np.isfinite(result.metrics["val/loss"])

    def test_answers_that_know_the_test_part_are_refused(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        path = soft_labels(tmp_path / "a.csv", [*whole["train"], *whole["test"][:3]])

        with pytest.raises(DataError, match="the models behind it have learned 3 of the 12 photos that test this run"):
            LeafDataModule(config_for(f"data.soft_labels_csv={path}")).setup("fit")

    def test_answers_that_know_the_validation_part_are_told_of(
        self,
        config_for: Config,
        whole: Mapping[Part, tuple[LabeledPhoto, ...]],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = soft_labels(tmp_path / "a.csv", [*whole["train"], *whole["val"]])

        LeafDataModule(config_for(f"data.soft_labels_csv={path}")).setup("fit")

        assert "learned 12 of the 12 photos that validate this run" in caplog.text

    def test_extra_photos_come_after_them(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        write_synthetic_dataset(tmp_path / "more", 10, 72, seed=9)
        names = [photo.image_id for photo in read_kaggle(tmp_path / "more")]
        table = tmp_path / "pseudo_labels.csv"
        table.write_text(probability_table("path", names, np.full((10, 5), 0.2)), encoding="utf-8")
        soft = soft_labels(tmp_path / "soft.csv", whole["train"][:1])
        data = LeafDataModule(
            config_for(
                f"data.soft_labels_csv={soft}",
                f"data.extra.csv_path={table}",
                f"data.extra.images_dir={tmp_path / 'more' / 'train_images'}",
            )
        )
        data.setup("fit")

        targets = np.asarray(data.training_targets())
        assert targets.shape == (46, 5)
        np.testing.assert_allclose(targets[0], SOFT, atol=1e-6)
        np.testing.assert_allclose(targets[36:], 0.2)

    def test_table_without_probabilities_is_refused(
        self, config_for: Config, whole: Mapping[Part, tuple[LabeledPhoto, ...]], tmp_path: Path
    ) -> None:
        path = exclude(tmp_path / "a.csv", whole["train"][:2])

        with pytest.raises(DataError, match=r"expected a soft_labels\.csv of `cassava audit`"):
            LeafDataModule(config_for(f"data.soft_labels_csv={path}")).setup("fit")


class TestSettings:
    @pytest.mark.parametrize("key", ["data.exclude_csv", "data.soft_labels_csv"])
    def test_drawn_leaves_have_nothing_to_clean(self, key: str, config_for: Config) -> None:
        with pytest.raises(ConfigError, match=f"{key}=.*: an audit is about photos"):
            config_for("data.synthetic.enabled=true", f"{key}=a.csv")

    def test_teacher_and_soft_labels_contradict_each_other(self, config_for: Config) -> None:
        with pytest.raises(ConfigError, match=r"type data\.soft_labels_csv=null or distill\.teacher=null"):
            config_for("data.soft_labels_csv=a.csv", "distill.teacher=a.ckpt")
