"""`cassava fit-gate`: what a photo has to pass before its diagnosis counts, learned from leaves, kept in the file.

Extra photos that people have labelled (`data.extra` with `label_column`) are leaves too, of another camera or country:
each of their classes is a group of its own, beside those of the training part.
"""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, OodScore
from cassava_leaf_disease.data.class_map import NO_COUNTERPART
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, PhotoSource
from cassava_leaf_disease.data.folder import find_photos
from cassava_leaf_disease.data.parts import labels_of
from cassava_leaf_disease.domain import Verdict
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.calibrate import ENOUGH_PHOTOS, folder_of, refuse_other_files
from cassava_leaf_disease.evaluation.figures import foreign_figure, risk_coverage_figure, write_figure
from cassava_leaf_disease.evaluation.gate_limits import (
    FittedScore,
    Readings,
    fit_other_trouble,
    fit_quality,
    fit_scores,
)
from cassava_leaf_disease.evaluation.own_split import divide_as_trained
from cassava_leaf_disease.evaluation.predictions import prepared_batches
from cassava_leaf_disease.evaluation.scores import auroc
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_image
from cassava_leaf_disease.imaging.preprocess import to_network_size
from cassava_leaf_disease.imaging.quality import PhotoQuality, measure_quality
from cassava_leaf_disease.inference.discover import find_model
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.gate import judge
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.ood import NEEDS_FEATURES
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.inference.vote import softmax
from cassava_leaf_disease.modeling.calibration import choose_confidence
from cassava_leaf_disease.modeling.checkpoint import describe_anew, load_checkpoint
from cassava_leaf_disease.modeling.metadata import ConfidenceRule, GateRecord, QualityLimits, Thresholds
from cassava_leaf_disease.paths import METRICS_FILE
from cassava_leaf_disease.storage.files import write_json

logger = logging.getLogger(__name__)

GATE_FILE: Final = "gate.json"
Part = Literal["train", "val", "test"]
Labelled = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]  # answers (N, C) and labels (N,)


class PartVerdicts(BaseModel):
    """The verdicts about one set of photos, as fractions of it.

    `accuracy` is that of all answers, `diagnosis_accuracy` that of the diagnoses; null where no photo is cassava, or
    none got a diagnosis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    verdicts: dict[Verdict, float]
    accuracy: float | None = None
    diagnosis_accuracy: float | None = None


class ScoreReport(BaseModel):
    """One score's limit, and what it refuses as not cassava, whatever the photo's quality.

    `refused` is the fraction of each set of photos, `auroc` how well the score tells the test part (the validation
    part, where there is no other) from the photos in `gate.foreign_dir`: 1 for perfectly, 0.5 for not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float
    refused: dict[str, float]
    auroc: float | None


class GateResult(BaseModel):
    """What was written into the checkpoint, and what it does to the photos of its split.

    `foreign` is null without `gate.foreign_dir`. `arrays_bytes` is what the file grew by, about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    backbone: str
    gate: GateRecord
    thresholds: Thresholds
    arrays_bytes: int
    verdicts: dict[str, PartVerdicts]
    scores: dict[OodScore, ScoreReport]
    figures: tuple[Path, ...]


def fit_gate(config: AppConfig) -> GateResult:
    """Fits the gate on the training and validation parts of the checkpoint's own split and keeps it in the file.

    The test part and the photos in `gate.foreign_dir` are measured, not used.

    Raises:
        CassavaError: No checkpoint, not the photos that it was trained with, or a network without features.
    """
    check_device(config.infer.device, config.infer.checkpoint_path)
    found = find_model(config)
    refuse_other_files(found)
    loaded = load_checkpoint(found.path)
    predictor = load_predictor(found, config.infer.device)
    read = read_parts(config, predictor)
    settings, temperature = config.gate, loaded.metadata.temperature
    leaves = read["train"].joined(read["extra"]) if "extra" in read else read["train"]
    quality = fit_quality(leaves.quality, settings)
    fitted = fit_scores(leaves, read, settings, quality)
    gate = fitted[settings.score].gate
    answers = {part: softmax(each.outputs.logits.astype(np.float64) / temperature) for part, each in read.items()}
    rule = ConfidenceRule(target_accuracy=settings.target_accuracy, min_coverage=settings.min_coverage)
    foreign = fitted[settings.score].foreign
    thresholds = Thresholds(
        min_confidence=choose_confidence(answers["val"], read["val"].labels, rule.target_accuracy, rule.min_coverage),
        rule=rule,
        other_trouble=fit_other_trouble(answers["extra"], foreign["extra"], read["extra"].labels, settings)
        if "extra" in read
        else None,
    )
    measured = "test" if "test" in read else "val"
    title = f"{loaded.metadata.name}, {len(read[measured])} {'test' if measured == 'test' else 'validation'} photos"
    labelled: dict[str, Labelled] = {
        part: (answers[part], read[part].labels) for part in ("val", "test") if part in read
    }
    figures = folder_of(found.path) / "figures"
    result = GateResult(
        checkpoint=found.path,
        backbone=loaded.metadata.backbone,
        gate=gate.record,
        thresholds=thresholds,
        arrays_bytes=sum(array.nbytes for array in gate.arrays.values()),
        verdicts={
            part: count_verdicts(each, answers[part], foreign[part], quality, thresholds) for part, each in read.items()
        },
        scores={score: report_score(each, measured) for score, each in fitted.items()},
        figures=(
            write_figure(
                risk_coverage_figure(labelled, thresholds.min_confidence, title), figures / "risk_coverage.png"
            ),
            write_figure(
                foreign_figure({score: each.foreign for score, each in fitted.items()}, title), figures / "gate.png"
            ),
        ),
    )
    described = loaded.metadata.model_copy(update={"thresholds": thresholds, "gate": gate.record})
    describe_anew(found.path, loaded, described, gate.arrays)
    write_json(folder_of(found.path) / GATE_FILE, result.model_dump(mode="json"))
    return result


def read_parts(config: AppConfig, predictor: Predictor) -> dict[str, Readings]:
    """The photos of each part, without random changes, labelled extra ones as `extra`, and foreign ones as `foreign`.

    Raises:
        DataError: They are not those that the model was trained with, or cannot be read.
        ConfigError: The score needs features and the network gives none.
    """
    folder = config.gate.foreign_dir
    names = [] if folder is None else find_photos(folder, "gate.foreign_dir")
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    data = divide_as_trained(config, predictor.metadata)
    read: dict[str, Readings] = {}
    for part in ("train", "val", "test"):
        labels = data.labels(part)
        if not len(labels):
            continue
        rows = _spread(len(labels), config.gate.reference_photos) if part == "train" else range(len(labels))
        image = partial(_chosen, _as_they_are(data, part, limits), rows)
        read[part] = read_photos(predictor, image, labels[list(rows)], config)
    extra = data.labelled_extra()
    if extra is not None:
        rows = _spread(len(extra.photos), config.gate.reference_photos)
        source = DecodedPhotos(extra.photos, None, enlarge=True, limits=limits)
        read["extra"] = read_photos(
            predictor, partial(_chosen, source, rows), labels_of(extra.photos)[list(rows)], config
        )
    else:
        _warn_of_unknown_leaves(config, predictor)
    if len(read["val"]) < ENOUGH_PHOTOS:
        logger.warning("the validation part has %d photos: the gate's limits are mostly chance", len(read["val"]))
    if folder is not None:
        nothing = np.full(len(names), NO_COUNTERPART, np.int64)
        read["foreign"] = read_photos(
            predictor, lambda index: read_image(folder / names[index], limits), nothing, config
        )
    return read


def read_photos(
    predictor: Predictor,
    image: Callable[[int], npt.NDArray[np.uint8]],
    labels: npt.NDArray[np.int64],
    config: AppConfig,
) -> Readings:
    """What the network and the pixels say of photos 0 to N - 1."""
    spec = predictor.metadata.preprocessing

    def prepare(index: int) -> tuple[npt.NDArray[np.uint8], PhotoQuality]:
        photo = image(index)
        return to_network_size(photo, spec), measure_quality(photo)

    quality: list[PhotoQuality] = []
    logits, features = [], []
    for batch in prepared_batches(prepare, len(labels), config.evaluate.batch_size):
        outputs = predictor.outputs(np.stack([pixels for pixels, _ in batch]))
        if outputs.features is None and config.gate.score in NEEDS_FEATURES:
            raise ConfigError(
                f"gate.score={config.gate.score}: {predictor.metadata.backbone} does not show its features; "
                "type gate.score=energy"
            )
        logits.append(outputs.logits)
        features.extend([] if outputs.features is None else [outputs.features])
        quality.extend(measured for _, measured in batch)
    joined = EngineOutputs(np.concatenate(logits), np.concatenate(features) if features else None)
    return Readings(joined, quality, labels)


def report_score(fitted: FittedScore, measured: str) -> ScoreReport:
    """What a score refuses; it is told apart from the photos of part `measured`."""
    foreign = fitted.foreign.get("foreign")
    return ScoreReport(
        limit=fitted.gate.record.limit,
        refused={part: float((values > 1).mean()) for part, values in fitted.foreign.items()},
        auroc=None if foreign is None else auroc(fitted.foreign[measured], foreign),
    )


def count_verdicts(
    photos: Readings,
    probabilities: npt.NDArray[np.float64],
    foreign: npt.NDArray[np.float64],
    limits: QualityLimits,
    thresholds: Thresholds,
) -> PartVerdicts:
    """The verdicts about photos with answers `(N, C)`."""
    confidences = probabilities.max(axis=1).tolist()
    verdicts = np.array(
        [
            judge(confidence, thresholds, quality, limits, distance).verdict
            for confidence, quality, distance in zip(confidences, photos.quality, foreign.tolist(), strict=True)
        ]
    )
    shares: dict[Verdict, float] = {name: float((verdicts == name).mean()) for name in get_args(Verdict)}
    known = photos.labels != NO_COUNTERPART
    if not known.any():
        return PartVerdicts(photos=len(photos), verdicts=shares)
    right = (probabilities.argmax(axis=1) == photos.labels)[known]
    diagnosed = (verdicts == "diagnosis")[known]
    return PartVerdicts(
        photos=len(photos),
        verdicts=shares,
        accuracy=float(right.mean()),
        diagnosis_accuracy=float(right[diagnosed].mean()) if diagnosed.any() else None,
    )


def _warn_of_unknown_leaves(config: AppConfig, predictor: Predictor) -> None:
    """A network that learned other leaves than the gate is shown would have them refused."""
    count = predictor.metadata.extra_photos or _extra_of_run(Path(predictor.identity.path))
    if count and config.data.extra.csv_path is None:
        logger.warning(
            "its training learned %d extra photos too; type its data.extra.* so that the gate knows them", count
        )


def _extra_of_run(checkpoint: Path) -> int:
    """How many extra photos the run's result tells of, for a checkpoint from before it told that itself."""
    result = folder_of(checkpoint) / METRICS_FILE
    counts: dict[str, int] = json.loads(result.read_bytes()).get("photos", {}) if result.is_file() else {}
    return counts.get("extra", 0)


def _as_they_are(data: LeafDataModule, part: Part, limits: DecodeLimits) -> PhotoSource:
    """The photos of a part at the size of their files: a kept copy at the network's size is less sharp."""
    if data.split is None:
        return data.evaluation_dataset(part, limits).source
    return DecodedPhotos(data.split.parts[part], None, enlarge=True, limits=limits)


def _chosen(source: PhotoSource, rows: Sequence[int], index: int) -> npt.NDArray[np.uint8]:
    return source.image(rows[index])


def _spread(count: int, at_most: int) -> Sequence[int]:
    """At most so many of `count` indices, evenly spread."""
    return range(count) if count <= at_most else [index * count // at_most for index in range(at_most)]
