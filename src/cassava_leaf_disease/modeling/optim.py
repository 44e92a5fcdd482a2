"""AdamW with warm-up and a schedule."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cassava_leaf_disease.config.schema import OptimConfig
from cassava_leaf_disease.modeling.backbone import classifier_prefixes


def build_optimizer(network: nn.Module, config: OptimConfig, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019): no decay on biases and norms, its own rate for the classifier.

    Frozen parameters are included, so that they can be unfrozen later; without gradients they stand still.
    """
    head = classifier_prefixes(network)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        is_head, decays = name.startswith(head), parameter.ndim > 1
        groups.setdefault((is_head, decays), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": lr * (config.head_lr_multiplier if is_head else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=lr, betas=config.betas)


def build_schedulers(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps_per_epoch: int, epochs: int, monitor: str
) -> list[dict[str, Any]]:
    """Lightning's scheduler settings: warm-up and cosine by step, plateau by epoch on `monitor` (higher is better)."""
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    floor = config.min_lr_ratio if config.schedule == "cosine" else 1.0
    if config.schedule != "plateau":
        factor = warmup_cosine(warmup_steps, steps_per_epoch * epochs, floor)
        return [{"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"}]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=config.plateau.factor, patience=config.plateau.patience_epochs
    )
    settings: list[dict[str, Any]] = [{"scheduler": plateau, "interval": "epoch", "monitor": monitor}]
    if warmup_steps:
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup_steps + 1), 1.0, warmup_steps)
        settings.insert(0, {"scheduler": warmup, "interval": "step"})
    return settings


def warmup_cosine(warmup_steps: int, total_steps: int, floor: float) -> Callable[[int], float]:
    """Factor of the peak rate at a step: linear up to 1, then a half cosine down to `floor`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
