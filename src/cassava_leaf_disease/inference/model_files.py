"""Which kind of model a file is, by its name, and whether this machine has what that kind needs."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from cassava_leaf_disease.errors import MissingDependencyError
from cassava_leaf_disease.inference.engines.base import Device
from cassava_leaf_disease.paths import ENSEMBLE_FILE


def is_ensemble(path: Path) -> bool:
    """Whether a path is an ensemble's file, or a folder that holds one, by its name."""
    return path.suffix.lower() == ".json" or (path / ENSEMBLE_FILE).is_file()


def is_exported(path: Path) -> bool:
    """Whether a model file is one that `cassava export` writes, by its name."""
    return path.suffix.lower() == ".onnx"


def require_torch(what: str) -> None:
    """Fails where PyTorch is not installed; `what` is what needs it.

    Raises:
        MissingDependencyError: It is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(f"PyTorch, which {what} needs,", "train")


def check_device(device: Device, model: Path | Sequence[Path] | None = None) -> None:
    """Refuses a device that is not there, before any other work.

    `model` is the file that was asked for, or several; exported ones need ONNX Runtime's CUDA, others PyTorch's.

    Raises:
        DeviceError: `cuda` was asked for on a machine without it.
        MissingDependencyError: `cuda` needs PyTorch and it is not installed.
    """
    files = [model] if isinstance(model, Path) else list(model or ())
    if device != "cuda" or any(map(is_ensemble, files)):  # loading its members will tell
        return
    if files and all(map(is_exported, files)):
        from cassava_leaf_disease.inference.engines.onnx_engine import resolve_providers

        resolve_providers(device)
    else:
        require_torch("device=cuda")
        from cassava_leaf_disease.inference.engines.torch_engine import resolve_device

        resolve_device(device)
