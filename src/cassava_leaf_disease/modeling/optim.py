"""AdamW with warm-up and a schedule."""

import math
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from cassava_leaf_disease.config.schema import OptimConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.modeling.backbone import classifier_prefixes


def build_optimizer(
    network: nn.Module, config: OptimConfig, lr: float, weight_decay: float, *, loss_scaling: bool = False
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), fused into one kernel where all parameters are on a CUDA GPU.

    No decay on biases, norms and what the network names itself; rates graded by layer with `layer_decay`; a rate
    of its own for the classifier. Frozen parameters are included, so that they can be unfrozen later; without
    gradients they stand still. `loss_scaling` is that of float16 (16-mixed), which cannot clip gradients for a
    fused optimiser.

    Raises:
        ConfigError: `layer_decay` for a network whose layers timm does not tell apart.
    """
    head, scales, undecayed = classifier_prefixes(network), layer_scales(network, config.layer_decay), _spared(network)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not any(fnmatchcase(name, pattern) for pattern in undecayed)
        groups.setdefault((name.startswith(head), decays, scales[name]), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": lr * scale * (config.head_lr_multiplier if is_head else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_head, decays, scale), parameters in groups.items()
    ]
    on_gpu = all(parameter.is_cuda for parameter in network.parameters())
    return torch.optim.AdamW(settings, lr=lr, betas=config.betas, fused=(on_gpu and not loss_scaling) or None)


def layer_scales(network: nn.Module, layer_decay: float | None) -> dict[str, float]:
    """The fraction of the rate at which each parameter learns: 1 in the last layer, `layer_decay` times less below.

    What a layer is, timm says: a block and, where it is one, the stem or the classifier.

    Raises:
        ConfigError: timm does not tell the network's layers apart.
    """
    if layer_decay is None:
        return dict.fromkeys((name for name, _ in network.named_parameters()), 1.0)
    from timm.models import group_parameters

    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        raise ConfigError(
            f"optim.layer_decay={layer_decay:g}: timm does not tell the layers of this network apart; "
            "type optim.layer_decay=null"
        )
    layers: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def _spared(network: nn.Module) -> Collection[str]:
    """Patterns of the parameters that the network itself wants without decay, such as position embeddings."""
    named = getattr(network, "no_weight_decay", None)
    return named() if named else ()


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
