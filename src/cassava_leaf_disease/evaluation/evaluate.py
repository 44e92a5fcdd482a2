"""`cassava evaluate`: a checkpoint's figures on the test part, or on any table in the Kaggle layout."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, LimitsConfig, SplitConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, EvalDataset
from cassava_leaf_disease.data.table import read_table
from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.predictions import predict_dataset, write_predictions
from cassava_leaf_disease.evaluation.scores import Scores, score
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.predictor import check_device, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.paths import checkpoints_dir
from cassava_leaf_disease.storage.files import write_json


class EvaluationResult(BaseModel):
    """Which model was measured on what, its figures, and where the tables lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    source: ModelSource
    backbone: str
    data: str
    scores: Scores
    output_dir: Path


@dataclass(frozen=True)
class SelectedPhotos:
    """What a model is measured on: the photos, their ids in the same order, and what they are in words."""

    dataset: EvalDataset
    image_ids: list[str]
    description: str


def evaluate(config: AppConfig) -> EvaluationResult:
    """Measures a model and writes `metrics.json` and `predictions.csv`.

    Raises:
        CassavaError: No model, no photos, or the photos are not those that the split was made from.
    """
    settings = config.evaluate
    if settings.images_dir is not None and settings.csv_path is None:
        raise ConfigError("evaluate.images_dir is set without evaluate.csv_path; type evaluate.csv_path=train.csv too")
    check_device(config.infer.device)
    found = find_model(config)
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    predictor = load_predictor(found, config.infer.device, limits)
    photos = select_photos(config, predictor.metadata, limits)
    probabilities = predict_dataset(predictor, photos.dataset, settings.batch_size)
    labels = photos.dataset.labels
    output_dir = settings.output_dir or default_output_dir(found, config)
    result = EvaluationResult(
        checkpoint=found.path,
        source=found.source,
        backbone=predictor.metadata.backbone,
        data=photos.description,
        scores=score(labels, probabilities, predictor.metadata.class_names, settings.bootstrap_samples),
        output_dir=output_dir,
    )
    write_predictions(output_dir / "predictions.csv", photos.image_ids, labels, probabilities)
    write_json(output_dir / "metrics.json", result.model_dump(mode="json"))
    return result


def select_photos(config: AppConfig, metadata: ModelMetadata, limits: DecodeLimits) -> SelectedPhotos:
    """The photos to measure on: those of a table, or of a part of the model's own split.

    Raises:
        DataError: The table is wrong, the split is not the model's own, or the part is empty.
    """
    settings = config.evaluate
    if settings.csv_path is not None:
        images_dir = settings.images_dir or settings.csv_path.parent / "train_images"
        photos = read_table(settings.csv_path, images_dir)
        spec = metadata.preprocessing
        source = DecodedPhotos(photos, spec.resize_side_px, enlarge=True, limits=limits)
        dataset = EvalDataset(source, [photo.label for photo in photos], spec)
        return SelectedPhotos(dataset, [photo.image_id for photo in photos], str(settings.csv_path))
    data = LeafDataModule(config_of_model(config, metadata))
    data.divide()
    check_split(data, metadata, config)
    image_ids = data.image_ids(settings.part)
    if not image_ids:
        raise DataError(
            f"evaluate.part={settings.part}: the model was trained with data.split.test_size=0, so its split has no "
            "such part; type evaluate.part=val, or name other photos with evaluate.csv_path"
        )
    origin = "the drawn leaves" if data.split is None else str(config.paths.data_dir)
    dataset = data.evaluation_dataset(settings.part, limits)
    return SelectedPhotos(dataset, image_ids, f"{settings.part} part of {origin}")


def config_of_model(config: AppConfig, metadata: ModelMetadata) -> AppConfig:
    """The configuration whose split, limits and image size are the model's own."""
    record, data = metadata.split, config.data
    drawn = record.strategy == "synthetic"
    sizes = {f"{part}_size": count for part, count in record.photos.items()} if drawn else {}
    split = record.model_dump(include=set(SplitConfig.model_fields), exclude={"strategy"} if drawn else None)
    limits = record.model_dump(include=set(LimitsConfig.model_fields))
    spec = metadata.preprocessing
    return config.changed(
        data=data.changed(
            synthetic=data.synthetic.changed(enabled=drawn, **sizes),
            split=data.split.changed(**split),
            limits=data.limits.changed(**limits),
        ),
        augment=config.augment.changed(image_size=spec.image_size_px, crop_ratio=spec.crop_ratio),
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
        "is unknown; type paths.data_dir=FOLDER of the training photos, or name others with evaluate.csv_path"
    )


def default_output_dir(found: FoundModel, config: AppConfig) -> Path:
    """`evaluation/PART`, or `evaluation/FOLDER-TABLE`, in the checkpoint's run folder, else in `outputs`."""
    run_dir = found.path.parent.parent
    parent = run_dir if found.path.parent == checkpoints_dir(run_dir) else config.paths.outputs_dir
    table = config.evaluate.csv_path
    name = config.evaluate.part if table is None else f"{table.parent.name}-{table.stem}"
    return parent / "evaluation" / name
