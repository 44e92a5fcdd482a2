"""`cassava evaluate`: a checkpoint's figures on the test part, or on any table in the Kaggle layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, PhotoSource
from cassava_leaf_disease.data.table import read_table
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, ModelSource
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.own_split import divide_as_trained
from cassava_leaf_disease.evaluation.predictions import predict_photos, write_predictions
from cassava_leaf_disease.evaluation.scores import Scores, score
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.ensemble import load_model
from cassava_leaf_disease.inference.predictor import AnyPredictor, check_device, is_ensemble
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.paths import checkpoints_dir
from cassava_leaf_disease.storage.files import write_json


class EvaluationResult(BaseModel):
    """Which model was measured on what, its figures, and where the tables lie.

    `members` are those of an ensemble, `views` those of each photo where there were several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    members: tuple[Path, ...] = Field(default=(), exclude_if=lambda members: not members)
    source: ModelSource
    backbone: str
    data: str
    views: tuple[str, ...] = Field(default=(), exclude_if=lambda views: not views)
    scores: Scores
    output_dir: Path


@dataclass(frozen=True)
class SelectedPhotos:
    """What a model is measured on: the photos, their labels and ids in the same order, and what they are in words."""

    source: PhotoSource
    labels: npt.NDArray[np.int64]
    image_ids: list[str]
    description: str


def evaluate(config: AppConfig) -> EvaluationResult:
    """Measures a model and writes `metrics.json`, `figures.json` (its main figures alone) and `predictions.csv`.

    Raises:
        CassavaError: No model, no photos, or the photos are not those that the split was made from.
    """
    settings = config.evaluate
    if settings.images_dir is not None and settings.csv_path is None:
        raise ConfigError("evaluate.images_dir is set without evaluate.csv_path; type evaluate.csv_path=train.csv too")
    check_device(config.infer.device, config.infer.checkpoint_path)
    predictor = load_model(config)
    photos = select_photos(config, predictor)
    probabilities = predict_photos(predictor, photos.source, settings.batch_size)
    output_dir = settings.output_dir or default_output_dir(predictor.identity, config)
    result = EvaluationResult(
        checkpoint=Path(predictor.identity.path),
        members=tuple(map(Path, predictor.identity.members)),
        source=predictor.identity.source,
        backbone=", ".join(dict.fromkeys(member.metadata.backbone for member in predictor.members)),
        data=photos.description,
        views=predictor.views if len(predictor.views) > 1 else (),
        scores=score(photos.labels, probabilities, CLASS_NAMES, settings.bootstrap_samples),
        output_dir=output_dir,
    )
    names = {
        "label_name": [CLASS_NAMES[label] for label in photos.labels],
        "predicted_name": [CLASS_NAMES[best] for best in probabilities.argmax(axis=1)],
    }
    write_predictions(output_dir / "predictions.csv", photos.image_ids, photos.labels, probabilities, names)
    write_json(output_dir / "figures.json", main_figures(result.scores))
    write_json(output_dir / "metrics.json", result.model_dump(mode="json"))
    return result


def main_figures(scores: Scores) -> dict[str, float]:
    """What `dvc metrics` compares: accuracy, macro-F1, and the F1 of each class."""
    by_class = {f"f1 {name}": report.f1 for name, report in scores.per_class.items()}
    return {"accuracy": scores.accuracy, "f1_macro": scores.f1_macro, **by_class}


def select_photos(config: AppConfig, predictor: AnyPredictor) -> SelectedPhotos:
    """The photos to measure on: those of a table, or of the part that all members have in common.

    Raises:
        DataError: The table is wrong, a split is not its model's own, or the part is empty or not the same for all.
    """
    settings = config.evaluate
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    if settings.csv_path is not None:
        images_dir = settings.images_dir or settings.csv_path.parent / "train_images"
        photos = read_table(settings.csv_path, images_dir)
        source: PhotoSource = DecodedPhotos(photos, predictor.photo_side_px, enlarge=True, limits=limits)
        labels = np.array([photo.label for photo in photos], np.int64)
        return SelectedPhotos(source, labels, [photo.image_id for photo in photos], str(settings.csv_path))
    data = divide_for_all(config, [member.metadata for member in predictor.members])
    part = settings.part
    if not data.image_ids(part):
        raise DataError(
            f"evaluate.part={part}: the model was trained with data.split.test_size=0, so its split has no "
            "such part; type evaluate.part=val, or name other photos with evaluate.csv_path"
        )
    if data.split is None or predictor.photo_side_px is not None:
        source = data.evaluation_dataset(part, limits).source
    else:
        source = DecodedPhotos(data.split.parts[part], None, enlarge=True, limits=limits)
    origin = "the drawn leaves" if data.split is None else str(config.paths.data_dir)
    return SelectedPhotos(source, data.labels(part), data.image_ids(part), f"{part} part of {origin}")


def divide_for_all(config: AppConfig, described: Sequence[ModelMetadata]) -> LeafDataModule:
    """The split of the model with the largest input, whose `evaluate.part` is that of every other one.

    Raises:
        DataError: A split is not its model's own, or their parts differ: what one answers about, another learned.
    """
    part = config.evaluate.part
    first, *others = sorted(described, key=lambda metadata: -metadata.preprocessing.resize_side_px)
    data = divide_as_trained(config, first)
    for other in others:
        if other.split == first.split or divide_as_trained(config, other).image_ids(part) == data.image_ids(part):
            continue
        mend = "type evaluate.part=test" if part != "test" else "combine models of one data.split.seed and test_size"
        raise DataError(
            f"evaluate.part={part}: the models do not have the same {part} part, so one may have learned the photos "
            f"that another has not seen; {mend}, or name other photos with evaluate.csv_path"
        )
    return data


def default_output_dir(model: ModelIdentity, config: AppConfig) -> Path:
    """`evaluation/PART`, or `evaluation/FOLDER-TABLE`, beside the ensemble or in the run folder, else in `outputs`."""
    path = Path(model.path)
    run_dir = path.parent.parent
    parent = config.paths.outputs_dir
    if is_ensemble(path):
        parent = path.parent
    elif not model.members and path.parent == checkpoints_dir(run_dir):
        parent = run_dir
    table = config.evaluate.csv_path
    name = config.evaluate.part if table is None else f"{table.parent.name}-{table.stem}"
    return parent / "evaluation" / (name if config.infer.tta == "none" else f"{name}-{config.infer.tta}")
