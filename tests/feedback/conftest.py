"""Answers, photos and stores for what people say of them."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction, probabilities_by_name, rank_classes
from cassava_leaf_disease.feedback.store import Feedback, FeedbackStore, open_store

MakeAnswer = Callable[..., Prediction]
MakeFeedback = Callable[..., Feedback]


def make_answer(class_id: int = 3, confidence: float = 0.6) -> Prediction:
    shares = [(1 - confidence) / 4] * 5
    shares[class_id] = confidence
    return Prediction(
        predicted_class_id=class_id,
        class_name=CLASS_NAMES[class_id],
        confidence=confidence,
        probabilities=dict(probabilities_by_name(shares, CLASS_NAMES)),
        top_k=rank_classes(shares, CLASS_NAMES, 5),
        verdict="diagnosis",
        model=ModelIdentity(name="small", version="1", source="explicit", path="small.onnx"),
        image="IMG_20261125_at_home.jpg",
    )


@pytest.fixture(scope="session")
def answer() -> MakeAnswer:
    return make_answer


@pytest.fixture(scope="session")
def said() -> MakeFeedback:
    """What somebody says of an answer."""

    def make(correct: object = "right", **others: object) -> Feedback:
        about = {"source": "bot", "answer": make_answer(), "consent": True, "correct": correct} | others
        return Feedback.model_validate(about)

    return make


def leaf(seed: int, class_id: int = 3) -> bytes:
    """A drawn leaf as a phone would send it: EXIF with place and camera."""
    exif = Image.Exif()
    exif[0x010F] = "SomeCamera"
    exif.get_ifd(0x8825)[2] = (6.0, 24.0, 36.0)
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(seed, class_id, 96)).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    return leaf


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "given" / "feedback.db"


@pytest.fixture
def store(place: Path) -> Iterator[FeedbackStore]:
    opened = open_store(f"sqlite:///{place}")
    yield opened
    opened.close()
