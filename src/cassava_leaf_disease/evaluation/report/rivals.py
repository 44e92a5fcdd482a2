"""The other models of a comparison: loaded and asked, or what they answered before."""

import csv
from pathlib import Path

import numpy as np

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.class_map import NO_COUNTERPART
from cassava_leaf_disease.data.table import name_some
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.predictions import predict_photos
from cassava_leaf_disease.evaluation.report.comparison import Answers
from cassava_leaf_disease.evaluation.selection import SelectedPhotos, select_photos
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found

_COLUMNS = ("image_id", "label", "predicted")


def is_table(path: Path) -> bool:
    """Whether a path names answers of an earlier evaluation, not a model."""
    return path.suffix.lower() == ".csv"


def read_answers(path: Path, photos: SelectedPhotos) -> Answers:
    """What a `predictions.csv` says of the measured photos.

    Raises:
        DataError: No such table, or one of other photos or other labels.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            absent = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
            rows = {} if absent else {row["image_id"]: (row["label"], row["predicted"]) for row in reader}
    except OSError as error:
        raise DataError(f"evaluate.compare={path}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError):
        raise DataError(f"evaluate.compare={path}: no readable CSV; {_MEND}") from None
    if absent:
        raise DataError(f"evaluate.compare={path}: no column {' and no column '.join(absent)}; {_MEND}")
    _check_same_photos(str(path), list(rows), photos)
    wanted = {
        image_id: "" if label == NO_COUNTERPART else str(label)
        for image_id, label in zip(photos.image_ids, photos.labels.tolist(), strict=True)
    }
    changed = [image_id for image_id, label in wanted.items() if rows[image_id][0] != label]
    if changed:
        raise DataError(
            f"evaluate.compare={path}: {len(changed)} photos have another label there: {name_some(changed)}; "
            "evaluate that model again on today's table"
        )
    known = {str(index) for index in range(NUM_CLASSES)}
    answers = [rows[image_id][1] for image_id in photos.image_ids]
    if wrong := sorted(set(answers) - known):
        raise DataError(f"evaluate.compare={path}: answers that are no class id: {name_some(wrong)}; {_MEND}")
    return Answers(name=path.parent.name, path=str(path), predicted=np.array(answers, np.int64))


_MEND = "type the predictions.csv of another `cassava evaluate` of the same photos, or a model file"


def ask_rival(config: AppConfig, path: Path, photos: SelectedPhotos) -> Answers:
    """What another model says of the measured photos, with the same device and views.

    Raises:
        CassavaError: It cannot be loaded, or its own part of the photos is not the measured one.
    """
    if not path.exists():
        raise ConfigError(f"evaluate.compare={path}: no such file; type a model file or a predictions.csv")
    predictor = load_found(FoundModel(path, "explicit"), config.infer.device, tta=config.infer.tta)
    selected = select_photos(config, predictor)
    _check_same_photos(str(path), selected.image_ids, photos)
    predicted = predict_photos(predictor, selected.source, config.evaluate.batch_size).argmax(axis=1)
    by_id = dict(zip(selected.image_ids, predicted.tolist(), strict=True))
    in_order = np.array([by_id[image_id] for image_id in photos.image_ids], np.int64)
    return Answers(name=predictor.identity.name, path=str(path), predicted=in_order)


def _check_same_photos(origin: str, image_ids: list[str], photos: SelectedPhotos) -> None:
    there = set(image_ids)
    missing = [image_id for image_id in photos.image_ids if image_id not in there]
    extra = sorted(there - set(photos.image_ids))
    if not missing and not extra:
        return
    found = []
    if missing:
        found.append(f"{len(missing)} of the {len(photos.image_ids)} measured are missing: {name_some(missing)}")
    if extra:
        found.append(f"{len(extra)} are others: {name_some(extra)}")
    raise DataError(
        f"evaluate.compare={origin}: not the same photos ({'; '.join(found)}); models are compared on the same photos "
        "only: name them with evaluate.csv_path, or evaluate the other model on this part"
    )
