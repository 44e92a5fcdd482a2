"""`cassava demo`: the main job with nothing but the repository, in under a minute.

Draws leaves, trains a small network on them, then diagnoses a leaf that it has not seen.
"""

import io
import logging

from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import CLASS_NAMES, Prediction
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.paths import resolve
from cassava_leaf_disease.storage.files import replacing
from cassava_leaf_disease.training.fit import train

logger = logging.getLogger(__name__)

_BACKBONE = "resnet10t"
_IMAGE_SIZE_PX = 96
_PHOTO_SIZE_PX = 512
_LABEL = 3
_UNSEEN = 987_654_321  # an index far from those of the training pictures


def demo(config: AppConfig) -> Prediction:
    """Trains on drawn leaves and answers about one more; the photo is kept under `outputs/demo`."""
    result = train(demo_config(config))
    logger.info(
        "on %d drawn leaves that it has not seen the network is right in %.0f%% of cases",
        result.photos["test"],
        100 * result.metrics["test/acc"],
    )
    photo = config.paths.outputs_dir / "demo" / "leaf.jpg"
    with replacing(photo) as file:
        file.write(draw_photo())
    logger.info("drew a leaf with %s: %s", CLASS_NAMES[_LABEL], photo)
    assert result.checkpoint is not None  # noqa: S101  demo_config asks for checkpoints
    predictor = load_predictor(FoundModel(resolve(result.checkpoint), "outputs"), "auto")
    return predictor.predict_bytes(photo.read_bytes(), name=str(photo))


def demo_config(config: AppConfig) -> AppConfig:
    """A small network and few small pictures; everything else as configured."""
    size = config.demo.train_size
    drawn = config.data.synthetic.changed(enabled=True, train_size=size, val_size=size // 5, test_size=size // 5)
    return config.changed(
        data=config.data.changed(synthetic=drawn),
        model=config.model.changed(name=_BACKBONE, backbone=_BACKBONE, pretrained=False, weights_path=None),
        augment=config.augment.changed(image_size=_IMAGE_SIZE_PX, eval_size=None),
        train=config.train.changed(epochs=config.demo.epochs, save_checkpoints=True),
    )


def draw_photo() -> bytes:
    """A drawn leaf as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(_UNSEEN, _LABEL, _PHOTO_SIZE_PX)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
