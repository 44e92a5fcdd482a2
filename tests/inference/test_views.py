"""The views of test-time augmentation: known permutations of known pixels, and the mean of their answers."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt
import pytest

from cassava_leaf_disease.config.schema import Tta
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import ImageTooLargeError
from cassava_leaf_disease.imaging.preprocess import Preprocessing, resize_shorter_side, to_network_size
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Engine, EngineOutputs
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.inference.views import VIEWS, views_of
from cassava_leaf_disease.modeling.metadata import ModelMetadata

if TYPE_CHECKING:
    from cassava_leaf_disease.modeling.gate_arrays import GateArrays

UInt8Image = npt.NDArray[np.uint8]

ALL: tuple[Tta, ...] = get_args(Tta)
GROUPS: tuple[Tta, ...] = ("none", "flips", "rotations", "dihedral")

# Each as index arithmetic on a square of side S: the pixel that stands at (row, column).
PERMUTATIONS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "identity": lambda _, row, column: (row, column),
    "hflip": lambda side, row, column: (row, side - 1 - column),
    "vflip": lambda side, row, column: (side - 1 - row, column),
    "rot180": lambda side, row, column: (side - 1 - row, side - 1 - column),
    "rot90": lambda side, row, column: (column, side - 1 - row),
    "rot270": lambda side, row, column: (side - 1 - column, row),
    "transpose": lambda _, row, column: (column, row),
    "transverse": lambda side, row, column: (side - 1 - column, side - 1 - row),
}


def numbered(height: int, width: int) -> UInt8Image:
    """Every pixel another colour."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, (3 * rows + 7 * columns) % 256], axis=2).astype(np.uint8)


def square_spec(side: int) -> Preprocessing:
    return Preprocessing(image_size_px=side)


class BrightestQuarter:
    """An engine whose answer depends on where in the picture the light is."""

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.gate_arrays: GateArrays | None = None
        self.runtime = "numpy/cpu"

    def run(self, batch: npt.NDArray[np.float32]) -> EngineOutputs:
        half = batch.shape[2] // 2
        quarters = [
            batch[:, :, a : a + half, b : b + half].mean(axis=(1, 2, 3)) for a, b in product((0, half), (0, half))
        ]
        return EngineOutputs(np.stack([*quarters, batch.mean(axis=(1, 2, 3))], axis=1))


class MeanColour(BrightestQuarter):
    """An engine to which all views of one square are alike."""

    def run(self, batch: npt.NDArray[np.float32]) -> EngineOutputs:
        return EngineOutputs(batch.mean(axis=(2, 3)) @ np.eye(3, 5, dtype=np.float32))


def answering(engine: Engine, tta: Tta) -> Predictor:
    return Predictor(engine, FoundModel(Path("best.ckpt"), "explicit"), tta=tta)


@pytest.mark.parametrize("tta", GROUPS)
def test_each_view_is_its_permutation_of_the_pixels(tta: Tta) -> None:
    picture = numbered(6, 6)

    views = views_of(picture, square_spec(6), tta)

    assert views.dtype == np.uint8
    for view, seen in zip(VIEWS[tta], views, strict=True):
        for row, column in product(range(6), range(6)):
            assert seen[row, column].tolist() == picture[PERMUTATIONS[view.name](6, row, column)].tolist(), view.name


def test_dihedral_has_all_eight_symmetries_of_a_square_once() -> None:
    views = views_of(numbered(5, 5), square_spec(5), "dihedral")

    assert {view.name for view in VIEWS["dihedral"]} == set(PERMUTATIONS)
    assert len({view.tobytes() for view in views}) == 8


@pytest.mark.parametrize("tta", ALL)
def test_names_are_unique_and_the_plain_view_is_among_them(tta: Tta) -> None:
    names = [view.name for view in VIEWS[tta]]

    assert len(set(names)) == len(names)
    assert "identity" in names


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (57, 91), (33, 33)])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.8])
@pytest.mark.parametrize("tta", ALL)
def test_the_plain_view_is_what_the_preprocessing_gives(tta: Tta, crop_ratio: float, shape: tuple[int, int]) -> None:
    picture, spec = numbered(*shape), Preprocessing(image_size_px=32, crop_ratio=crop_ratio)

    views = views_of(picture, spec, tta)

    assert views.shape == (len(VIEWS[tta]), 32, 32, 3)
    plain = [view.name for view in VIEWS[tta]].index("identity")
    assert np.array_equal(views[plain], to_network_size(picture, spec))


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
def test_crops_are_the_two_ends_and_the_middle(shape: tuple[int, int]) -> None:
    picture, spec = numbered(*shape), Preprocessing(image_size_px=32, crop_ratio=0.8)
    resized = resize_shorter_side(picture, 40)

    start, middle, end, *mirrored = views_of(picture, spec, "crops_hflip")

    assert np.array_equal(start, resized[:32, :32])
    assert np.array_equal(end, resized[-32:, -32:])
    assert np.array_equal(middle, to_network_size(picture, spec))
    for plain, other in zip((start, middle, end), mirrored, strict=True):
        assert np.array_equal(other, plain[:, ::-1])
    assert np.array_equal(views_of(picture, spec, "crops"), np.stack([start, middle, end]))


def test_strip_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match="strip"):
        views_of(np.zeros((1, 100, 3), np.uint8), square_spec(8), "flips")


@pytest.mark.parametrize("tta", GROUPS)
def test_model_to_which_the_views_are_alike_answers_as_without_them(tta: Tta, metadata: ModelMetadata) -> None:
    picture = draw_leaf(3, 1, 90)
    expected = answering(MeanColour(metadata), "none").predict_image(picture)

    answer = answering(MeanColour(metadata), tta).predict_image(picture)

    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.parametrize("tta", GROUPS[1:])
def test_every_view_of_a_square_photo_gets_the_same_answer(tta: Tta, metadata: ModelMetadata) -> None:
    engine = BrightestQuarter(metadata.model_copy(update={"preprocessing": square_spec(64)}))
    picture = draw_leaf(3, 1, 64)
    predictor = answering(engine, tta)
    expected = predictor.predict_image(picture).probabilities

    for view in VIEWS[tta]:
        turned = view.of(picture, len(picture))
        assert predictor.predict_image(turned).probabilities == pytest.approx(expected, abs=1e-6)
        alone = answering(engine, "none").predict_image(turned).probabilities
        assert alone != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("tta", ALL)
def test_answer_is_the_mean_over_the_views_and_names_them(tta: Tta, random_checkpoint: Path) -> None:
    found = FoundModel(random_checkpoint, "explicit")
    picture = np.array(draw_leaf(5, 2, 120)[:80])  # wider than high
    alone = load_predictor(found, "cpu")
    views = views_of(picture, alone.metadata.preprocessing, tta)

    answer = load_predictor(found, "cpu", tta=tta).predict_image(picture)

    expected = np.mean([alone.probabilities(view[None])[0] for view in views], axis=0)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer.views == (() if tta == "none" else tuple(view.name for view in VIEWS[tta]))
    assert ("views" in answer.model_dump()) is (tta != "none")


def test_batches_answer_as_single_photos(random_checkpoint: Path) -> None:
    predictor = load_predictor(FoundModel(random_checkpoint, "explicit"), "cpu", tta="dihedral")
    prepared = [predictor.prepare(draw_leaf(index, index, 80)) for index in range(3)]

    together = predictor.predict(prepared)

    assert together == pytest.approx(np.concatenate([predictor.predict([photo]) for photo in prepared]), abs=1e-5)
