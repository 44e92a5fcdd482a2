"""A model's own split, made again from the photos: which of them it learned, and which it has not seen."""

from cassava_leaf_disease.config.schema import AppConfig, LimitsConfig, SplitConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.modeling.metadata import ModelMetadata


def divide_as_trained(config: AppConfig, metadata: ModelMetadata) -> LeafDataModule:
    """The photos under `paths.data_dir`, or drawn leaves, divided as when the model was trained.

    Raises:
        DataError: They do not give its split.
    """
    data = LeafDataModule(config_of_model(config, metadata))
    data.divide()
    check_split(data, metadata, config)
    return data


def config_of_model(config: AppConfig, metadata: ModelMetadata) -> AppConfig:
    """The configuration whose split, limits and image size are the model's own.

    Raises:
        DataError: A split file was named for a model of drawn leaves.
    """
    record, data = metadata.split, config.data
    drawn = record.strategy == "synthetic"
    if drawn and data.split.manifest is not None:
        raise DataError(
            "the model was trained on drawn leaves, which no split file names; type data.split.manifest=null, "
            "or name photos with evaluate.csv_path"
        )
    sizes = {f"{part}_size": count for part, count in record.photos.items()} if drawn else {}
    split = record.model_dump(include=set(SplitConfig.model_fields), exclude={"strategy"} if drawn else None)
    limits = record.model_dump(include=set(LimitsConfig.model_fields))
    spec = metadata.preprocessing
    return config.changed(
        data=data.changed(
            synthetic=data.synthetic.changed(enabled=drawn, **sizes),
            split=data.split.changed(**split),
            limits=data.limits.changed(**limits),
            exclude_csv=None,  # they change what a training learns, not its split
            soft_labels_csv=None,
        ),
        augment=config.augment.changed(image_size=spec.image_size_px, eval_size=None, crop_ratio=spec.crop_ratio),
    )


def check_split(data: LeafDataModule, metadata: ModelMetadata, config: AppConfig) -> None:
    """Refuses photos whose split is not the one that the model was trained with.

    Raises:
        DataError: Otherwise a test part could hold photos that the model has learned.
    """
    if data.split_hash == metadata.split.hash:
        return
    if metadata.split.strategy == "synthetic":
        raise DataError(
            "the model was trained on drawn leaves, and other ones than these settings draw; repeat the "
            "training's data.synthetic.train_size, val_size and test_size, or name photos with evaluate.csv_path"
        )
    raise DataError(
        f"the photos under paths.data_dir={config.paths.data_dir} do not give the split that the model was trained "
        f"with (hash {data.split_hash[:12]}, expected {metadata.split.hash[:12]}), so its {config.evaluate.part} part "
        "is unknown; type paths.data_dir=FOLDER of the training photos, data.split.manifest=RUN_FOLDER/split.csv, or "
        "name other photos with evaluate.csv_path"
    )
