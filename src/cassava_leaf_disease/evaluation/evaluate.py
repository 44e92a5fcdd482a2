"""`cassava evaluate`: a checkpoint's figures on the test part, or on any table in the Kaggle layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.class_map import NO_COUNTERPART
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, ModelSource, Prediction
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.outside import OutsideScores, score_outside
from cassava_leaf_disease.evaluation.predictions import judge_photos, verdict_columns, write_predictions
from cassava_leaf_disease.evaluation.report.write import Measured, prepare_report, write_report
from cassava_leaf_disease.evaluation.scores import Scores, score
from cassava_leaf_disease.evaluation.selection import SelectedPhotos, select_photos
from cassava_leaf_disease.inference.ensemble import load_model
from cassava_leaf_disease.inference.model_files import check_device, is_ensemble
from cassava_leaf_disease.paths import BEST_CHECKPOINT, checkpoints_dir
from cassava_leaf_disease.storage.files import write_json


class EvaluationResult(BaseModel):
    """Which model was measured on what, its figures, and where the tables lie.

    `members` are those of an ensemble, `views` those of each photo where there were several. `outside` tells about
    the classes of another collection, `scores` then count its photos that have a label of ours. `report` is the page.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    members: tuple[Path, ...] = Field(default=(), exclude_if=lambda members: not members)
    source: ModelSource
    backbone: str
    data: str
    views: tuple[str, ...] = Field(default=(), exclude_if=lambda views: not views)
    scores: Scores
    outside: OutsideScores | None = Field(default=None, exclude_if=lambda outside: outside is None)
    output_dir: Path
    report: Path | None = Field(default=None, exclude_if=lambda report: report is None)


def evaluate(config: AppConfig) -> EvaluationResult:
    """Measures a model and writes `metrics.json`, `figures.json` (its main figures alone) and `predictions.csv`.

    With `evaluate.report` also a page for people (see `report.write`).

    Raises:
        CassavaError: No model, no photos, or the photos are not those that the split was made from.
    """
    settings = config.evaluate
    if settings.images_dir is not None and settings.csv_path is None:
        raise ConfigError("evaluate.images_dir is set without evaluate.csv_path; type evaluate.csv_path=train.csv too")
    check_device(config.infer.device, config.infer.checkpoint_path)
    predictor = load_model(config)
    photos = select_photos(config, predictor)
    prepared = prepare_report(config, photos) if settings.report else None
    answers = judge_photos(predictor, photos.source, settings.batch_size)
    probabilities = np.array([list(answer.probabilities.values()) for answer in answers])
    verdicts = [answer.verdict for answer in answers]
    output_dir = settings.output_dir or default_output_dir(predictor.identity, config)
    samples, known = settings.bootstrap_samples, photos.known
    outside = None if photos.outside is None else score_outside(photos.outside, probabilities, verdicts, samples)
    scores = score(photos.labels[known], probabilities[known], CLASS_NAMES, samples)
    measured = Measured(predictor, photos, probabilities, verdicts, scores, outside)
    result = EvaluationResult(
        checkpoint=Path(predictor.identity.path),
        members=tuple(map(Path, predictor.identity.members)),
        source=predictor.identity.source,
        backbone=", ".join(dict.fromkeys(metadata.backbone for metadata in predictor.described)),
        data=photos.description,
        views=predictor.views if len(predictor.views) > 1 else (),
        scores=scores,
        outside=outside,
        output_dir=output_dir,
        report=None if prepared is None else write_report(config, measured, prepared, output_dir),
    )
    write_answers(output_dir / "predictions.csv", photos, probabilities, answers)
    write_json(output_dir / "figures.json", main_figures(result.scores))
    write_json(output_dir / "metrics.json", result.model_dump(mode="json"))
    return result


def write_answers(
    path: Path, photos: SelectedPhotos, probabilities: npt.NDArray[np.float64], answers: Sequence[Prediction]
) -> None:
    """Writes the answers with the names of their classes, verdicts, and what another collection calls the label."""
    names = {
        "label_name": ["" if label == NO_COUNTERPART else CLASS_NAMES[label] for label in photos.labels],
        "predicted_name": [CLASS_NAMES[best] for best in probabilities.argmax(axis=1)],
    }
    if photos.outside is not None:
        names["outside_class"] = list(photos.outside.classes)
    write_predictions(path, photos.image_ids, photos.labels, probabilities, names | verdict_columns(answers))


def main_figures(scores: Scores) -> dict[str, float]:
    """What `dvc metrics` compares: accuracy, macro-F1, and the F1 of each class."""
    by_class = {f"f1 {name}": report.f1 for name, report in scores.per_class.items()}
    return {"accuracy": scores.accuracy, "f1_macro": scores.f1_macro, **by_class}


def default_output_dir(model: ModelIdentity, config: AppConfig) -> Path:
    """`evaluation/PART`, or `evaluation/FOLDER-TABLE`, beside the ensemble or in the run folder, else in `outputs`.

    Of a run's files `best.ckpt` has that name alone; the others' begin with their own, as `best.fp16.onnx-test`.
    """
    path = Path(model.path)
    run_dir = path.parent.parent
    parent, model_file = config.paths.outputs_dir, []
    if is_ensemble(path):
        parent = path.parent
    elif not model.members and path.parent == checkpoints_dir(run_dir):
        parent, model_file = run_dir, [path.name] if path.name != BEST_CHECKPOINT else []
    table = config.evaluate.csv_path
    photos = config.evaluate.part if table is None else f"{table.parent.name}-{table.stem}"
    views = [config.infer.tta] if config.infer.tta != "none" else []
    return parent / "evaluation" / "-".join([*model_file, photos, *views])
