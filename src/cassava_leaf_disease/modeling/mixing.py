"""MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019) on whole batches, on their own device."""

import math

import numpy as np
import torch

from cassava_leaf_disease.config.schema import MixConfig


def mix_batch(
    images: torch.Tensor, labels: torch.Tensor, num_classes: int, config: MixConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes each image with another of the batch.

    `images` `(N, 3, H, W)` float, `labels` `(N,)` int64 or `(N, num_classes)` probabilities; gives images of
    the same shape and targets `(N, num_classes)` float32 whose rows sum to 1. An unmixed batch comes back as it
    was, its labels as probabilities.
    """
    targets = torch.nn.functional.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels
    if rng.random() >= config.p or not (config.mixup_alpha or config.cutmix_alpha):
        return images, targets
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    use_cutmix = rng.random() < 0.5 if both else config.cutmix_alpha > 0
    alpha = config.cutmix_alpha if use_cutmix else config.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if use_cutmix:
        height, width = images.shape[-2:]
        top, bottom, left, right = _box(height, width, share, rng)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        mixed = share * images + (1 - share) * images[partner]
    return mixed, share * targets + (1 - share) * targets[partner]


def _box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of area about `1 - share`, its centre uniform, cut at the borders: top, bottom, left, right."""
    cut = math.sqrt(1 - share)
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    row, column = int(rng.integers(height)), int(rng.integers(width))
    return (
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )
