"""Cross-entropy, smoothed and weighted."""

import torch
from torch import nn
from typing_extensions import override

from cassava_leaf_disease.modeling.losses.targets import prepare


class CrossEntropy(nn.Module):
    """The mean over the batch of `-sum over classes of weight * target * log(probability)`.

    Unlike PyTorch's own, weights act alike on class ids and on the probabilities that say the same.
    """

    weight: torch.Tensor | None

    def __init__(self, label_smoothing: float = 0.0, weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight)

    @override
    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits, targets = prepare(logits, targets, self.label_smoothing)
        return nn.functional.cross_entropy(logits, targets, weight=self.weight)
