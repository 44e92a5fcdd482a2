"""Which convolutions stay in float32: those that change the answers most, found by measurement."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.export.integer.graph import Statistics, convolutions, quantize
from cassava_leaf_disease.log import progress_bar

if TYPE_CHECKING:
    import onnx

Logits = npt.NDArray[np.float32]
Run = Callable[["onnx.ModelProto", int | None], Logits]  # a graph's logits (N, C) for the first N photos that choose

RANKING: Final = 12  # photos that each convolution is tried with

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A model in integers, the convolutions that stayed in float32, and the noise of its logits (see `noise`)."""

    model: "onnx.ModelProto"
    in_float: tuple[str, ...]
    noise: float


def choose(
    model: "onnx.ModelProto",
    statistics: Mapping[str, Statistics],
    run: Run,
    max_noise: float,
    accepts: Callable[["onnx.ModelProto"], bool],
) -> Choice:
    """The model with as many convolutions in int8 as the noise allows, and `accepts`, which is asked last.

    Where all are too many, each is tried alone, and the noisiest ones stay in float32.
    """
    names = [node.name for node in convolutions(model)]
    expected = run(model, None)
    few = expected[:RANKING]

    def choice(in_float: Sequence[str]) -> Choice:
        made = quantize(model, statistics, set(names) - set(in_float))
        return Choice(made, tuple(in_float), noise(expected, run(made, None)))

    found = choice(())
    if found.noise <= max_noise and accepts(found.model):
        return found
    _log.info("all convolutions in int8: noise %.4f; looking for those that make it", found.noise)
    alone: dict[str, float] = {}
    with progress_bar("trying convolutions", len(names)) as advance:
        for name in names:
            alone[name] = noise(few, run(quantize(model, statistics, {name}), RANKING))
            advance(1)
    noisiest = sorted(names, key=lambda name: -alone[name])
    fewest, most = 1, len(names)
    while fewest < most:
        middle = (fewest + most) // 2
        if choice(noisiest[:middle]).noise <= max_noise:
            most = middle
        else:
            fewest = middle + 1
    found = choice(noisiest[:fewest])
    while not accepts(found.model) and len(found.in_float) < len(names):
        found = choice(noisiest[: max(len(found.in_float) + 1, round(1.5 * len(found.in_float)))])
    return found


def noise(expected: Logits, answers: Logits) -> float:
    """The mean square by which logits `(N, C)` are off, as a fraction of their own; a common shift does not count."""
    signal, off = (each - each.mean(axis=1, keepdims=True) for each in (expected, answers - expected))
    return float(np.square(off).mean() / max(np.square(signal).mean(), 1e-12))
