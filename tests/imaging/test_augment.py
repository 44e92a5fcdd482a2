"""Every parameter of `augment=...`: that it takes effect, in the intended direction and range."""

import multiprocessing
import pickle
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.imaging.augment import ERASED_RGB, Augmentation, build_augmentation
from cassava_leaf_disease.imaging.decode import read_image

SIZE = 64
MEAN_GREY = np.full((SIZE, SIZE, 3), 128, np.uint8)

# Nothing but the exact resize of the whole, square image.
OFF = (
    f"augment.image_size={SIZE}",
    "augment.crop.scale=[1,1]",
    "augment.crop.ratio=[1,1]",
    *(f"augment.{name}_p=0" for name in ("hflip", "vflip", "transpose")),
    *(f"augment.{name}.p=0" for name in ("rotate", "color", "blur", "noise", "jpeg", "erase")),
)
NO_COLOR = tuple(f"augment.color.{name}=0" for name in ("brightness", "contrast", "saturation", "hue"))


@cache
def only(*overrides: str) -> Augmentation:
    """An augmentation with everything off but `overrides`, as `augment.KEY=VALUE` without the first word."""
    chosen = [f"augment.{override}" for override in overrides]
    return build_augmentation(load_config([*OFF, *NO_COLOR, *chosen]).augment)


def packaged(name: str, size: int = SIZE) -> Augmentation:
    return build_augmentation(load_config([f"augment={name}", f"augment.image_size={size}"]).augment)


def noise(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth() -> np.ndarray:
    """Leaf-like: soft, coloured, asymmetric."""
    return cv2.GaussianBlur(noise(), (0, 0), 3).astype(np.uint8)


def coordinates(side: int = 256) -> np.ndarray:
    """Red is x, green is y."""
    ramp = np.arange(side, dtype=np.uint8)
    return np.dstack([*np.meshgrid(ramp, ramp), np.zeros((side, side), np.uint8)])


def share_changed(augmentation: Augmentation, image: np.ndarray, seeds: int = 400) -> float:
    resized = only()(image, 0)
    return float(np.mean([not np.array_equal(augmentation(image, seed), resized) for seed in range(seeds)]))


class TestDeterminism:
    @pytest.mark.parametrize("name", ["basic", "strong"])
    def test_image_and_seed_decide_alone(self, name: str) -> None:
        augmentation, other = packaged(name), packaged(name)
        image = noise(80, 100)
        first = [augmentation(image, seed) for seed in range(40)]
        again = {seed: other(image, seed) for seed in reversed(range(40))}
        assert all(np.array_equal(first[seed], again[seed]) for seed in range(40))

    @pytest.mark.parametrize("name", ["basic", "strong"])
    def test_the_seed_changes_the_picture(self, name: str) -> None:
        augmentation, image = packaged(name), noise(80, 100)
        assert len({augmentation(image, seed).tobytes() for seed in range(60)}) == 60

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        augmentation, image = packaged("strong"), noise(80, 100)
        np.random.seed(1)  # noqa: NPY002
        first = [augmentation(image, seed) for seed in range(20)]
        drawn = np.random.random()  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        assert np.random.random() == drawn  # noqa: NPY002
        cv2.setRNGSeed(99)
        assert all(np.array_equal(first[seed], augmentation(image, seed)) for seed in range(20))

    def test_another_process_draws_the_same(self) -> None:
        augmentation, image = packaged("strong"), noise(80, 100)
        here = [augmentation(image, seed) for seed in range(10)]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            there = pool.starmap(augmentation, [(image, seed) for seed in range(10)])
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(here, there, strict=True))

    def test_a_pickle_carries_the_configuration_alone(self) -> None:
        augmentation, image = packaged("strong"), noise()
        before = augmentation(image, 3)
        data = pickle.dumps(augmentation)
        assert len(data) < 5000
        assert np.array_equal(pickle.loads(data)(image, 3), before)  # noqa: S301

    def test_large_seeds_are_told_apart(self) -> None:
        augmentation, image = packaged("basic"), noise()
        assert not np.array_equal(augmentation(image, 2**63), augmentation(image, 2**63 + 1))


class TestOutput:
    @pytest.mark.parametrize("name", ["basic", "strong"])
    @pytest.mark.parametrize("shape", [(10, 8), (64, 64), (50, 200), (300, 400), (40, 1)])
    def test_has_the_networks_size_whatever_the_photos(self, name: str, shape: tuple[int, int]) -> None:
        augmentation = packaged(name)
        for seed in range(12):
            changed = augmentation(noise(*shape), seed)
            assert changed.shape == (SIZE, SIZE, 3)
            assert changed.dtype == np.uint8
            assert changed.flags.c_contiguous
            assert changed.flags.writeable

    def test_the_photo_itself_is_never_touched(self, tmp_path: Path) -> None:
        image = np.memmap(tmp_path / "cache", np.uint8, "w+", shape=(SIZE, SIZE, 3))
        image[:] = noise()
        image.flush()
        stored = np.memmap(tmp_path / "cache", np.uint8, "r", shape=(SIZE, SIZE, 3))
        for augmentation in (
            only(),
            packaged("strong"),
            only("hflip_p=1"),
            only("color.p=1", "color.hue=0.5"),
        ):
            for seed in range(10):
                changed = augmentation(stored, seed)
                assert type(changed) is np.ndarray
                changed[:] = 0
        assert np.array_equal(stored, noise())

    def test_with_everything_off_the_photo_stays(self) -> None:
        assert np.array_equal(only()(noise(), 5), noise())

    def test_a_transform_of_probability_0_is_left_out(self) -> None:
        def transforms(augmentation: Augmentation) -> list[str]:
            return [type(transform).__name__ for transform in augmentation._pipeline]

        geometry = ["RandomResizedCrop", "HorizontalFlip", "VerticalFlip"]
        assert transforms(only()) == geometry[:1]
        assert transforms(packaged("basic")) == [*geometry, "ColorJitter"]
        camera = ["GaussianBlur", "GaussNoise", "RgbCompression", "CoarseDropout"]
        assert transforms(packaged("strong")) == [*geometry, "Transpose", "Rotate", "ColorJitter", *camera]

    def test_shrinking_does_not_alias(self) -> None:
        lines = np.zeros((512, 512, 3), np.uint8)
        lines[:, ::8] = 255  # every output pixel covers one of them; a plain linear resize misses them all
        assert np.abs(only()(lines, 0).astype(float) - 255 / 8).max() <= 1

    def test_opencv_is_kept_to_one_thread(self) -> None:
        cv2.setNumThreads(2)
        packaged("basic")(noise(), 0)
        assert cv2.getNumThreads() == 1

    def test_real_photos_vary_and_stay_photos(self, shared_data: Path) -> None:
        augmentation = packaged("strong", 128)
        for path in sorted((shared_data / "cassava" / "train_images").glob("*.jpg"))[:4]:
            photo = read_image(path)
            views = np.stack([augmentation(photo, seed) for seed in range(16)]).astype(float)
            assert views.std(axis=0).mean() > 15
            assert np.abs(views.mean(axis=(1, 2, 3)) - photo.mean()).max() < 90
            assert views.std(axis=(1, 2, 3)).min() > 10


class TestCrop:
    def extents(self, *overrides: str, seeds: int = 150) -> np.ndarray:
        """Width and height of each crop as fractions of the image: (N, 2)."""
        image, augmentation = coordinates(), only(*overrides)
        views = (augmentation(image, seed).astype(float) for seed in range(seeds))
        scale = SIZE / (SIZE - 1) / 256  # from the centres of the outer pixels to their edges
        return np.array([[np.ptp(view[..., 0]) * scale, np.ptp(view[..., 1]) * scale] for view in views])

    @pytest.mark.parametrize(("low", "high"), [(0.3, 1.0), (0.5, 0.6), (0.1, 0.1)])
    def test_scale_is_the_share_of_the_area(self, low: float, high: float) -> None:
        areas = self.extents(f"crop.scale=[{low},{high}]").prod(axis=1)
        assert areas.min() >= low - 0.03
        assert areas.max() <= high + 0.03
        assert areas.max() - areas.min() >= 0.9 * (high - low) - 0.02

    def test_ratio_is_width_to_height(self) -> None:
        wide = self.extents("crop.scale=[0.3,0.3]", "crop.ratio=[1.5,2]")
        ratios = wide[:, 0] / wide[:, 1]
        assert ratios.min() >= 1.45
        assert ratios.max() <= 2.07
        assert np.ptp(ratios) > 0.4
        tall = self.extents("crop.scale=[0.3,0.3]", "crop.ratio=[0.5,0.5]")
        np.testing.assert_allclose(tall[:, 0] / tall[:, 1], 0.5, atol=0.03)

    def test_lies_anywhere(self) -> None:
        augmentation = only("crop.scale=[0.25,0.25]")
        corners = np.array([augmentation(coordinates(), seed)[0, 0, :2] for seed in range(200)])
        assert (corners.min(axis=0) < 6).all()
        assert (corners.max(axis=0) > 120).all()

    def test_image_size_is_the_networks(self) -> None:
        assert only("image_size=96")(noise(), 0).shape == (96, 96, 3)


class TestSymmetries:
    @pytest.mark.parametrize(
        ("key", "change"),
        [
            ("hflip_p", lambda image: image[:, ::-1]),
            ("vflip_p", lambda image: image[::-1]),
            ("transpose_p", lambda image: image.transpose(1, 0, 2)),
        ],
    )
    def test_each_does_its_own(self, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        assert np.array_equal(only(f"{key}=1")(noise(), 0), change(noise()))
        assert abs(share_changed(only(f"{key}=0.25"), noise()) - 0.25) < 0.07

    def test_together_they_give_all_eight_alike_often(self) -> None:
        augmentation = only("hflip_p=0.5", "vflip_p=0.5", "transpose_p=0.5")
        seen = Counter(augmentation(noise(), seed).tobytes() for seed in range(800))
        assert len(seen) == 8
        assert min(seen.values()) > 60
        assert max(seen.values()) < 145


class TestRotate:
    def test_turns_up_to_the_limit_either_way(self) -> None:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[30:34, 52:56] = 255  # right of the centre
        augmentation = only("rotate.p=1", "rotate.limit_degrees=30")
        angles = []
        for seed in range(150):
            y, x = np.argwhere(augmentation(image, seed)[..., 0] > 100).mean(axis=0) - (SIZE - 1) / 2
            angles.append(np.degrees(np.arctan2(y, x)))
        assert 27 < max(angles) < 31
        assert -31 < min(angles) < -27
        assert abs(np.mean(angles)) < 5

    def test_the_border_mirrors_the_photo(self) -> None:
        augmentation = only("rotate.p=1", "rotate.limit_degrees=45")
        for seed in range(20):
            assert augmentation(MEAN_GREY, seed).min() == 128

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("rotate.p=0.3"), noise()) - 0.3) < 0.07


class TestColor:
    def ranges(self, image: np.ndarray, measure: Callable[[np.ndarray], Any], *overrides: str) -> tuple[float, float]:
        augmentation = only("color.p=1", *overrides)
        values = [float(measure(augmentation(image, seed).astype(float))) for seed in range(200)]
        return min(values), max(values)

    def test_brightness_multiplies(self) -> None:
        low, high = self.ranges(MEAN_GREY, lambda view: view.mean() / 128, "color.brightness=0.3")
        assert 0.69 <= low <= 0.73
        assert 1.27 <= high <= 1.31

    def test_contrast_spreads_about_the_mean(self) -> None:
        image = np.full((SIZE, SIZE, 3), 100, np.uint8)
        image[:32] = 150
        low, high = self.ranges(image, lambda view: np.ptp(view) / 50, "color.contrast=0.4")
        assert 0.57 <= low <= 0.65
        assert 1.35 <= high <= 1.43
        low, high = self.ranges(image, np.mean, "color.contrast=0.4")
        assert abs(low - 125) < 1.5
        assert abs(high - 125) < 1.5

    def test_saturation_spreads_about_grey(self) -> None:
        image = np.full((SIZE, SIZE, 3), (150, 120, 100), np.uint8)
        low, high = self.ranges(image, lambda view: np.ptp(view[0, 0]) / 50, "color.saturation=0.5")
        assert 0.47 <= low <= 0.56
        assert 1.44 <= high <= 1.53

    def test_hue_turns_the_colour_circle(self) -> None:
        def turned(view: np.ndarray) -> float:
            hue = int(cv2.cvtColor(view.astype(np.uint8), cv2.COLOR_RGB2HSV)[0, 0, 0])  # 0..179
            return ((hue - 60 + 90) % 180 - 90) / 180

        image = np.full((SIZE, SIZE, 3), (40, 200, 40), np.uint8)  # green: 60 of 180
        low, high = self.ranges(image, turned, "color.hue=0.1")
        assert -0.106 <= low <= -0.09
        assert 0.09 <= high <= 0.106

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("color.p=0.4", "color.brightness=0.5"), noise()) - 0.4) < 0.07

    def test_strength_0_changes_nothing(self) -> None:
        assert share_changed(only("color.p=1"), noise(), seeds=20) == 0


class TestBlur:
    def test_sigma_stays_below_its_maximum(self) -> None:
        step = np.zeros((SIZE, SIZE, 3), np.uint8)
        step[:, 32:] = 255
        augmentation = only("blur.p=1", "blur.sigma_max_px=3")
        place, sigmas = np.arange(SIZE - 1), []
        for seed in range(100):
            slope = np.diff(augmentation(step, seed)[32, :, 0].astype(float)) / 255
            sigmas.append(np.sqrt((slope * (place - (slope * place).sum()) ** 2).sum()))
        assert 2.7 < max(sigmas) < 3.1
        assert min(sigmas) < 0.7

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("blur.p=0.3", "blur.sigma_max_px=10"), noise()) - 0.3) < 0.07


class TestNoise:
    def test_deviation_stays_below_its_maximum(self) -> None:
        augmentation = only("noise.p=1", "noise.std_max=0.1")
        residuals = [augmentation(MEAN_GREY, seed).astype(float) - 128 for seed in range(100)]
        deviations = [residual.std() / 255 for residual in residuals]
        assert 0.09 < max(deviations) < 0.104
        assert 0.008 < min(deviations) < 0.03
        assert abs(np.mean(residuals)) < 0.6
        correlation = np.corrcoef(residuals[0][..., 0].ravel(), residuals[0][..., 1].ravel())[0, 1]
        assert abs(correlation) < 0.1

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("noise.p=0.3"), MEAN_GREY) - 0.3) < 0.07


class TestJpeg:
    @staticmethod
    def error(view: np.ndarray) -> float:
        return float(np.abs(view.astype(float) - smooth()).mean())

    def test_quality_stays_above_its_minimum(self) -> None:
        def at(quality: int) -> float:
            coded = cv2.imencode(".jpg", smooth(), (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
            return self.error(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)))

        for minimum in (10, 60):
            augmentation = only("jpeg.p=1", f"jpeg.quality_min={minimum}")
            errors = [self.error(augmentation(smooth(), seed)) for seed in range(150)]
            assert 0.85 * at(minimum) < max(errors) <= 1.001 * at(minimum)
            assert min(errors) < 1.3 * at(100)

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("jpeg.p=0.3", "jpeg.quality_min=20"), smooth()) - 0.3) < 0.07


class TestErase:
    def erased(self, *overrides: str, seeds: int = 150, size: int = SIZE) -> list[np.ndarray]:
        """The rectangles of each seed: (number, 2), their widths and heights as fractions."""
        augmentation, found = only(f"image_size={size}", "erase.p=1", *overrides), []
        for seed in range(seeds):
            mask = (augmentation(np.zeros((size, size, 3), np.uint8), seed) == ERASED_RGB).all(axis=2)
            boxes = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, 2:4]
            found.append(boxes / size)
        return found

    def test_one_rectangle_stays_below_the_largest_side(self) -> None:
        boxes = self.erased("erase.holes_max=1", "erase.side_max=0.5")
        assert {len(each) for each in boxes} == {1}
        sides = np.concatenate(boxes)
        assert 0.45 < sides.max() <= 0.5
        assert 0 < sides.min() < 0.12

    def test_their_number_stays_below_its_maximum(self) -> None:
        numbers = Counter(
            len(each) for each in self.erased("erase.holes_max=4", "erase.side_max=0.05", seeds=300, size=256)
        )
        assert set(numbers) == {1, 2, 3, 4}
        assert min(numbers[count] for count in (1, 2, 3)) > 40

    def test_the_fill_is_about_zero_for_the_network(self) -> None:
        view = only("erase.p=1")(np.zeros((SIZE, SIZE, 3), np.uint8), 0)
        assert {tuple(pixel) for pixel in view.reshape(-1, 3).tolist()} == {(0, 0, 0), ERASED_RGB}
        assert ERASED_RGB == (124, 116, 104)

    def test_p_is_how_often(self) -> None:
        assert abs(share_changed(only("erase.p=0.3"), noise()) - 0.3) < 0.07


def test_a_wrong_argument_name_would_be_an_error() -> None:
    """Albumentations only warns and goes on with its defaults; this suite makes warnings errors."""
    import albumentations

    with pytest.raises(UserWarning, match="'var_limit' are not valid for transform GaussNoise"):
        albumentations.GaussNoise(var_limit=(10, 50))
