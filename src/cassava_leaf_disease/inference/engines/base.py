"""What every engine does: logits for a batch, from a model file that describes itself."""

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.modeling.metadata import ModelMetadata

Device = Literal["auto", "cpu", "cuda"]


class Engine(Protocol):
    """Runs one model file on one device."""

    @property
    def metadata(self) -> ModelMetadata:
        """The file's self-description."""
        ...

    def logits(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`(N, 3, S, S)` float32, normalised, to `(N, C)` float32."""
        ...
