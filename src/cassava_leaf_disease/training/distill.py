"""Distillation: a student learns a teacher's probabilities instead of bare labels (Hinton et al., 2015, section 2).

The teacher answers once, before the training, about every photo that trains; its answers are kept in the run's
`soft_targets.csv`. The loss is the configured one against `alpha * teacher + (1 - alpha) * one-hot`; photos
that nobody labelled get the teacher's answer alone. Other than in the paper the student's own temperature stays 1, so
that any loss over probabilities will do.

What the teacher learned must not be what the student is measured on. With `out_of_fold` a photo's target comes
from the one fold that did not learn it. The other folds' photos, among them those that validate the student, were
learned by that fold: the student never sees them, but validation comes out a little too well. Its test part is
untouched by every fold.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import training_device
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.datasets import DecodedPhotos, PhotoSource
from cassava_leaf_disease.data.digests import photo_digests
from cassava_leaf_disease.data.extra import parse_probabilities, probability_table, read_probabilities
from cassava_leaf_disease.data.splits import Part
from cassava_leaf_disease.data.table import name_some
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.own_split import config_of_model
from cassava_leaf_disease.evaluation.predictions import predict_photos
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.modeling.calibration import soften
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.paths import OUT_OF_FOLD_FILE

logger = logging.getLogger(__name__)

SOFT_TARGETS_FILE: Final = "soft_targets.csv"


def soften_targets(config: AppConfig, data: LeafDataModule, resumed: Path | None) -> str | None:
    """Gives `data`, which is set up, its targets by `distill.teacher`; the table of the teacher's answers.

    The table of a run that is resumed is used as it stands. None, and nothing done, without a teacher or with one
    that answers about batches (see `training.teacher`).

    Raises:
        ConfigError: The teacher has no out-of-fold answers.
        DataError: The teacher learned photos that measure the student, or the answers are those about others.
        CassavaError: The teacher cannot be loaded.
    """
    if config.distill.teacher is None or config.distill.consistent:
        return None
    names = [*data.image_ids("train"), *(f"extra/{name}" for name in data.extra_ids())]
    kept = None if resumed is None else resumed / SOFT_TARGETS_FILE
    if kept is not None and kept.is_file():
        table, origin = kept.read_text(encoding="utf-8"), str(kept)
    else:
        table, origin = probability_table("image_id", names, ask_teacher(config, data)), "the teacher's answers"
    answered, answers = parse_probabilities(table, "image_id", origin)
    if answered != names:
        raise DataError(f"{origin}: about other photos than this run trains on; start a new run without train.resume")
    data.soften(mix_targets(answers, data.labelled_targets(), config.distill.alpha, config.distill.temperature))
    return table


def mix_targets(
    answers: npt.NDArray[np.float64], labelled: npt.NDArray[np.float32], alpha: float, temperature: float
) -> npt.NDArray[np.float32]:
    """Targets `(N, C)`: the teacher's softened answers, for the first of them mixed with what people say `(L, C)`."""
    targets = soften(answers, temperature)
    first = slice(len(labelled))
    targets[first] = alpha * targets[first] + (1 - alpha) * labelled
    return targets.astype(np.float32)


def ask_teacher(config: AppConfig, data: LeafDataModule) -> npt.NDArray[np.float64]:
    """The teacher's probabilities `(N, C)` for all photos that train, extra ones last.

    Raises:
        CassavaError: See `soften_targets`.
    """
    settings = config.distill
    assert settings.teacher is not None  # noqa: S101  the caller asks
    on_gpu = training_device(config).type == "cuda"
    teacher = load_found(FoundModel(settings.teacher, "explicit"), "cuda" if on_gpu else "cpu", tta=settings.tta)
    check_leaks(config, data, teacher)
    labeled = data.image_ids("train")
    known = out_of_fold_answers(Path(teacher.identity.path), labeled) if settings.out_of_fold else None
    if known is not None and not data.extra_ids():
        return known
    logger.info("teacher: %s (%s)", teacher.identity.name, teacher.identity.path)
    source = _photos(data, teacher, first=0 if known is None else len(labeled))
    answers = predict_photos(teacher, source, config.evaluate.batch_size)
    return answers if known is None else np.concatenate([known, answers])


def check_leaks(config: AppConfig, data: LeafDataModule, teacher: AnyPredictor) -> None:
    """Refuses a teacher that knows photos which validate or test the student; about folds see the module.

    Raises:
        DataError: It does, or what it learned cannot be found out.
    """
    testing, validating = _contents(config, data, ("test",)), _contents(config, data, ("val",))
    learned: set[str] = set()
    chosen_by: set[str] = set()
    trained = [(each, member.identity.path) for member in teacher.members for each in member.described]
    for metadata, path in trained:
        own_config = config_of_model(config, metadata)
        own = divide_own(own_config, metadata, path)
        learned |= _contents(own_config, own, ("train",))
        chosen_by |= _contents(own_config, own, ("val",))
    known = testing & (learned | chosen_by)
    if known:
        raise DataError(
            f"distill.teacher={config.distill.teacher}: it knows {len(known)} of the {len(testing)} photos that test "
            "this run; type the data.split.seed and data.split.test_size that it was trained with"
        )
    seen = f"{len(validating & learned)} of the {len(validating)} photos that validate this run"
    if not validating & learned:
        return
    if not config.distill.out_of_fold:
        raise DataError(
            f"distill.teacher={config.distill.teacher}: it learned {seen}; type the data.split of its training, or, "
            "for a cross-validation's folder, distill.out_of_fold=true"
        )
    logger.warning("the teacher learned %s: validation comes out a little too well, the test part does not", seen)


def out_of_fold_answers(ensemble: Path, image_ids: list[str]) -> npt.NDArray[np.float64]:
    """The probabilities `(N, C)` of photos in the table that `crossval` left beside its ensemble.

    Raises:
        ConfigError: There is none.
        DataError: It is damaged, or lacks some of the photos.
    """
    path = ensemble.parent / OUT_OF_FOLD_FILE
    if not path.is_file():
        raise ConfigError(
            f"distill.out_of_fold=true: no {OUT_OF_FOLD_FILE} beside {ensemble}; type distill.teacher=FOLDER of a "
            "finished `cassava crossval`, or distill.out_of_fold=false"
        )
    names, answers = read_probabilities(path, "image_id")
    rows = {name: row for row, name in enumerate(names)}
    missing = [image_id for image_id in image_ids if image_id not in rows]
    if missing:
        raise DataError(
            f"{path} has no answer about {len(missing)} of the {len(image_ids)} photos that train: "
            f"{name_some(missing)}; train with the data.split.seed, test_size and data.limits of the cross-validation"
        )
    return answers[[rows[image_id] for image_id in image_ids]]


def _photos(data: LeafDataModule, teacher: AnyPredictor, first: int) -> PhotoSource:
    """What the teacher is asked about: photos from `first` on as they are, or drawn leaves."""
    if data.split is None:
        return data.evaluation_dataset("train").source
    return DecodedPhotos(data.training_photos()[first:], teacher.photo_side_px, enlarge=True)


def divide_own(config: AppConfig, metadata: ModelMetadata, path: str) -> LeafDataModule:
    """The split that a model in the file `path` was trained with; `config` is its own (see `config_of_model`).

    Raises:
        DataError: The photos do not give it.
    """
    data = LeafDataModule(config)
    data.divide()
    expected = metadata.split.hash
    if data.split_hash != expected:
        raise DataError(
            f"distill.teacher: what {path} learned is unknown, since the photos under paths.data_dir="
            f"{config.paths.data_dir} do not give its split (hash {data.split_hash[:12]}, expected {expected[:12]}), "
            "so it may know those that measure this run; type paths.data_dir and data.split.manifest of its training"
        )
    return data


def _contents(config: AppConfig, data: LeafDataModule, parts: Iterable[Part]) -> frozenset[str]:
    """The photos of some parts by their content, so that copies under other names count as the same."""
    if data.split is None:
        return frozenset(f"{config.data.split.seed}:{image_id}" for part in parts for image_id in data.image_ids(part))
    photos = [photo for part in parts for photo in data.split.parts[part]]
    return frozenset(photo_digests(photos, config.paths.cache_dir if config.data.cache.enabled else None))
