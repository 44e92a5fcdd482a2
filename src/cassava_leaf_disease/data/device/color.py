"""Colour jitter of a batch; values are those of 8-bit RGB, 0 to 255, in floating point."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cassava_leaf_disease.data.device.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV's grey


def jitter(images: Tensor, values: Tensor, order: Sequence[int]) -> Tensor:
    """Changes `(N, 3, H, W)` one property after another, cut to 0..255 after each.

    `values` `(N, 4)`: factors of brightness, contrast and saturation, and the hue's turn (1 is the circle).
    """
    changes = {
        BRIGHTNESS: adjust_brightness,
        CONTRAST: adjust_contrast,
        SATURATION: adjust_saturation,
        HUE: turn_hue,
    }
    for index in order:
        images = changes[index](images, values[:, index].view(-1, 1, 1, 1).to(images.dtype)).clamp_(0.0, 255.0)
    return images


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiplies; factor `(N, 1, 1, 1)`."""
    return images * factor


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Spreads about the photo's mean grey."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3)
    means = images.mean(dim=(2, 3), dtype=torch.float32)  # (N, 3)
    grey = (means * weights).sum(dim=1).view(-1, 1, 1, 1)
    return torch.addcmul((grey * (1 - factor.float())).to(images.dtype), images, factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Spreads about each pixel's own grey."""
    return torch.lerp(_grey(images), images, factor)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turns the colour circle; saturation and value of HSV stay."""
    red, green, blue = images.float().unbind(dim=1)
    value, _ = images.float().max(dim=1)
    chroma = value - images.float().min(dim=1).values
    safe = chroma.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turn.float().squeeze(1)  # (N, H, W), in sixths of the circle
    steps = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    position = torch.remainder(steps + hue.unsqueeze(1), 6)  # Smith, 1978, written as one formula
    weight = torch.minimum(position, 4 - position).clamp_(0.0, 1.0)
    return (value.unsqueeze(1) - chroma.unsqueeze(1) * weight).to(images.dtype)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(dim=1)
    return torch.add(red * LUMA[0], green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)
