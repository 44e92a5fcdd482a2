"""Convolutions of a graph in int8: quantised and dequantised around them, as engines recognise it."""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.export.integer.ranges import LEVELS, Range

if TYPE_CHECKING:
    import onnx

# Processors without VNNI add two products in 16 bits, which saturates; with weights of seven bits it cannot, so that
# a file answers alike on all of them (255 * 64 * 2 < 2^15).
MAX_WEIGHT: Final = 64
# ONNX Runtime puts the weights of a float layer behind a dequantised input into integers by itself (its
# WeightBiasQuantization, one scale for all channels; it turned MobileNetV2's answers into noise). A Clip to the range
# that the values have anyway stands in its way. Values that are only moved are followed to the layer behind.
_WEIGHTED: Final = frozenset({"Conv", "Gemm", "MatMul"})
_MOVING: Final = frozenset({"MaxPool", "AveragePool", "Transpose", "Reshape", "Flatten", "Slice"})
_ACTIVATIONS: Final = frozenset({"Relu", "Clip"})
_SHRINKING: Final = tuple(np.linspace(1.0, 0.5, 26).tolist())


@dataclass(frozen=True)
class Statistics:
    """What photos told of a graph's tensors: the range to use, and the mean of each channel."""

    range: Range
    channel_means: npt.NDArray[np.float64]


def convolutions(model: "onnx.ModelProto") -> "list[onnx.NodeProto]":
    """The nodes that can be in integers, in order."""
    weights = {each.name for each in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in weights]


def tensors_to_observe(model: "onnx.ModelProto") -> list[str]:
    """All tensors that are quantised when every convolution is."""
    layout = _Layout(model, {node.name for node in convolutions(model)})
    return sorted(layout.quantized)


def quantize(
    model: "onnx.ModelProto", statistics: Mapping[str, Statistics], chosen: AbstractSet[str]
) -> "onnx.ModelProto":
    """The model with the chosen convolutions in int8, each output channel of their weights with a scale of its own."""
    import onnx

    layout = _Layout(model, chosen)
    writer = _Writer(model, statistics, layout)
    for name in (each.name for each in model.graph.input):
        writer.quantize(name, name)
    for node in model.graph.node:
        writer.add(node)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    for part, content in (("node", writer.nodes), ("initializer", writer.initializers()), ("value_info", [])):
        quantized.graph.ClearField(part)
        getattr(quantized.graph, part).extend(content)
    return quantized


class _Layout:
    """Which tensors are quantised when some convolutions are, and which activations their saturation replaces."""

    def __init__(self, model: "onnx.ModelProto", chosen: AbstractSet[str]) -> None:
        self.chosen = chosen
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._outputs = {each.name for each in model.graph.output}
        for node in model.graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        self.quantized: set[str] = set()
        for node in model.graph.node:
            if node.name in chosen:
                self.quantized |= {node.input[0], self.activated(node.output[0])}
        self.folded = {
            node.output[0]: node.input[0]
            for node in model.graph.node
            if node.output[0] in self.quantized and self.activated(node.input[0]) == node.output[0]
        }

    def activated(self, name: str) -> str:
        """The tensor after an activation that nothing but it sees, else the tensor itself."""
        consumers = self._consumers[name]
        if len(consumers) == 1 and consumers[0].op_type in _ACTIVATIONS and name not in self._outputs:
            after = consumers[0].output[0]
            return name if after in self._outputs else after
        return name


class _Writer:
    """Copies nodes one after another, and puts what is quantised around them."""

    def __init__(self, model: "onnx.ModelProto", statistics: Mapping[str, Statistics], layout: _Layout) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._weights = {each.name: each for each in model.graph.initializer}
        self._new: dict[str, onnx.TensorProto] = {}
        self._statistics = statistics
        self._layout = layout

    def add(self, node: "onnx.NodeProto") -> None:
        """Appends a node; an activation that saturation replaces is left out."""
        from onnx import NodeProto

        layout = self._layout
        if node.output[0] in layout.folded and node.op_type in _ACTIVATIONS:
            self.quantize(layout.folded[node.output[0]], node.output[0])
            return
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.name in layout.chosen:
            copy.input[:] = self._integer_inputs(node)
        else:
            copy.input[:] = [self._float_input(name, node) for name in node.input]
        self.nodes.append(copy)
        self.quantize(node.output[0], node.output[0])

    def quantize(self, source: str, name: str) -> None:
        """Quantises and dequantises a tensor, if that is due; `source` is where its values stand."""
        from onnx import helper

        if name not in self._layout.quantized:
            return
        span = self._statistics[name].range
        scale = self._constant(f"{name}_scale", np.array(span.scale, np.float32))
        zero = self._constant(f"{name}_zero", np.array(span.zero_point, np.uint8))
        numbers = f"{name}_quantized"
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [numbers], numbers))
        result = _dequantized(name)
        self.nodes.append(helper.make_node("DequantizeLinear", [numbers, scale, zero], [result], result))

    def initializers(self) -> "list[onnx.TensorProto]":
        """Those that the nodes so far take."""
        used = {name for node in self.nodes for name in node.input}
        return [weight for weight in (*self._weights.values(), *self._new.values()) if weight.name in used]

    def _float_input(self, name: str, consumer: "onnx.NodeProto") -> str:
        from onnx import helper

        if name not in self._layout.quantized:
            return name
        moved = consumer.op_type in _MOVING and consumer.output[0] not in self._layout.quantized
        if consumer.op_type not in _WEIGHTED and not moved:
            return _dequantized(name)
        bounded = f"{name}_bounded"
        if f"{name}_low" not in self._new:
            span = self._statistics[name].range
            bounds = {"low": -span.zero_point, "high": LEVELS - span.zero_point}
            pair = [self._constant(f"{name}_{end}", np.array(n * span.scale, np.float32)) for end, n in bounds.items()]
            self.nodes.append(helper.make_node("Clip", [_dequantized(name), *pair], [bounded], bounded))
        return bounded

    def _integer_inputs(self, node: "onnx.NodeProto") -> list[str]:
        from onnx import helper, numpy_helper

        source = self._statistics[node.input[0]]
        weight = numpy_helper.to_array(self._weights[node.input[1]]).astype(np.float64)  # (O, I / groups, kh, kw)
        bias = numpy_helper.to_array(self._weights[node.input[2]]) if len(node.input) > 2 else np.zeros(len(weight))
        numbers, scales = quantize_weight(weight)
        off = numbers * scales.reshape(-1, 1, 1, 1) - weight
        bias = bias - mean_error(off, source.channel_means)
        inputs = [_dequantized(node.input[0])]
        steps = scales * source.range.scale
        for suffix, values, by in (
            ("weight", numbers.astype(np.int8), scales),
            ("bias", np.rint(bias / steps).clip(-(2**31), 2**31 - 1).astype(np.int32), steps),
        ):
            name = f"{node.name}_{suffix}"
            constants = [
                self._constant(f"{name}_quantized", values),
                self._constant(f"{name}_scale", by.astype(np.float32)),
                self._constant(f"{name}_zero", np.zeros(len(by), values.dtype)),
            ]
            self.nodes.append(helper.make_node("DequantizeLinear", constants, [name], name, axis=0))
            inputs.append(name)
        return inputs

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        self._new[name] = numpy_helper.from_array(np.asarray(values), name)
        return name


def quantize_weight(
    weight: npt.NDArray[np.float64], most: int = MAX_WEIGHT
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Whole numbers from -`most` to `most` and the scale of each output channel, with the least squared error of each.

    Output channels lie along the first axis.
    """
    flat = weight.reshape(len(weight), -1)
    largest = np.maximum(np.abs(flat).max(axis=1, keepdims=True), 1e-12)
    best, least = largest / most, np.full(largest.shape, np.inf)
    for shrink in _SHRINKING:
        scale = largest * shrink / most
        error = np.square(_rounded(flat, scale, most) * scale - flat).sum(axis=1, keepdims=True)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return _rounded(flat, best, most).reshape(weight.shape), best[:, 0]


def mean_error(off: npt.NDArray[np.float64], channel_means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By how much outputs `(O,)` are off on average when weights are off by `(O, I / groups, kh, kw)`.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2.
    """
    groups = len(channel_means) // off.shape[1]
    of_each = channel_means.reshape(groups, off.shape[1]).repeat(len(off) // groups, axis=0)  # (O, I / groups)
    return np.asarray((off.sum(axis=(2, 3)) * of_each).sum(axis=1))


def _rounded(values: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.rint(values / scale).clip(-most, most))


def _dequantized(name: str) -> str:
    return f"{name}_dequantized"
