"""How many devices and which precision a run gets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cassava_leaf_disease.config.schema import TrainConfig
from cassava_leaf_disease.errors import DeviceError, DeviceMemoryError


def local_devices(train: TrainConfig, accelerator: str) -> int:
    """How many processes train on this machine, one for each device; auto: all its GPUs, or one on the CPU.

    Raises:
        DeviceError: More GPUs than there are.
    """
    if train.devices == "auto":
        return torch.cuda.device_count() if accelerator == "cuda" else 1
    check_local_devices(train.devices, accelerator)
    return train.devices


def check_local_devices(wanted: int, accelerator: str) -> None:
    """Finds out whether each process of this machine can have a device of its own; on the CPU it can.

    Raises:
        DeviceError: More GPUs than there are.
    """
    there = torch.cuda.device_count() if accelerator == "cuda" else 1
    if wanted > there and accelerator != "cpu":
        raise DeviceError(
            f"{wanted} processes want a GPU each, and this process sees {there}; type train.devices={there}, or start "
            "it where it sees more (CUDA_VISIBLE_DEVICES; SLURM: --gpus-per-node, not --gpus-per-task)"
        )


def resolve_precision(train: TrainConfig, accelerator: str) -> str:
    """Lightning's name of the precision; `auto` is bf16 on a GPU that has it, else 32 bits."""
    if train.precision != "auto":
        return {"32": "32-true"}.get(train.precision, train.precision)
    return "bf16-mixed" if accelerator == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


@contextmanager
def memory_in_one_line(train: TrainConfig) -> Iterator[None]:
    """Says what to do when the GPU's memory is full.

    Raises:
        DeviceMemoryError: Instead of PyTorch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the GPU's memory is full with train.batch_size={train.batch_size}; type a smaller train.batch_size or "
            "augment.image_size, or end other programs on this GPU"
        ) from error
