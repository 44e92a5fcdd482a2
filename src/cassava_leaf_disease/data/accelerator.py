"""Which accelerator trains."""

from typing import Literal

import torch

from cassava_leaf_disease.config.schema import AppConfig, TrainConfig
from cassava_leaf_disease.errors import DeviceError
from cassava_leaf_disease.ranks import local_rank

Accelerator = Literal["cuda", "mps", "cpu"]


def resolve_accelerator(train: TrainConfig) -> Accelerator:
    """The accelerator that was asked for; `auto` is the first that is there.

    Raises:
        DeviceError: The device that was asked for is not there.
    """
    available: dict[Accelerator, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if train.accelerator == "auto":
        return next(name for name, there in available.items() if there)
    wanted: Accelerator = "cuda" if train.accelerator == "gpu" else train.accelerator
    if not available[wanted]:
        raise DeviceError(
            f"train.accelerator={train.accelerator}: no such device on this machine; type train.accelerator=auto"
        )
    return wanted


def training_device(config: AppConfig) -> torch.device:
    """Where this process keeps the photos that it trains on: of several GPUs the one that its launcher gave it.

    Raises:
        DeviceError: The device that was asked for is not there.
    """
    return torch.device("cuda", local_rank()) if resolve_accelerator(config.train) == "cuda" else torch.device("cpu")
