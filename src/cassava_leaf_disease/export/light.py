"""An exported graph with light weights, which are made float32 when it is loaded: what it calculates stays float32."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.export.half import depthwise_weights, half_weight
from cassava_leaf_disease.export.integer.graph import mean_error, quantize_weight

if TYPE_CHECKING:
    import onnx

    _Light = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]  # what makes a weight, and what it is made of

MANY: Final = 10_000  # weights of a layer from which int8 saves enough for what it rounds off
_LARGEST: Final = 127  # of int8, symmetric


def to_half_weights(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model with weights in float16 that are cast when it is loaded, for CPUs: half the bytes, the same speed.

    Weights of depthwise convolutions stay in float32: they are few, and their rounding is not averaged out.
    """
    depthwise = depthwise_weights(model)
    return _lighten(model, lambda weight: None if weight.name in depthwise else _cast(weight))


def to_int8_weights(model: "onnx.ModelProto", means: Mapping[str, npt.NDArray[np.float64]]) -> "onnx.ModelProto":
    """The model with the weights of its large layers in int8, and a scale for each of their output channels.

    A quarter of the bytes, the same arithmetic on every processor. Layers of fewer than `MANY` weights, where rounding
    is averaged out least, and depthwise convolutions are in float16. By what the rounding of a convolution's weights
    moves its outputs on average its bias is corrected: `means` are those of the channels `(C,)` that it reads, by the
    name of the tensor (see `tensors_to_average`). A `Cast` and a `Mul` make the weights floats: ONNX Runtime does that
    once, when it loads the file, where it would repeat a `DequantizeLinear` with every photo.
    """
    from onnx import numpy_helper

    axes = _many(model)
    off: dict[str, npt.NDArray[np.float64]] = {}

    def lighter(weight: "onnx.TensorProto") -> "_Light":
        if weight.name not in axes:
            return _cast(weight)
        values = numpy_helper.to_array(weight)
        numbers, scales = quantize_channels(values, axes[weight.name])
        off[weight.name] = (numbers * scales.astype(np.float64)) - values
        return _scale(weight.name, numbers, scales)

    light = _lighten(model, lighter)
    biases = {each.name: each for each in light.graph.initializer}
    for node in light.graph.node:
        if node.op_type == "Conv" and node.input[1] in off:
            error = mean_error(off[node.input[1]], means[node.input[0]])
            bias = numpy_helper.to_array(biases[node.input[2]]) if len(node.input) > 2 else np.zeros(len(error))
            corrected = numpy_helper.from_array((bias - error).astype(np.float32), f"{node.output[0]}_bias")
            light.graph.initializer.append(corrected)
            node.input[2:] = [corrected.name]
    used = {name for node in light.graph.node for name in node.input}
    kept = [each for each in light.graph.initializer if each.name in used]
    light.graph.ClearField("initializer")
    light.graph.initializer.extend(kept)
    return light


def tensors_to_average(model: "onnx.ModelProto") -> list[str]:
    """What the convolutions read whose weights `to_int8_weights` puts into int8."""
    many = _many(model)
    return sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv" and node.input[1] in many})


def _lighten(model: "onnx.ModelProto", lighter: "Callable[[onnx.TensorProto], _Light | None]") -> "onnx.ModelProto":
    import onnx

    light = onnx.ModelProto()
    light.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for weight in model.graph.initializer:
        matrix = weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1  # biases and bounds are few
        made = lighter(weight) if matrix else None
        nodes += made[0] if made else []
        weights += made[1] if made else [weight]
    for field, content in (("node", [*nodes, *model.graph.node]), ("initializer", weights)):
        light.graph.ClearField(field)
        getattr(light.graph, field).extend(content)
    return light


def _cast(weight: "onnx.TensorProto") -> "_Light":
    from onnx import TensorProto, helper

    half = half_weight(weight)
    return [helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT)], [half]


def _scale(name: str, numbers: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> "_Light":
    from onnx import TensorProto, helper, numpy_helper

    whole, scale, floats = (f"{name}_{part}" for part in ("int8", "scale", "whole"))
    nodes = [
        helper.make_node("Cast", [whole], [floats], to=TensorProto.FLOAT),
        helper.make_node("Mul", [floats, scale], [name]),
    ]
    return nodes, [numpy_helper.from_array(numbers, whole), numpy_helper.from_array(scales, scale)]


def quantize_channels(
    weight: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Whole numbers from -127 to 127, and the float32 scales that they are multiplied with, one along `axis` each."""
    channels = np.moveaxis(weight.astype(np.float64), axis, 0)
    numbers, scales = quantize_weight(channels, _LARGEST)
    shape = [1] * weight.ndim
    shape[axis] = len(scales)
    return np.moveaxis(numbers, 0, axis).astype(np.int8), scales.astype(np.float32).reshape(shape)


def _many(model: "onnx.ModelProto") -> dict[str, int]:
    """The weights that are put into int8, by name, and along which axis their output channels lie."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    depthwise = depthwise_weights(model)
    axes: dict[str, int] = {}
    for node in model.graph.node:
        name = node.input[1] if node.op_type in {"Conv", "Gemm", "MatMul"} else ""
        if name in weights and name not in depthwise and np.prod(weights[name].dims) >= MANY:
            axes[name] = 0 if node.op_type == "Conv" or _transposed(node) else len(weights[name].dims) - 1
    return axes


def _transposed(gemm: "onnx.NodeProto") -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in gemm.attribute)
