"""The one definition of what the network sees of a photo; every consumer is held to it by a parity test."""

from typing import Annotated, Final, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cassava_leaf_disease.errors import TooManyPixelsError

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

# Beyond this a strip would outgrow any photo: 60,000,000 x 1 pixels would become 13 x 10^9 x 224.
MAX_ASPECT: Final = 50

Positive = Annotated[float, Field(gt=0)]


class Preprocessing(BaseModel):
    """How a photo becomes the network's input: resize the shorter side, cut the centre, normalise.

    `mean` and `std` are those of RGB in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size_px: int = Field(ge=1)
    crop_ratio: float = Field(default=1.0, gt=0, le=1)
    resize: Literal["shorter_side"] = "shorter_side"
    interpolation: Literal["bilinear_antialiased"] = "bilinear_antialiased"
    crop: Literal["center"] = "center"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD

    @property
    def resize_side_px(self) -> int:
        """The shorter side before the crop."""
        return round(self.image_size_px / self.crop_ratio)


def resized_shape(height: int, width: int, side_px: int) -> tuple[int, int]:
    """(height, width) with the shorter side `side_px` and the longer one rounded, halves up."""
    shorter, longer = sorted((height, width))
    scaled = (2 * longer * side_px + shorter) // (2 * shorter)
    return (side_px, scaled) if height <= width else (scaled, side_px)


def resize_shorter_side(image: np.ndarray, side_px: int, *, enlarge: bool = True) -> np.ndarray:
    """(H, W, 3) uint8 with the shorter side `side_px`, by Pillow's antialiased bilinear filter.

    With `enlarge=False` a smaller image is returned as it is.

    Raises:
        TooManyPixelsError: One side is over `MAX_ASPECT` times the other.
    """
    height, width = _check_rgb(image).shape[:2]
    check_aspect(height, width)
    shorter = min(height, width)
    if shorter == side_px or (shorter < side_px and not enlarge):
        return image
    new_height, new_width = resized_shape(height, width, side_px)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.array(resized)


def check_aspect(height: int, width: int) -> None:
    """Refuses a strip, which would outgrow any photo when it is resized.

    Raises:
        TooManyPixelsError: One side is over `MAX_ASPECT` times the other.
    """
    shorter, longer = sorted((height, width))
    if longer > MAX_ASPECT * shorter:
        seen = f"image: a strip of {width}x{height} pixels"
        raise TooManyPixelsError(f"{seen}; expected sides within a ratio of {MAX_ASPECT}; crop it to the leaf")


def center_crop(image: np.ndarray, size_px: int) -> np.ndarray:
    """The central (size, size, 3) uint8, C-contiguous; of an odd margin the smaller half lies above and left.

    Raises:
        ValueError: The image is smaller than that.
    """
    height, width = _check_rgb(image).shape[:2]
    if min(height, width) < size_px:
        msg = f"cannot cut {size_px}x{size_px} pixels out of {width}x{height}; resize the image first"
        raise ValueError(msg)
    top, left = (height - size_px) // 2, (width - size_px) // 2
    return np.ascontiguousarray(image[top : top + size_px, left : left + size_px])


def to_network_size(image: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """(H, W, 3) uint8 to (S, S, 3) uint8: resize, then crop."""
    return center_crop(resize_shorter_side(image, spec.resize_side_px), spec.image_size_px)


def normalize(batch: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32: `(value / 255 - mean) / std`."""
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
        msg = f"expected a batch of (N, H, W, 3) uint8, got {batch.shape} {batch.dtype}"
        raise ValueError(msg)
    scale, shift = scale_and_shift(spec)
    pixels = batch.transpose(0, 3, 1, 2)  # (N, 3, H, W)
    out = np.empty(pixels.shape, dtype=np.float32)
    np.multiply(pixels, scale, out=out)
    out += shift
    return out


def scale_and_shift(spec: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """What normalising multiplies uint8 pixels `(3, H, W)` by, and then adds; each `(3, 1, 1)` float32."""
    mean, std = np.array(spec.mean), np.array(spec.std)
    scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
    shift = (-mean / std).astype(np.float32)[:, None, None]
    return scale, shift


def preprocess(image: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """(H, W, 3) uint8 to (3, S, S) float32: what the network is given."""
    batch: np.ndarray = normalize(to_network_size(image, spec)[None], spec)
    return np.asarray(batch[0])


def _check_rgb(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        msg = f"expected an image of (H, W, 3) uint8, got {image.shape} {image.dtype}"
        raise ValueError(msg)
    return image
