"""An ensemble is measured on photos that none of its members learned; `crossval` leaves one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import read_ensemble
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model
from cassava_leaf_disease.training.crossval import crossval

Config = Callable[..., AppConfig]
Train = Callable[..., tuple[Path, LeafDataModule]]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


def listed(*paths: Path) -> str:
    return "infer.checkpoint_path=[" + ",".join(f"'{path}'" for path in paths) + "]"


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_synthetic_dataset(folder, 60, 110, seed=3)
    return folder


@pytest.fixture
def config_for(photos_dir: Path, root_in_tmp_path: None) -> Config:
    fixed = (f"paths.data_dir={photos_dir}", "evaluate.batch_size=16", "evaluate.bootstrap_samples=100")
    return lambda *overrides: load_config([*fixed, *overrides])


@pytest.fixture
def trained(config_for: Config, write_random_checkpoint: WriteCheckpoint, tmp_path: Path) -> Train:
    """Leaves the checkpoint that a training with these settings leaves; random weights instead of trained ones."""

    def leave(name: str, *overrides: str) -> tuple[Path, LeafDataModule]:
        config = config_for("model.backbone=test_resnet", "augment.image_size=64", *overrides)
        data = LeafDataModule(config)
        data.divide()
        return write_random_checkpoint(tmp_path / f"{name}.ckpt", describe_model(config, data)), data

    return leave


def test_members_of_any_size_and_split_with_one_test_part_are_measured_on_it(
    trained: Train, config_for: Config, tmp_path: Path
) -> None:
    models = [
        trained("a", "data.split.strategy=kfold", "data.split.fold_index=1"),
        trained("b", "data.split.strategy=kfold", "augment.image_size=96"),
        trained("c", "data.split.val_size=0.3", "model.backbone=test_vit", "augment.crop_ratio=0.8"),
    ]
    paths, split = [path for path, _ in models], models[0][1].split
    assert split is not None

    result = evaluate(config_for(listed(*paths)))

    assert result.members == tuple(paths)
    assert result.backbone == "test_resnet, test_vit"
    assert result.output_dir == tmp_path / "outputs" / "evaluation" / "test"
    assert result.scores.photos == len(split.parts["test"]) == 9
    rows = (result.output_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    predictors = [load_predictor(FoundModel(path, "explicit"), "cpu") for path in paths]
    for row, leaf in zip(rows, split.parts["test"], strict=True):
        answers = [each.predict_bytes(leaf.path.read_bytes(), name="a").probabilities for each in predictors]
        expected = np.mean([list(answer.values()) for answer in answers], axis=0)
        assert row.split(",")[0] == leaf.image_id
        assert [float(cell) for cell in row.split(",")[3:8]] == pytest.approx(expected.tolist(), abs=2e-5)


@pytest.mark.parametrize("tta", ["none", "crops"])
def test_ensemble_file_is_measured_beside_itself_and_views_are_told(
    tta: str, trained: Train, config_for: Config, tmp_path: Path
) -> None:
    paths = [trained("a")[0], trained("b", "model.backbone=test_vit")[0]]
    write_ensemble(tmp_path / "both" / "ensemble.json", paths, "probabilities", "equal")

    result = evaluate(config_for("infer.checkpoint_path=both", f"infer.tta={tta}"))

    assert result.checkpoint == tmp_path / "both" / "ensemble.json"
    name = "test" if tta == "none" else "test-crops"
    assert result.output_dir == tmp_path / "both" / "evaluation" / name
    assert result.views == (() if tta == "none" else ("start", "identity", "end"))
    written = json.loads((result.output_dir / "metrics.json").read_text(encoding="utf-8"))
    assert ("views" in written) is (tta != "none")


@pytest.mark.parametrize(
    "other",
    [["data.split.seed=1"], ["data.split.test_size=0.3"], ["data.split.strategy=kfold", "data.split.seed=2"]],
)
def test_members_with_other_test_parts_are_refused(other: list[str], trained: Train, config_for: Config) -> None:
    paths = [trained("a")[0], trained("b", *other)[0]]

    with pytest.raises(DataError, match=r"do not have the same test part.*data\.split\.seed and test_size"):
        evaluate(config_for(listed(*paths)))


def test_folds_have_no_common_validation_part(trained: Train, config_for: Config) -> None:
    paths = [trained(str(k), "data.split.strategy=kfold", f"data.split.fold_index={k}")[0] for k in range(2)]

    with pytest.raises(DataError, match=r"evaluate\.part=val: .*type evaluate\.part=test"):
        evaluate(config_for(listed(*paths), "evaluate.part=val"))


def test_any_table_is_measured_whatever_the_splits(trained: Train, config_for: Config, photos_dir: Path) -> None:
    paths = [trained("a")[0], trained("b", "data.split.seed=1", "augment.image_size=96")[0]]

    result = evaluate(config_for(listed(*paths), f"evaluate.csv_path={photos_dir / 'train.csv'}"))

    assert result.scores.photos == 60


def test_drawn_leaves_of_members_of_other_sizes_are_measured(trained: Train, config_for: Config) -> None:
    drawn = ["data.synthetic.enabled=true", "data.synthetic.train_size=20", "data.synthetic.test_size=10"]
    paths = [trained("a", *drawn)[0], trained("b", *drawn, "augment.image_size=96")[0]]

    assert evaluate(config_for(listed(*paths))).scores.photos == 10


def test_crossval_leaves_an_ensemble_of_its_folds(small_config: Config, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "leaves", 60, 64, 0)
    config = small_config(
        *("data.synthetic.enabled=false", f"paths.data_dir={tmp_path / 'leaves'}", "train.epochs=1"),
        *("data.split.folds=2", "data.split.test_size=0.2"),
    )

    result = crossval(config)

    assert result.ensemble == result.crossval_dir / "ensemble.json"
    members = read_ensemble(result.ensemble).members
    assert [member.path for member in members] == [f"fold_{index}/checkpoints/best.ckpt" for index in range(2)]
    config = config.changed(infer=config.infer.changed(checkpoint_path=result.crossval_dir))
    measured = evaluate(config)
    assert measured.scores.photos == 12
    assert measured.output_dir == result.crossval_dir / "evaluation" / "test"
