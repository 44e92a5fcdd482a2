"""Copies are found whatever was done to them, and photos that only have close hashes are not."""

import io
import logging
from collections.abc import Callable
from typing import Any

import imagehash
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from cassava_leaf_disease.data import perceptual
from cassava_leaf_disease.data.keypoints import agreeing_points
from cassava_leaf_disease.data.perceptual import (
    HASH_SIDE_PX,
    SYMMETRIES,
    Alike,
    Look,
    find_alike,
    has_black_corners,
    look_at,
)
from cassava_leaf_disease.data.synthetic import draw_leaf

Pixels = npt.NDArray[np.uint8]

_SIZE_PX = 320


def leaf(seed: int) -> Image.Image:
    return Image.fromarray(draw_leaf(seed, seed % 5, _SIZE_PX)).resize((400, 300))


def scene(seed: int) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((512, 384), Image.Resampling.BICUBIC))


def alike(*images: Image.Image | Pixels, distance: int = 10) -> list[Alike]:
    pixels = [np.asarray(image) for image in images]
    return find_alike([look_at(image) for image in pixels], distance, lambda index: pixels[index])


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    dx, dy = round(width * share / 2), round(height * share / 2)
    return image.crop((dx, dy, width - dx, height - dy))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: as_jpeg(image, 20),
        lambda image: image.resize((200, 150)),
        lambda image: image.resize((640, 640)),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.6),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["recompressed", "smaller", "squeezed", "blurred", "darker", "grey"],
)
def test_a_changed_copy_is_found_among_others(change: Callable[[Image.Image], Image.Image]) -> None:
    originals = [leaf(seed) for seed in range(12)]

    (pair,) = alike(*originals, change(originals[4]))

    assert (pair.first, pair.second, pair.symmetry) == (4, 12, "none")
    assert pair.correlation > 0.95
    assert pair.points is None


@pytest.mark.parametrize("symmetry", range(len(SYMMETRIES)), ids=[name for name, _ in SYMMETRIES])
def test_a_turned_or_mirrored_copy_is_found_with_what_was_done(symmetry: int) -> None:
    original = leaf(1)
    name, turn = SYMMETRIES[symmetry]
    copy = as_jpeg(original if turn is None else original.transpose(turn), 50)

    (pair,) = alike(copy, original)

    assert (pair.symmetry, pair.points) == (name, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: cropped(image, 0.05),
        lambda image: image.rotate(2, Image.Resampling.BILINEAR),
        lambda image: cropped(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.05),
    ],
    ids=["cropped", "rotated a little", "mirrored and cropped"],
)
def test_a_cropped_or_slightly_rotated_copy_is_found_by_its_points(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    original = Image.fromarray(scene(0))

    (pair,) = alike(original, change(original), distance=16)

    assert pair.points is not None
    assert pair.points >= perceptual.MIN_POINTS


def test_clear_copies_come_before_those_that_points_decided() -> None:
    original = Image.fromarray(scene(0))

    pairs = alike(original, cropped(original, 0.05), as_jpeg(original, 40), distance=16)

    assert (pairs[0].first, pairs[0].second) == (0, 2)
    assert [pair.points is None for pair in pairs] == [True, False, False]


def test_different_leaves_are_not_alike_however_close_their_hashes() -> None:
    assert alike(*[leaf(seed) for seed in range(40)], distance=16) == []


def test_photos_with_black_corners_are_not_alike_for_that() -> None:
    rotated = [
        leaf(seed).resize((500, 500)).rotate(12, Image.Resampling.BILINEAR).resize((400, 300)) for seed in range(30)
    ]

    assert alike(*rotated, distance=14) == []


def test_blank_photos_are_like_nothing() -> None:
    dark, darker = (np.full((80, 80, 3), value, np.uint8) for value in (9, 0))

    assert look_at(dark).blank
    assert not look_at(np.asarray(leaf(0))).blank
    assert alike(dark, darker, dark) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_photos_have_no_pairs(count: int) -> None:
    assert alike(*[leaf(0)] * count) == []


def test_hashes_are_those_of_imagehash() -> None:
    square = np.asarray(leaf(3).convert("L").resize((HASH_SIDE_PX, HASH_SIDE_PX)))
    rgb = np.repeat(square[..., None], 3, axis=2).repeat(2, axis=0).repeat(2, axis=1)  # so that no resizing blurs it

    hashes = look_at(rgb).hashes

    for value, (_, turn) in zip(hashes, SYMMETRIES, strict=True):
        image = Image.fromarray(square)
        expected = imagehash.phash(image if turn is None else image.transpose(turn)).hash
        assert np.unpackbits(value.reshape(1).view(np.uint8)).astype(bool).tolist() == expected.ravel().tolist()


def test_every_pair_of_many_photos_is_compared() -> None:
    """More photos than one tile holds, so that rows and columns of different tiles meet."""
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 256, (600, 64, 64), np.uint8)
    hashes = rng.integers(0, 2**64, (600, 8), np.uint64)
    planted = [(3, 599), (0, 1), (250, 251), (100, 400)]
    for number, (first, second) in enumerate(planted):
        hashes[second, 2 * (number % 2)] = hashes[first, 0] ^ np.uint64(0b101)  # as it is, or flipped
        thumbnails[second] = thumbnails[first] if number % 2 == 0 else thumbnails[first][::-1]
    looks = [Look(*pair) for pair in zip(hashes, thumbnails, strict=True)]

    found = find_alike(looks, 6, lambda _: np.zeros((8, 8, 3), np.uint8))

    assert sorted((pair.first, pair.second) for pair in found) == sorted(planted)
    assert {pair.distance for pair in found} == {2}
    assert {pair.first: pair.symmetry for pair in found} == {3: "none", 0: "flipped", 250: "none", 100: "flipped"}


def test_too_many_unclear_candidates_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(perceptual, "MAX_POINT_PAIRS", 1)
    rng = np.random.default_rng(0)
    hashes = np.zeros(8, np.uint64)
    looks = [Look(hashes, rng.integers(0, 256, (64, 64), np.uint8)) for _ in range(3)]
    asked: list[int] = []

    def read_photo(index: int) -> Pixels:
        asked.append(index)
        return np.zeros((40, 40, 3), np.uint8)

    with caplog.at_level(logging.WARNING):
        assert find_alike(looks, 7, read_photo) == []

    assert len(asked) == 2
    assert "3 pairs have close hashes and different thumbnails; the points of the closest 1 are compared" in caplog.text
    assert "smaller check_data.near_distance than 7" in caplog.text


def test_black_corners_need_all_four() -> None:
    photo = leaf(2).resize((500, 500))
    rotated = np.array(photo.rotate(10, Image.Resampling.BILINEAR))

    assert has_black_corners(rotated)
    assert has_black_corners(np.zeros((3, 3, 3), np.uint8))
    rotated[:20, :20] = 120
    assert not has_black_corners(rotated)
    assert not has_black_corners(np.full((50, 50, 3), 90, np.uint8))


def test_points_of_a_sheared_and_rotated_copy_agree() -> None:
    image = Image.fromarray(scene(0))
    sheared = image.transform(image.size, Image.Transform.AFFINE, (1, 0.1, 0, 0.05, 1, 0)).rotate(9)

    assert agreeing_points(scene(0), np.asarray(sheared)) > 100
    assert agreeing_points(scene(0), scene(0)[::2, ::2]) > 50


@pytest.mark.parametrize(
    "other",
    [
        lambda: scene(1),
        lambda: scene(0)[:, ::-1],
        lambda: np.zeros((384, 512, 3), np.uint8),
        lambda: np.zeros((1, 1, 3), np.uint8),
        lambda: np.asarray(Image.fromarray(scene(0)).resize((512, 60))),
    ],
    ids=["another scene", "mirrored", "black", "a pixel", "crushed"],
)
def test_points_of_other_pictures_do_not_agree(other: Callable[[], Any]) -> None:
    assert agreeing_points(scene(0), other()) < perceptual.MIN_POINTS
    assert agreeing_points(other(), scene(0)) < perceptual.MIN_POINTS


def test_points_on_one_line_give_no_map() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[95:105, 20::40] = 255

    assert agreeing_points(stripes, stripes) < perceptual.MIN_POINTS
