"""Losses; one choice each."""

import torch
from torch import nn

from cassava_leaf_disease.config.schema import LossConfig


def build_loss(config: LossConfig, class_weights: torch.Tensor | None) -> nn.Module:
    """Cross-entropy over logits `(N, C)` and targets: class ids `(N,)` or probabilities `(N, C)`.

    Label smoothing: Szegedy et al., 2016, section 7. `class_weights` is `(C,)` float32.
    """
    return nn.CrossEntropyLoss(weight=class_weights, label_smoothing=config.label_smoothing)
