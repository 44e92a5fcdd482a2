"""Every endpoint, by the test client: answers, refusals, and the one shape of both."""

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.domain import CLASS_NAMES, PlantPrediction, Prediction
from cassava_leaf_disease.inference.aggregate import combine_photos, pooling_for
from cassava_leaf_disease.inference.explain import draw_heatmap
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.serving.uploads import harmless_name

Form = dict[str, tuple[str, bytes, str]]


def form(data: bytes, name: str = "leaf.jpg", field: str = "file", kind: str = "image/jpeg") -> Form:
    return {field: (name, data, kind)}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo(photo_bytes: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo_bytes)).convert("RGB")


def test_alive_and_ready(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_the_answer_is_that_of_the_predictor(client: TestClient, photo_bytes: bytes, predictor: Predictor) -> None:
    reply = client.post("/predict", files=form(photo_bytes), params={"top_k": 2})

    assert reply.status_code == 200
    answer = Prediction.model_validate_json(reply.content)
    expected = predictor.predict_bytes(photo_bytes, name="leaf.jpg", top_k=2)
    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    assert (answer.class_name, answer.image, len(answer.top_k)) == (expected.class_name, "leaf.jpg", 2)
    assert answer.model.version == expected.model.version


def test_png_cmyk_and_turned_photos_get_answers(client: TestClient, photo: Image.Image, predictor: Predictor) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "leaf.png": saved(photo, "PNG"),
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG"),
        "turned.jpg": saved(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned, quality=95),
    }
    answers = {name: client.post("/predict", files=form(data, name)) for name, data in kinds.items()}

    assert {name: reply.status_code for name, reply in answers.items()} == dict.fromkeys(kinds, 200)
    upright = predictor.predict_image(np.asarray(photo)).probabilities
    assert answers["leaf.png"].json()["probabilities"] == pytest.approx(upright, abs=1e-4)
    turned_back = answers["turned.jpg"].json()["probabilities"]
    assert max(turned_back, key=turned_back.get) == max(upright, key=lambda name: upright[name])


REFUSED: dict[str, tuple[Callable[[Image.Image], bytes], int, str, str]] = {
    "a text": (lambda _: b"no photo at all", 415, "leaf.jpg: no image (15 bytes starting b'no photo')", "JPEG or PNG"),
    "a GIF": (lambda photo: saved(photo, "GIF"), 415, "leaf.jpg: a GIF file", "JPEG or PNG"),
    "nothing": (lambda _: b"", 422, "leaf.jpg: empty, 0 bytes", "send the file again"),
    "half": (lambda photo: saved(photo, "JPEG")[:900], 422, "leaf.jpg: a truncated or damaged JPEG", "a whole photo"),
    "a bomb": (
        lambda _: saved(Image.new("L", (10_000, 5_000)), "PNG"),
        *(422, "leaf.jpg: 10000x5000 = 50,000,000 pixels", "at most 40,000,000"),
    ),
    "a strip": (lambda _: saved(Image.new("L", (6_000, 2)), "PNG"), 422, "image: a strip of 6000x2 pixels", "ratio"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_photo_is_told_in_words(what: str, client: TestClient, photo: Image.Image) -> None:
    make, status, error, expected = REFUSED[what]

    reply = client.post("/predict", files=form(make(photo)))

    assert reply.status_code == status
    assert set(reply.json()) == {"error", "expected"}
    assert reply.json()["error"].startswith(error)
    assert expected in reply.json()["expected"]


def test_too_many_bytes_are_refused_by_what_is_announced(client: TestClient) -> None:
    reply = client.post("/predict", files=form(bytes(30_000_000)))

    assert reply.status_code == 413
    assert reply.json()["expected"] == "one photo of at most 20,000,000 bytes; save it smaller"


def test_a_request_that_is_no_form_is_told_what_to_type(client: TestClient, photo_bytes: bytes) -> None:
    wanted = "type curl -F file=@leaf.jpg"
    bare = client.post("/predict")
    raw = client.post("/predict", content=photo_bytes, headers={"Content-Type": "image/jpeg"})
    other_field = client.post("/predict", files=form(photo_bytes, field="image"))
    without_boundary = client.post("/predict", content=b"x", headers={"Content-Type": "multipart/form-data"})

    assert (bare.status_code, raw.status_code, other_field.status_code) == (422, 415, 422)
    assert all(wanted in reply.json()["expected"] for reply in (bare, raw, other_field))
    assert other_field.json()["error"] == "a form without the field `file`, but with `image`"
    assert without_boundary.status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', 400, "a multipart body that breaks off"),
        (b"no boundary at all", 400, "a damaged multipart body"),
        (b"--b--\r\n", 422, "a form without the field `file`"),
        (b"", 400, "a multipart body that breaks off"),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + bytes(70_000) + b"\r\n--b--\r\n",
            413,
            "over 65,536",
        ),
    ],
)
def test_damaged_forms_are_told(body: bytes, status: int, said: str, client: TestClient) -> None:
    reply = client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert reply.status_code == status
    assert said in reply.json()["error"]


def test_names_of_files_are_made_harmless(client: TestClient, photo_bytes: bytes) -> None:
    reply = client.post("/predict", files=form(photo_bytes, "../../etc/passwd;x" + "y" * 200))

    assert reply.json()["image"] == ("passwd_x" + "y" * 200)[:120]
    assert harmless_name("C:\\photos\\a\tb\u202e.jpg") == "a_b_.jpg"


def test_a_second_photo_in_one_field_is_refused(client: TestClient, photo_bytes: bytes) -> None:
    twice = [("file", ("a.jpg", photo_bytes, "image/jpeg")), ("file", ("b.jpg", photo_bytes, "image/jpeg"))]

    reply = client.post("/predict", files=twice)

    assert reply.status_code == 413
    assert reply.json()["error"] == "more than 1 file in one request"


@pytest.mark.parametrize("top_k", ["0", "6", "many"])
def test_a_wrong_parameter_is_named(top_k: str, client: TestClient, photo_bytes: bytes) -> None:
    reply = client.post("/predict", files=form(photo_bytes), params={"top_k": top_k})

    assert reply.status_code == 422
    assert reply.json() == {"error": f"top_k={top_k}", "expected": "a whole number from 1 to 5"}


def plant(*photos: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (f"{number}.jpg", photo, "image/jpeg")) for number, photo in enumerate(photos)]


def test_several_photos_of_a_plant_get_one_verdict(
    client: TestClient, photo: Image.Image, predictor: Predictor
) -> None:
    photos = [saved(photo.rotate(angle), "JPEG") for angle in (0, 90, 180)]

    reply = client.post("/predict/plant", files=plant(*photos), params={"top_k": 2})

    answer = PlantPrediction.model_validate_json(reply.content)
    alone = [predictor.predict_bytes(data, name="x", top_k=2) for data in photos]
    expected = combine_photos(alone, predictor.min_confidence, pooling_for(predictor))
    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    assert (answer.verdict, answer.more_leaves) == (expected.verdict, expected.more_leaves)
    assert [each.image for each in answer.photos] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(answer.top_k) == 2


def test_a_plant_with_a_bad_photo_or_too_many_is_refused(client: TestClient, photo_bytes: bytes) -> None:
    bad = client.post("/predict/plant", files=plant(photo_bytes, b"no photo"))
    many = client.post("/predict/plant", files=plant(*[photo_bytes] * 11))
    none = client.post("/predict/plant", files=form(photo_bytes))

    assert (bad.status_code, many.status_code, none.status_code) == (415, 413, 422)
    assert bad.json()["error"].startswith("1.jpg: no image")
    assert many.json()["error"] == "more than 10 files in one request"


def test_an_overlay_is_a_png_of_the_photo(client: TestClient, photo: Image.Image, predictor: Predictor) -> None:
    data = saved(photo, "PNG")

    named = client.post("/explain", files=form(data), params={"class_id": 2})
    predicted = client.post("/explain", files=form(data))

    assert named.headers["Content-Type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(named.content)))
    expected = np.asarray(draw_heatmap(predictor, np.asarray(photo), 2))
    assert drawn.shape == expected.shape == (180, 240, 3)
    assert np.abs(drawn.astype(int) - expected).max() <= 2
    assert predicted.status_code == 200
    assert client.post("/explain", files=form(b"no photo")).status_code == 415
    assert client.post("/explain", files=form(data), params={"class_id": 5}).json()["error"] == "class_id=5"


def test_unknown_paths_and_methods_have_the_same_shape(client: TestClient) -> None:
    nowhere, wrong_method = client.get("/nowhere"), client.get("/predict")

    assert (nowhere.status_code, wrong_method.status_code) == (404, 405)
    assert wrong_method.headers["Allow"] == "POST"
    assert set(nowhere.json()) == set(wrong_method.json()) == {"error", "expected"}


def test_the_card_tells_the_model_and_the_limits(client: TestClient, exported_model: Path) -> None:
    card = client.get("/model").json()

    assert card["model"]["path"] == str(exported_model)
    assert card["classes"] == list(CLASS_NAMES)
    assert card["members"][0]["metrics"] == {"val/acc": 0.5, "val/f1_macro": 0.4, "val/loss": 1.25}
    assert card["limits"]["max_upload_bytes"] == 20_000_000
    assert card["limits"]["formats"] == ["image/jpeg", "image/png"]


def test_metrics_count_requests_stages_verdicts_and_the_model(
    build_service: Callable[..., FastAPI],
    asking: Callable[[FastAPI], AbstractContextManager[TestClient]],
    photo_bytes: bytes,
) -> None:
    with asking(build_service()) as client:
        client.post("/predict", files=form(photo_bytes))
        client.post("/predict", files=form(b"no photo"))

        reply = client.get("/metrics")

    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    figures = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    assert figures['cassava_requests_total{method="POST",path="/predict",status="200"}'] == "1.0"
    assert figures['cassava_requests_total{method="POST",path="/predict",status="415"}'] == "1.0"
    for stage in ("decode", "inference", "total"):
        assert figures[f'cassava_stage_seconds_count{{stage="{stage}"}}'] == "1.0"
    assert figures['cassava_stage_seconds_count{stage="queue"}'] == "2.0"
    assert figures['cassava_batch_size_bucket{le="1.0"}'] == "1.0"
    assert sum(float(value) for name, value in figures.items() if name.startswith("cassava_verdicts_total")) == 1
    assert figures['cassava_model_info{name="test_resnet",version="0.1.0+20260101T0000"}'] == "1.0"
    assert figures["cassava_pending_photos"] == "0.0"


def test_each_answer_carries_its_id_and_headers_of_safety(client: TestClient) -> None:
    named = client.get("/health", headers={"X-Request-ID": "field-7"})
    forged = client.get("/health", headers={"X-Request-ID": 'a"b\\c'})

    assert named.headers["X-Request-ID"] == "field-7"
    assert forged.headers["X-Request-ID"] not in ("", 'a"b\\c')
    assert named.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in named.headers["Content-Security-Policy"]


def test_openapi_describes_the_upload_with_examples(client: TestClient) -> None:
    described = client.get("/openapi.json").json()

    predict = described["paths"]["/predict"]["post"]
    assert predict["requestBody"]["content"]["multipart/form-data"]["schema"]["required"] == ["file"]
    example = predict["responses"]["200"]["content"]["application/json"]["example"]
    assert Prediction.model_validate(example).verdict == "diagnosis"
    assert {"200", "413", "415", "422", "503"} <= set(predict["responses"])
    assert set(described["components"]["schemas"]["ErrorBody"]["required"]) == {"error", "expected"}
    assert json.dumps(described).count("HTTPValidationError") == 0


def test_the_service_needs_no_other_configuration() -> None:
    config = load_config()
    assert (config.serve.host, config.serve.port, config.serve.workers) == (None, None, None)
