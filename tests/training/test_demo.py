"""The first command of the README."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.training.demo import demo

SmallConfig = Callable[..., AppConfig]


def test_demo_trains_and_answers_about_a_photo_that_it_drew(small_config: SmallConfig, tmp_path: Path) -> None:
    answer = demo(small_config("demo.train_size=50", "demo.epochs=1"))

    assert abs(sum(answer.probabilities.values()) - 1) < 1e-4
    assert answer.model.name == "resnet10t"
    assert answer.image is not None
    with Image.open(answer.image) as photo:
        assert photo.format == "JPEG"
    assert Path(answer.image).is_relative_to(tmp_path / "outputs" / "demo")
