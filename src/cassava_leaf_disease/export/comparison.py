"""How closely an exported model's answers follow those that it was made of, and what is close enough."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import ExportConfig, Precision
from cassava_leaf_disease.errors import ExportError
from cassava_leaf_disease.export.pictures import Pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.gate import FOREIGN_LIMIT
from cassava_leaf_disease.inference.predictor import Answers, AnyPredictor, Prepared
from cassava_leaf_disease.inference.vote import combine_foreign

Probabilities = npt.NDArray[np.float64]

BATCH: Final = 16
TOLERANCES: Final[dict[Precision, float | None]] = {
    "fp32": 1e-4,
    "fp16": 5e-3,
    "fp16_weights": 5e-3,
    "int8_weights": 5e-2,
    "int8": None,
}
_INTEGERS: Final[tuple[Precision, ...]] = ("int8_weights", "int8")


class Comparison(BaseModel):
    """What was compared, and the figures.

    `max_difference` is the largest of any probability on the `pictures` compared, which `compared_on` names;
    `agreement` is the fraction of them whose most probable class is the same. Where their labels are at hand,
    `accuracy_before` is the checkpoint's and `accuracy` the exported model's. Where there is a gate, `refused` is the
    fraction of the pictures that it takes for no cassava leaf.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: int
    compared_on: str
    max_difference: float
    mean_difference: float
    agreement: float
    accuracy_before: float | None = None
    accuracy: float | None = None
    refused_before: float | None = None
    refused: float | None = None


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


def refused(answers: Answers) -> float | None:
    """The fraction of pictures that a gate, or several, take for no cassava leaf; None without any."""
    foreign = [each for each in combine_foreign(answers.foreign) if each is not None]
    return float(np.mean(np.array(foreign) > FOREIGN_LIMIT)) if foreign else None


def tolerance_of(settings: ExportConfig) -> float | None:
    """The largest difference of a probability that is let pass; None: any."""
    return TOLERANCES[settings.precision] if settings.tolerance is None else settings.tolerance


def objection(found: Comparison, settings: ExportConfig) -> str | None:
    """What is wrong with an exported model's answers; None where they are close enough.

    Of floats every probability counts; of integers how many answers stay the same and right; of weights alone in
    integers both.
    """
    tolerance, limits = tolerance_of(settings), settings.int8
    lost = 0.0
    if found.accuracy is not None and found.accuracy_before is not None:
        lost = found.accuracy_before - found.accuracy
    if tolerance is not None and found.max_difference > tolerance:
        return (
            f"its probabilities differ from the checkpoint's by up to {found.max_difference:.1e} on "
            f"{found.compared_on}, where {found.agreement:.0%} of the answers agree; "
            f"expected at most export.tolerance={tolerance:g}"
        )
    if settings.precision in _INTEGERS and found.agreement < limits.min_agreement:
        return (
            f"{found.agreement:.1%} of its answers about {found.compared_on} are the checkpoint's; expected at least "
            f"export.int8.min_agreement={limits.min_agreement:g}"
        )
    if settings.precision in _INTEGERS and lost > limits.max_accuracy_loss + 1e-9:
        return (
            f"its accuracy on {found.compared_on} is {found.accuracy:.3f}, the checkpoint's "
            f"{found.accuracy_before:.3f}; "
            f"expected a loss of at most export.int8.max_accuracy_loss={limits.max_accuracy_loss:g}"
        )
    return None


def check(found: Comparison, settings: ExportConfig, target: Path) -> None:
    """Refuses answers that differ too much.

    Raises:
        ExportError: They do.
    """
    wrong = objection(found, settings)
    if wrong is not None:
        raise ExportError(f"{target} was not written: {wrong}")


def answers_of(predictor: AnyPredictor, pictures: Pictures, spec: Preprocessing) -> Answers:
    """What each member says; the first picture goes alone, so that batches of different sizes are tried."""
    images = pictures.images
    batches = [images[:1], *(images[start : start + BATCH] for start in range(1, len(images), BATCH))]
    each = [predictor.ask_each([Prepared({spec: image[None]}) for image in batch]) for batch in batches]
    return Answers(
        np.concatenate([answers.probabilities for answers in each], axis=1),
        np.concatenate([answers.foreign for answers in each], axis=1),
    )
