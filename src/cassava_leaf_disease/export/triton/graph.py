"""The graph of a member: an exported network that takes pixels as they are.

With the normalising inside the graph a photo crosses the borders between Triton's processes as uint8, a quarter of
the bytes of float32.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.imaging.preprocess import Preprocessing, scale_and_shift
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME
from cassava_leaf_disease.inference.engines.onnx_engine import LOGITS as NETWORK_LOGITS
from cassava_leaf_disease.inference.served import LOGITS, PIXELS

if TYPE_CHECKING:
    import onnx

_OURS: Final = "cassava_"  # what the names of added tensors start with


def take_pixels(model: "onnx.ModelProto", spec: Preprocessing, views: int) -> None:
    """Changes a graph in place: pixels `(N, S, S, 3)` uint8 in, logits `(N, C)` float32 out, and nothing else.

    Of several views it takes `(N, V, S, S, 3)` and gives `(N, V, C)`. The first thing that happens to the pixels is
    a cast, since TensorRT knows uint8 at the border of a graph only.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    network_type = next(each.type.tensor_type.elem_type for each in graph.input if each.name == INPUT_NAME)
    size_px = spec.image_size_px
    photo, answer = (
        ([size_px, size_px, 3], [NUM_CLASSES])
        if views == 1
        else (
            [views, size_px, size_px, 3],
            [views, NUM_CLASSES],
        )
    )
    raw_logits = f"{_OURS}network_logits"
    for node in graph.node:
        _rename(node.input, NETWORK_LOGITS, raw_logits)
        _rename(node.output, NETWORK_LOGITS, raw_logits)
    chain = _Chain(model)
    chain.add("Cast", PIXELS, to=TensorProto.FLOAT)
    if views > 1:
        chain.add("Reshape", constant=np.array([-1, size_px, size_px, 3], np.int64))
    chain.add("Transpose", perm=[0, 3, 1, 2])
    scale, shift = scale_and_shift(spec)
    chain.add("Mul", constant=scale)
    chain.add("Add", constant=shift)
    chain.add("Cast", result=INPUT_NAME, to=network_type)
    before, chain.nodes = chain.nodes, []
    chain.add("Cast", raw_logits, result=LOGITS if views == 1 else None, to=TensorProto.FLOAT)
    if views > 1:
        chain.add("Reshape", constant=np.array([-1, views, NUM_CLASSES], np.int64), result=LOGITS)
    nodes = [*before, *graph.node, *chain.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", *photo]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", *answer]))
    onnx.checker.check_model(model)


class _Chain:
    """Nodes of which each takes what the one before it gives."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._initializers = model.graph.initializer
        self._made = 0
        self._last = ""

    def add(
        self,
        operator: str,
        start: str | None = None,
        *,
        constant: np.ndarray | None = None,
        result: str | None = None,
        **attributes: Any,  # noqa: ANN401  the operator's own
    ) -> None:
        """A node; `constant` is its second input, `start` its first one where that is not the last result."""
        from onnx import helper, numpy_helper

        self._made += 1
        inputs = [start or self._last]
        if constant is not None:
            inputs.append(f"{_OURS}constant_{self._made}")
            self._initializers.append(numpy_helper.from_array(constant, inputs[-1]))
        self._last = result or f"{_OURS}step_{self._made}"
        self.nodes.append(helper.make_node(operator, inputs, [self._last], f"{_OURS}{self._made}", **attributes))


def _rename(names: "list[str]", old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
