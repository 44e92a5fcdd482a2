"""The one preprocessing definition, held against torchvision and a plain statement of its formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.transforms import v2

from cassava_leaf_disease.errors import ImageTooLargeError
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.imaging.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    center_crop,
    normalize,
    preprocess,
    resize_shorter_side,
    resized_shape,
    to_network_size,
)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torchvision_resize(image: np.ndarray, side_px: int, dtype: torch.dtype) -> np.ndarray:
    tensor = torch.from_numpy(image).permute(2, 0, 1).to(dtype)
    height, width, _ = image.shape
    shape = list(resized_shape(height, width, side_px))
    resized = v2.functional.resize(tensor, shape, v2.InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(resized.permute(1, 2, 0).float().numpy())


class TestResize:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    @pytest.mark.parametrize(("height", "width", "side"), [(300, 401, 224), (97, 61, 128), (500, 500, 31)])
    def test_equals_torchvision_within_one_level(self, height: int, width: int, side: int, dtype: torch.dtype) -> None:
        image = noise(height, width)
        ours = resize_shorter_side(image, side).astype(float)
        assert np.abs(ours - torchvision_resize(image, side, dtype)).max() <= 1.0

    def test_equals_torchvision_on_real_photos(self, shared_data: Path) -> None:
        for path in sorted((shared_data / "cassava" / "train_images").glob("*.jpg"))[:3]:
            image = read_image(path)
            ours = resize_shorter_side(image, 224).astype(float)
            difference = np.abs(ours - torchvision_resize(image, 224, torch.uint8))
            assert difference.max() <= 1.0
            assert difference.mean() < 0.05

    @settings(max_examples=40, deadline=None)
    @given(height=st.integers(1, 90), width=st.integers(1, 90), side=st.integers(1, 60), enlarge=st.booleans())
    def test_keeps_the_shape_of_the_photo(self, height: int, width: int, side: int, enlarge: bool) -> None:
        shorter, longer = sorted((height, width))
        if longer > 50 * shorter:
            return
        resized = resize_shorter_side(noise(height, width), side, enlarge=enlarge)
        expected = side if enlarge or shorter > side else shorter
        assert min(resized.shape[:2]) == expected
        assert abs(max(resized.shape[:2]) - longer * expected / shorter) <= 0.5
        assert (resized.shape[0] - resized.shape[1]) * (height - width) >= 0
        assert resized.dtype == np.uint8

    @pytest.mark.parametrize(
        ("shape", "side", "expected"),
        [
            ((384, 512), 224, (224, 299)),
            ((512, 384), 224, (299, 224)),
            ((2, 3), 3, (3, 5)),
            ((7, 7), 3, (3, 3)),
        ],
    )
    def test_the_longer_side_is_rounded_halves_up(
        self, shape: tuple[int, int], side: int, expected: tuple[int, int]
    ) -> None:
        assert resized_shape(*shape, side) == expected

    def test_a_smaller_photo_is_left_alone_where_enlarging_is_off(self) -> None:
        image = noise(20, 30)
        assert resize_shorter_side(image, 40, enlarge=False) is image
        assert resize_shorter_side(image, 40).shape == (40, 60, 3)
        assert resize_shorter_side(image, 10, enlarge=False).shape == (10, 15, 3)

    def test_shrinking_does_not_alias(self) -> None:
        lines = np.zeros((256, 256, 3), np.uint8)
        lines[:, ::8] = 255  # a plain linear resize misses them all
        assert np.abs(resize_shorter_side(lines, 32)[:, 2:-2].astype(float) - 255 / 8).max() <= 5

    def test_a_strip_is_refused_before_it_fills_the_memory(self) -> None:
        strip = np.zeros((1, 60_000, 3), np.uint8)
        with pytest.raises(ImageTooLargeError, match="a strip of 60000x1 pixels; expected sides within a ratio of 50"):
            resize_shorter_side(strip, 224)


class TestCrop:
    @settings(max_examples=30, deadline=None)
    @given(height=st.integers(1, 40), width=st.integers(1, 40), data=st.data())
    def test_lies_in_the_middle(self, height: int, width: int, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, min(height, width)))
        image = noise(height, width)
        cut = center_crop(image, size)
        top, left = (height - size) // 2, (width - size) // 2
        assert np.array_equal(cut, image[top : top + size, left : left + size])
        assert cut.flags.c_contiguous

    def test_refuses_what_is_too_small(self) -> None:
        with pytest.raises(ValueError, match="cannot cut 11x11 pixels out of 30x10"):
            center_crop(noise(10, 30), 11)


class TestNetworkInput:
    @settings(max_examples=25, deadline=None)
    @given(
        height=st.integers(5, 80),
        width=st.integers(5, 80),
        size=st.integers(1, 48),
        ratio=st.floats(0.51, 1, allow_nan=False),
    )
    def test_every_photo_gets_the_networks_size(self, height: int, width: int, size: int, ratio: float) -> None:
        spec = Preprocessing(image_size_px=size, crop_ratio=ratio)
        assert to_network_size(noise(height, width), spec).shape == (size, size, 3)

    def test_the_crop_ratio_widens_the_view(self) -> None:
        image = noise(300, 300)
        assert Preprocessing(image_size_px=224, crop_ratio=0.875).resize_side_px == 256
        spec = Preprocessing(image_size_px=100, crop_ratio=0.5)
        assert np.array_equal(to_network_size(image, spec), resize_shorter_side(image, 200)[50:150, 50:150])

    def test_a_photo_resized_before_gives_the_same(self) -> None:
        spec, image = Preprocessing(image_size_px=64, crop_ratio=0.875), noise(150, 211)
        cached = resize_shorter_side(image, spec.resize_side_px)
        assert np.array_equal(to_network_size(cached, spec), to_network_size(image, spec))

    def test_normalises_as_the_formula_says(self) -> None:
        batch, spec = np.stack([noise(9, 7, seed) for seed in range(3)]), Preprocessing(image_size_px=7)
        plain = (batch / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        ours = normalize(batch, spec)
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous
        assert ours.shape == (3, 3, 9, 7)
        np.testing.assert_allclose(ours, plain.transpose(0, 3, 1, 2), atol=1e-6)

    def test_uses_the_mean_and_std_of_its_file(self) -> None:
        spec = Preprocessing(image_size_px=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
        white = normalize(np.full((1, 1, 1, 3), 255, np.uint8), spec)
        np.testing.assert_allclose(white.ravel(), [1, 1, 0], atol=1e-6)

    def test_equals_torchvisions_whole_pipeline(self) -> None:
        image = noise(300, 401)
        pipeline = v2.Compose(
            [
                v2.Resize([256, 342], antialias=True),
                v2.CenterCrop(224),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD)),
            ]
        )
        theirs = pipeline(torch.from_numpy(image).permute(2, 0, 1)).numpy()
        ours = preprocess(image, Preprocessing(image_size_px=224, crop_ratio=0.875))
        assert ours.shape == (3, 224, 224)
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() * min(IMAGENET_STD) <= 1.01 / 255

    def test_takes_a_read_only_view(self) -> None:
        image = noise(60, 80)
        image.flags.writeable = False
        spec = Preprocessing(image_size_px=32)
        assert np.array_equal(preprocess(image[:, ::-1], spec), preprocess(image[:, ::-1].copy(), spec))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), noise(0, 4)],
)
def test_what_is_no_rgb_image_is_a_clear_mistake(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected an image of \(H, W, 3\) uint8, got"):
        resize_shorter_side(image, 2)


@pytest.mark.parametrize("batch", [noise(4, 4), np.zeros((1, 3, 4, 4), np.uint8), np.zeros((1, 4, 4, 3))])
def test_what_is_no_batch_is_a_clear_mistake(batch: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a batch of \(N, H, W, 3\) uint8, got"):
        normalize(batch, Preprocessing(image_size_px=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size_px": 0},
        {"crop_ratio": 1.1},
        {"crop_ratio": 0},
        {"std": (1, 0, 1)},
        {"interpolation": "bicubic"},
        {"resize": "squash"},
        {"colour": "BGR"},
    ],
)
def test_a_description_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"image_size_px": 224, **wrong})


def test_the_description_survives_json() -> None:
    spec = Preprocessing(image_size_px=384, crop_ratio=0.9)
    assert Preprocessing.model_validate_json(spec.model_dump_json()) == spec
