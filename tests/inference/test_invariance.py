"""A photo gets one answer, whichever way it comes: as bytes, from its file, or from the cache."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.data.cache import PhotoCache
from cassava_leaf_disease.data.datasets import DecodedPhotos
from cassava_leaf_disease.data.synthetic import draw_leaf, write_synthetic_dataset
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.evaluation.predictions import predict_photos
from cassava_leaf_disease.inference.predictor import Predictor


def assert_one_answer(predictor: Predictor, photos: tuple[LabeledPhoto, ...], cache_dir: Path) -> None:
    spec = predictor.metadata.preprocessing
    answers = [predictor.predict_bytes(photo.path.read_bytes(), name=photo.image_id) for photo in photos]
    expected = np.array([list(answer.probabilities.values()) for answer in answers])  # (N, C)
    assert len(np.unique(expected.round(4), axis=0)) > len(photos) / 2  # the photos do differ
    for source in (
        DecodedPhotos(photos, spec.resize_side_px, enlarge=True),
        PhotoCache(cache_dir, spec.resize_side_px, enlarge=True).images(photos),
    ):
        for batch_size in (1, 3):
            seen = predict_photos(predictor, source, batch_size)
            assert seen == pytest.approx(expected, abs=1e-6 if batch_size == 1 else 1e-5)


def test_drawn_leaves_of_any_shape_get_one_answer(predictor: Predictor, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "data", 5, 64, seed=1)
    photos = read_kaggle(tmp_path / "data")
    for number, (photo, size) in enumerate(
        zip(photos, [(90, 61), (77, 333), (31, 20), (64, 64), (73, 73)], strict=True)
    ):
        Image.fromarray(draw_leaf(number, photo.label, 400)).resize(size).save(photo.path, quality=90)

    assert_one_answer(predictor, photos, tmp_path / "cache")


def test_real_photos_get_one_answer(predictor: Predictor, shared_data: Path, tmp_path: Path) -> None:
    assert_one_answer(predictor, read_kaggle(shared_data / "cassava")[::400], tmp_path / "cache")


@pytest.mark.parametrize("kind", ["PNG", "rotated", "grey with alpha"])
def test_the_same_pixels_in_another_file_get_the_same_answer(kind: str, predictor: Predictor) -> None:
    pixels = draw_leaf(5, 2, 120)[:100]  # (100, 120, 3)
    expected, buffer = predictor.predict_image(pixels), io.BytesIO()
    if kind == "PNG":
        Image.fromarray(pixels).save(buffer, "PNG")
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise
        Image.fromarray(np.rot90(pixels)).save(buffer, "PNG", exif=exif)
    else:
        grey = Image.fromarray(pixels).convert("LA")
        expected = predictor.predict_image(np.array(grey.convert("RGB")))
        grey.save(buffer, "PNG")

    answer = predictor.predict_bytes(buffer.getvalue(), name="a")

    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
