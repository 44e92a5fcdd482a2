"""What chance decides about a batch: the same recipes as `imaging/augment.py`, drawn for many photos at once."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AugmentConfig, CropConfig, EraseConfig
from cassava_leaf_disease.imaging.augment import LOWEST_SHARE

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CROP_ATTEMPTS: Final = 10  # Albumentations and torchvision give up after as many
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


@dataclass(frozen=True)
class Draws:
    """One row a photo; index arrays name the photos that a transform takes, its values follow their order.

    `crop` `(N, 4)`: top, left, height, width in pixels. `flips` `(N, 3)`: horizontal, vertical, and transposed
    after them, each 0 or 1. `color_values` `(n, 4)`: brightness, contrast and
    saturation factors and the hue's turn as a fraction of the circle, applied in `color_order`, which one
    batch shares. `holes` `(n, holes_max, 4)`: top, left, bottom, right as pixels of the network's input.
    """

    crop: Floats
    flips: Floats
    rotated: Integers
    angles_degrees: Floats
    colored: Integers
    color_values: Floats
    color_order: tuple[int, ...]
    blurred: Integers
    blur_sigmas_px: Floats
    noisy: Integers
    noise_stds: Floats
    compressed: Integers
    jpeg_qualities: Integers
    erased: Integers
    holes: Integers


def draw(config: AugmentConfig, sizes: Integers, rng: np.random.Generator) -> Draws:
    """Draws for photos of `sizes` `(N, 2)`: height and width in pixels."""
    count = len(sizes)
    color = config.color
    colored = _chosen(color.p, count, rng)
    spans = np.array([color.brightness, color.contrast, color.saturation, color.hue])
    values = rng.uniform(-spans, spans, (len(colored), 4)) + np.array([1.0, 1.0, 1.0, 0.0])
    active = [index for index in (BRIGHTNESS, CONTRAST, SATURATION, HUE) if spans[index] > 0]
    rotated = _chosen(config.rotate.p, count, rng)
    limit = config.rotate.limit_degrees
    blurred, noisy = _chosen(config.blur.p, count, rng), _chosen(config.noise.p, count, rng)
    compressed, erased = _chosen(config.jpeg.p, count, rng), _chosen(config.erase.p, count, rng)
    return Draws(
        crop=draw_crops(config.crop, sizes, rng),
        flips=(rng.random((count, 3)) < (config.hflip_p, config.vflip_p, config.transpose_p)).astype(np.float64),
        rotated=rotated,
        angles_degrees=rng.uniform(-limit, limit, len(rotated)),
        colored=colored,
        color_values=np.maximum(values, np.array([0.0, 0.0, 0.0, -0.5])),
        color_order=tuple(int(index) for index in rng.permutation(active)),
        blurred=blurred,
        blur_sigmas_px=_up_to(config.blur.sigma_max_px, len(blurred), rng),
        noisy=noisy,
        noise_stds=_up_to(config.noise.std_max, len(noisy), rng),
        compressed=compressed,
        jpeg_qualities=rng.integers(config.jpeg.quality_min, 100, len(compressed), endpoint=True),
        erased=erased,
        holes=draw_holes(config.erase, config.image_size, len(erased), rng),
    )


def draw_crops(config: CropConfig, sizes: Integers, rng: np.random.Generator) -> Floats:
    """Random resized crops (Szegedy et al., 2015) `(N, 4)`: top, left, height, width in whole pixels.

    Where no attempt fits into the photo it is the largest centre crop whose aspect ratio is allowed.
    """
    heights, widths = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    shape = (CROP_ATTEMPTS, len(sizes))
    areas = rng.uniform(*config.scale, shape) * heights * widths
    ratios = np.exp(rng.uniform(np.log(config.ratio[0]), np.log(config.ratio[1]), shape))
    tried_widths, tried_heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = (tried_widths > 0) & (tried_widths <= widths) & (tried_heights > 0) & (tried_heights <= heights)
    first = fits.argmax(axis=0), np.arange(len(sizes))
    found = fits[first]
    photo_ratios = np.clip(widths / heights, *config.ratio)
    crop_heights = np.where(found, tried_heights[first], np.minimum(heights, np.rint(widths / photo_ratios)))
    crop_widths = np.where(found, tried_widths[first], np.minimum(widths, np.rint(heights * photo_ratios)))
    free_rows, free_columns = heights - crop_heights, widths - crop_widths
    tops = np.where(found, np.floor(rng.random(len(sizes)) * (free_rows + 1)), free_rows // 2)
    lefts = np.where(found, np.floor(rng.random(len(sizes)) * (free_columns + 1)), free_columns // 2)
    return np.stack([tops, lefts, crop_heights, crop_widths], axis=1)


def draw_holes(config: EraseConfig, size_px: int, count: int, rng: np.random.Generator) -> Integers:
    """Rectangles `(count, holes_max, 4)`: top, left, bottom, right; those beyond the drawn number are empty."""
    shape = (count, config.holes_max)
    low, high = LOWEST_SHARE * config.side_max, config.side_max
    heights = (size_px * rng.uniform(low, high, shape)).astype(np.int64)
    widths = (size_px * rng.uniform(low, high, shape)).astype(np.int64)
    unused = np.arange(config.holes_max) >= rng.integers(1, config.holes_max, count, endpoint=True)[:, None]
    heights[unused] = 0
    tops = rng.integers(0, size_px - heights, endpoint=True)
    lefts = rng.integers(0, size_px - widths, endpoint=True)
    return np.stack([tops, lefts, tops + heights, lefts + widths], axis=2)


def _chosen(probability: float, count: int, rng: np.random.Generator) -> Integers:
    return np.flatnonzero(rng.random(count) < probability)


def _up_to(largest: float, count: int, rng: np.random.Generator) -> Floats:
    return rng.uniform(LOWEST_SHARE * largest, largest, count)
