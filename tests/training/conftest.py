"""A small data set of real files, settings that train on it in seconds, and checkpoints that such a training leaves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_synthetic_dataset(folder, 60, 72, seed=3)
    return folder


@pytest.fixture
def config_for(photos_dir: Path, root_in_tmp_path: None) -> Callable[..., AppConfig]:
    small = (
        *(f"paths.data_dir={photos_dir}", "model.backbone=test_resnet", "augment.image_size=48"),
        *("train.epochs=1", "train.batch_size=10", "train.num_workers=0", "train.accelerator=cpu"),
        *("data.split.val_size=0.2", "data.split.test_size=0.2", "evaluate.bootstrap_samples=100"),
    )
    return lambda *overrides: load_config([*small, *overrides])


@pytest.fixture
def teacher(
    config_for: Callable[..., AppConfig],
    write_random_checkpoint: Callable[[Path, ModelMetadata], Path],
    tmp_path: Path,
) -> Callable[..., Path]:
    """Writes the checkpoint that a training with these settings leaves; random weights instead of trained ones."""

    def write(name: str, *overrides: str) -> Path:
        config = config_for("augment.image_size=64", *overrides)
        data = LeafDataModule(config)
        data.divide()
        return write_random_checkpoint(tmp_path / "teachers" / f"{name}.ckpt", describe_model(config, data))

    return write
