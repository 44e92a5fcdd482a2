"""A model's probabilities for a whole data set, and the table of them."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.datasets import PhotoSource
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.log import progress_bar
from cassava_leaf_disease.storage.files import write_text

T = TypeVar("T")


def predict_photos(predictor: AnyPredictor, photos: PhotoSource, batch_size: int) -> npt.NDArray[np.float64]:
    """Probabilities `(N, C)` of photos in their order, `N` at least 1; progress on stderr.

    Raises:
        ImageError: A photo cannot be used.
    """
    batches = prepared_batches(lambda index: predictor.prepare(photos.image(index)), len(photos), batch_size)
    return np.concatenate([predictor.predict(batch) for batch in batches])


def judge_photos(predictor: AnyPredictor, photos: PhotoSource, batch_size: int) -> list[Prediction]:
    """The full answers about photos in their order, verdicts and checks included; progress on stderr.

    Raises:
        ImageError: A photo cannot be used.
    """
    batches = prepared_batches(lambda index: predictor.prepare(photos.image(index)), len(photos), batch_size)
    return [answer for batch in batches for answer in predictor.predict_all(batch)]


def prepared_batches(prepare: Callable[[int], T], count: int, batch_size: int) -> Iterator[list[T]]:
    """What `prepare` gives for 0 to `count` - 1, in batches; progress on stderr.

    The photos of a batch are decoded in threads. Decoding the next batch meanwhile gains nothing where the
    network uses every core (256 photos at 224 px, MobileNetV2, two cores: 3.8 s without and 4.0 s with it).
    """
    with ThreadPoolExecutor(available_cpus()) as pool, progress_bar("predicting", count) as advance:
        for start in range(0, count, batch_size):
            indices = range(start, min(start + batch_size, count))
            yield list(pool.map(prepare, indices))
            advance(len(indices))


def verdict_columns(answers: Sequence[Prediction]) -> dict[str, list[str]]:
    """The columns of a table that tell the verdicts, and how foreign the photos are (empty without a gate)."""
    foreign = [next((check.value for check in answer.checks if check.name == "foreign"), None) for answer in answers]
    return {
        "verdict": [answer.verdict for answer in answers],
        "foreign": ["" if value is None else f"{value:.3f}" for value in foreign],
    }


def write_predictions(
    path: Path,
    image_ids: Sequence[str],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    extra: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Writes a row a photo: `image_id,label,predicted,prob_0 … prob_4`, and the `extra` columns.

    A label below 0 is none of ours, and its cell is empty.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    extra = extra or {}
    classes = range(probabilities.shape[1])
    writer.writerow(["image_id", "label", "predicted", *(f"prob_{index}" for index in classes), *extra])
    for row, (image_id, label, probs) in enumerate(zip(image_ids, labels, probabilities, strict=True)):
        others = [values[row] for values in extra.values()]
        cell = int(label) if label >= 0 else ""
        writer.writerow([image_id, cell, int(probs.argmax()), *(f"{prob:.6f}" for prob in probs), *others])
    write_text(path, buffer.getvalue())
