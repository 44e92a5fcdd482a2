"""Heatmaps: the place that speaks for a class lights up where it lies in the photo, however the photo was cut."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.schema import AppConfig, Tta
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference import explain
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Engine, EngineOutputs
from cassava_leaf_disease.inference.ensemble import EnsemblePredictor, load_found
from cassava_leaf_disease.inference.explain import class_map, heatmap_paths, overlay, seen_part
from cassava_leaf_disease.inference.infer import infer
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata

if TYPE_CHECKING:
    from cassava_leaf_disease.modeling.gate_arrays import GateArrays

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]

ALL_VIEWS: tuple[Tta, ...] = get_args(Tta)
LIGHT, DARK = 2, 0  # the classes of the engine below


class LightPlaces:
    """An engine whose class 2 speaks where the picture is light, and class 0 elsewhere, on a grid of places."""

    def __init__(self, metadata: ModelMetadata, places: int = 8) -> None:
        self.metadata = metadata
        self.gate_arrays: GateArrays | None = None
        self.runtime = "numpy/cpu"
        self._places = places

    def run(self, batch: npt.NDArray[np.float32]) -> EngineOutputs:
        side = batch.shape[2] // self._places
        blocks = batch.mean(axis=1).reshape(len(batch), self._places, side, self._places, side).mean(axis=(2, 4))
        maps = np.zeros((len(batch), 5, self._places, self._places), np.float32)
        maps[:, LIGHT], maps[:, DARK] = 20 * blocks, -20 * blocks
        return EngineOutputs(maps.mean(axis=(2, 3)), maps=maps)


class Silent(LightPlaces):
    """An engine without maps."""

    def run(self, batch: npt.NDArray[np.float32]) -> EngineOutputs:
        return EngineOutputs(super().run(batch).logits)


@pytest.fixture
def grey(metadata: ModelMetadata) -> ModelMetadata:
    """The self-description of a network to which black is -1 and white is 1."""
    spec = Preprocessing(image_size_px=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return metadata.model_copy(update={"preprocessing": spec})


def answering(engine: Engine, tta: Tta = "none") -> Predictor:
    return Predictor(engine, FoundModel(Path("best.ckpt"), "explicit"), tta=tta)


def spot(height: int, width: int, row: int, column: int) -> npt.NDArray[np.uint8]:
    """A dark photo with a light square round a place, a quarter of the shorter side wide: two places or three."""
    photo, half = np.zeros((height, width, 3), np.uint8), min(height, width) // 8
    photo[row - half : row + half, column - half : column + half] = 255
    return photo


@pytest.mark.parametrize("tta", ALL_VIEWS)
@pytest.mark.parametrize(("shape", "place"), [((240, 320), (60, 130)), ((320, 240), (200, 50)), ((50, 50), (20, 31))])
def test_the_place_that_speaks_for_a_class_is_hot(
    shape: tuple[int, int], place: tuple[int, int], tta: Tta, grey: ModelMetadata
) -> None:
    photo = spot(*shape, *place)

    heat = class_map(answering(LightPlaces(grey), tta), photo, LIGHT)

    assert heat.shape == shape
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert heat.max() > 0.9
    assert heat[place] > 0.4
    rows, columns = np.nonzero(heat > 0.5)
    near = min(shape) / 12
    assert abs(rows.mean() - place[0]) < near
    assert abs(columns.mean() - place[1]) < near
    assert len(rows) < heat.size / 10


def test_without_a_class_the_map_is_that_of_the_answer(grey: ModelMetadata) -> None:
    predictor, photo = answering(LightPlaces(grey)), spot(200, 200, 100, 100)

    assert predictor.predict_image(photo).predicted_class_id == DARK
    assert np.array_equal(class_map(predictor, photo), class_map(predictor, photo, DARK))
    assert class_map(predictor, photo)[100, 100] < 0.1


def test_what_the_centre_crop_leaves_out_is_zero_and_unseen(grey: ModelMetadata) -> None:
    predictor, photo = answering(LightPlaces(grey)), np.full((100, 200, 3), 255, np.uint8)

    heat, seen = class_map(predictor, photo, LIGHT), seen_part(predictor, (100, 200))

    assert seen[:, 50:150].all()
    assert not seen[:, :49].any()
    assert not seen[:, 151:].any()
    assert (heat[seen] > 0.99).all()  # nothing of the unseen mixes in along the edge
    assert not heat[~seen].any()
    assert seen_part(answering(LightPlaces(grey), "crops"), (100, 200)).all()


def test_a_map_is_the_softmax_at_the_models_temperature(grey: ModelMetadata) -> None:
    photo = np.full((64, 64, 3), 133, np.uint8)
    warm = answering(LightPlaces(grey.model_copy(update={"temperature": 4.0})))

    heat = class_map(warm, photo, LIGHT)

    assert heat == pytest.approx(warm.predict_image(photo).probabilities["Cassava Green Mottle"], abs=1e-5)
    assert heat.max() < class_map(answering(LightPlaces(grey)), photo, LIGHT).min()


def test_an_ensembles_map_is_the_mean_of_its_members_by_their_shares(grey: ModelMetadata) -> None:
    larger = Preprocessing(image_size_px=96, crop_ratio=0.8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    members = [
        answering(LightPlaces(grey)),
        answering(LightPlaces(grey.model_copy(update={"preprocessing": larger}), places=4)),
    ]
    together = EnsemblePredictor(members, [3.0, 1.0], "probabilities", members[0].identity)
    photo = spot(240, 320, 100, 150)

    heat = class_map(together, photo, LIGHT)

    alone = [class_map(member, photo, LIGHT) for member in members]
    assert heat == pytest.approx(0.75 * alone[0] + 0.25 * alone[1], abs=1e-6)
    assert np.array_equal(seen_part(together, (240, 320)), seen_part(members[1], (240, 320)))  # the smaller square


def test_a_model_file_without_maps_is_told(grey: ModelMetadata) -> None:
    with pytest.raises(CheckpointError, match=r"best\.ckpt: this model file gives no class maps.*infer\.explain=false"):
        class_map(answering(Silent(grey)), spot(64, 64, 20, 20))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_mambaout", "test_vit"])
def test_convolutional_networks_and_transformers_have_maps(
    backbone: str, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    path = write_random_checkpoint(tmp_path / "best.ckpt", metadata.model_copy(update={"backbone": backbone}))
    predictor, photo = load_predictor(FoundModel(path, "explicit"), "cpu"), draw_leaf(5, 3, 160)[:120]

    maps = [class_map(predictor, photo, class_id) for class_id in range(5)]

    assert all(heat.shape == (120, 160) for heat in maps)
    inside = seen_part(predictor, (120, 160))
    assert np.sum(maps, axis=0)[inside] == pytest.approx(1, abs=1e-4)
    assert max(float(np.ptp(heat[inside])) for heat in maps) > 0.01


def test_an_exported_file_gives_the_maps_of_its_checkpoint(random_checkpoint: Path, exported_model: Path) -> None:
    photo = draw_leaf(5, 3, 120)

    ours, exported = (
        class_map(load_found(FoundModel(path, "explicit"), "cpu", tta="flips"), photo)
        for path in (random_checkpoint, exported_model)
    )

    assert exported == pytest.approx(ours, abs=1e-4)


def test_colours_are_those_of_plasma_and_ever_lighter() -> None:
    colours, covering = explain._colour_table()

    expected = mpl.colormaps["plasma"](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(colours - expected).max() < 6
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness[::8]) > 0).all()
    assert covering[0] == 0
    assert (np.diff(covering.astype(int)) >= 0).all()


def test_overlay_keeps_light_and_shade_of_the_cold_and_colours_the_hot() -> None:
    photo = np.full((20, 30, 3), (40, 140, 40), np.uint8)
    heat = np.zeros((20, 30), np.float32)
    heat[:, 10:] = 1
    seen = np.ones((20, 30), np.bool_)
    seen[:, 25:] = False

    picture = overlay(photo, heat, seen)

    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8
    red, green, blue = picture[0, 0].tolist()
    assert green > max(red, blue)
    hot = picture[0, 15].tolist()
    assert hot[0] > 150
    assert hot[1] > 150
    assert picture[0, 29].max() < 60
    assert np.array_equal(overlay(photo, heat)[:, :25], picture[:, :25])


def test_heatmaps_of_photos_of_one_name_do_not_meet() -> None:
    photos = [Path("a/leaf.jpg"), Path("b/leaf.png"), Path("other.jpg"), Path("a/leaf.jpg")]

    names = [path.name for path in heatmap_paths(photos, Path("out"))]

    assert names == ["leaf.heatmap.png", "leaf-2.heatmap.png", "other.heatmap.png", "leaf-3.heatmap.png"]


@pytest.fixture
def photo(tmp_path: Path, photo_bytes: bytes) -> Path:
    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    return tmp_path / "leaf.jpg"


def test_infer_writes_the_overlay_and_names_it(small_config: Config, random_checkpoint: Path, photo: Path) -> None:
    asked = (f"infer.checkpoint_path={random_checkpoint}", f"infer.image_path={photo}")

    answer = infer(small_config(*asked, "infer.explain=true"))
    plain = infer(small_config(*asked))

    assert isinstance(answer, Prediction)
    assert isinstance(plain, Prediction)
    written = photo.parent / "outputs" / "explain" / "leaf.heatmap.png"
    assert answer.explanation == str(written)
    with Image.open(written) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (240, 180), "RGB")
    assert "explanation" not in plain.model_dump()
    assert answer.model_copy(update={"explanation": None}) == plain


def test_list_with_views_and_an_ensemble_gets_a_heatmap_each(
    small_config: Config, random_checkpoint: Path, exported_model: Path, photo: Path, tmp_path: Path
) -> None:
    answers = infer(
        small_config(
            f"infer.checkpoint_path=['{random_checkpoint}','{exported_model}']",
            f"infer.image_path=['{photo}','{photo}']",
            *("infer.explain=true", "infer.explain_dir=heat", "infer.tta=crops_hflip"),
        )
    )

    assert isinstance(answers, list)
    assert [answer.explanation for answer in answers] == [
        str(tmp_path / "heat" / name) for name in ("leaf.heatmap.png", "leaf-2.heatmap.png")
    ]
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == ["leaf-2.heatmap.png", "leaf.heatmap.png"]


def test_large_photos_are_reduced_before_they_are_written(
    small_config: Config, random_checkpoint: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (2000, 1000), "green").save(tmp_path / "large.jpg")

    infer(
        small_config(f"infer.checkpoint_path={random_checkpoint}", "infer.image_path=large.jpg", "infer.explain=true")
    )

    with Image.open(tmp_path / "outputs" / "explain" / "large.heatmap.png") as picture:
        assert picture.size == (2 * explain.OVERLAY_SIDE_PX, explain.OVERLAY_SIDE_PX)


def test_stdout_stays_the_answer_alone(random_checkpoint: Path, photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"infer.image_path={photo}", f"infer.checkpoint_path={random_checkpoint}", "infer.explain=true"]

    assert cli.main(["infer", *words]) == 0

    answer: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert Path(answer["explanation"]).is_file()


def test_explaining_needs_no_pytorch_and_no_matplotlib() -> None:
    script = (
        "import sys; import cassava_leaf_disease.inference.explain; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'timm', 'matplotlib', 'cv2'}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
