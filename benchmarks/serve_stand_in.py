"""A checkpoint that no training made, for measuring speed: timm's MobileNetV2 at 224 px with drawn weights."""

from pathlib import Path

import torch

from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import write_checkpoint
from untrained import describe_untrained


def write(path: str, backbone: str = "mobilenetv2_100", image_size_px: int = 224) -> None:
    """Writes it."""
    torch.manual_seed(7)
    metadata = describe_untrained(backbone, Preprocessing(image_size_px=image_size_px, crop_ratio=0.875))
    write_checkpoint(Path(path), rebuild_network(backbone, image_size_px, 5), metadata)
