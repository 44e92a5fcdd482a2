"""`cassava pseudo-label`: a model's confident answers about unlabelled photos, for `data.extra` to train with.

Which photos a model was sure of says nothing about whether it was right: a student can inherit its mistakes. The
model should have been trained with the split of the student, so that it does not know the student's test part.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, PseudoLabelConfig
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.digests import digest_bytes, photo_digests
from cassava_leaf_disease.data.extra import probability_table
from cassava_leaf_disease.data.folder import find_photos
from cassava_leaf_disease.data.sampling import count_classes
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity
from cassava_leaf_disease.errors import ConfigError, DataError, ImageError
from cassava_leaf_disease.evaluation.predictions import prepared_batches
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_image
from cassava_leaf_disease.inference.ensemble import load_model
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import AnyPredictor, Prepared
from cassava_leaf_disease.paths import create_version_dir
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

TABLE_FILE: Final = "pseudo_labels.csv"
SUMMARY_FILE: Final = "pseudo_labels.json"


class PseudoLabelResult(BaseModel):
    """The table of the kept photos, and why the others were not; `kept` counts them by class.

    `found` is the sum of all: `kept`, `labeled` (in the data set), `copies` (of another photo of the folder),
    `unreadable` (path to reason), `unsure`, `contradicted` (by members of the ensemble) and `over_limit`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    csv_path: Path
    images_dir: Path
    model: ModelIdentity
    views: tuple[str, ...]
    found: int
    kept: dict[str, int]
    labeled: int
    copies: int
    unsure: int
    contradicted: int
    over_limit: int
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Candidates:
    """Paths in the folder whose contents differ from each other and from the data set's, and what was left out."""

    names: list[str]
    labeled: int
    copies: int
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Answers:
    """Of the photos that could be decoded: names, probabilities `(N, C)`, and whether all members agree `(N,)`."""

    names: list[str]
    probabilities: npt.NDArray[np.float64]
    agreed: npt.NDArray[np.bool_]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """The rows of the answers that are kept, rising, how many of each class, and how many are not and why."""

    rows: list[int]
    by_class: dict[str, int]
    unsure: int
    contradicted: int
    over_limit: int


def pseudo_label(config: AppConfig) -> PseudoLabelResult:
    """Scores the photos in `pseudo_label.images_dir` and writes a table of those to be trained with.

    Raises:
        CassavaError: No such folder, no photos in it, no data set to keep them apart from, or no model.
    """
    settings, folder = config.pseudo_label, config.pseudo_label.images_dir
    if folder is None:
        raise ConfigError(
            "pseudo_label.images_dir is not set; type pseudo_label.images_dir=FOLDER of unlabelled photos"
        )
    check_device(config.infer.device, config.infer.checkpoint_path)
    found = find_photos(folder, "pseudo_label.images_dir")
    labeled = read_kaggle(config.paths.data_dir)
    memo_dir = config.paths.cache_dir if config.data.cache.enabled else None
    candidates = choose_candidates(folder, found, frozenset(photo_digests(labeled, memo_dir)))
    predictor = load_model(config)
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    answers = ask(predictor, folder, candidates.names, limits, settings.batch_size)
    choice = choose(answers, settings, count_classes([photo.label for photo in labeled]))
    output_dir = settings.output_dir or create_version_dir(config.paths.outputs_dir / "pseudo-label")
    result = PseudoLabelResult(
        csv_path=output_dir / TABLE_FILE,
        images_dir=folder,
        model=predictor.identity,
        views=predictor.views,
        found=len(found),
        kept=choice.by_class,
        labeled=candidates.labeled,
        copies=candidates.copies,
        unsure=choice.unsure,
        contradicted=choice.contradicted,
        over_limit=choice.over_limit,
        unreadable=candidates.unreadable | answers.unreadable,
    )
    names = [answers.names[row] for row in choice.rows]
    write_text(result.csv_path, probability_table("path", names, answers.probabilities[choice.rows]))
    write_json(output_dir / SUMMARY_FILE, result.model_dump(mode="json"))
    if not names:
        logger.warning("no photo was kept; lower pseudo_label.min_confidence=%s", settings.min_confidence)
    return result


def choose_candidates(folder: Path, names: Sequence[str], known: frozenset[str]) -> Candidates:
    """Leaves out photos whose content is among the digests `known`, and all but the first of equal ones."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        digests = list(pool.map(lambda name: _digest(folder / name), names))
    unreadable = {name: str(digest) for name, digest in zip(names, digests, strict=True) if isinstance(digest, OSError)}
    readable = [(name, digest) for name, digest in zip(names, digests, strict=True) if isinstance(digest, str)]
    fresh = [(name, digest) for name, digest in readable if digest not in known]
    first = {digest: name for name, digest in reversed(fresh)}
    return Candidates(sorted(first.values()), len(readable) - len(fresh), len(fresh) - len(first), unreadable)


def ask(predictor: AnyPredictor, folder: Path, names: Sequence[str], limits: DecodeLimits, batch_size: int) -> Answers:
    """The model's answers about photos; those that cannot be decoded are listed."""

    def prepare(index: int) -> Prepared | ImageError | DataError:
        try:
            return predictor.prepare(read_image(folder / names[index], limits))
        except (ImageError, DataError) as error:
            return error

    good: list[str] = []
    unreadable: dict[str, str] = {}
    each: list[npt.NDArray[np.float64]] = [np.empty((len(predictor.members), 0, len(CLASS_NAMES)))]
    position = 0
    for batch in prepared_batches(prepare, len(names), batch_size):
        for name, photo in zip(names[position : position + len(batch)], batch, strict=True):
            if isinstance(photo, Prepared):
                good.append(name)
            else:
                unreadable[name] = str(photo)
        position += len(batch)
        photos = [photo for photo in batch if isinstance(photo, Prepared)]
        each.extend([predictor.predict_each(photos)] if photos else [])
    answers = np.concatenate(each, axis=1)  # (M, N, C)
    classes = answers.argmax(axis=2)
    return Answers(good, predictor.combine(answers), (classes == classes[:1]).all(axis=0), unreadable)


def choose(answers: Answers, settings: PseudoLabelConfig, labeled: npt.NDArray[np.float64]) -> Choice:
    """What `settings` keep of the answers; `labeled` `(C,)` counts the photos of the data set by class."""
    labels, confidences = answers.probabilities.argmax(axis=1), answers.probabilities.max(axis=1)
    sure = confidences >= settings.min_confidence
    eligible = sure & (answers.agreed | (not settings.members_agree))
    most = [len(labels) if settings.max_per_class is None else settings.max_per_class] * len(labeled)
    if settings.max_ratio is not None:
        most = [min(limit, int(settings.max_ratio * count)) for limit, count in zip(most, labeled, strict=True)]
    kept: list[int] = []
    for label, limit in enumerate(most):
        rows = np.flatnonzero(eligible & (labels == label))
        kept.extend(rows[np.argsort(-confidences[rows], kind="stable")][:limit].tolist())
    return Choice(
        rows=sorted(kept),
        by_class={name: int(np.sum(labels[kept] == label)) for label, name in enumerate(CLASS_NAMES)},
        unsure=int(np.sum(~sure)),
        contradicted=int(np.sum(sure & ~eligible)),
        over_limit=int(np.sum(eligible)) - len(kept),
    )


def _digest(path: Path) -> str | OSError:
    try:
        return digest_bytes(path.read_bytes())
    except OSError as error:
        return error
