"""The graph of a member: an exported network that takes pixels as they are.

With the normalising inside the graph a photo crosses the borders between Triton's processes as uint8, a quarter of
the bytes of float32.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cassava_leaf_disease.imaging.preprocess import Preprocessing, scale_and_shift
from cassava_leaf_disease.inference.engines.onnx_engine import FEATURES as NETWORK_FEATURES
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME
from cassava_leaf_disease.inference.engines.onnx_engine import LOGITS as NETWORK_LOGITS
from cassava_leaf_disease.inference.served import FEATURES, LOGITS, PIXELS

if TYPE_CHECKING:
    import onnx

_OURS: Final = "cassava_"  # what the names of added tensors start with


def take_pixels(model: "onnx.ModelProto", spec: Preprocessing, views: int, *, features: bool = False) -> int | None:
    """Changes a graph in place: pixels `(N, S, S, 3)` uint8 in, logits `(N, C)` float32 out; how many features.

    Of several views it takes `(N, V, S, S, 3)` and gives `(N, V, C)`. With `features` it gives those, too, alike.
    The first thing that happens to the pixels is a cast, since TensorRT knows uint8 at the border of a graph only.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    network_type = next(each.type.tensor_type.elem_type for each in graph.input if each.name == INPUT_NAME)
    widths = {each.name: each.type.tensor_type.shape.dim[-1].dim_value for each in graph.output}
    size_px = spec.image_size_px
    kept = {NETWORK_LOGITS: LOGITS, **({NETWORK_FEATURES: FEATURES} if features else {})}
    for node in graph.node:
        for name in kept:
            _rename(node.input, name, f"{_OURS}network_{name}")
            _rename(node.output, name, f"{_OURS}network_{name}")
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
    for name, ours in kept.items():
        chain.add("Cast", f"{_OURS}network_{name}", result=ours if views == 1 else None, to=TensorProto.FLOAT)
        if views > 1:
            chain.add("Reshape", constant=np.array([-1, views, widths[name]], np.int64), result=ours)
    nodes = [*before, *graph.node, *chain.nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    of_views: list[str | int | None] = [] if views == 1 else [views]
    photo = ["batch", *of_views, size_px, size_px, 3]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, photo))
    for name, ours in kept.items():
        answer = ["batch", *of_views, widths[name]]
        graph.output.append(helper.make_tensor_value_info(ours, TensorProto.FLOAT, answer))
    onnx.checker.check_model(model)
    return widths[NETWORK_FEATURES] if features else None


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
