"""The network's input size, and the random changes of training photos."""

from typing import Self

from pydantic import Field, model_validator

from cassava_leaf_disease.config.schema.base import Fraction, Probability, Section


class CropConfig(Section):
    """Random resized crop: area fraction and aspect ratio (width to height)."""

    scale: tuple[Fraction, Fraction]
    ratio: tuple[float, float]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                msg = f"augment.crop.{name}=[{low},{high}]: expected two rising numbers above 0"
                raise ValueError(msg)
        return self


class ColorConfig(Section):
    """Colour jitter: largest relative change of each property (hue: fraction of the circle)."""

    p: Probability
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, le=1)
    saturation: float = Field(ge=0, le=1)
    hue: float = Field(ge=0, le=0.5)


class RotateConfig(Section):
    """Rotation by up to `limit_degrees` either way; the border mirrors the photo."""

    p: Probability
    limit_degrees: float = Field(ge=0, le=180)


class BlurConfig(Section):
    """Gaussian blur; the largest standard deviation in pixels of the network's input, drawn from a tenth of it up."""

    p: Probability
    sigma_max_px: float = Field(gt=0, le=10)


class NoiseConfig(Section):
    """Gaussian noise; the largest standard deviation as a fraction of full scale, drawn from a tenth of it up."""

    p: Probability
    std_max: float = Field(gt=0, le=0.5)


class JpegConfig(Section):
    """JPEG artefacts; qualities from `quality_min` to 100."""

    p: Probability
    quality_min: int = Field(ge=5, le=100)


class EraseConfig(Section):
    """Rectangles replaced by ImageNet's mean colour.

    At most `holes_max` of them; width and height are drawn apart, from a tenth of `side_max` up, as
    fractions of the image.
    """

    p: Probability
    holes_max: int = Field(ge=1, le=32)
    side_max: float = Field(gt=0, le=0.5)


class MixConfig(Section):
    """MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019) on batches; alpha 0 switches one off.

    `p` is the fraction of batches that are mixed; where both are on, each batch takes one of them.
    """

    p: Probability
    mixup_alpha: float = Field(ge=0, le=10)
    cutmix_alpha: float = Field(ge=0, le=10)


class AugmentConfig(Section):
    """The network's input size and the random changes of training photos.

    `eval_size` is the input size of validation, test and inference (null: `image_size`). Random crops enlarge what
    they show, so a somewhat larger photo shows a trained network leaves of the size it knows (Touvron et al., 2019,
    "Fixing the train-test resolution discrepancy").
    """

    name: str
    image_size: int = Field(ge=32, le=1024)
    eval_size: int | None = Field(default=None, ge=32, le=1024, description="a whole number from 32 to 1024, or null")
    crop_ratio: float = Field(gt=0.5, le=1)
    crop: CropConfig
    hflip_p: Probability
    vflip_p: Probability
    transpose_p: Probability
    rotate: RotateConfig
    color: ColorConfig
    blur: BlurConfig
    noise: NoiseConfig
    jpeg: JpegConfig
    erase: EraseConfig
    mix: MixConfig
