"""Focal loss (Lin et al., 2017): what is learned already counts less."""

import torch
from torch import nn
from typing_extensions import override

from cassava_leaf_disease.modeling.losses.targets import prepare


class Focal(nn.Module):
    """The mean over the batch of `-sum over classes of weight * target * (1 - p)**gamma * log(p)`.

    For a class id this is the paper's loss, `weight` in the place of its alpha. It is linear in the target, so
    that a mixed photo's loss is the mix of the losses of its parts. With gamma 0 it is cross-entropy.
    """

    weight: torch.Tensor | None

    def __init__(self, gamma: float, label_smoothing: float = 0.0, weight: torch.Tensor | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight)

    @override
    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits, targets = prepare(logits, targets, self.label_smoothing)
        log_probabilities = logits.log_softmax(dim=-1)
        terms = -targets * log_probabilities * torch.exp(self.gamma * log_complement(log_probabilities))
        if self.weight is not None:
            terms = terms * self.weight
        return terms.sum(dim=-1).mean()


def log_complement(log_probabilities: torch.Tensor) -> torch.Tensor:
    """`log(1 - p)` of each class, `(N, C)`, as the logarithm of the sum of the other classes.

    It stays finite where `1 - p` would round to 0, and with it the gradient of any power of `1 - p`.
    """
    num_classes = log_probabilities.shape[-1]
    itself = torch.eye(num_classes, dtype=torch.bool, device=log_probabilities.device)
    others = log_probabilities.unsqueeze(-2).masked_fill(itself, -torch.inf)  # (N, 1, C) to (N, C, C)
    return others.logsumexp(dim=-1)
