"""Runs a checkpoint with PyTorch."""

import textwrap
from pathlib import Path

import torch
from torch import nn

from cassava_leaf_disease.errors import CheckpointError, ConfigError, DeviceError
from cassava_leaf_disease.inference.engines.base import Device, EngineOutputs, Float32Array
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import LoadedCheckpoint, load_checkpoint
from cassava_leaf_disease.modeling.gate_arrays import GateArrays
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.modeling.outputs import DiagnosticNetwork, shows_its_work


class TorchEngine:
    """A checkpoint on the CPU or a GPU; architecture, size and classes come from the file itself."""

    def __init__(self, path: Path, device: Device) -> None:
        self._device = resolve_device(device)
        loaded = load_checkpoint(path)
        self._metadata = loaded.metadata
        self._gate_arrays = loaded.gate_arrays
        network = restore_network(loaded, path)
        if shows_its_work(network, loaded.metadata.preprocessing.image_size_px):
            network = DiagnosticNetwork(network)
        self._network = network.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def metadata(self) -> ModelMetadata:
        """The file's self-description."""
        return self._metadata

    @property
    def gate_arrays(self) -> GateArrays | None:
        """What the file's gate is made of."""
        return self._gate_arrays

    @property
    def runtime(self) -> str:
        """PyTorch, on the CPU or a GPU."""
        return f"torch/{self._device.type}"

    @torch.inference_mode()
    def run(self, batch: Float32Array) -> EngineOutputs:
        """The outputs for photos `(N, 3, S, S)` float32, normalised."""
        images = torch.from_numpy(batch).to(self._device).contiguous(memory_format=torch.channels_last)
        answer = self._network(images)
        outputs = answer if isinstance(answer, tuple) else (answer,)
        return EngineOutputs(*(output.float().cpu().numpy() for output in outputs))


def restore_network(loaded: LoadedCheckpoint, path: Path) -> nn.Module:
    """The network that a checkpoint describes, with its weights.

    Raises:
        CheckpointError: timm has no such backbone, or the weights do not fit it.
    """
    metadata = loaded.metadata
    size_px, classes = metadata.preprocessing.image_size_px, len(metadata.class_names)
    try:
        network = rebuild_network(metadata.backbone, size_px, classes)
        network.load_state_dict(loaded.network_state)
    except (ConfigError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = textwrap.shorten(str(error).partition(":\n")[2] or str(error), 200, placeholder=" …")
        raise CheckpointError(
            f"{path}: its weights do not fit the backbone {metadata.backbone} at {size_px} px ({reason}); "
            "the file is damaged, or timm is another version than the one that it was trained with"
        ) from None
    return network


def resolve_device(device: Device) -> torch.device:
    """The device to use.

    Raises:
        DeviceError: `cuda` was asked for and is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("infer.device=cuda: no CUDA GPU on this machine; type infer.device=cpu or infer.device=auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
