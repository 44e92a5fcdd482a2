"""An exported graph in float16; what goes in and comes out stays float32."""

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx

# Where an ensemble combines its members: float16 would round off logarithms of small probabilities. Normalisation
# and attention stay in float16: engines add them up in float32 by themselves.
_COMBINATION: Final = "LogSoftmax"


def to_half(model: "onnx.ModelProto", in_float: "Collection[str]" = ()) -> "onnx.ModelProto":
    """The model with weights and arithmetic in float16, for GPUs: half the bytes.

    The graph is strongly typed, as TensorRT wants it. On a CPU without such arithmetic ONNX Runtime calculates in
    float32, but fuses less, so that MobileNetV2 is slower than in float32. Nodes named in `in_float` stay in float32.
    """
    import onnx
    from onnx import TensorProto

    writer = _HalfWriter(model, in_float)
    for node in model.graph.node:
        writer.add(node)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for field, content in (("node", writer.nodes), ("initializer", writer.initializers())):
        half.graph.ClearField(field)
        getattr(half.graph, field).extend(content)
    # What is said of tensors between the nodes holds no longer, but of those that were no floats.
    kept = [each for each in half.graph.value_info if each.type.tensor_type.elem_type != TensorProto.FLOAT]
    half.graph.ClearField("value_info")
    half.graph.value_info.extend(kept)
    return half


def depthwise_convolutions(model: "onnx.ModelProto") -> frozenset[str]:
    """The names of convolutions whose outputs see one channel each.

    With batch norm folded in, their weights reach 50 and more in MobileNetV2, and nine products average out no
    rounding: there float16 costs a hundred times what it costs elsewhere.
    """
    return frozenset(node.name for node in _depthwise(model))


def depthwise_weights(model: "onnx.ModelProto") -> frozenset[str]:
    """The names of their weights."""
    return frozenset(node.input[1] for node in _depthwise(model))


def half_weight(weight: "onnx.TensorProto") -> "onnx.TensorProto":
    """A weight in float16, under a name of its own."""
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}_half")


def _depthwise(model: "onnx.ModelProto") -> "list[onnx.NodeProto]":
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    convolutions = (node for node in model.graph.node if node.op_type == "Conv")
    return [node for node in convolutions if shapes.get(node.input[1], ())[:2] == (_groups(node), 1) != (1, 1)]


def _groups(node: "onnx.NodeProto") -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


class _HalfWriter:
    """Copies nodes one after another, and casts between those that calculate in another precision."""

    def __init__(self, model: "onnx.ModelProto", in_float: "Collection[str]") -> None:
        from onnx import TensorProto

        self._float, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        self.nodes: list[onnx.NodeProto] = []
        self._weights = {each.name: each for each in model.graph.initializer}
        self._others: dict[str, onnx.TensorProto] = {}
        self._in_float = {*in_float, *_downstream(model.graph.node, _COMBINATION)}
        self._outputs = {output.name for output in model.graph.output}
        self._floats = _float_tensors(model)
        self._precision = dict.fromkeys(self._floats, self._float)
        self._casts: dict[tuple[str, int], str] = {}  # a tensor's name in the precision that it was not made in

    def add(self, node: "onnx.NodeProto") -> None:
        """Appends a node in its precision, with the casts that it needs."""
        from onnx import NodeProto, helper

        precision = self._float if node.name in self._in_float or node.op_type == "Cast" else self._half
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._in(name, precision) for name in node.input]
        self.nodes.append(copy)
        if precision == self._float:
            return
        for place, name in enumerate(node.output):
            if name in self._outputs and name in self._floats:
                copy.output[place] = self._casts[name, self._half] = f"{name}_half"
                self.nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=self._float))
            elif name in self._floats:
                self._precision[name] = self._half

    def initializers(self) -> "list[onnx.TensorProto]":
        """Those that the nodes so far take."""
        used = {name for node in self.nodes for name in node.input}
        return [weight for weight in (*self._weights.values(), *self._others.values()) if weight.name in used]

    def _in(self, name: str, precision: int) -> str:
        """What a tensor is called in a precision."""
        from onnx import helper

        if name not in self._floats or self._precision[name] == precision:
            return name
        if (name, precision) not in self._casts:
            cast = self._casts[name, precision] = f"{name}_{'half' if precision == self._half else 'float'}"
            if name in self._weights:
                self._others[cast] = half_weight(self._weights[name])
            else:
                self.nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=precision))
        return self._casts[name, precision]


def _float_tensors(model: "onnx.ModelProto") -> set[str]:
    """The names of all tensors in float32."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    typed = [*graph.input, *graph.value_info, *graph.output]
    return {
        *(each.name for each in typed if each.type.tensor_type.elem_type == TensorProto.FLOAT),
        *(weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT),
    }


def _downstream(nodes: "Iterable[onnx.NodeProto]", kind: str) -> set[str]:
    """The names of the nodes of one kind, and of all that depend on them; `nodes` stand in order."""
    names: set[str] = set()
    tensors: set[str] = set()
    for node in nodes:
        if node.op_type == kind or not tensors.isdisjoint(node.input):
            names.add(node.name)
            tensors.update(node.output)
    return names
