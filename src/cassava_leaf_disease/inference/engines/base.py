"""What every engine does: outputs for a batch, from a model file that describes itself."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.modeling.gate_arrays import GateArrays
from cassava_leaf_disease.modeling.metadata import ModelMetadata

Device = Literal["auto", "cpu", "cuda"]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EngineOutputs:
    """What a network says of N photos: logits `(N, C)` float32.

    Beside them, unless the network or its file has none, penultimate features `(N, D)` and maps `(N, C, h, w)`,
    the classifier's answer at each place (see `modeling/outputs.py`).
    """

    logits: Float32Array
    features: Float32Array | None = None
    maps: Float32Array | None = None


class Engine(Protocol):
    """Runs one model file on one device."""

    @property
    def metadata(self) -> ModelMetadata:
        """The file's self-description."""
        ...

    @property
    def gate_arrays(self) -> GateArrays | None:
        """What the file's gate is made of (see `modeling/gate_arrays.py`); None where it has none."""
        ...

    @property
    def runtime(self) -> str:
        """What runs it, and where: `onnxruntime/cpu`, `torch/cuda`."""
        ...

    def run(self, batch: Float32Array) -> EngineOutputs:
        """The outputs for photos `(N, 3, S, S)` float32, normalised."""
        ...
