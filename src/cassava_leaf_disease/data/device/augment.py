"""The recipe of `imaging/augment.py` on whole batches, on the device where the photos are."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cassava_leaf_disease.config.schema import AugmentConfig
from cassava_leaf_disease.data.device import camera, color, geometry
from cassava_leaf_disease.data.device.draws import Draws, draw
from cassava_leaf_disease.data.device.photos import upload


class BatchAugmentation:
    """Photos of many sizes and a seed to changed ones of the network's size; equal in distribution to the CPU's.

    Chance is drawn on the CPU by NumPy, the same on every device; only the noise comes from the device's
    own generator. On a GPU pixels are float16, exact to 1/16 of a grey level, and the two costly steps are
    Triton kernels where Triton is there (it comes with PyTorch's CUDA builds for Linux).
    """

    def __init__(self, config: AugmentConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._fused = device.type == "cuda" and find_spec("triton") is not None
        self._generator = torch.Generator(device)

    @torch.no_grad()
    def __call__(self, photos: Tensor, rows: Tensor, sizes: np.ndarray, seed: Sequence[int]) -> Tensor:
        """`rows` `(N,)` int64 of `photos` `(M, 3, H, W)` uint8, changed: `(N, 3, S, S)` in `dtype`, 0 to 255.

        `sizes` `(N, 2)` says how many rows and columns of each canvas are photo.
        """
        rng = np.random.default_rng(seed)
        self._generator.manual_seed(int(rng.integers(2**63)))
        return self.apply(photos, rows, draw(self.config, sizes, rng))

    def apply(self, photos: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """Geometry, then colour, then what a camera does; rectangles last."""
        on_device = _upload(draws, self.device)
        pixels = self._crop(photos, rows, on_device)
        if len(draws.rotated):
            _change(pixels, on_device["rotated"], geometry.rotate, on_device["angles_degrees"])
        if len(draws.colored):
            self._jitter(pixels, on_device, draws.color_order)
        if len(draws.blurred):
            sigmas, widest = on_device["blur_sigmas_px"], self.config.blur.sigma_max_px
            _change(pixels, on_device["blurred"], camera.gaussian_blur, sigmas, widest)
        if len(draws.noisy):
            _change(pixels, on_device["noisy"], camera.add_noise, on_device["noise_stds"], self._generator)
        if len(draws.compressed):
            _change(pixels, on_device["compressed"], camera.jpeg_round_trip, on_device["jpeg_qualities"])
        if len(draws.erased):
            _change(pixels, on_device["erased"], camera.erase, on_device["holes"])
        return pixels

    def _crop(self, photos: Tensor, rows: Tensor, draws: dict[str, Tensor]) -> Tensor:
        crop, flips, size_px = draws["crop"], draws["flips"], self.config.image_size
        if self._fused:
            from cassava_leaf_disease.data.device import kernels

            return kernels.crop_and_resize(photos, rows, crop, flips, size_px, self.dtype)
        chosen = photos.index_select(0, rows).to(self.dtype)
        return geometry.crop_and_resize(chosen, crop, flips, size_px)

    def _jitter(self, pixels: Tensor, draws: dict[str, Tensor], order: Sequence[int]) -> None:
        if self._fused:
            from cassava_leaf_disease.data.device import kernels

            kernels.jitter_(pixels, draws["colored"], draws["color_values"], order)
        else:
            _change(pixels, draws["colored"], color.jitter, draws["color_values"], order)


def _change(pixels: Tensor, chosen: Tensor, transform: Any, *values: object) -> None:  # noqa: ANN401
    """Puts the transformed ones of `chosen` `(n,)` back into their places."""
    pixels.index_copy_(0, chosen, transform(pixels.index_select(0, chosen), *values).contiguous())


def _upload(draws: Draws, device: torch.device) -> dict[str, Tensor]:
    """The arrays of `draws` on the device, float32 or int64, in one transfer that the host does not wait for."""
    arrays = {name: value for name, value in vars(draws).items() if isinstance(value, np.ndarray) and value.size}
    flat = np.concatenate([np.ravel(value).astype(np.float32) for value in arrays.values()])
    pieces = torch.split(upload(torch.from_numpy(flat), device), [value.size for value in arrays.values()])
    return {
        name: piece.view(value.shape) if value.dtype.kind == "f" else piece.view(value.shape).long()
        for (name, value), piece in zip(arrays.items(), pieces, strict=True)
    }
