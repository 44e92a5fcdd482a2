"""What a network with drawn weights says of itself, so that its speed can be measured."""

from cassava_leaf_disease import __version__
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord


def describe_untrained(backbone: str, preprocessing: Preprocessing) -> ModelMetadata:
    """The self-description of a timm network that nobody trained; no photos belong to its split."""
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
    return ModelMetadata(
        name=backbone,
        version="drawn weights",
        backbone=backbone,
        preprocessing=preprocessing,
        metrics={},
        epoch=0,
        data_fingerprint="0" * 64,
        split=split,
        git_commit=None,
        package_version=__version__,
        created_at="never",
    )
