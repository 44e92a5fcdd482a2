"""The batch augmentation against the CPU's: each transform exactly, all of them in distribution."""

import io
from collections.abc import Callable

import albumentations as al
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d
from albumentations.augmentations.pixel import functional as pixelwise
from PIL import Image
from torch import Tensor

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AugmentConfig
from cassava_leaf_disease.data.device import camera, color, geometry
from cassava_leaf_disease.data.device.augment import BatchAugmentation
from cassava_leaf_disease.data.device.draws import draw, draw_crops, draw_holes
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.imaging.augment import ERASED_RGB, Augmentation

Pixels = npt.NDArray[np.uint8]

OFF = (
    "augment.image_size=64",
    "augment.crop.scale=[1.0,1.0]",
    "augment.crop.ratio=[1.0,1.0]",
    *(f"augment.{name}=0" for name in ("hflip_p", "vflip_p", "transpose_p", "color.p", "rotate.p")),
    *(f"augment.{name}.p=0" for name in ("blur", "noise", "jpeg", "erase")),
)


def augment_config(*overrides: str) -> AugmentConfig:
    return load_config([*OFF, *overrides]).augment


@pytest.fixture(scope="module")
def leaf() -> Pixels:
    return draw_leaf(5, 3, 96)


def as_batch(image: Pixels, count: int = 1) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).expand(count, -1, -1, -1)


def as_image(batch: Tensor) -> npt.NDArray[np.float32]:
    image: npt.NDArray[np.float32] = batch[0].permute(1, 2, 0).numpy()
    return image


def difference(batch: Tensor, expected: npt.NDArray[np.generic]) -> float:
    return float(np.abs(as_image(batch) - expected.astype(np.float32)).max())


class TestCropAndResize:
    @pytest.mark.parametrize(
        ("box", "interpolation"),
        [
            ((5, 9, 80, 72), cv2.INTER_AREA),
            ((0, 0, 96, 96), cv2.INTER_AREA),
            ((10, 20, 40, 30), cv2.INTER_LINEAR),
            ((7, 3, 64, 64), cv2.INTER_LINEAR),
        ],
    )
    def test_gives_what_opencv_gives(self, leaf: Pixels, box: tuple[int, ...], interpolation: int) -> None:
        top, left, height, width = box
        expected = cv2.resize(leaf[top : top + height, left : left + width], (64, 64), interpolation=interpolation)
        crop = torch.tensor([box]).float()
        changed = geometry.crop_and_resize(as_batch(leaf).float(), crop, torch.zeros(1, 3), 64)
        assert difference(changed, expected) < 1.0

    @pytest.mark.parametrize(
        ("flips", "change"),
        [
            ((1, 0, 0), lambda image: image[:, ::-1]),
            ((0, 1, 0), lambda image: image[::-1]),
            ((0, 0, 1), lambda image: image.transpose(1, 0, 2)),
            ((1, 0, 1), lambda image: image[:, ::-1].transpose(1, 0, 2)),
        ],
    )
    def test_flips_then_transposes(
        self, leaf: Pixels, flips: tuple[int, ...], change: Callable[[Pixels], Pixels]
    ) -> None:
        crop = torch.tensor([[0.0, 0.0, 96.0, 96.0]])
        changed = geometry.crop_and_resize(as_batch(leaf).float(), crop, torch.tensor([flips]).float(), 96)
        assert difference(changed, change(leaf)) < 1e-3

    def test_pixels_beyond_the_photo_are_never_seen(self, leaf: Pixels) -> None:
        canvas = np.full((120, 130, 3), 255, np.uint8)
        canvas[:96, :96] = leaf
        crop = torch.tensor([[16.0, 20.0, 80.0, 76.0]])
        small, large = (
            geometry.crop_and_resize(as_batch(image).float(), crop, torch.zeros(1, 3), 64) for image in (leaf, canvas)
        )
        assert torch.allclose(small, large, atol=1e-3)


def test_rotation_gives_what_opencv_gives(leaf: Pixels) -> None:
    rotate = al.Rotate(limit=(17, 17), interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REFLECT_101, p=1)
    expected = rotate(image=leaf)["image"]
    assert difference(geometry.rotate(as_batch(leaf).float(), torch.tensor([17.0])), expected) < 1.0


class TestColor:
    @pytest.mark.parametrize(
        ("index", "function", "tolerance"),
        [
            (0, pixelwise.adjust_brightness_torchvision, 1),
            (1, pixelwise.adjust_contrast_torchvision, 1),
            (2, pixelwise.adjust_saturation_torchvision, 1),
            (3, pixelwise.adjust_hue_torchvision, 8),  # OpenCV keeps hue in steps of two degrees
        ],
    )
    def test_gives_what_albumentations_gives(
        self, leaf: Pixels, index: int, function: Callable[[Pixels, float], Pixels], tolerance: float
    ) -> None:
        values = torch.tensor([[1.2, 0.7, 1.4, 0.05]])
        changed = color.jitter(as_batch(leaf).float(), values, [index])
        assert difference(changed, function(leaf, float(values[0, index]))) < tolerance

    def test_keeps_to_the_order(self, leaf: Pixels) -> None:
        values = torch.tensor([[1.6, 0.4, 1.0, 0.0]])
        forth, back = (color.jitter(as_batch(leaf).float(), values, order) for order in ([0, 1], [1, 0]))
        assert (forth - back).abs().max() > 5

    def test_grey_pixels_stay_grey_when_the_hue_turns(self) -> None:
        grey = torch.full((1, 3, 4, 4), 77.0)
        assert torch.equal(color.jitter(grey, torch.tensor([[1.0, 1.0, 1.0, 0.3]]), [3]), grey)


class TestCamera:
    def test_blur_gives_what_albumentations_gives(self, leaf: Pixels) -> None:
        expected = pixelwise.separable_convolve(leaf, kernel=create_gaussian_kernel_1d(1.2))
        changed = camera.gaussian_blur(as_batch(leaf).float(), torch.tensor([1.2]), 1.5)
        assert difference(changed, expected) < 1.0

    @pytest.mark.parametrize("quality", [10, 40, 75, 95])
    def test_jpeg_gives_about_what_libjpeg_gives(self, leaf: Pixels, quality: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(leaf[:90, :90]).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(buffer)).astype(np.float32)
        changed = as_image(camera.jpeg_round_trip(as_batch(leaf[:90, :90]).float(), torch.tensor([quality])))
        lost = np.abs(expected - leaf[:90, :90]).mean()
        assert np.abs(changed - expected).mean() < max(0.35 * lost, 0.7)

    def test_noise_has_the_deviation_that_was_asked_for(self) -> None:
        grey = torch.full((2, 3, 128, 128), 128.0)
        noisy = camera.add_noise(grey, torch.tensor([0.02, 0.08]), torch.Generator().manual_seed(1))
        deviations = (noisy - grey).std(dim=(1, 2, 3)) / 255
        assert deviations.tolist() == pytest.approx([0.02, 0.08], rel=0.02)

    def test_holes_are_filled_and_nothing_else_changes(self, leaf: Pixels) -> None:
        holes = torch.tensor([[[10, 20, 30, 50], [0, 0, 0, 9]]])
        changed = as_image(camera.erase(as_batch(leaf).float(), holes))
        expected = leaf.copy()
        expected[10:30, 20:50] = ERASED_RGB
        assert np.array_equal(changed, expected)


class TestDraws:
    def test_crops_lie_inside_photos_of_any_shape(self) -> None:
        sizes = np.array([[60, 90], [90, 60], [64, 64], [40, 400]] * 200)
        crops = draw_crops(augment_config("augment.crop.scale=[0.2,1.0]").crop, sizes, np.random.default_rng(0))
        assert (crops[:, :2] >= 0).all()
        assert (crops[:, :2] + crops[:, 2:] <= sizes).all()
        assert (crops[:, 2:] >= 1).all()

    def test_a_photo_that_no_crop_fits_gives_its_centre(self) -> None:
        config = augment_config("augment.crop.scale=[1.0,1.0]", "augment.crop.ratio=[1.0,1.0]").crop
        crop = draw_crops(config, np.array([[50, 200]]), np.random.default_rng(0))
        assert crop.tolist() == [[0, 75, 50, 50]]

    def test_holes_lie_inside_and_number_one_at_least(self) -> None:
        config = augment_config("augment.erase.holes_max=3", "augment.erase.side_max=0.5").erase
        holes = draw_holes(config, 64, 500, np.random.default_rng(0))
        assert holes.min() >= 0
        assert holes.max() <= 64
        numbers = (holes[:, :, 2] > holes[:, :, 0]).sum(axis=1)
        assert set(numbers.tolist()) == {1, 2, 3}

    def test_a_strength_of_zero_is_left_out_of_the_order(self) -> None:
        config = augment_config("augment.color.p=1", "augment.color.hue=0", "augment.color.contrast=0")
        orders = {draw(config, np.array([[64, 64]]), np.random.default_rng(seed)).color_order for seed in range(20)}
        assert orders == {(0, 2), (2, 0)}


class TestSameDistribution:
    """Statistics of pictures, compared as Kolmogorov and Smirnov do, but for a quarter of a grey level.

    The CPU's pictures are whole numbers after each step, which moves a mean by less than that.
    """

    COUNT = 300

    @pytest.mark.parametrize(
        "overrides",
        [
            ("augment.crop.scale=[0.3,1.0]", "augment.crop.ratio=[0.75,1.3333]"),
            ("augment.hflip_p=0.5", "augment.vflip_p=0.3"),
            ("augment.transpose_p=0.4",),
            ("augment.rotate.p=0.7", "augment.rotate.limit_degrees=40"),
            ("augment.color.p=0.8", "augment.color.brightness=0.4", "augment.color.hue=0"),
            ("augment.color.p=1", "augment.color.saturation=0.6", "augment.color.hue=0.1"),
            ("augment.blur.p=0.6",),
            ("augment.noise.p=0.6", "augment.noise.std_max=0.1"),
            ("augment.jpeg.p=0.6", "augment.jpeg.quality_min=20"),
            ("augment.erase.p=0.7", "augment.erase.side_max=0.4"),
        ],
        ids=lambda overrides: overrides[0].partition("=")[0],
    )
    def test_as_on_the_cpu(self, leaf: Pixels, overrides: tuple[str, ...]) -> None:
        config = augment_config(*overrides)
        one_by_one = Augmentation(config)
        on_cpu = np.stack([one_by_one(leaf, seed) for seed in range(self.COUNT)]).astype(np.float32)
        batches = BatchAugmentation(config, torch.device("cpu"))
        sizes, rows = np.array([leaf.shape[:2]] * 30), torch.zeros(30, dtype=torch.int64)
        changed = [batches(as_batch(leaf), rows, sizes, (seed,)) for seed in range(self.COUNT // 30)]
        in_batches = torch.cat(changed).permute(0, 2, 3, 1).numpy()
        for name, statistic in STATISTICS.items():
            assert levy_distance(statistic(on_cpu), statistic(in_batches), within=0.25) < CRITICAL, name


STATISTICS: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    "mean": lambda images: images.mean(axis=(1, 2, 3)),
    "deviation": lambda images: images.std(axis=(1, 2, 3)),
    "red less blue": lambda images: (images[..., 0] - images[..., 2]).mean(axis=(1, 2)),
    "left less right": lambda images: images[:, :, :32].mean(axis=(1, 2, 3)) - images[:, :, 32:].mean(axis=(1, 2, 3)),
    "top less bottom": lambda images: images[:, :32].mean(axis=(1, 2, 3)) - images[:, 32:].mean(axis=(1, 2, 3)),
    "one corner": lambda images: images[:, :20, :20].mean(axis=(1, 2, 3)),
    "detail": lambda images: np.abs(np.diff(images, axis=2)).mean(axis=(1, 2, 3)),
}


CRITICAL = 1.95 * (2 / TestSameDistribution.COUNT) ** 0.5  # Kolmogorov and Smirnov's at a level of 0.001


def levy_distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], within: float) -> float:
    """The largest gap between two distribution functions, one of which may be moved by `within` either way."""
    places = np.concatenate([one, other])
    gaps = [
        share_up_to(first, places - within) - share_up_to(second, places)
        for first, second in ((one, other), (other, one))
    ]
    return float(max(gap.max() for gap in gaps))


def share_up_to(sample: npt.NDArray[np.float32], places: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.searchsorted(np.sort(sample), places, side="right") / len(sample)


class TestBatchAugmentation:
    def test_seed_and_photos_decide_alone(self, leaf: Pixels) -> None:
        augmentation = BatchAugmentation(load_config(["augment=strong", *OFF[:1]]).augment, torch.device("cpu"))
        sizes, rows = np.array([leaf.shape[:2]] * 8), torch.zeros(8, dtype=torch.int64)
        first, again, other = (augmentation(as_batch(leaf), rows, sizes, (seed, 7)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_values_stay_those_of_a_picture(self, leaf: Pixels) -> None:
        augmentation = BatchAugmentation(load_config(["augment=strong", *OFF[:1]]).augment, torch.device("cpu"))
        sizes, rows = np.array([leaf.shape[:2]] * 64), torch.zeros(64, dtype=torch.int64)
        changed = augmentation(as_batch(leaf), rows, sizes, (3,))
        assert changed.shape == (64, 3, 64, 64)
        assert changed.min() >= 0
        assert changed.max() <= 255.001
