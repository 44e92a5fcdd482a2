"""Runs a checkpoint with PyTorch."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from cassava_leaf_disease.errors import CheckpointError, DeviceError
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata


class TorchEngine:
    """A checkpoint on the CPU or a GPU; architecture, size and classes come from the file itself."""

    def __init__(self, path: Path, device: Literal["auto", "cpu", "cuda"]) -> None:
        self._device = resolve_device(device)
        loaded = load_checkpoint(path)
        self._metadata = loaded.metadata
        network = rebuild_network(
            loaded.metadata.backbone, loaded.metadata.preprocessing.image_size_px, len(loaded.metadata.class_names)
        )
        try:
            network.load_state_dict(loaded.network_state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: its weights do not fit its own backbone {loaded.metadata.backbone} ({str(error).splitlines()[0]})"
            ) from None
        self._network = network.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def metadata(self) -> ModelMetadata:
        """The file's self-description."""
        return self._metadata

    @torch.inference_mode()
    def logits(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`(N, 3, S, S)` float32, normalised, to `(N, C)` float32."""
        images = torch.from_numpy(batch).to(self._device).contiguous(memory_format=torch.channels_last)
        answer: npt.NDArray[np.float32] = self._network(images).float().cpu().numpy()
        return answer


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to use.

    Raises:
        DeviceError: `cuda` was asked for and is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("infer.device=cuda: no CUDA GPU on this machine; type infer.device=cpu or infer.device=auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
