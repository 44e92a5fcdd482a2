"""`cassava plants`: what several photos of a plant are worth, measured on groups of photos of one class.

Photos of one class are not photos of one plant: the groups say what several photos would be worth if their errors
had nothing in common (`independent`), and if they had as much in common as photos that look alike to the network
(`alike`). Real plants lie somewhere between the two.
"""

import csv
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, PlantsConfig
from cassava_leaf_disease.data.datasets import PhotoSource
from cassava_leaf_disease.data.extra import read_probabilities
from cassava_leaf_disease.data.table import name_some
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.evaluation.evaluate import default_output_dir
from cassava_leaf_disease.evaluation.figures import write_figure
from cassava_leaf_disease.evaluation.plant_groups import (
    NEAR,
    Draw,
    LabelledAnswers,
    Prevalence,
    arrange,
    classes_of_plants,
    draw_alike,
    draw_independent,
    slots,
)
from cassava_leaf_disease.evaluation.plants_figure import plants_figure
from cassava_leaf_disease.evaluation.predictions import predict_photos, prepared_batches
from cassava_leaf_disease.evaluation.selection import select_photos
from cassava_leaf_disease.inference.aggregate import DEFAULT_POOLING, Pooling, pool, pooling_for
from cassava_leaf_disease.inference.ensemble import load_model
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.modeling.calibration import expected_calibration_error, negative_log_likelihood
from cassava_leaf_disease.modeling.metadata import Thresholds
from cassava_leaf_disease.modeling.metrics import accuracy, confusion_matrix, f1_macro, percentile_interval
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DEFAULT_RULE: Final = "default"
_CORRELATIONS: Final = (0, 0.1, 0.2, 0.3, 0.5, 1)
_LABELS: Final = frozenset(map(str, range(NUM_CLASSES)))


class PlantsRow(BaseModel):
    """Plants of `photos` photos each, answered by one rule; figures are of all plants, intervals bootstrap 95%.

    `answered` is the fraction whose verdict is `diagnosis`. Classes are as frequent as among the photos (`natural`)
    or equally frequent (`balanced`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    draw: Draw
    prevalence: Prevalence
    photos: int
    accuracy: float
    accuracy_interval: tuple[float, float] | None = None
    f1_macro: float
    f1_macro_interval: tuple[float, float] | None = None
    answered: float
    accuracy_of_answered: float | None
    confidence: float
    calibration_error: float
    log_loss: float


class PlantsResult(BaseModel):
    """What was measured on what (photos by class); `rows` are those of the rule that `infer.plant=true` answers with.

    Groups overlap, so a figure cannot be finer than the photos are many: a class of 12 photos is two plants of six.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path | None
    data: str
    photos: dict[str, int]
    groups: int
    correlation: float
    doubt: float
    prior: tuple[float, ...]
    rows: tuple[PlantsRow, ...]
    output_dir: Path


@dataclass(frozen=True)
class AskedPhotos:
    """Answers to draw groups from, the rule and the threshold of the model that gave them, and where figures go."""

    answers: LabelledAnswers
    pooling: Pooling
    min_confidence: float
    checkpoint: Path | None
    data: str
    output_dir: Path


def plants(config: AppConfig) -> PlantsResult:
    """Draws the groups, answers them, and writes `plants.json`, `plants.csv` (every rule) and `plants.png`.

    Raises:
        CassavaError: As `evaluate`, or `plants.answers_csv` is no table of answers.
    """
    settings = config.plants
    asked = ask_model(config) if settings.answers_csv is None else read_answers(settings.answers_csv, config)
    answers, pooling = asked.answers, asked.pooling
    most = min(settings.max_photos, int(answers.counts[answers.counts > 0].min()))
    if most < settings.max_photos:
        logger.warning("the smallest class has %d photos: no larger groups are drawn", most)
    rows = [
        row
        for photos_each in range(1, most + 1)
        for row in measure(answers, photos_each, rules(pooling), asked.min_confidence, settings)
    ]
    rows = [
        add_intervals(row, answers, pooling, settings)
        if row.rule == DEFAULT_RULE and row.draw == "independent"
        else row
        for row in rows
    ]
    output_dir = settings.output_dir or asked.output_dir
    result = PlantsResult(
        checkpoint=asked.checkpoint,
        data=asked.data,
        photos=dict(zip(CLASS_NAMES, answers.counts.tolist(), strict=True)),
        groups=settings.groups,
        correlation=pooling.correlation,
        doubt=pooling.doubt,
        prior=pooling.prior,
        rows=tuple(row for row in rows if row.rule == DEFAULT_RULE),
        output_dir=output_dir,
    )
    write_text(output_dir / "plants.csv", table(rows))
    write_figure(plants_figure(result), output_dir / "plants.png")
    write_json(output_dir / "plants.json", result.model_dump(mode="json"))
    return result


def ask_model(config: AppConfig) -> AskedPhotos:
    """What the model says of the photos that `evaluate` names, those of other classes than ours left out.

    Raises:
        CassavaError: As `evaluate`.
    """
    check_device(config.infer.device, config.infer.checkpoint_path)
    predictor = load_model(config)
    photos = select_photos(config, predictor)
    batch_size = config.evaluate.batch_size
    probabilities = predict_photos(predictor, photos.source, batch_size)
    features = features_of(predictor, photos.source, batch_size)
    known = photos.known
    return AskedPhotos(
        answers=arrange(
            probabilities[known],
            photos.labels[known],
            None if features is None else features[known],
            NEAR * config.plants.max_photos,
        ),
        pooling=pooling_for(predictor),
        min_confidence=predictor.min_confidence,
        checkpoint=Path(predictor.identity.path),
        data=photos.description,
        output_dir=default_output_dir(predictor.identity, config) / "plants",
    )


def read_answers(path: Path, config: AppConfig) -> AskedPhotos:
    """Answers that stand in a table, `oof.csv` of a cross-validation or `predictions.csv` of `evaluate`.

    The model's own thresholds, prior and features do not stand there: the defaults hold, and no photos look alike.

    Raises:
        DataError: No such table.
    """
    wanted = "type the oof.csv of `cassava crossval` or the predictions.csv of `cassava evaluate`"
    names, probabilities = read_probabilities(path, "image_id", wanted)
    with path.open(encoding="utf-8", newline="") as file:
        said = [row.get("label") or "" for row in csv.DictReader(file)]
    wrong = [name for name, label in zip(names, said, strict=True) if label not in _LABELS]
    if wrong or not names:
        seen = f"no class id as label of {name_some(wrong)}" if wrong else "no rows"
        raise DataError(f"plants.answers_csv={path}: {seen}; {wanted}")
    return AskedPhotos(
        answers=arrange(probabilities, np.array(said, np.int64), None, 0),
        pooling=DEFAULT_POOLING,
        min_confidence=Thresholds().min_confidence,
        checkpoint=None,
        data=str(path),
        output_dir=config.paths.outputs_dir / "plants",
    )


def features_of(predictor: AnyPredictor, photos: PhotoSource, batch_size: int) -> FloatArray | None:
    """What the networks see of each photo: their features `(N, D)`, each member's of length 1; None without any."""
    parts: list[FloatArray] = []
    for batch in prepared_batches(lambda index: predictor.prepare(photos.image(index)), len(photos), batch_size):
        seen = []
        for member in predictor.members:
            spec = member.metadata.preprocessing
            features = member.outputs(np.stack([photo[spec][0] for photo in batch])).features
            if features is None:
                return None
            seen.append(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
        parts.append(np.concatenate(seen, axis=1, dtype=np.float64))
    return np.concatenate(parts)


def rules(pooling: Pooling) -> Mapping[str, Pooling]:
    """The rule that answers, and what it is compared with."""
    equal = (1 / NUM_CLASSES,) * NUM_CLASSES
    return {
        DEFAULT_RULE: pooling,
        "mean of probabilities": replace(pooling, kind="probabilities"),
        "majority": replace(pooling, kind="majority"),
        "logarithms, prior counted with each photo": replace(pooling, prior=equal),
        **{f"logarithms, correlation {value:g}": replace(pooling, correlation=value) for value in _CORRELATIONS},
    }


def measure(
    answers: LabelledAnswers,
    photos: int,
    compared: Mapping[str, Pooling],
    min_confidence: float,
    settings: PlantsConfig,
) -> Iterator[PlantsRow]:
    """The figures of every rule for groups of `photos`; all rules answer about the same groups."""
    draws: tuple[Draw, ...] = ("independent", "alike") if (answers.neighbours >= 0).any() else ("independent",)
    prevalences: tuple[Prevalence, ...] = ("natural", "balanced")
    for draw in draws:
        for prevalence in prevalences:
            random = np.random.default_rng([settings.seed, photos])
            classes = classes_of_plants(answers.counts, settings.groups, prevalence)
            chosen = draw_alike if draw == "alike" else draw_independent
            members = answers.probabilities[chosen(answers, classes, photos, random)]  # (groups, photos, C)
            for rule, pooling in compared.items():
                pooled = pool(members, pooling)
                confident = pooled.max(axis=1) >= min_confidence
                right = pooled.argmax(axis=1) == classes
                matrix = confusion_matrix(classes, pooled.argmax(axis=1), NUM_CLASSES)
                yield PlantsRow(
                    rule=rule,
                    draw=draw,
                    prevalence=prevalence,
                    photos=photos,
                    accuracy=accuracy(matrix),
                    f1_macro=f1_macro(matrix),
                    answered=float(confident.mean()),
                    accuracy_of_answered=float(right[confident].mean()) if confident.any() else None,
                    confidence=float(pooled.max(axis=1).mean()),
                    calibration_error=expected_calibration_error(pooled, classes),
                    log_loss=negative_log_likelihood(pooled, classes),
                )


def add_intervals(row: PlantsRow, answers: LabelledAnswers, pooling: Pooling, settings: PlantsConfig) -> PlantsRow:
    """The row with 95% percentile intervals over photos drawn with replacement, class by class, then grouped anew.

    More groups of the same photos would not narrow them: it is the photos that are few.
    """
    random = np.random.default_rng([settings.seed, row.photos, 1])
    classes = classes_of_plants(answers.counts, settings.groups, row.prevalence)
    accuracies, scores = np.empty((2, settings.bootstrap_samples))
    starts, counts = (np.repeat(values, answers.counts) for values in (answers.starts, answers.counts))
    for sample in range(settings.bootstrap_samples):
        drawn = answers.order[starts + (random.random(len(starts)) * counts).astype(np.int64)]
        members = drawn[slots(answers, classes, row.photos, random)]
        best = pool(answers.probabilities[members], pooling).argmax(axis=1)
        matrix = confusion_matrix(classes, best, NUM_CLASSES)
        accuracies[sample], scores[sample] = accuracy(matrix), f1_macro(matrix)
    return row.model_copy(
        update={"accuracy_interval": percentile_interval(accuracies), "f1_macro_interval": percentile_interval(scores)}
    )


def table(rows: list[PlantsRow]) -> str:
    """The rows as CSV; an interval in two columns, empty where there is none."""
    buffer = io.StringIO()
    names = [name for name in PlantsRow.model_fields if not name.endswith("_interval")]
    bounds = [f"{name}_{end}" for name in ("accuracy", "f1_macro") for end in ("low", "high")]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, *bounds])
    for row in rows:
        values = [getattr(row, name) for name in names]
        intervals = [*(row.accuracy_interval or ("", "")), *(row.f1_macro_interval or ("", ""))]
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in [*values, *intervals]])
    return buffer.getvalue()
