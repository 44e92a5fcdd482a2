"""Drawn leaves: reproducible, varied, fast, and learnable by where the colour changes."""

import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cassava_leaf_disease.data.synthetic import balanced_labels, draw_leaf, write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.imaging.decode import read_image


@pytest.mark.parametrize("label", range(5))
@pytest.mark.parametrize("size_px", [32, 97])
def test_a_picture_depends_on_its_seed_label_and_size_only(label: int, size_px: int) -> None:
    picture = draw_leaf(123, label, size_px)
    assert picture.shape == (size_px, size_px, 3)
    assert picture.dtype == np.uint8
    np.random.default_rng(0).random(10)
    assert np.array_equal(draw_leaf(123, label, size_px), picture)
    assert not np.array_equal(draw_leaf(124, label, size_px), picture)
    assert not np.array_equal(draw_leaf(123, (label + 1) % 5, size_px), picture)


def test_pictures_are_varied_and_not_flat() -> None:
    pictures = np.stack([draw_leaf(seed, seed % 5, 48) for seed in range(50)])
    assert len({picture.tobytes() for picture in pictures}) == 50
    assert pictures.std(axis=(1, 2, 3)).min() > 8
    assert pictures.mean(axis=(1, 2)).std(axis=0).min() > 8  # exposure and colour differ between pictures


def test_the_mean_colour_alone_does_not_tell_the_class() -> None:
    labels = balanced_labels(400, seed=5)
    pictures = [draw_leaf(seed, int(label), 48) for seed, label in enumerate(labels)]
    colours = np.array([picture.mean(axis=(0, 1)) for picture in pictures]) / 255
    model = LogisticRegression(max_iter=1000, C=100).fit(colours[:300], labels[:300])
    assert model.score(colours[300:], labels[300:]) < 0.6


def test_drawing_does_not_starve_training() -> None:
    start = time.perf_counter()
    for seed in range(50):
        draw_leaf(seed, seed % 5, 96)
    assert 50 / (time.perf_counter() - start) > 60  # 600 on an idle core of the development machine


def test_labels_are_balanced_and_shuffled() -> None:
    labels = balanced_labels(102, seed=1)
    assert sorted(np.bincount(labels).tolist()) == [20, 20, 20, 21, 21]
    assert not np.array_equal(labels, balanced_labels(102, seed=2))
    assert labels.tolist() != sorted(labels.tolist())


def test_a_synthetic_data_set_has_the_kaggle_layout(tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "data", 10, 64, seed=3)
    photos = read_kaggle(tmp_path / "data")
    assert sorted(photo.label for photo in photos) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(read_image(photo.path).shape == (64, 64, 3) for photo in photos)
    write_synthetic_dataset(tmp_path / "again", 10, 64, seed=3)
    assert photos[0].path.read_bytes() == (tmp_path / "again/train_images" / photos[0].image_id).read_bytes()
