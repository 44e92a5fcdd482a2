"""Crops, flips and rotations of a batch, as matrix products and one grid sampling."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def crop_and_resize(images: Tensor, crop: Tensor, flips: Tensor, size_px: int) -> Tensor:
    """Cuts a box out of each photo and scales it to `(size_px, size_px)`, flipped where asked.

    `images` `(N, 3, H, W)` float, `crop` `(N, 4)`: top, left, height, width in pixels; `flips` `(N, 3)`:
    horizontal, vertical, and transposed after them, each 0 or 1. Gives `(N, 3, size_px, size_px)` of the same
    type. Resampling is separable, so it is one matrix for each axis; shrinking averages areas (antialiased,
    as OpenCV's INTER_AREA), enlarging is bilinear.
    """
    height, width = images.shape[2:]
    hflip, vflip, transposed = (flips > 0).unbind(dim=1)
    rows = resampling_matrix(crop[:, 0], crop[:, 2], vflip, height, size_px).to(images.dtype)
    columns = resampling_matrix(crop[:, 1], crop[:, 3], hflip, width, size_px).to(images.dtype)
    # (N, 3H, W) x (N, W, S) -> (N, 3, H, S), then (N, 1, S, H) x (N, 3, H, S) -> (N, 3, S, S)
    narrow = torch.bmm(images.flatten(1, 2), columns.transpose(1, 2)).view(len(images), 3, height, size_px)
    pixels = torch.matmul(rows.unsqueeze(1), narrow)
    return torch.where(transposed.view(-1, 1, 1, 1), pixels.transpose(2, 3), pixels)


def resampling_matrix(start: Tensor, length: Tensor, flip: Tensor, extent_px: int, size_px: int) -> Tensor:
    """Weights `(N, size_px, extent_px)` float32 of the pixels `[start, start + length)` in each output pixel.

    A pixel of width 1 overlaps an output pixel of width `s` by a trapezoid of their distance; at `s = 1`
    that is bilinear interpolation's triangle, which enlarging uses too.
    """
    scale = (length / size_px).unsqueeze(1)  # (N, 1)
    outputs = torch.arange(size_px, device=start.device).expand(len(start), -1)
    outputs = torch.where(flip.unsqueeze(1), size_px - 1 - outputs, outputs)
    reach = scale.clamp(min=1.0)
    centers = (start.unsqueeze(1) + (outputs + 0.5) * scale).unsqueeze(2)  # (N, S, 1)
    # at the border of an enlarged crop its own outermost pixel is repeated
    first, last = (start + 0.5).view(-1, 1, 1), (start + length - 0.5).view(-1, 1, 1)
    centers = torch.where((scale <= 1).unsqueeze(2), centers.clamp(first, last), centers)
    pixels = torch.arange(extent_px, device=start.device) + 0.5
    distance = (pixels - centers).abs_()  # (N, S, extent)
    overlap = torch.sub(((reach + 1) / 2).unsqueeze(2), distance, out=distance).clamp_(0.0, 1.0)
    return overlap.div_(reach.unsqueeze(2))


def rotate(images: Tensor, angles_degrees: Tensor) -> Tensor:
    """Turns square images `(N, 3, S, S)` about their centres; the border mirrors the photo."""
    radians = angles_degrees.float() * (math.pi / 180)
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=True)
    turned = functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return turned.to(images.dtype)
