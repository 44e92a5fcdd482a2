"""What a network is given: the one preprocessing for evaluation, seeded changes for training."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data import datasets
from cassava_leaf_disease.data.cache import PhotoCache
from cassava_leaf_disease.data.datasets import (
    DecodedPhotos,
    EvalDataset,
    PhotoSource,
    SyntheticPhotos,
    TrainDataset,
)
from cassava_leaf_disease.data.synthetic import draw_leaf, write_synthetic_dataset
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.imaging.augment import build_augmentation
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize, preprocess, to_network_size


def sources(photos: tuple[LabeledPhoto, ...], spec: Preprocessing, cache_dir: Path) -> list[PhotoSource]:
    side_px = spec.resize_side_px
    return [
        DecodedPhotos(photos, side_px, enlarge=True),
        PhotoCache(cache_dir, side_px, enlarge=True).images(photos),
    ]


@pytest.mark.parametrize(("size_px", "crop_ratio"), [(224, 1.0), (224, 0.875), (380, 1.0), (512, 0.9)])
def test_evaluation_sees_real_photos_as_preprocess_does(
    shared_data: Path, tmp_path: Path, size_px: int, crop_ratio: float
) -> None:
    photos = read_kaggle(shared_data / "cassava")[::250]
    assert_preprocessed(photos, Preprocessing(image_size_px=size_px, crop_ratio=crop_ratio), tmp_path)


@pytest.mark.parametrize("size_px", [32, 64, 100])
def test_evaluation_sees_photos_of_any_shape_as_preprocess_does(tmp_path: Path, size_px: int) -> None:
    write_synthetic_dataset(tmp_path / "data", 5, 64, seed=1)
    photos = read_kaggle(tmp_path / "data")
    for photo, size in zip(photos, [(61, 90), (333, 77), (20, 31), (64, 64)], strict=False):
        Image.fromarray(draw_leaf(1, 0, 400)).resize(size).save(photo.path)
    assert_preprocessed(photos, Preprocessing(image_size_px=size_px, crop_ratio=0.9), tmp_path)


def assert_preprocessed(photos: tuple[LabeledPhoto, ...], spec: Preprocessing, cache_dir: Path) -> None:
    labels = [photo.label for photo in photos]
    for source in sources(photos, spec, cache_dir):
        dataset = EvalDataset(source, labels, spec)
        assert len(dataset) == len(photos)
        for index, photo in enumerate(photos):
            pixels, label = dataset[index]
            assert label == photo.label
            assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, spec.image_size_px, spec.image_size_px))
            original = read_image(photo.path)
            image = pixels.numpy().transpose(1, 2, 0)
            assert np.array_equal(image, to_network_size(original, spec))
            assert np.array_equal(normalize(image[None], spec)[0], preprocess(original, spec))


def test_training_pixels_are_the_same_with_the_cache_and_without(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "data", 6, 90, seed=1)
    photos = read_kaggle(tmp_path / "data")
    labels = [photo.label for photo in photos]
    augmentation = build_augmentation(load_config(["augment=strong", "augment.image_size=64"]).augment)
    decoded = TrainDataset(DecodedPhotos(photos, 80, enlarge=False), labels, augmentation)
    cached = TrainDataset(PhotoCache(tmp_path, 80, enlarge=False).images(photos), labels, augmentation)
    assert len(decoded) == len(cached) == 6
    for index in range(6):
        for seed in (0, 2**32 - 1):
            pixels, label = cached[index, seed]
            assert torch.equal(pixels, decoded[index, seed][0])
            assert label == labels[index]
            assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 64, 64))
    assert not torch.equal(cached[0, 1][0], cached[0, 2][0])


def test_decoding_honours_its_limits(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "data", 5, 64, seed=1)
    photos = read_kaggle(tmp_path / "data")
    with pytest.raises(Exception, match="64x64"):
        DecodedPhotos(photos, 32, enlarge=True, limits=DecodeLimits(max_pixels=100)).image(0)


def test_labels_and_photos_must_be_as_many(tmp_path: Path) -> None:
    source = SyntheticPhotos([0, 1, 2], 0, 32)
    with pytest.raises(ValueError, match="2 labels for 3 photos"):
        EvalDataset(source, [0, 1], Preprocessing(image_size_px=32))


def test_synthetic_pictures_depend_on_seed_index_and_label() -> None:
    source = SyntheticPhotos([0, 3, 4], 5, 32, first_index=10)
    assert len(source) == 3
    assert np.array_equal(source.image(1), draw_leaf((5 << 32) + 11, 3, 32))
    shifted = SyntheticPhotos([3, 4], 5, 32, first_index=11)
    assert np.array_equal(shifted.image(0), source.image(1))


def test_synthetic_pictures_are_kept_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "KEPT_BYTES", 2 * 32 * 32 * 3)
    source = SyntheticPhotos([0, 1, 2], 0, 32)
    first = [source.image(index) for index in range(3)]
    again = [source.image(index) for index in range(3)]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    assert np.array_equal(first[2], again[2])
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert len(pickle.dumps(source)) < 1000
    assert np.array_equal(copy.image(0), first[0])
