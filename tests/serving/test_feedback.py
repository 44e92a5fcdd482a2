"""People say what an answer was worth, and have it forgotten: by the test client."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError
from cassava_leaf_disease.feedback.store import FeedbackStore, open_store
from cassava_leaf_disease.imaging.decode import decode_image
from cassava_leaf_disease.serving.settings import ServingSettings

Asking = Callable[[FastAPI], AbstractContextManager[TestClient]]
WORD = "a-random-word-of-the-sender"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("given") / "feedback.db"


@pytest.fixture(scope="module")
def client(build_service: Callable[..., FastAPI], place: Path) -> Iterator[TestClient]:
    """A client of a service that takes feedback; a module's tests share it."""
    with TestClient(build_service(feedback_url=f"sqlite:///{place}")) as asking:
        while asking.get("/ready").status_code != 200:
            pass
        yield asking


@pytest.fixture
def store(client: TestClient, place: Path) -> Iterator[FeedbackStore]:
    """The store behind it, empty at first."""
    opened = open_store(f"sqlite:///{place}")
    with opened._database.transaction() as execute:
        execute("DELETE FROM feedback")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def answer(client: TestClient, photo_bytes: bytes) -> dict[str, Any]:
    said: dict[str, Any] = client.post("/predict", files={"file": ("leaf.jpg", photo_bytes)}).json()
    return said


@pytest.fixture
def give(client: TestClient, answer: dict[str, Any], photo_bytes: bytes) -> Callable[..., Any]:
    """Posts a feedback with other fields; None leaves one out."""

    def post(photo: bytes | None = photo_bytes, asked: TestClient = client, **fields: str | None) -> Any:
        data = {"answer": json.dumps(answer), "consent": "true", "source": "page", **fields}
        files = None if photo is None else {"file": ("leaf.jpg", photo)}
        return asked.post(
            "/feedback", data={name: text for name, text in data.items() if text is not None}, files=files
        )

    return post


Give = Callable[..., Any]


def test_without_a_store_nothing_is_taken(
    build_service: Callable[..., FastAPI], asking: Asking, give: Give, tmp_path: Path
) -> None:
    with asking(build_service()) as client:
        refusals = [give(asked=client), client.post("/forget", json={"receipt": WORD})]

        assert [reply.status_code for reply in refusals] == [404, 404]
        assert "CASSAVA_FEEDBACK_URL" in refusals[0].json()["expected"]
        assert client.get("/model").json()["feedback"] is False
    assert list(tmp_path.iterdir()) == []


def test_a_correction_is_kept_and_its_receipt_forgets_it(
    client: TestClient, store: FeedbackStore, give: Give, answer: dict[str, Any], photo_bytes: bytes
) -> None:
    other = (answer["predicted_class_id"] + 1) % 5
    reply = give(correct=str(other), remark="brown streaks on the stem", contributor=WORD)

    assert reply.status_code == 200
    [kept] = store.all()
    assert (kept.label, kept.remark, kept.source) == (other, "brown streaks on the stem", "page")
    assert kept.answer.probabilities == pytest.approx(answer["probabilities"])
    assert kept.contributor == store.pseudonym(f"http:{WORD}")
    assert np.array_equal(decode_image(store.photo(kept)), decode_image(photo_bytes))
    assert client.get("/model").json()["feedback"] is True

    receipt = {"receipt": reply.json()["receipt"]}
    assert client.post("/forget", json=receipt).json() == {"forgotten": 1}
    assert client.post("/forget", json=receipt).json() == {"forgotten": 0}
    assert store.count() == 0


def test_a_contributor_forgets_all_of_their_own(client: TestClient, store: FeedbackStore, give: Give) -> None:
    for correct in ("right", "0", "", None):
        assert give(correct=correct, contributor=WORD).status_code == 200
    give(contributor=WORD[::-1])

    assert client.post("/forget", json={"contributor": WORD}).json() == {"forgotten": 4}
    assert store.count() == 1


def test_a_person_of_the_bot_is_not_forgotten_by_their_number(
    client: TestClient, store: FeedbackStore, give: Give, photo_bytes: bytes
) -> None:
    give()
    [kept] = store.all()
    from cassava_leaf_disease.feedback.store import Feedback

    about = Feedback(source="bot", answer=kept.answer, consent=True, contributor="telegram:1234567890")
    store.add(about, photo_bytes)

    reply = client.post("/forget", json={"contributor": "telegram_1234567890"})
    assert reply.json() == {"forgotten": 0}
    assert client.post("/forget", json={"contributor": "telegram:1234567890"}).status_code == 422
    assert store.count() == 2


def test_what_is_sent_again_is_kept_once(store: FeedbackStore, give: Give) -> None:
    receipt = f"{WORD}-again"
    assert [give(receipt=receipt).json() for _ in range(3)] == [{"receipt": receipt}] * 3
    assert store.count() == 1


REFUSED: dict[str, tuple[dict[str, str | None], int, str]] = {
    "no answer": ({"answer": None}, 422, "a form without the field `answer`"),
    "no JSON": ({"answer": "{"}, 422, "answer: no JSON"),
    "deep JSON": ({"answer": "[" * 5000}, 422, "answer: no JSON"),
    "another JSON": ({"answer": "[1]"}, 422, "answer: "),
    "no consent": ({"consent": None}, 422, "consent: "),
    "no to consent": ({"consent": "false"}, 422, "consent: "),
    "unknown class": ({"correct": "5"}, 422, "correct"),
    "word for a class": ({"correct": "mosaic"}, 422, "correct"),
    "unknown source": ({"source": "fax"}, 422, "source: "),
    "long remark": ({"remark": "a" * 501}, 422, "remark: "),
    "short receipt": ({"receipt": "1"}, 422, "receipt of 1 characters"),
    "strange contributor": ({"contributor": "' OR 1=1; DROP TABLE feedback"}, 422, "contributor of 29 characters"),
    "endless answer": ({"answer": '"' + "a" * 70_000 + '"'}, 413, "a form with over 65,536 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_was_seen_and_expected(name: str, store: FeedbackStore, give: Give) -> None:
    fields, status, seen = REFUSED[name]
    reply = give(**fields)

    assert reply.status_code == status
    assert set(reply.json()) == {"error", "expected"}
    assert reply.json()["error"].startswith(seen)
    assert store.count() == 0


def test_what_is_no_photo_is_refused(store: FeedbackStore, give: Give, photo_bytes: bytes) -> None:
    replies = [give(photo) for photo in (None, b"", b"GIF89a", photo_bytes[:400])]

    assert [reply.status_code for reply in replies] == [415, 422, 415, 422]
    assert store.count() == 0


def test_plants_are_given_photo_by_photo(
    client: TestClient, store: FeedbackStore, give: Give, photo_bytes: bytes
) -> None:
    files = [("files", ("a.jpg", photo_bytes)), ("files", ("b.jpg", photo_bytes))]
    plant = client.post("/predict/plant", files=files).json()

    assert give(answer=json.dumps(plant)).status_code == 422
    assert give(answer=json.dumps(plant["photos"][1])).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"receipt": "short"}', 422),
        (json.dumps({"receipt": WORD, "contributor": WORD}).encode(), 422),
        (b'{"receipt": "' + b"a" * 5000 + b'"}', 413),
    ],
)
def test_a_wrong_request_forgets_nothing(client: TestClient, store: FeedbackStore, body: bytes, status: int) -> None:
    reply = client.post("/forget", content=body)

    assert reply.status_code == status
    assert set(reply.json()) == {"error", "expected"}


def test_a_slow_request_to_forget_is_given_up(build_service: Callable[..., FastAPI], asking: Asking) -> None:
    def slowly() -> Iterator[bytes]:
        import time

        yield b"{"
        time.sleep(0.3)
        yield b"}"

    with asking(build_service(feedback_url="sqlite:///given.db", upload_timeout_s=0.01)) as client:
        assert client.post("/forget", content=slowly()).status_code in (408, 422)


def test_the_key_is_asked_for(build_service: Callable[..., FastAPI], asking: Asking, give: Give) -> None:
    key = "kept-by-the-operator-42"
    with asking(build_service(feedback_url="sqlite:///given.db", api_key=key)) as client:
        assert give(asked=client).status_code == 401
        assert client.post("/forget", json={"receipt": WORD}).status_code == 401


def test_a_full_store_takes_no_more(build_service: Callable[..., FastAPI], asking: Asking, give: Give) -> None:
    with asking(build_service(feedback_url="sqlite:///given.db", feedback_max_rows=1)) as client:
        assert [give(asked=client).status_code for _ in range(2)] == [200, 507]


def test_a_store_that_cannot_be_reached_is_tried_again(
    build_service: Callable[..., FastAPI],
    asking: Asking,
    give: Give,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "given.db").write_text("no database, but long enough to be looked at as one", encoding="utf-8")
    with asking(build_service(feedback_url="sqlite:///given.db")) as client:
        assert "feedback cannot be kept now" in caplog.text
        reply = give(asked=client)
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) > 0

        (tmp_path / "given.db").unlink()
        assert give(asked=client).status_code == 200


def test_metrics_count_what_was_said_and_forgotten(
    build_service: Callable[..., FastAPI], asking: Asking, give: Give, answer: dict[str, Any]
) -> None:
    wrong = str((answer["predicted_class_id"] + 1) % 5)
    with asking(build_service(feedback_url="sqlite:///given.db")) as client:
        for correct in ("right", wrong, wrong, None):
            give(asked=client, correct=correct, contributor=WORD)
        client.post("/forget", json={"contributor": WORD})
        text = client.get("/metrics").text

    assert 'cassava_feedback_total{said="wrong",source="page"} 2.0' in text
    assert 'cassava_feedback_total{said="right",source="page"} 1.0' in text
    assert "cassava_feedback_forgotten_total 4.0" in text


def test_wrong_settings_are_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_FEEDBACK_URL", "mysql://me:hidden@host/name")
    with pytest.raises(ConfigError, match="expected sqlite:///") as refused:
        ServingSettings.load()
    assert "hidden" not in str(refused.value)

    monkeypatch.setenv("CASSAVA_FEEDBACK_URL", "postgresql://me:hidden@host/name")
    with pytest.raises(ConfigError, match="needs CASSAVA_FEEDBACK_PHOTOS") as refused:
        ServingSettings.load()
    assert "hidden" not in str(refused.value)


def test_a_missing_driver_is_told_before_anybody_is_let_in(
    build_service: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match="postgres"):
        build_service(feedback_url="postgresql://host/name", feedback_photos="given")


def test_the_photo_of_a_phone_loses_its_place(store: FeedbackStore, give: Give, photo_bytes: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[29] = "2026:11:25"
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo_bytes)).save(buffer, "JPEG", exif=exif)
    assert b"2026:11:25" in buffer.getvalue()
    give(buffer.getvalue())

    [kept] = store.all()
    assert b"2026:11:25" not in store.photo(kept)
    assert os.sep not in kept.photo
