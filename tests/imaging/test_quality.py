"""What is measured of a photo before anything else."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import ImageTooLargeError
from cassava_leaf_disease.imaging.quality import measure_quality


@pytest.fixture(scope="module")
def leaf() -> Image.Image:
    return Image.fromarray(draw_leaf(5, 3, 768))


def test_the_resolution_of_a_photo_hardly_matters(leaf: Image.Image) -> None:
    large, small = (measure_quality(np.asarray(leaf.resize((side, side)))) for side in (1600, 400))
    assert large.sharpness == pytest.approx(small.sharpness, rel=0.2)
    assert large.brightness == pytest.approx(small.brightness, abs=0.01)
    assert large.contrast == pytest.approx(small.contrast, abs=0.01)


def test_blur_takes_sharpness_and_leaves_brightness(leaf: Image.Image) -> None:
    sharp = measure_quality(np.asarray(leaf))
    soft = measure_quality(np.asarray(leaf.filter(ImageFilter.GaussianBlur(12))))
    assert soft.sharpness < sharp.sharpness / 10
    assert soft.brightness == pytest.approx(sharp.brightness, abs=0.02)


def test_black_and_white_pictures() -> None:
    black, white = (measure_quality(np.full((60, 90, 3), value, np.uint8)) for value in (0, 255))
    assert (black.brightness, black.dark, black.bright) == (0, 1, 0)
    assert (white.dark, white.bright) == (0, 1)
    assert white.brightness == pytest.approx(1)
    assert black.sharpness == white.sharpness == 0
    assert black.contrast == pytest.approx(0)
    assert (black.colors, white.colors) == (1, 1)


def test_colors_are_counted_up_to_the_brightest_value() -> None:
    ramp = np.repeat(np.arange(192, dtype=np.uint8)[None, :, None], 192, axis=0).repeat(3, axis=2)
    dim = ramp // 4
    assert measure_quality(ramp).colors == 32
    assert measure_quality(dim).colors == pytest.approx(32, abs=1)


def test_strips_are_refused() -> None:
    with pytest.raises(ImageTooLargeError):
        measure_quality(np.zeros((2, 400, 3), np.uint8))
