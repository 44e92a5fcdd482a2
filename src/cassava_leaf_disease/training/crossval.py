"""`cassava crossval`: every fold once, an out-of-fold table, mean and spread."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.predictions import predict_photos, write_predictions
from cassava_leaf_disease.evaluation.scores import Scores, score
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.paths import (
    ENSEMBLE_FILE,
    METRICS_FILE,
    OUT_OF_FOLD_FILE,
    best_checkpoint,
)
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.training import distillation
from cassava_leaf_disease.training.folds import Fold, fold_config, run_folds
from cassava_leaf_disease.training.launch import refuse_launcher
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_folder import describe_run, open_workflow_dir


class FoldSpread(BaseModel):
    """Mean and standard deviation (ddof 1) of one metric over the folds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float


class CrossvalResult(BaseModel):
    """All folds of one recipe; `out_of_fold` scores every photo by the model that never saw it.

    `folds` are the trained networks, one for each fold; with `crossval.distill` its students, of which
    `distill.students` answer as one. `ensemble` is the file that makes all of them answer as one model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crossval_dir: Path
    ensemble: Path
    folds: list[TrainResult]
    spread: dict[str, FoldSpread]
    out_of_fold: Scores
    seconds: float


def crossval(config: AppConfig) -> CrossvalResult:
    """Trains `data.split.folds` models, each validated on its own fold; the test part stays apart.

    With `crossval.distill` each fold trains its own teachers and then the students that are validated. A fold that
    was finished before is not trained again, one that was cut off goes on from its last epoch. Several train at a
    time where `crossval.parallel` says so.

    Raises:
        ConfigError: The settings cannot be cross-validated, or there is nothing to resume.
    """
    refuse_launcher("crossval", ", with crossval.parallel=NUMBER of folds at a time")
    if config.data.synthetic.enabled:
        raise ConfigError("crossval needs photos to fold; type data.synthetic.enabled=false and paths.data_dir=…")
    if config.data.split.manifest is not None:
        raise ConfigError("crossval makes its own folds, not those of one split file; type data.split.manifest=null")
    if not config.train.save_checkpoints:
        raise ConfigError("crossval needs each fold's checkpoint; type train.save_checkpoints=true")
    if config.crossval.distill:
        distillation.check(config)
    folder = open_workflow_dir(config, "crossval", "cross-validation", resume=config.crossval.resume)
    describe_run(folder, config)
    folds = run_folds(config, folder)
    runs = [run for fold in folds for run in fold.runs]
    members = [best_checkpoint(run.run_dir) for run in runs]
    result = CrossvalResult(
        crossval_dir=folder,
        ensemble=write_ensemble(folder / ENSEMBLE_FILE, members, "probabilities", "equal").path,
        folds=runs,
        spread=spread(runs),
        out_of_fold=score_out_of_fold(config, folder, folds),
        seconds=sum(fold.seconds for fold in folds),
    )
    write_json(folder / METRICS_FILE, result.model_dump(mode="json"))
    return result


def spread(runs: list[TrainResult]) -> dict[str, FoldSpread]:
    """Mean and standard deviation of every metric."""
    return {
        name: FoldSpread(
            mean=float(np.mean([run.metrics[name] for run in runs])),
            std=float(np.std([run.metrics[name] for run in runs], ddof=1)),
        )
        for name in runs[0].metrics
    }


def score_out_of_fold(config: AppConfig, folder: Path, folds: list[Fold]) -> Scores:
    """Writes `oof.csv`, each photo with the probabilities of the model that did not train on it; scores it.

    The views of `infer.tta` are asked.
    """
    image_ids: list[str] = []
    labels, probabilities, indices = [], [], []
    for index, fold in enumerate(folds):
        data = LeafDataModule(fold_config(config, index))
        data.divide()
        dataset = data.evaluation_dataset("val")
        predictor = load_found(FoundModel(fold.model, "explicit"), config.infer.device, tta=config.infer.tta)
        probabilities.append(predict_photos(predictor, dataset.source, config.evaluate.batch_size))
        labels.append(np.asarray(dataset.labels, np.int64))
        image_ids.extend(data.image_ids("val"))
        indices.extend([index] * len(dataset))
    all_labels, all_probabilities = np.concatenate(labels), np.concatenate(probabilities)
    write_predictions(folder / OUT_OF_FOLD_FILE, image_ids, all_labels, all_probabilities, {"fold": indices})
    return score(all_labels, all_probabilities, CLASS_NAMES, config.evaluate.bootstrap_samples)
