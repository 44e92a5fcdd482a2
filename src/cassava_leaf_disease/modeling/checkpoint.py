"""Checkpoints that describe themselves, are written whole or not at all, and hold no code.

A `.ckpt` file is a dictionary that `torch.load(weights_only=True)` reads: `cassava_metadata` is the JSON of
`ModelMetadata`, `state_dict` holds the network's tensors under `network.` (and, in a training checkpoint,
their running average under `average.module.`), and `cassava_gate`, where one was fitted, the gate's tensors (see
`gate_arrays.py`).
"""

import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cassava_leaf_disease.errors import CheckpointError, first_line
from cassava_leaf_disease.modeling.gate_arrays import GATE_KEY, GateArrays
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata, parse_metadata
from cassava_leaf_disease.paths import BEST_CHECKPOINT
from cassava_leaf_disease.storage.files import replacing

NETWORK_PREFIX = "network."
AVERAGE_PREFIX = "average.module."
COMPILED_PREFIX = "_orig_mod."  # what `torch.compile` puts before the names

# What torch.load raises for damaged files, found by changing some bytes of good ones 6,000 times.
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, struct.error),
)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory: its self-description, and the tensors of the network to use."""

    metadata: ModelMetadata
    network_state: dict[str, torch.Tensor]
    gate_arrays: GateArrays | None = None


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint dictionary; `path` is replaced whole."""
    with replacing(path) as file:
        torch.save(dict(content), file)


def describe_anew(
    path: Path, loaded: LoadedCheckpoint, metadata: ModelMetadata, gate_arrays: GateArrays | None = None
) -> None:
    """Replaces a checkpoint by one with the same weights and another self-description; a training's state goes.

    Its gate stays, or becomes the one of `gate_arrays`.
    """
    state = {f"{NETWORK_PREFIX}{name}": tensor for name, tensor in loaded.network_state.items()}
    content: dict[str, Any] = {METADATA_KEY: metadata.model_dump_json(), "state_dict": state}
    arrays = loaded.gate_arrays if gate_arrays is None else gate_arrays
    if arrays is not None:
        content[GATE_KEY] = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    save_atomically(content, path)


def write_checkpoint(path: Path, network: torch.nn.Module, metadata: ModelMetadata) -> None:
    """Writes a lean checkpoint for inference: weights and self-description, no optimiser."""
    state = {f"{NETWORK_PREFIX}{name}": tensor for name, tensor in network_state(network).items()}
    save_atomically({METADATA_KEY: metadata.model_dump_json(), "state_dict": state}, path)


def network_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's tensors on the CPU, without the prefix that `torch.compile` adds."""
    return {
        name.removeprefix(COMPILED_PREFIX): tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }


def load_checkpoint(path: Path) -> LoadedCheckpoint:
    """Reads a best or a last checkpoint; no code in the file is ever run.

    Of a training checkpoint with a running average of the weights, that average is taken.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or not one of ours.
    """
    content = read_plain(path)
    description, state = content.get(METADATA_KEY), content.get("state_dict")
    if not isinstance(description, str) or not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: not a CassavaVision checkpoint (no self-description in it); "
            "use a best.ckpt that `cassava train` wrote"
        )
    metadata = parse_metadata(description, str(path))
    return LoadedCheckpoint(metadata, select_network(state), _select_gate(content.get(GATE_KEY)))


def _select_gate(tensors: object) -> GateArrays | None:
    if not isinstance(tensors, dict):
        return None
    return {str(name): value.numpy() for name, value in tensors.items() if isinstance(value, torch.Tensor)}


def select_network(state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The network's tensors in a checkpoint's state dict, under their own names: the running average if there is one.

    `{}` where the names have neither of our prefixes.
    """
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    prefix = AVERAGE_PREFIX if any(name.startswith(AVERAGE_PREFIX) for name in tensors) else NETWORK_PREFIX
    return {
        name.removeprefix(prefix).removeprefix(COMPILED_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def read_plain(path: Path) -> dict[Any, Any]:
    """The dictionary in a file that `torch.save` wrote, read without running code; `{}` for anything else.

    Raises:
        CheckpointError: The file is missing, damaged, or holds more than plain data and tensors.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; expected a file, such as {BEST_CHECKPOINT} in a run's checkpoints/")
    try:
        with warnings.catch_warnings():  # the error below says it in one line
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train one with `cassava train`") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a plain checkpoint (damaged, or it holds code); it was not loaded; "
            "use a best.ckpt that `cassava train` wrote"
        ) from None
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)}); copy or train it again"
        ) from None
    return content if isinstance(content, dict) else {}
