"""How closely an exported model's answers follow those that it was made of, and what is close enough."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import Precision
from cassava_leaf_disease.errors import ExportError
from cassava_leaf_disease.export.pictures import Pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.predictor import AnyPredictor

Probabilities = npt.NDArray[np.float64]

BATCH: Final = 16
TOLERANCES: Final[dict[Precision, float]] = {"fp32": 1e-4, "fp16": 5e-3, "fp16_weights": 5e-3}


class Comparison(BaseModel):
    """What was compared, and the figures.

    `max_difference` is the largest of any probability on the `pictures` compared, which `compared_on` names;
    `agreement` is the fraction of them whose most probable class is the same. Where their labels are at hand,
    `accuracy_before` is the checkpoint's and `accuracy` the exported model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: int
    compared_on: str
    max_difference: float
    mean_difference: float
    agreement: float
    accuracy_before: float | None = None
    accuracy: float | None = None


def compare(expected: Probabilities, answers: Probabilities, pictures: Pictures) -> Comparison:
    """Two models' probabilities `(N, C)` for the same pictures."""
    differences = np.abs(answers - expected)
    before, after = expected.argmax(axis=1), answers.argmax(axis=1)
    labels = pictures.labels
    return Comparison(
        pictures=len(pictures),
        compared_on=pictures.origin,
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        agreement=float((before == after).mean()),
        accuracy_before=None if labels is None else float((before == labels).mean()),
        accuracy=None if labels is None else float((after == labels).mean()),
    )


def check(found: Comparison, tolerance: float, target: Path) -> None:
    """Refuses answers that differ too much.

    Raises:
        ExportError: A probability differs by more than `tolerance`.
    """
    if found.max_difference > tolerance:
        raise ExportError(
            f"{target} was not written: its probabilities differ from the checkpoint's by up to "
            f"{found.max_difference:.1e} on {found.compared_on}, where {found.agreement:.0%} of the answers agree; "
            f"expected at most export.tolerance={tolerance:g}"
        )


def probabilities_of(predictor: AnyPredictor, pictures: Pictures, spec: Preprocessing) -> Probabilities:
    """`(N, C)`; the first picture goes alone, so that batches of different sizes are tried."""
    images = pictures.images
    batches = [images[:1], *(images[start : start + BATCH] for start in range(1, len(images), BATCH))]
    return np.concatenate([predictor.predict([{spec: image[None]} for image in batch]) for batch in batches])
