"""Networks of both kinds go the whole way at a size of their own; the large presets stand in `test_backbone`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint


@pytest.mark.parametrize(("backbone", "size_px"), [("test_vit", 96), ("test_efficientnet", 72)])
def test_a_network_trains_and_its_checkpoint_evaluates_and_infers_at_its_own_size(
    backbone: str, size_px: int, small_config: Callable[..., AppConfig], tmp_path: Path, photo_bytes: bytes
) -> None:
    from cassava_leaf_disease.evaluation.evaluate import evaluate
    from cassava_leaf_disease.inference.infer import infer
    from cassava_leaf_disease.training.fit import train

    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    recipe = ("loss=bi_tempered", "optim.layer_decay=0.8", "model.drop_path=0.1", "train.epochs=1")
    result = train(small_config(f"model.backbone={backbone}", f"augment.image_size={size_px}", *recipe))

    assert result.checkpoint is not None
    metadata = load_checkpoint(result.checkpoint).metadata
    assert (metadata.backbone, metadata.preprocessing.image_size_px) == (backbone, size_px)
    measured = evaluate(small_config())  # whose own backbone and size are others
    assert measured.backbone == backbone
    assert measured.scores.accuracy == pytest.approx(result.metrics["test/acc"])
    answer = infer(small_config("infer.image_path=leaf.jpg"))
    assert isinstance(answer, Prediction)
    assert answer.model.name == backbone
