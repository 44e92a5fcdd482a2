"""`cassava evaluate`: a checkpoint's figures on the test part, or on any table in the Kaggle layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, EvalDataset
from cassava_leaf_disease.data.table import read_table
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.predictions import predict_dataset, write_predictions
from cassava_leaf_disease.evaluation.scores import Scores, score
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.predictor import Predictor, check_device, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.storage.files import write_text


class EvaluationResult(BaseModel):
    """Which model was measured on what, its figures, and where the tables lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    source: str
    backbone: str
    data: str
    scores: Scores
    output_dir: Path


def evaluate(config: AppConfig) -> EvaluationResult:
    """Measures a model and writes `metrics.json` and `predictions.csv`.

    Raises:
        CassavaError: No model, no photos, or the photos are not those that the split was made from.
    """
    check_device(config.infer.device)
    found = find_model(config)
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    predictor = load_predictor(found, config.infer.device, limits)
    dataset, image_ids, data = select_photos(config, predictor)
    probabilities = predict_dataset(predictor, dataset, config.evaluate.batch_size)
    labels = np.asarray(dataset.labels, np.int64)
    output_dir = config.evaluate.output_dir or default_output_dir(found, config)
    result = EvaluationResult(
        checkpoint=found.path,
        source=found.source,
        backbone=predictor.metadata.backbone,
        data=data,
        scores=score(labels, probabilities, predictor.metadata.class_names, config.evaluate.bootstrap_samples),
        output_dir=output_dir,
    )
    write_predictions(output_dir / "predictions.csv", image_ids, labels, probabilities)
    write_text(output_dir / "metrics.json", json.dumps(result.model_dump(mode="json"), indent=2) + "\n")
    return result


def select_photos(config: AppConfig, predictor: Predictor) -> tuple[EvalDataset, list[str], str]:
    """The photos to measure on, their ids, and what they are in words."""
    settings = config.evaluate
    if settings.csv_path is not None:
        images_dir = settings.images_dir or settings.csv_path.parent / "train_images"
        photos = read_table(settings.csv_path, images_dir)
        spec = predictor.metadata.preprocessing
        source = DecodedPhotos(photos, spec.resize_side_px, enlarge=True)
        labels = np.array([photo.label for photo in photos], np.int64)
        return EvalDataset(source, labels, spec), [photo.image_id for photo in photos], str(settings.csv_path)
    if settings.images_dir is not None:
        raise ConfigError("evaluate.images_dir is set without evaluate.csv_path; type evaluate.csv_path=train.csv too")
    data = LeafDataModule(config_of_model(config, predictor.metadata))
    data.setup("fit" if settings.part != "test" else "test")
    check_split(data, predictor.metadata, config)
    dataset = data.evaluation_dataset(settings.part)
    return dataset, data.image_ids(settings.part), f"{settings.part} part"


def config_of_model(config: AppConfig, metadata: ModelMetadata) -> AppConfig:
    """The configuration whose split and image size are the model's own."""
    split, limits = config.data.split, config.data.limits
    record = metadata.split
    synthetic = record.strategy == "synthetic"
    changes: dict[str, Any] = {
        "data": config.data.model_copy(
            update={
                "synthetic": config.data.synthetic.model_copy(update={"enabled": synthetic}),
                "limits": limits.model_copy(update=record.model_dump(include=set(type(limits).model_fields))),
                "split": split.model_copy(
                    update=record.model_dump(include=set(type(split).model_fields))
                    | ({"strategy": split.strategy} if synthetic else {})
                ),
            }
        ),
        "augment": config.augment.model_copy(
            update={
                "image_size": metadata.preprocessing.image_size_px,
                "crop_ratio": metadata.preprocessing.crop_ratio,
            }
        ),
    }
    return config.model_copy(update=changes)


def check_split(data: LeafDataModule, metadata: ModelMetadata, config: AppConfig) -> None:
    """Refuses photos whose split is not the one that the model was trained with.

    Raises:
        DataError: Otherwise a test part could hold photos that the model has learned.
    """
    if data.split_hash != metadata.split.hash:
        raise DataError(
            f"the photos under {config.paths.data_dir} do not give the split that this model was trained with "
            f"(hash {data.split_hash[:12]}, expected {metadata.split.hash[:12]}): its {config.evaluate.part} part cannot "
            "be told apart; name the data set of the training with paths.data_dir, or a table with evaluate.csv_path"
        )


def default_output_dir(found: FoundModel, config: AppConfig) -> Path:
    """`RUN/evaluation/PART` beside a run's checkpoint, else `outputs/evaluation/PART`."""
    folder = found.path.parent
    run_dir = folder.parent if folder.name == "checkpoints" else config.paths.outputs_dir
    name = config.evaluate.part if config.evaluate.csv_path is None else config.evaluate.csv_path.stem
    return run_dir / "evaluation" / name
