"""`cassava calibrate`: the temperature under which a model's confidence is what it says, written into its file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.figures import reliability_figure, write_figure
from cassava_leaf_disease.evaluation.predictions import predict_photos
from cassava_leaf_disease.evaluation.selection import select_photos
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.ensemble import EnsembleCalibration, load_found, read_ensemble
from cassava_leaf_disease.inference.model_files import check_device, is_ensemble, is_exported
from cassava_leaf_disease.modeling.calibration import (
    choose_confidence,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    soften,
)
from cassava_leaf_disease.modeling.checkpoint import describe_anew, load_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata, Thresholds
from cassava_leaf_disease.paths import LAST_CHECKPOINT, checkpoints_dir
from cassava_leaf_disease.storage.files import write_json

logger = logging.getLogger(__name__)

ENOUGH_PHOTOS: Final = 100  # under which a temperature is mostly chance


class Calibration(BaseModel):
    """One part of the photos before and after: expected calibration error over 15 bins, log loss in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    accuracy: float
    calibration_error_before: float
    calibration_error_after: float
    log_loss_before: float
    log_loss_after: float


class CalibrationResult(BaseModel):
    """The model's new temperature and the one before; `test` is null where its split has no test part.

    Of an ensemble it is that of the combined answer, which `checkpoint`, its file, keeps. `min_confidence` is that of
    a diagnosis from now on: chosen anew where it had been chosen on photos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    backbone: str
    temperature_before: float
    temperature: float
    min_confidence: float
    validation: Calibration
    test: Calibration | None
    figure: Path


def calibrate(config: AppConfig) -> CalibrationResult:
    """Fits the temperature on the validation part of the model's own split and keeps it in its file.

    The test part is measured, not used. Rankings stay as they are; only confidences change. An ensemble's members
    stay as they are, too: its file keeps the temperature of their combined answer, and what goes with it.

    Raises:
        CassavaError: No checkpoint or ensemble, not the photos that it was trained with, or members of several splits.
    """
    check_device(config.infer.device, config.infer.checkpoint_path)
    found = find_model(config)
    together = not found.members and is_ensemble(found.path)
    if not together:
        refuse_other_files(found)
    predictor = load_found(found, config.infer.device)
    path = Path(predictor.identity.path)
    first = predictor.described[0]
    _refuse_several_splits(path, predictor.described)
    answers = {}
    for part in ("val", "test"):
        if part == "val" or first.split.test_size > 0 or first.split.photos.get("test"):
            own = config.changed(evaluate=config.evaluate.changed(part=part, csv_path=None, images_dir=None))
            photos = select_photos(own, predictor)
            answers[part] = predict_photos(predictor, photos.source, config.evaluate.batch_size), photos.labels
    if len(answers["val"][1]) < ENOUGH_PHOTOS:
        logger.warning("the validation part has %d photos: the temperature is mostly chance", len(answers["val"][1]))
    factor = fit_temperature(*answers["val"])
    before = predictor.temperature
    folder = folder_of(path)
    thresholds = follow_temperature(predictor.thresholds, soften(answers["val"][0], factor), answers["val"][1])
    measured = {part: measure(*answer, factor) for part, answer in answers.items()}
    probabilities, labels = answers.get("test", answers["val"])
    title = f"{predictor.identity.name}, {len(labels)} {'test' if 'test' in answers else 'validation'} photos"
    figure = reliability_figure(
        {
            "before": (probabilities, labels),
            f"temperature {before * factor:.2f}": (soften(probabilities, factor), labels),
        },
        title,
    )
    result = CalibrationResult(
        checkpoint=path,
        backbone=", ".join(dict.fromkeys(each.backbone for each in predictor.described)),
        temperature_before=before,
        temperature=before * factor,
        min_confidence=thresholds.min_confidence,
        validation=measured["val"],
        test=measured.get("test"),
        figure=write_figure(figure, folder / "figures" / "reliability.png"),
    )
    prior = tuple(soften(answers["val"][0], factor).mean(axis=0).tolist())
    if together:
        kept = EnsembleCalibration(temperature=result.temperature, class_prior=prior, thresholds=thresholds)
        write_json(path, read_ensemble(path).model_copy(update={"calibration": kept}).model_dump(mode="json"))
    else:
        update = {"temperature": result.temperature, "class_prior": prior, "thresholds": thresholds}
        describe_anew(path, load_checkpoint(path), first.model_copy(update=update))
    write_json(folder / "calibration.json", result.model_dump(mode="json"))
    return result


def _refuse_several_splits(path: Path, members: Sequence[ModelMetadata]) -> None:
    if len({each.split.hash for each in members}) > 1:
        raise ConfigError(
            f"{path}: its members learned from several splits, so that no photos are new to all of them; type "
            "infer.checkpoint_path=… of each member in turn, or combine members of one data.split.seed"
        )


def folder_of(checkpoint: Path) -> Path:
    """Where what was found about a checkpoint is written: its run's folder, or the one that it lies in."""
    run_dir = checkpoint.parent.parent
    return run_dir if checkpoint.parent == checkpoints_dir(run_dir) else checkpoint.parent


def follow_temperature(
    thresholds: Thresholds, probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> Thresholds:
    """A confidence that was chosen on validation photos, chosen anew by its rule on their answers as they are now."""
    if thresholds.rule is None:
        return thresholds
    chosen = choose_confidence(probabilities, labels, thresholds.rule.target_accuracy, thresholds.rule.min_coverage)
    return thresholds.model_copy(update={"min_confidence": chosen})


def measure(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], factor: float) -> Calibration:
    """The figures of answers `(N, C)` about photos with labels `(N,)`, and what the temperature makes of them."""
    after = soften(probabilities, factor)
    return Calibration(
        photos=len(labels),
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        calibration_error_before=expected_calibration_error(probabilities, labels),
        calibration_error_after=expected_calibration_error(after, labels),
        log_loss_before=negative_log_likelihood(probabilities, labels),
        log_loss_after=negative_log_likelihood(after, labels),
    )


def refuse_other_files(found: FoundModel) -> None:
    """Only a checkpoint for inference can be described anew.

    Raises:
        ConfigError: It is an exported model, several models, or what a run resumes from.
    """
    if is_exported(found.path):
        raise ConfigError(
            f"{found.path}: an exported model; type infer.checkpoint_path=… of its checkpoint, and export that again"
        )
    if found.members or is_ensemble(found.path):
        raise ConfigError(f"{found.path}: several models; type infer.checkpoint_path=… of each in turn")
    if found.path.name == LAST_CHECKPOINT:
        raise ConfigError(f"{found.path}: what a run resumes from; type infer.checkpoint_path=… of a best.ckpt")
