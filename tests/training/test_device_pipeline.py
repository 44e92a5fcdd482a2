"""Training from photos that are kept on the device."""

from collections.abc import Callable
from pathlib import Path

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]


def test_trains_from_photos_and_gives_the_same_figures_again(small_config: Config, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "data", 100, 72, seed=4)
    config = small_config(
        "data.synthetic.enabled=false",
        f"paths.data_dir={tmp_path / 'data'}",
        "data.pipeline=device",
        "augment=strong",
        "augment.image_size=48",
        "train.epochs=1",
    )
    first, again = train(config), train(config)
    assert first.photos == {"train": 75, "val": 10, "test": 15}
    assert first.metrics == again.metrics


def test_evaluation_does_not_depend_on_where_batches_are_made(small_config: Config) -> None:
    # one epoch without learning: the same weights are measured
    settings = ("train.epochs=1", "train.lr=1e-12", "optim.head_lr_multiplier=1")
    results = [train(small_config(*settings, f"data.pipeline={name}")) for name in ("device", "loader")]
    assert results[0].metrics["test/acc"] == results[1].metrics["test/acc"]
    assert abs(results[0].metrics["test/loss"] - results[1].metrics["test/loss"]) < 1e-3
