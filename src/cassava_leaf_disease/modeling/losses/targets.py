"""What all losses do first: float32 logits, and targets as smoothed probabilities."""

import torch
from torch.nn import functional


def prepare(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(N, C)` in float32 or better, and the targets as probabilities of the same shape and type.

    `targets` are class ids `(N,)` or probabilities `(N, C)`. Label smoothing (Szegedy et al., 2016, section 7)
    gives each class the same share of `label_smoothing`.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    num_classes = logits.shape[-1]
    wanted = functional.one_hot(targets, num_classes) if targets.ndim == 1 else targets
    wanted = wanted.to(logits.dtype)
    return logits, wanted.mul(1 - label_smoothing).add(label_smoothing / num_classes) if label_smoothing else wanted
