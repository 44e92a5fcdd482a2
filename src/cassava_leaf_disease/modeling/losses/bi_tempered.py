"""The bi-tempered logistic loss (Amid et al., 2019): robust to wrong labels.

Two temperatures replace the logarithm and the exponential of cross-entropy: `log_t(x) = (x**(1-t) - 1) / (1 - t)`
and its inverse `exp_t(x) = max(0, 1 + (1-t) x)**(1 / (1-t))`. With t1 below 1 the loss of any photo is bounded, so
that a wrong label far from the border pulls no more than so much; with t2 above 1 probabilities have heavy tails,
so that a wrong label near the border bends it less. t1 = t2 = 1 is cross-entropy, less the targets' own entropy.

The tempered softmax is the loss's alone. Answers are the plain softmax of the same logits, as of every model: both
rise with the logit, so that the classes come in the same order, and the confidence is what calibration makes of it.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable
from typing_extensions import override

from cassava_leaf_disease.modeling.losses.targets import prepare


class BiTempered(nn.Module):
    """The mean over the batch of the Bregman divergence from the target to the tempered probabilities.

    `sum(y (log_t1 y - log_t1 p) - (y**(2-t1) - p**(2-t1)) / (2-t1))` over the classes, y the target and p the
    tempered softmax of the logits by t2; for 0 <= t1 <= 1 <= t2.
    """

    def __init__(self, t1: float, t2: float, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.t1 = t1
        self.t2 = t2
        self.label_smoothing = label_smoothing

    @override
    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits, targets = prepare(logits, targets, self.label_smoothing)
        losses: torch.Tensor = _Divergence.apply(logits, targets, self.t1, self.t2)
        return losses.mean()


@torch.no_grad()
def tempered_log_softmax(logits: torch.Tensor, t: float) -> torch.Tensor:
    """Logarithms of the tempered probabilities `exp_t(logits - normalisation)`, `(N, C)`, for any `t` above 0.

    -inf outside the support, which is finite for t below 1. Nothing here makes the host wait for a GPU: the
    number of steps is known beforehand. Gradients do not flow through it; those of the loss are written out.
    """
    if t == 1:
        return logits.log_softmax(dim=-1)
    below = logits.amax(dim=-1, keepdim=True) - logits  # 0 for the largest
    unscaled = _heavy_tails(below, t) if t > 1 else _finite_support(below, t)
    return unscaled - unscaled.logsumexp(dim=-1, keepdim=True)


def _heavy_tails(below: torch.Tensor, t: float) -> torch.Tensor:
    """Logarithms up to a constant, for t above 1, by the paper's fixed-point iteration; four kernels a step.

    For t near 1 rounding spoils the sum Z, but not the small power of it that counts.
    """
    scaled = below * (t - 1)
    shrink = one = torch.ones_like(below[..., :1])  # Z**(1-t), which starts at 1
    for _ in range(fixed_point_steps(t, below.shape[-1], torch.finfo(below.dtype).eps)):
        shrink = torch.addcmul(one, scaled, shrink).pow(1 / (1 - t)).sum(dim=-1, keepdim=True).pow(1 - t)
    return torch.log1p(scaled * shrink) / (1 - t)


def _finite_support(below: torch.Tensor, t: float) -> torch.Tensor:
    """Logarithms up to rounding, for t below 1, by bisection: probabilities fall as the normalisation rises."""

    def logarithms(normalisation: torch.Tensor) -> torch.Tensor:
        return torch.log1p(((below + normalisation) * (t - 1)).clamp(min=-1)) / (1 - t)

    width = (1 - below.shape[-1] ** (t - 1)) / (1 - t)  # the largest probability is 1 at 0, and 1/C here
    low = torch.zeros_like(below[..., :1])
    for step in range(1, 2 + math.ceil(math.log2(width / torch.finfo(below.dtype).eps))):
        middle = low + width / 2**step
        low = torch.where(logarithms(middle).exp().sum(dim=-1, keepdim=True) > 1, middle, low)
    return logarithms(low)


@cache
def fixed_point_steps(t: float, num_classes: int, tolerance: float) -> int:
    """After how many steps the normaliser Z is right to a relative `tolerance`, whatever the logits.

    In terms of log Z, which lies between 0 and log C, a step is a contraction: its slope is
    `sum(u - u**t) / sum(u)` over the unscaled probabilities u, of which the largest is 1. That is greatest
    where all others are alike.
    """
    u, others = np.linspace(0, 1, 1001), num_classes - 1
    slope = max(1e-9, float(np.max(others * (u - u**t) / (1 + others * u))))
    return max(1, math.ceil(math.log(tolerance / math.log(num_classes)) / math.log(slope)))


class _Divergence(torch.autograd.Function):
    """Losses `(N,)`, with the derivative that the implicit function theorem gives for the normalisation."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: torch.Tensor, targets: torch.Tensor, t1: float, t2: float) -> torch.Tensor:
        log_probabilities = tempered_log_softmax(logits, t2)
        probabilities = log_probabilities.exp()
        pull = (probabilities - targets) * probabilities.pow(t2 - t1)
        escorts = probabilities.pow(t2)
        escorts = escorts / escorts.sum(dim=-1, keepdim=True)  # how the normalisation follows each logit
        ctx.save_for_backward(pull - escorts * pull.sum(dim=-1, keepdim=True))
        gap = _times_log(targets, targets.log(), t1) - _times_log(targets, log_probabilities, t1)
        return (gap - (targets.pow(2 - t1) - torch.exp((2 - t1) * log_probabilities)) / (2 - t1)).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient.unsqueeze(-1) * slopes, None, None, None


def _times_log(factor: torch.Tensor, logarithm: torch.Tensor, t: float) -> torch.Tensor:
    """`factor * log_t(x)`, from the natural logarithm of x; 0 where the factor is 0."""
    if t == 1:
        return torch.where(factor > 0, factor * logarithm, 0)
    return factor * torch.expm1((1 - t) * logarithm) / (1 - t)
