"""A checkpoint that no training made, for measuring speed: timm's MobileNetV2 at 224 px with drawn weights."""

from datetime import UTC, datetime
from pathlib import Path

import torch

from cassava_leaf_disease import __version__
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import write_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord


def write(path: str, backbone: str = "mobilenetv2_100", image_size_px: int = 224) -> None:
    """Writes it."""
    torch.manual_seed(7)
    split = SplitRecord(
        strategy="synthetic",
        val_size=0.1,
        test_size=0.1,
        folds=5,
        fold_index=0,
        seed=0,
        max_train_samples=None,
        max_val_samples=None,
        hash="0" * 64,
    )
    metadata = ModelMetadata(
        name=f"{backbone} with drawn weights",
        version="0",
        backbone=backbone,
        preprocessing=Preprocessing(image_size_px=image_size_px, crop_ratio=0.875),
        metrics={},
        epoch=0,
        data_fingerprint="0" * 64,
        split=split,
        git_commit=None,
        package_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_checkpoint(Path(path), rebuild_network(backbone, image_size_px, 5), metadata)
