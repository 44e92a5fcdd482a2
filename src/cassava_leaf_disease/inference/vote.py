"""How the logits of views and members become one answer; numpy alone, so that Triton's server takes this file along."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Combination = Literal["probabilities", "logits"]
Float64Array = npt.NDArray[np.float64]


def softmax(logits: Float64Array, axis: int = 1) -> Float64Array:
    """Probabilities that sum to 1 along the classes, which lie along `axis`."""
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    total: Float64Array = exponentials / exponentials.sum(axis=axis, keepdims=True)
    return total


def mean_over_views(logits: npt.NDArray[np.floating], temperature: float) -> Float64Array:
    """One member's class probabilities `(N, C)` from its logits `(N, V, C)`, V views of each photo."""
    mean: Float64Array = softmax(logits.astype(np.float64) / temperature, axis=-1).mean(axis=1)
    return mean


def combine_answers(
    probabilities: Float64Array, weights: Sequence[float], combine: Combination, temperature: float = 1.0
) -> Float64Array:
    """The weighted mean `(N, C)` of answers `(M, N, C)`: of their probabilities, or of their logits.

    Logits are taken as logarithms of the probabilities, which differ from them by a number for each photo that
    the softmax takes out again; so `temperature` divides those of the mean.
    """
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    if combine == "probabilities":
        mean: Float64Array = np.tensordot(shares, probabilities, axes=1)
        return mean if temperature == 1 else softmax(_logarithms(mean) / temperature)
    return softmax(np.tensordot(shares, _logarithms(probabilities), axes=1) / temperature)


def _logarithms(probabilities: Float64Array) -> Float64Array:
    logarithms: Float64Array = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logarithms


def combine_foreign(foreign: Float64Array) -> list[float | None]:
    """How foreign N photos are to several models, of `(M, N)`: the mean over those that have a gate, else None."""
    known = ~np.isnan(foreign).any(axis=1)
    if not known.any():
        return [None] * foreign.shape[1]
    means: list[float | None] = foreign[known].mean(axis=0).tolist()
    return means
