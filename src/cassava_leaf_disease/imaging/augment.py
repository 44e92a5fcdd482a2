"""Random changes of training photos, on Albumentations 2.0.8; no other module imports it."""

import os
import random
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cassava_leaf_disease.imaging.preprocess import IMAGENET_MEAN

if TYPE_CHECKING:
    from cassava_leaf_disease.config.schema import AugmentConfig

# Blur, noise and erased rectangles are drawn between this share of their largest strength and all of it:
# below, they would change nothing.
LOWEST_SHARE: Final = 0.1
ERASED_RGB: Final = tuple(round(255 * value) for value in IMAGENET_MEAN)  # about 0 after normalisation


class Augmentation:
    """A photo of any size and a seed to a changed one of the network's size.

    The result depends on (image, seed) alone, not on earlier calls nor on the process. Pickling carries
    the configuration; each process builds its own pipeline on first use and keeps OpenCV there to one
    thread, for loader processes share the cores already. One object serves one thread at a time.
    """

    def __init__(self, config: "AugmentConfig") -> None:
        self.config = config

    def __reduce__(self) -> tuple[type["Augmentation"], tuple["AugmentConfig"]]:
        return type(self), (self.config,)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """(H, W, 3) uint8 to (S, S, 3) uint8, C-contiguous; `image` is left as it is; `seed` is 0 or more."""
        pipeline = self._pipeline
        # One pair of generators for all transforms: `set_random_seed` would start each of them alike, so
        # that both flips, drawing the same first number, always came together (and takes 89 us, not 11).
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311
        pixels = np.asarray(image)  # a memmap's slices would stay memmaps
        changed: np.ndarray = pipeline(image=pixels)["image"]
        if np.may_share_memory(changed, pixels):
            return changed.copy()
        return np.ascontiguousarray(changed)

    @cached_property
    def _pipeline(self) -> Any:  # noqa: ANN401  # Albumentations is untyped
        import cv2

        cv2.setNumThreads(0)
        return _compose(self.config)


def build_augmentation(config: "AugmentConfig") -> Augmentation:
    """The augmentation of one configuration; `config.mix` is for batches and plays no part here."""
    return Augmentation(config)


def _compose(config: "AugmentConfig") -> Any:  # noqa: ANN401
    """Geometry, then colour, then what a camera does: blur, noise, JPEG; rectangles last.

    A transform of probability 0 is left out.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks PyPI for a newer version when imported
    import albumentations as al
    import cv2

    def upto(largest: float) -> tuple[float, float]:
        return LOWEST_SHARE * largest, largest

    class RgbCompression(al.ImageCompression):  # type: ignore[misc]
        """Albumentations 2.0.8 hands its RGB pixels to OpenCV as BGR: red got blue's share of the luma."""

        def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:  # noqa: ANN401
            changed: np.ndarray = super().apply(np.ascontiguousarray(img[..., ::-1]), *args, **params)
            return np.ascontiguousarray(changed[..., ::-1])

    color, sides = config.color, upto(config.erase.side_max)
    crop = al.RandomResizedCrop(
        size=(config.image_size, config.image_size),
        scale=config.crop.scale,
        ratio=config.crop.ratio,
        interpolation=cv2.INTER_LINEAR,
        area_for_downscale="image",  # antialiased; 0.33 ms instead of 0.09 at 224 px
        p=1.0,
    )
    optional = (
        al.HorizontalFlip(p=config.hflip_p),
        al.VerticalFlip(p=config.vflip_p),
        al.Transpose(p=config.transpose_p),  # with both flips: all eight symmetries of the square
        al.Rotate(
            limit=config.rotate.limit_degrees,
            interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_REFLECT_101,
            p=config.rotate.p,
        ),
        al.ColorJitter(
            brightness=color.brightness,
            contrast=color.contrast,
            saturation=color.saturation,
            hue=color.hue,
            p=color.p,
        ),
        al.GaussianBlur(blur_limit=0, sigma_limit=upto(config.blur.sigma_max_px), p=config.blur.p),
        al.GaussNoise(std_range=upto(config.noise.std_max), p=config.noise.p),
        RgbCompression(compression_type="jpeg", quality_range=(config.jpeg.quality_min, 100), p=config.jpeg.p),
        al.CoarseDropout(
            num_holes_range=(1, config.erase.holes_max),
            hole_height_range=sides,
            hole_width_range=sides,
            fill=ERASED_RGB,
            p=config.erase.p,
        ),
    )
    return al.Compose([crop, *(transform for transform in optional if transform.p > 0)], strict=True)
