"""What cameras and networks do to photos, in batches: blur, noise, JPEG; and rectangles erased.

Values are those of 8-bit RGB, 0 to 255, in floating point; each function gives new tensors of the same shape.
"""

import functools
import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from cassava_leaf_disease.imaging.augment import ERASED_RGB

# The example tables of ITU-T T.81, annex K, which libjpeg scales by quality.
_LUMA_TABLE: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE: Final = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
_RGB_TO_YCC: Final = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_YCC_TO_RGB: Final = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_BLOCK: Final = 8


def gaussian_blur(images: Tensor, sigmas_px: Tensor, sigma_max_px: float) -> Tensor:
    """Blurs each of `(N, 3, H, W)` by its own standard deviation; the border mirrors the photo."""
    count, channels = images.shape[:2]
    radius = max(1, int(3.5 * sigma_max_px))  # Pillow's and Albumentations' radius for the widest
    offsets = torch.arange(-radius, radius + 1, device=images.device).float()
    sigmas = sigmas_px.float().view(-1, 1)
    kernels = torch.exp(-0.5 * (offsets / sigmas) ** 2) * (offsets.abs() <= (3.5 * sigmas).floor())
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # (3N, K)
    planes = images.float().reshape(1, count * channels, *images.shape[2:])
    planes = functional.pad(planes, (radius, radius, radius, radius), mode="reflect")
    planes = functional.conv2d(planes, kernels[:, None, :, None], groups=count * channels)
    planes = functional.conv2d(planes, kernels[:, None, None, :], groups=count * channels)
    return planes.view_as(images).to(images.dtype)


def add_noise(images: Tensor, stds: Tensor, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise; standard deviations `(N,)` are fractions of full scale."""
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.addcmul(images, noise, (255 * stds).view(-1, 1, 1, 1).to(images.dtype)).clamp_(0.0, 255.0)


def jpeg_round_trip(images: Tensor, qualities: Tensor) -> Tensor:
    """What is left of `(N, 3, H, W)` after JPEG at libjpeg's quality 1 to 100, chroma at half resolution."""
    height, width = images.shape[2:]
    pixels = functional.pad(images.float().round(), (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("ij,njhw->nihw", _matrix(_RGB_TO_YCC, pixels.device), pixels).round_()
    luma = _quantize(ycc[:, :1] - 128, _tables(_LUMA_TABLE, qualities))
    chroma = _quantize(functional.avg_pool2d(ycc[:, 1:], 2), _tables(_CHROMA_TABLE, qualities))
    # bilinear weights 3/4 and 1/4 are libjpeg's "fancy upsampling"
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.cat([luma + 128, chroma], dim=1)
    rgb = torch.einsum("ij,njhw->nihw", _matrix(_YCC_TO_RGB, pixels.device), back)
    return rgb[:, :, :height, :width].round().clamp_(0.0, 255.0).to(images.dtype)


def erase(images: Tensor, holes: Tensor) -> Tensor:
    """Fills the rectangles `holes` `(N, n, 4)` (top, left, bottom, right) with ImageNet's mean colour."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device).view(1, 1, -1)
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    in_rows = (rows >= holes[:, :, 0, None]) & (rows < holes[:, :, 2, None])  # (N, n, H)
    in_columns = (columns >= holes[:, :, 1, None]) & (columns < holes[:, :, 3, None])
    inside = (in_rows.unsqueeze(3) & in_columns.unsqueeze(2)).any(dim=1, keepdim=True)  # (N, 1, H, W)
    fill = torch.tensor(ERASED_RGB, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return torch.where(inside, fill, images)


def _quantize(planes: Tensor, tables: Tensor) -> Tensor:
    """The discrete cosine transform of 8x8 blocks, rounded to multiples of `tables` `(N, 8, 8)`, and back."""
    count, channels, height, width = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.reshape(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    steps = tables.view(count, 1, 1, 1, _BLOCK, _BLOCK)
    coefficients = (cosines @ blocks @ cosines.T).div_(steps).round_().mul_(steps)
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(planes.shape).round_()


def _tables(base: tuple[int, ...], qualities: Tensor) -> Tensor:
    """Libjpeg's `jpeg_quality_scaling`: `(N, 8, 8)` float32."""
    quality = qualities.view(-1, 1).float()
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = ((_matrix(base, qualities.device) * percent + 50) / 100).floor().clamp_(1.0, 255.0)
    return steps.view(-1, _BLOCK, _BLOCK)


@functools.cache
def _matrix(rows: tuple[object, ...], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device=device)


@functools.cache
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix of eight points."""
    rows = [
        [
            math.sqrt((1 if row == 0 else 2) / _BLOCK) * math.cos((2 * column + 1) * row * math.pi / (2 * _BLOCK))
            for column in range(_BLOCK)
        ]
        for row in range(_BLOCK)
    ]
    return torch.tensor(rows, device=device)
