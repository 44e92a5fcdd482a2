"""Whether a photo shows anything: sharpness, exposure and contrast, the same for every resolution."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cassava_leaf_disease.imaging.preprocess import resize_shorter_side

WORKING_SIDE_PX: Final = 192  # below the input of any preset: what a blur leaves of it, networks lack too
DARK: Final = 16 / 255
BRIGHT: Final = 245 / 255
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_COLOR_STEPS: Final = 32  # of each channel


@dataclass(frozen=True)
class PhotoQuality:
    """What is measured of a photo whose shorter side was brought to `WORKING_SIDE_PX`.

    `sharpness` is the variance of the Laplacian of luma (0 to 255; Pech-Pacheco et al., 2000, "Diatom autofocusing
    in brightfield microscopy"). `brightness` and `contrast` are mean and standard deviation of luma in [0, 1];
    `dark` and `bright` the fractions of pixels below `DARK` and above `BRIGHT`. `colors` counts the distinct
    colours, each channel in 32 steps up to the brightest value: thousands in a photo, tens on a screen or a page.
    """

    sharpness: float
    brightness: float
    contrast: float
    dark: float
    bright: float
    colors: int


def measure_quality(image: npt.NDArray[np.uint8]) -> PhotoQuality:
    """The quality of a decoded photo, `(H, W, 3)` uint8 RGB of any size.

    Raises:
        ImageTooLargeError: As `resize_shorter_side`.
    """
    pixels = resize_shorter_side(_halved(image), WORKING_SIDE_PX)
    luma = pixels.astype(np.float32) @ _LUMA  # (H, W) of 0 to 255
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return PhotoQuality(
        sharpness=float(laplacian.var()),
        brightness=float(luma.mean()) / 255,
        contrast=float(luma.std()) / 255,
        dark=float((luma < DARK * 255).mean()),
        bright=float((luma > BRIGHT * 255).mean()),
        colors=_count_colors(pixels),
    )


def _halved(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Large photos shrunk by a whole factor first: 12 megapixels in 45 ms of a core instead of 70."""
    factor = min(image.shape[:2]) // (2 * WORKING_SIDE_PX)
    return image if factor < 2 else np.asarray(Image.fromarray(image).reduce(factor))


def _count_colors(pixels: npt.NDArray[np.uint8]) -> int:
    steps = (np.arange(256) * (_COLOR_STEPS - 1) // max(int(pixels.max()), 1)).astype(np.uint16)
    red, green, blue = np.moveaxis(steps[pixels], 2, 0)
    codes = (red * np.uint16(_COLOR_STEPS) + green) * np.uint16(_COLOR_STEPS) + blue  # (H, W), below 2**15
    return int(np.count_nonzero(np.bincount(codes.ravel())))
