"""From pixels to an answer: the contract of a `Prediction`, and the model files that are refused."""

import importlib.machinery
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cassava_leaf_disease.domain import CLASS_NAMES, Prediction
from cassava_leaf_disease.errors import (
    CheckpointError,
    CorruptImageError,
    DeviceError,
    ImageTooLargeError,
    MissingDependencyError,
)
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.torch_engine import resolve_device
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.inference.vote import softmax
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint, save_atomically
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata, Thresholds

WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


def found(path: Path) -> FoundModel:
    return FoundModel(path, "explicit")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which PyTorch is not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None if name == "torch" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_answer_keeps_the_contract(predictor: Predictor, photo_bytes: bytes, random_checkpoint: Path) -> None:
    prediction = predictor.predict_bytes(photo_bytes, name="leaf.jpg", top_k=3)

    plain = json.loads(prediction.model_dump_json())
    assert plain == prediction.model_dump(mode="json")
    assert Prediction.model_validate_json(prediction.model_dump_json()) == prediction
    assert list(plain["probabilities"]) == list(CLASS_NAMES)
    assert math.isclose(sum(plain["probabilities"].values()), 1, abs_tol=1e-4)
    assert all(type(value) is float for value in prediction.probabilities.values())
    assert type(prediction.confidence) is float
    best = max(plain["probabilities"], key=plain["probabilities"].__getitem__)
    assert (plain["class_name"], plain["confidence"]) == (best, plain["probabilities"][best])
    assert CLASS_NAMES[plain["predicted_class_id"]] == best
    ranking = [line["prob"] for line in plain["top_k"]]
    assert ranking == sorted(plain["probabilities"].values(), reverse=True)[:3]
    assert plain["image"] == "leaf.jpg"
    assert plain["model"] == {
        "name": "test_resnet",
        "version": "0.1.0+20260101T0000",
        "source": "explicit",
        "path": str(random_checkpoint),
    }


def test_photos_get_different_answers_and_the_same_photo_the_same(predictor: Predictor, photo_bytes: bytes) -> None:
    dark = np.zeros((80, 80, 3), np.uint8)

    first, again = (predictor.predict_bytes(photo_bytes, name="a") for _ in range(2))

    assert first == again
    assert predictor.predict_image(dark).probabilities != first.probabilities
    assert predictor.predict_image(dark).image is None


@pytest.mark.parametrize(
    ("probabilities", "predicted", "verdict"),
    [
        ((0.2, 0.2, 0.2, 0.2, 0.2), 0, "uncertain"),
        ((0.1, 0.4, 0.4, 0.1, 0.0), 1, "uncertain"),
        ((0.0, 0.0, 0.5, 0.0, 0.5), 2, "diagnosis"),
        ((0.0, 0.0, 0.0, 0.0, 1.0), 4, "diagnosis"),
    ],
)
def test_verdict_follows_the_threshold_and_ties_the_class_id(
    probabilities: tuple[float, ...], predicted: int, verdict: str, predictor: Predictor
) -> None:
    answer = predictor.answer(probabilities, top_k=5)

    assert (answer.predicted_class_id, answer.verdict) == (predicted, verdict)
    assert answer.class_name == CLASS_NAMES[predicted] == answer.top_k[0].class_name


def test_temperature_and_threshold_come_from_the_file(
    tmp_path: Path, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, photo_bytes: bytes
) -> None:
    answers = []
    for temperature, least in ((1.0, 0.0), (1000.0, 0.9)):
        described = metadata.model_copy(
            update={"temperature": temperature, "thresholds": Thresholds(min_confidence=least)}
        )
        path = write_random_checkpoint(tmp_path / f"{temperature}.ckpt", described)
        answers.append(load_predictor(found(path), "cpu").predict_bytes(photo_bytes, name="a"))

    sharp, flat = answers
    assert sharp.predicted_class_id == flat.predicted_class_id
    assert sharp.confidence > flat.confidence == pytest.approx(0.2, abs=0.02)
    assert (sharp.verdict, flat.verdict) == ("diagnosis", "uncertain")


def test_preprocessing_comes_from_the_file(
    tmp_path: Path,
    metadata: ModelMetadata,
    write_random_checkpoint: WriteCheckpoint,
    photo_bytes: bytes,
    predictor: Predictor,
) -> None:
    larger = metadata.model_copy(update={"preprocessing": Preprocessing(image_size_px=96)})
    path = write_random_checkpoint(tmp_path / "best.ckpt", larger)

    answer = load_predictor(found(path), "cpu").predict_bytes(photo_bytes, name="a")

    assert answer.probabilities != predictor.predict_bytes(photo_bytes, name="a").probabilities


def test_a_photo_is_answered_alike_alone_and_in_a_batch(predictor: Predictor) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)

    together = predictor.probabilities(images)

    assert together.shape == (5, 5)
    assert together.sum(axis=1) == pytest.approx(np.ones(5))
    for image, expected in zip(images, together, strict=True):
        assert predictor.probabilities(image[None])[0] == pytest.approx(expected, abs=1e-5)


def test_large_logits_give_probabilities_and_no_overflow() -> None:
    probabilities = softmax(np.array([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0]]))

    assert probabilities.tolist() == [[1.0, 0.0, 0.0], pytest.approx([1 / 3] * 3)]


def test_limits_of_the_predictor_hold_for_bytes(random_checkpoint: Path, photo_bytes: bytes) -> None:
    strict = load_predictor(found(random_checkpoint), "cpu", DecodeLimits(max_pixels=1000))

    with pytest.raises(ImageTooLargeError, match=r"leaf\.jpg"):
        strict.predict_bytes(photo_bytes, name="leaf.jpg")


def test_bytes_that_are_no_photo_are_refused(predictor: Predictor, photo_bytes: bytes) -> None:
    with pytest.raises(CorruptImageError):
        predictor.predict_bytes(photo_bytes[:500], name="half.jpg")


def test_network_that_diverged_is_refused(
    tmp_path: Path, random_checkpoint: Path, metadata: ModelMetadata, photo_bytes: bytes
) -> None:
    state = load_checkpoint(random_checkpoint).network_state
    broken = {
        f"network.{name}": tensor * math.nan if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    path = tmp_path / "best.ckpt"
    save_atomically({METADATA_KEY: metadata.model_dump_json(), "state_dict": broken}, path)

    with pytest.raises(CheckpointError, match=r"best\.ckpt: its network gives no finite answer"):
        load_predictor(found(path), "cpu").predict_bytes(photo_bytes, name="a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "test_vit"}, "do not fit the backbone test_vit at 64 px .*Missing key"),
        ({"backbone": "no_such_net"}, "do not fit the backbone no_such_net at 64 px .*timm has no such network"),
        ({"backbone": "test_resnet.no_tag"}, "do not fit the backbone test_resnet.no_tag .*Invalid pretrained tag"),
        ({"backbone": "hf-hub:somebody/net"}, "do not fit the backbone hf-hub:somebody/net .*no such network"),
        ({"backbone": "local-dir:/etc"}, "do not fit the backbone local-dir:/etc .*no such network"),
    ],
)
def test_weights_that_do_not_fit_their_backbone_are_refused_in_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path, random_checkpoint: Path, metadata: ModelMetadata
) -> None:
    path = tmp_path / "best.ckpt"
    content = torch.load(random_checkpoint, weights_only=True)
    content[METADATA_KEY] = metadata.model_copy(update=changes).model_dump_json()
    save_atomically(content, path)

    with pytest.raises(CheckpointError, match=message) as error:
        load_predictor(found(path), "cpu")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_checkpoint_without_weights_is_refused(tmp_path: Path, metadata: ModelMetadata) -> None:
    save_atomically({METADATA_KEY: metadata.model_dump_json(), "state_dict": {}}, tmp_path / "best.ckpt")

    with pytest.raises(CheckpointError, match="Missing key"):
        load_predictor(found(tmp_path / "best.ckpt"), "cpu")


def test_vision_transformer_is_rebuilt_at_its_own_size(
    tmp_path: Path, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, photo_bytes: bytes
) -> None:
    described = metadata.model_copy(
        update={"name": "test_vit", "backbone": "test_vit", "preprocessing": Preprocessing(image_size_px=96)}
    )
    path = write_random_checkpoint(tmp_path / "best.ckpt", described)

    answer = load_predictor(found(path), "cpu").predict_bytes(photo_bytes, name="a")

    assert answer.model.name == "test_vit"


@pytest.mark.usefixtures("without_gpu")
def test_gpu_that_is_not_there_is_refused(random_checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match=r"infer\.device=cuda: no CUDA GPU .*infer\.device=cpu"):
        check_device("cuda")
    with pytest.raises(DeviceError):
        load_predictor(found(random_checkpoint), "cuda")


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {}
    for available in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=available: there)
        check_device("auto")
        devices[available] = (resolve_device("auto").type, resolve_device("cpu").type)

    assert devices == {True: ("cuda", "cpu"), False: ("cpu", "cpu")}


@pytest.mark.usefixtures("without_torch")
def test_without_pytorch_the_extra_is_named(random_checkpoint: Path) -> None:
    with pytest.raises(
        MissingDependencyError, match=r"PyTorch, which best\.ckpt needs, .*cassava-leaf-disease\[train\]"
    ):
        load_predictor(found(random_checkpoint), "cpu")
    with pytest.raises(MissingDependencyError, match="PyTorch, which device=cuda needs"):
        check_device("cuda")
    check_device("auto")
