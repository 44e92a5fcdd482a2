"""`infer`: one answer for each photo, and what is wrong is told before time is spent."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cassava_leaf_disease.config.load import quoted
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import PlantPrediction, Prediction
from cassava_leaf_disease.errors import (
    CheckpointError,
    ConfigError,
    CorruptImageError,
    DataError,
    DeviceError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from cassava_leaf_disease.inference.infer import infer

Config = Callable[..., AppConfig]


@pytest.fixture
def photo(tmp_path: Path, photo_bytes: bytes) -> Path:
    path = tmp_path / "leaf (1).jpg"
    path.write_bytes(photo_bytes)
    return path


@pytest.fixture
def ask(small_config: Config, random_checkpoint: Path) -> Config:
    """The configuration of `infer` with a model."""
    return lambda *overrides: small_config(f"infer.checkpoint_path={random_checkpoint}", *overrides)


def listed(*paths: Path) -> str:
    return f"infer.image_path=[{','.join(quoted(str(path)) for path in paths)}]"


def test_a_photo_gets_one_answer(ask: Config, photo: Path) -> None:
    answer = infer(ask(f"infer.image_path={photo}", "infer.top_k=2"))

    assert isinstance(answer, Prediction)
    assert answer.image == str(photo)
    assert len(answer.top_k) == 2
    assert answer.model.source == "explicit"


def test_a_list_of_photos_gets_a_list_in_its_order(ask: Config, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "a.jpg"
    other.write_bytes(photo.read_bytes())

    answers = infer(ask(listed(photo, other, photo)))
    alone = infer(ask(listed(other)))

    assert isinstance(answers, list)
    assert [answer.image for answer in answers] == [str(photo), str(other), str(photo)]
    assert len({tuple(answer.probabilities.values()) for answer in answers}) == 1
    assert isinstance(alone, list)
    assert len(alone) == 1


@pytest.mark.parametrize("override", ["infer.image_path=null", "infer.image_path=[]"])
def test_no_photo_is_told_with_what_to_type(override: str, ask: Config) -> None:
    with pytest.raises(ConfigError, match=r"infer\.image_path is not set; type infer\.image_path=photo\.jpg"):
        infer(ask(override))


@pytest.mark.usefixtures("no_packaged_model")
def test_bad_photo_is_told_before_a_model_is_looked_for(small_config: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")

    with pytest.raises(UnsupportedImageError, match=r"notes\.txt"):
        infer(small_config("infer.image_path=notes.txt"))
    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        infer(small_config("infer.image_path=gone.jpg"))
    with pytest.raises(CheckpointError, match="no model to answer with"):
        infer(small_config(f"infer.image_path={write_photo(tmp_path)}"))


def write_photo(folder: Path) -> Path:
    Image.new("RGB", (70, 70), "green").save(folder / "green.png")
    return folder / "green.png"


def test_bad_photo_further_down_the_list_is_named(ask: Config, photo: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.jpg"
    half.write_bytes(photo.read_bytes()[:400])

    with pytest.raises(CorruptImageError, match=r"half\.jpg"):
        infer(ask(listed(photo, half)))


def test_missing_gpu_is_told_before_anything_is_read(small_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError, match=r"infer\.device=cuda"):
        infer(small_config("infer.device=cuda", "infer.image_path=gone.jpg", "infer.checkpoint_path=gone.ckpt"))


@pytest.mark.parametrize("limit", ["max_image_bytes", "max_image_pixels"])
def test_limits_of_the_configuration_hold(limit: str, ask: Config, photo: Path) -> None:
    with pytest.raises(ImageTooLargeError):
        infer(ask(f"infer.image_path={photo}", f"infer.{limit}=1024"))


def test_folder_as_checkpoint_is_refused_and_no_other_model_answers(ask: Config, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder; expected a file"):
        infer(ask(f"infer.image_path={photo}", f"infer.checkpoint_path={tmp_path}"))


def test_inference_is_imported_without_pytorch_and_other_heavy_libraries() -> None:
    script = (
        "import sys; import cassava_leaf_disease.inference.infer; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'torch', 'timm', 'lightning', 'boto3', 'cv2', 'albumentations', 'sklearn'}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


def test_several_leaves_of_one_plant_get_one_answer(ask: Config, photo: Path, tmp_path: Path) -> None:
    green = write_photo(tmp_path)

    plant = infer(ask(listed(photo, green), "infer.plant=true", "infer.top_k=2", "infer.explain=true"))
    apart = infer(ask(listed(photo, green)))

    assert isinstance(plant, PlantPrediction)
    assert isinstance(apart, list)
    assert [each.probabilities for each in plant.photos] == [each.probabilities for each in apart]
    assert [each.image for each in plant.photos] == [str(photo), str(green)]
    assert all(Path(each.explanation or "").is_file() for each in plant.photos)
    assert len(plant.top_k) == 2
    assert isinstance(infer(ask(f"infer.image_path={photo}", "infer.plant=true")), PlantPrediction)
