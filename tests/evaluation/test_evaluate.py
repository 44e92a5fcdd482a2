"""`evaluate`: the right photos, the right figures, and no part that is not the model's own."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.splits import Part
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CassavaError, ConfigError, DataError, DeviceError
from cassava_leaf_disease.evaluation.evaluate import EvaluationResult, evaluate
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]

PARTS: tuple[Part, ...] = ("train", "val", "test")
TRAINED_WITH = ("model.backbone=test_resnet", "augment.image_size=64", "augment.crop_ratio=0.9")


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photos of 80 pixels in the Kaggle layout; read only."""
    folder = tmp_path_factory.mktemp("photos")
    write_synthetic_dataset(folder, 60, 80, seed=3)
    return folder


@pytest.fixture
def config_for(photos_dir: Path, root_in_tmp_path: None) -> Config:
    """A configuration of `evaluate` over those photos, whose other settings are far from the training's."""
    return lambda *overrides: load_config(
        [f"paths.data_dir={photos_dir}", "evaluate.batch_size=16", "evaluate.bootstrap_samples=100", *overrides]
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "runs" / "version_0"


@pytest.fixture
def trained(
    config_for: Config, run_dir: Path, write_random_checkpoint: WriteCheckpoint
) -> Callable[..., tuple[Path, LeafDataModule]]:
    """Leaves what a training run with the given settings leaves; random weights instead of trained ones."""

    def leave(*overrides: str, **split: Any) -> tuple[Path, LeafDataModule]:
        config = config_for(*TRAINED_WITH, *overrides)
        data = LeafDataModule(config)
        data.divide()
        described = describe_model(config, data)
        described = described.model_copy(update={"split": described.split.model_copy(update=split)})
        return write_random_checkpoint(run_dir / "checkpoints" / "best.ckpt", described), data

    return leave


def rows_of(result: EvaluationResult) -> list[dict[str, str]]:
    with (result.output_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_model_s_own_split_is_measured(
    part: Part, cached: bool, trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, run_dir: Path
) -> None:
    path, data = trained("data.split.seed=7", "data.split.val_size=0.2", "data.limits.max_train_samples=20")
    switch = f"data.cache.enabled={str(cached).lower()}"

    result = evaluate(config_for(f"evaluate.part={part}", "data.split.seed=1", "augment.image_size=224", switch))

    assert (result.checkpoint, result.source, result.backbone) == (path, "outputs", "test_resnet")
    assert result.output_dir == run_dir / "evaluation" / part
    assert result.data.startswith(f"{part} part of ")
    rows = rows_of(result)
    assert [row["image_id"] for row in rows] == data.image_ids(part)
    assert [int(row["label"]) for row in rows] == data.labels(part).tolist()
    predictor = load_predictor(FoundModel(path, "outputs"), "cpu")
    assert data.split is not None
    for row, photo in list(zip(rows, data.split.parts[part], strict=True))[:4]:
        answer = predictor.predict_bytes(photo.path.read_bytes(), name=photo.image_id)
        assert [float(row[f"prob_{index}"]) for index in range(5)] == pytest.approx(
            list(answer.probabilities.values()), abs=2e-5
        )
        assert int(row["predicted"]) == answer.predicted_class_id


def test_another_file_of_the_run_does_not_overwrite_the_answers_of_the_best(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    path, _ = trained()
    last = path.with_name("last.ckpt")
    shutil.copy(path, last)

    best_result = evaluate(config_for())
    last_result = evaluate(config_for(f"infer.checkpoint_path={last}", "infer.tta=flips"))

    assert best_result.output_dir.name == "test"
    assert last_result.output_dir == best_result.output_dir.with_name("last.ckpt-test-flips")


@pytest.mark.parametrize("part", PARTS)
def test_photos_smaller_than_the_network_s_input_are_enlarged_in_every_part(
    part: Part, trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    path, data = trained("augment.image_size=128")
    assert data.split is not None
    photo = data.split.parts[part][0]  # 80 px

    result = evaluate(config_for(f"evaluate.part={part}", "data.cache.train_zoom=2"))

    answer = load_predictor(FoundModel(path, "outputs"), "cpu").predict_bytes(photo.path.read_bytes(), name="a")
    seen = [float(rows_of(result)[0][f"prob_{index}"]) for index in range(5)]
    assert seen == pytest.approx(list(answer.probabilities.values()), abs=2e-5)


def test_figures_are_those_of_the_table(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    trained()

    result = evaluate(config_for("evaluate.part=train"))

    rows = rows_of(result)
    labels, predicted = ([int(row[name]) for row in rows] for name in ("label", "predicted"))
    assert result.scores.photos == len(rows)
    assert result.scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.scores.f1_macro == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert all(sum(float(row[f"prob_{index}"]) for index in range(5)) == pytest.approx(1, abs=1e-4) for row in rows)
    written = json.loads((result.output_dir / "metrics.json").read_text(encoding="utf-8"))
    assert EvaluationResult.model_validate(written) == result
    assert list(written["scores"]["per_class"]) == list(CLASS_NAMES)


def test_every_fold_of_a_k_fold_split_is_found_again(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    _, data = trained("data.split.strategy=kfold", "data.split.folds=3", "data.split.fold_index=2")

    result = evaluate(config_for("evaluate.part=val"))

    assert [row["image_id"] for row in rows_of(result)] == data.image_ids("val")


def test_another_data_set_is_refused(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, photos_dir: Path, tmp_path: Path
) -> None:
    trained()
    other = tmp_path / "other"
    shutil.copytree(photos_dir, other)
    photo = read_kaggle(other)[0]
    (other / "train.csv").write_text((other / "train.csv").read_text().replace(photo.image_id, "renamed.jpg"))
    photo.path.rename(photo.path.with_name("renamed.jpg"))

    with pytest.raises(DataError, match=r"paths\.data_dir=.*other do not give the split .*hash .*evaluate\.csv_path"):
        evaluate(config_for(f"paths.data_dir={other}"))
    with pytest.raises(DataError, match=r"/nowhere is missing"):
        evaluate(config_for("paths.data_dir=/nowhere"))


def test_part_that_the_split_does_not_have_is_told(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    trained("data.split.test_size=0")

    with pytest.raises(DataError, match=r"evaluate\.part=test: .*test_size=0.*type evaluate\.part=val"):
        evaluate(config_for())


def test_any_table_in_the_kaggle_layout_is_measured(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, tmp_path: Path, run_dir: Path
) -> None:
    path, _ = trained()
    field = tmp_path / "field"
    write_synthetic_dataset(field, 12, 50, seed=9)
    (field / "train_images").rename(tmp_path / "elsewhere")

    result = evaluate(
        config_for(f"evaluate.csv_path={field / 'train.csv'}", f"evaluate.images_dir={tmp_path / 'elsewhere'}")
    )

    assert result.output_dir == run_dir / "evaluation" / "field-train"  # not that of the train part
    assert result.data == str(field / "train.csv")
    rows = rows_of(result)
    assert len(rows) == result.scores.photos == 12
    photo = tmp_path / "elsewhere" / rows[0]["image_id"]
    answer = load_predictor(FoundModel(path, "outputs"), "cpu").predict_bytes(photo.read_bytes(), name="a")
    assert float(rows[0]["prob_3"]) == pytest.approx(answer.probabilities[CLASS_NAMES[3]], abs=2e-5)


def test_folder_of_a_table_s_photos_is_train_images_beside_it(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, photos_dir: Path, tmp_path: Path
) -> None:
    trained()

    result = evaluate(
        config_for(f"evaluate.csv_path={photos_dir / 'train.csv'}", f"evaluate.output_dir={tmp_path / 'here'}")
    )

    assert result.scores.photos == 60
    written = {path.name for path in (tmp_path / "here").iterdir()}
    assert written == {"metrics.json", "figures.json", "predictions.csv"}


def test_model_from_elsewhere_is_measured_into_outputs(
    config_for: Config, random_checkpoint: Path, photos_dir: Path, tmp_path: Path
) -> None:
    result = evaluate(
        config_for(f"infer.checkpoint_path={random_checkpoint}", f"evaluate.csv_path={photos_dir / 'train.csv'}")
    )

    assert result.output_dir == tmp_path / "outputs" / "evaluation" / f"{photos_dir.name}-train"
    assert result.source == "explicit"


@pytest.mark.parametrize("where", ["table", "part, cached", "part, decoded"])
def test_limits_of_the_configuration_hold(
    where: str, trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, photos_dir: Path
) -> None:
    trained()
    overrides = {
        "table": [f"evaluate.csv_path={photos_dir / 'train.csv'}"],
        "part, cached": [],
        "part, decoded": ["data.cache.enabled=false"],
    }[where]

    with pytest.raises(CassavaError, match="80x80") as error:
        evaluate(config_for("infer.max_image_pixels=1024", *overrides))
    assert error.value.exit_code == 2


def test_photo_that_cannot_be_decoded_is_named(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config, tmp_path: Path
) -> None:
    trained()
    write_synthetic_dataset(tmp_path / "field", 5, 50, seed=9)
    bad = read_kaggle(tmp_path / "field")[2].path
    bad.write_bytes(b"no photo")

    with pytest.raises(CassavaError, match=bad.name):
        evaluate(config_for(f"evaluate.csv_path={tmp_path / 'field' / 'train.csv'}"))


def test_images_without_a_table_are_told_before_a_model_is_looked_for(config_for: Config, photos_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.images_dir is set without evaluate\.csv_path"):
        evaluate(config_for(f"evaluate.images_dir={photos_dir / 'train_images'}"))


def test_missing_gpu_is_told_before_a_model_is_looked_for(config_for: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError):
        evaluate(config_for("infer.device=cuda"))


def test_model_of_drawn_leaves_is_measured_on_its_own_ones(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    sizes = {"train": 30, "val": 10, "test": 15}
    path, data = trained(
        "data.synthetic.enabled=true",
        *(f"data.synthetic.{part}_size={size}" for part, size in sizes.items()),
        photos=sizes,
    )

    result = evaluate(config_for("data.split.seed=1"))  # neither the sizes nor the seed repeated

    assert result.data == "test part of the drawn leaves"
    assert [row["image_id"] for row in rows_of(result)] == data.image_ids("test")
    spec = data.spec
    picture = data.evaluation_dataset("test")[0][0].numpy().transpose(1, 2, 0)
    assert picture.shape == (spec.image_size_px, spec.image_size_px, 3)
    expected = load_predictor(FoundModel(path, "outputs"), "cpu").probabilities(picture[None])[0]
    assert [float(rows_of(result)[0][f"prob_{index}"]) for index in range(5)] == pytest.approx(expected, abs=2e-5)


def test_drawn_leaves_whose_number_is_unknown_are_refused(
    trained: Callable[..., tuple[Path, LeafDataModule]], config_for: Config
) -> None:
    trained("data.synthetic.enabled=true", "data.synthetic.test_size=15", photos={})

    with pytest.raises(DataError, match=r"trained on drawn leaves.*data\.synthetic\.train_size"):
        evaluate(config_for())


def test_evaluation_repeats_the_test_figures_of_the_training(small_config: Config) -> None:
    config = small_config("train.epochs=1", "logger.enabled=false")
    trained_result = train(config)

    result = evaluate(config)

    assert result.checkpoint == trained_result.checkpoint
    assert result.scores.accuracy == pytest.approx(trained_result.metrics["test/acc"], abs=1e-6)
    assert result.scores.f1_macro == pytest.approx(trained_result.metrics["test/f1_macro"], abs=1e-6)
    assert result.scores.confusion_matrix == trained_result.confusion_matrix
    assert result.scores.intervals["accuracy"] == pytest.approx(trained_result.intervals["test/accuracy"])


def test_real_photos_are_measured(
    shared_data: Path, small_config: Config, random_checkpoint: Path, tmp_path: Path
) -> None:
    photos = read_kaggle(shared_data / "cassava")[::60]
    lines = [f"{photo.image_id},{photo.label}\n" for photo in photos]
    (tmp_path / "some.csv").write_text("image_id,label\n" + "".join(lines))

    result = evaluate(
        small_config(
            f"infer.checkpoint_path={random_checkpoint}",
            f"evaluate.csv_path={tmp_path / 'some.csv'}",
            f"evaluate.images_dir={shared_data / 'cassava' / 'train_images'}",
        )
    )

    assert result.scores.photos == len(photos)
    assert sum(line.support for line in result.scores.per_class.values()) == len(photos)
    with Image.open(photos[0].path) as image:
        assert min(image.size) > 64
    answer = load_predictor(FoundModel(random_checkpoint, "explicit"), "cpu").predict_bytes(
        photos[0].path.read_bytes(), name="a"
    )
    assert float(rows_of(result)[0]["prob_0"]) == pytest.approx(answer.probabilities[CLASS_NAMES[0]], abs=2e-5)
    assert np.isfinite([float(row["prob_4"]) for row in rows_of(result)]).all()
