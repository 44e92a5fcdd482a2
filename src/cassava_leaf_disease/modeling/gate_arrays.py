"""The numbers by which a model tells leaves from anything else, as they lie in a model file.

In a checkpoint `cassava_gate` is a dictionary of tensors, which `torch.load(weights_only=True)` reads. In an ONNX file
it is the `metadata_props` entry of that name: JSON `{"format": 1, "arrays": {NAME: {"dtype": "float16", "shape":
[…], "data": "…"}}}`, where `data` is base64 of the little-endian values in row order. What the arrays mean stands in
`inference/ood.py`; which score is made of them, and its limit, in the file's self-description.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.errors import CheckpointError

GATE_KEY: Final = "cassava_gate"  # under which a model file keeps them
GATE_FORMAT: Final = 1

GateArrays = Mapping[str, npt.NDArray[np.floating[Any]]]
_TYPES: Final = {"float16": "<f2", "float32": "<f4"}
_MEND: Final = "type cassava fit-gate again, and export again"


def join_members(arrays: Sequence[GateArrays | None]) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """The arrays of several networks under names of their own, for a file that holds them all."""
    return {f"{index}/{name}": array for index, each in enumerate(arrays) for name, array in (each or {}).items()}


def arrays_of_member(arrays: GateArrays, index: int) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Those of one of these networks."""
    prefix = f"{index}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def encode_arrays(arrays: GateArrays) -> str:
    """The arrays, float16 or float32, as text."""
    described = {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(array.astype(_TYPES[array.dtype.name]).tobytes()).decode("ascii"),
        }
        for name, array in arrays.items()
    }
    return json.dumps({"format": GATE_FORMAT, "arrays": described})


def decode_arrays(text: str, origin: str) -> GateArrays:
    """The arrays from that text; `origin` is what error messages call the file.

    Raises:
        CheckpointError: No such text, or of another format.
    """
    try:
        content = json.loads(text)
        if content["format"] != GATE_FORMAT:
            seen = f"its gate has format {content['format']}, this package reads {GATE_FORMAT}"
            raise CheckpointError(f"{origin}: {seen}; type pip install -U cassava-leaf-disease if the file is newer")
        return {str(name): _decode(each) for name, each in content["arrays"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error):
        raise CheckpointError(f"{origin}: its gate cannot be read; {_MEND}") from None


def _decode(described: Mapping[str, Any]) -> npt.NDArray[np.floating[Any]]:
    raw, shape = base64.b64decode(described["data"], validate=True), [int(side) for side in described["shape"]]
    values = np.frombuffer(raw, _TYPES[described["dtype"]])
    if math.prod(shape) != values.size or not np.isfinite(values).all():
        raise ValueError(shape)
    return values.reshape(shape)
