"""An exported graph in int8, from photos: ranges, then layers, then what it was measured on."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import ExportError
from cassava_leaf_disease.export.integer.graph import Statistics, convolutions, tensors_to_observe
from cassava_leaf_disease.export.integer.ranges import FloatArray, best_range, observe
from cassava_leaf_disease.export.integer.search import Logits, choose
from cassava_leaf_disease.export.pictures import Pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME, LOGITS

if TYPE_CHECKING:
    import onnx

_BATCH: Final = 4  # with every tensor of the graph in memory
_CHOOSING: Final = 1 / 3  # of the pictures, to choose layers with


class Quantization(BaseModel):
    """How integers were chosen.

    `in_float` names the weights of the convolutions that stayed in float32, out of `convolutions`; `noise` is the
    mean square by which logits of training photos are off, as a fraction of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibrated_on: str
    convolutions: int
    in_float: tuple[str, ...]
    noise: float


def to_int8(
    model: "onnx.ModelProto",
    calibration: Pictures,
    spec: Preprocessing,
    max_noise: float,
    accepts: Callable[["onnx.ModelProto"], bool],
) -> "tuple[onnx.ModelProto, Quantization]":
    """The model with its convolutions in int8 but for those that `max_noise` and `accepts` do not allow.

    Raises:
        ExportError: Most of its weights lie outside of convolutions, or none of these can be in int8.
    """
    nodes = convolutions(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    in_reach = sum(int(np.prod(weights[node.input[1]].dims)) for node in nodes)
    in_all = sum(int(np.prod(weight.dims)) for weight in weights.values())
    if 2 * in_reach < in_all:
        raise ExportError(
            f"export.precision=int8: {in_reach / in_all:.0%} of the weights belong to convolutions, and only these "
            "are put into integers; type export.precision=fp16_weights"
        )
    few = max(1, round(len(calibration) * _CHOOSING))
    ranging, choosing = calibration.images[few:], calibration.images[:few]
    observed = observe(model, tensors_to_observe(model), normalized_batches(ranging, spec), available_cpus())
    statistics = {name: Statistics(best_range(each), each.channel_means) for name, each in observed.items()}
    found = choose(model, statistics, lambda graph, first: logits_of(graph, choosing[:first], spec), max_noise, accepts)
    if len(found.in_float) == len(nodes):
        raise ExportError(
            f"export.precision=int8: no convolution can be in integers without changing the answers on "
            f"{calibration.origin}; type export.precision=fp16_weights"
        )
    sources = {node.name: node.input[1] for node in nodes}
    return found.model, Quantization(
        calibrated_on=calibration.origin,
        convolutions=len(nodes),
        in_float=tuple(sources[name] for name in found.in_float),
        noise=found.noise,
    )


def logits_of(model: "onnx.ModelProto", images: np.ndarray, spec: Preprocessing) -> Logits:
    """A graph's logits `(N, C)` for pictures `(N, S, S, 3)` uint8, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = available_cpus(), 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([LOGITS], {INPUT_NAME: batch})[0] for batch in normalized_batches(images, spec)])


def normalized_batches(images: np.ndarray, spec: Preprocessing) -> Iterator[FloatArray]:
    """Pictures `(N, S, S, 3)` uint8 as a network takes them, few at a time."""
    for start in range(0, len(images), _BATCH):
        yield normalize(images[start : start + _BATCH], spec)
