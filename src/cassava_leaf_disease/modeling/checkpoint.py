"""Checkpoints that describe themselves, are written whole or not at all, and hold no code.

A `.ckpt` file is a dictionary that `torch.load(weights_only=True)` reads: `cassava_metadata` is the JSON of
`ModelMetadata`, `state_dict` holds the network's tensors under `network.` (and, in a training checkpoint,
their running average under `average.module.`).
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from pydantic import ValidationError
from typing_extensions import override

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.storage.files import replacing

if TYPE_CHECKING:
    from lightning.fabric.utilities.types import _PATH

METADATA_KEY = "cassava_metadata"
NETWORK_PREFIX = "network."
AVERAGE_PREFIX = "average.module."


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory: its self-description, and the tensors of the network to use."""

    metadata: ModelMetadata
    network_state: dict[str, torch.Tensor]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's writer, made whole or not at all: a killed run leaves no half-written checkpoint."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: "_PATH", storage_options: Any | None = None) -> None:
        save_atomically(checkpoint, Path(path))


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint dictionary; `path` is replaced whole."""
    with replacing(path) as file:
        torch.save(dict(content), file)


def write_checkpoint(path: Path, network: torch.nn.Module, metadata: ModelMetadata) -> None:
    """Writes a lean checkpoint for inference: weights and self-description, no optimiser."""
    state = {f"{NETWORK_PREFIX}{name}": tensor for name, tensor in network_state(network).items()}
    save_atomically({METADATA_KEY: metadata.model_dump_json(), "state_dict": state}, path)


def network_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's tensors on the CPU, without the prefix that `torch.compile` adds."""
    return {
        name.removeprefix("_orig_mod."): tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }


def load_checkpoint(path: Path) -> LoadedCheckpoint:
    """Reads a best or a last checkpoint; no code in the file is ever run.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or not one of ours.
    """
    content = _read(path)
    if METADATA_KEY not in content or "state_dict" not in content:
        raise CheckpointError(
            f"{path}: not a CassavaVision checkpoint (no self-description in it); "
            "use a best.ckpt that `cassava train` wrote"
        )
    metadata = _parse_metadata(path, content[METADATA_KEY])
    state: dict[str, torch.Tensor] = content["state_dict"]
    prefix = AVERAGE_PREFIX if any(name.startswith(AVERAGE_PREFIX) for name in state) else NETWORK_PREFIX
    return LoadedCheckpoint(
        metadata=metadata,
        network_state={
            name.removeprefix(prefix).removeprefix("_orig_mod."): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        },
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train one with `cassava train`") from None
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: not a plain checkpoint (damaged, or it holds code); it was not loaded") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0]})") from None
    return content if isinstance(content, dict) else {}


def _parse_metadata(path: Path, text: object) -> ModelMetadata:
    try:
        return ModelMetadata.model_validate_json(str(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"{path}: its self-description is not of format 1 ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "it was written by another version of this package"
        ) from None
