"""A full queue, deadlines, clients that go away, slow uploads, keys, other origins: on a real socket."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

Eventually = Callable[[Callable[[], object]], None]
Running = Callable[[FastAPI], AbstractContextManager[httpx2.Client]]
Build = Callable[..., FastAPI]


def ask(client: httpx2.Client, data: bytes, name: str = "leaf.jpg") -> httpx2.Response:
    return client.post("/predict", files={"file": (name, data, "image/jpeg")})


def figures(client: httpx2.Client) -> dict[str, str]:
    lines = client.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def raw_request(data: bytes, *, announced: int | None = None, chunked: bool = False) -> bytes:
    """A POST as it travels."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="leaf.jpg"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (announced or len(body))
    lines = (b"POST /predict HTTP/1.1", b"Host: x", b"Content-Type: multipart/form-data; boundary=b", length)
    return b"\r\n".join((*lines, b"", b"" if chunked else body))


def connect(client: httpx2.Client) -> socket.socket:
    address = urlsplit(str(client.base_url))
    return socket.create_connection((address.hostname, address.port), timeout=30)


@pytest.fixture
def full(build_service: Build, running: Running, slow: Any) -> Iterator[httpx2.Client]:
    """A service of a busy machine: one photo is worked on, two may wait."""
    with running(build_service(slow, workers=1, queue_size=2, deadline_s=30)) as client:
        yield client


def test_a_full_queue_is_told_before_the_upload_and_the_others_get_their_answers(
    full: httpx2.Client, slow: Any, photo_bytes: bytes, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, full, photo_bytes, f"{number}.jpg") for number in range(3)]
        eventually(lambda: len(slow.begun) == 3)
        refused = ask(full, photo_bytes)
        alive = full.get("/health")
        slow.go_on.set()
        answers = [reply.result() for reply in waiting]

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"] == "3 photos wait or are worked on here"
    assert alive.status_code == 200
    assert [reply.status_code for reply in answers] == [200, 200, 200]
    assert figures(full)['cassava_rejected_total{reason="full"}'] == "1.0"
    assert ask(full, photo_bytes).status_code == 200


def test_a_photo_whose_deadline_passes_is_given_up(
    build_service: Build, running: Running, slow: Any, photo_bytes: bytes
) -> None:
    with running(build_service(slow, deadline_s=0.2)) as client:
        late = ask(client, photo_bytes)

        assert late.status_code == 503
        assert late.json()["error"] == "no answer within 0.2 s"
        assert "Retry-After" in late.headers
        assert slow.cancelled == ["leaf.jpg"]
        assert figures(client)["cassava_pending_photos"] == "0.0"


def test_a_client_that_goes_away_costs_nothing_more(
    full: httpx2.Client, slow: Any, photo_bytes: bytes, eventually: Eventually
) -> None:
    for _ in range(5):
        with connect(full) as connection:
            connection.sendall(raw_request(photo_bytes))
            eventually(lambda: len(slow.begun) > len(slow.cancelled))
        eventually(lambda: len(slow.begun) == len(slow.cancelled))

    assert figures(full)['cassava_rejected_total{reason="gone"}'] == "5.0"
    assert figures(full)['cassava_requests_total{method="POST",path="/predict",status="499"}'] == "5.0"
    slow.go_on.set()
    assert ask(full, photo_bytes).status_code == 200


def test_photos_of_clients_that_went_away_are_never_decoded(
    build_service: Build, running: Running, large_photo: bytes, photo_bytes: bytes, eventually: Eventually
) -> None:
    with running(build_service(workers=1, queue_size=50)) as client:
        connections = [connect(client) for _ in range(12)]
        for connection in connections:
            connection.sendall(raw_request(large_photo))
        eventually(lambda: float(figures(client)["cassava_pending_photos"]) == 12)
        for connection in connections:
            connection.close()
        eventually(lambda: figures(client)["cassava_pending_photos"] == "0.0")

        assert ask(client, photo_bytes).status_code == 200
        assert float(figures(client)['cassava_stage_seconds_count{stage="decode"}']) < 8


def test_an_upload_that_breaks_off_leaves_nothing(
    full: httpx2.Client, slow: Any, photo_bytes: bytes, eventually: Eventually
) -> None:
    with connect(full) as connection:
        connection.sendall(raw_request(photo_bytes, announced=10_000_000))
    status = 'cassava_requests_total{method="POST",path="/predict",status="499"}'

    eventually(lambda: figures(full).get(status) == "1.0")

    assert slow.begun == []


def test_a_slow_upload_is_ended(build_service: Build, running: Running, slow: Any) -> None:
    with running(build_service(slow, upload_timeout_s=0.3)) as client, connect(client) as connection:
        connection.sendall(raw_request(b"", chunked=True) + b"1\r\n-\r\n")

        assert receive(connection).startswith(b"HTTP/1.1 408 ")


def receive(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_too_many_bytes_are_refused_while_they_arrive(build_service: Build, running: Running, slow: Any) -> None:
    with running(build_service(slow, max_upload_bytes=100_000)) as client, connect(client) as connection:
        start = raw_request(b"", chunked=True)
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="z.jpg"\r\n\r\n'
        connection.sendall(start + b"%x\r\n%b\r\n" % (len(head), head))
        sent = send_for_ever(connection)
        reply = receive(connection)

    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"z.jpg: more than 100,000 bytes"' in reply
    assert b"connection: close" in reply.lower()
    assert sent < 100_000_000


def send_for_ever(connection: socket.socket) -> int:
    """Chunks of zeros until an answer is there; how many bytes went."""
    connection.setblocking(False)
    chunk, sent = b"10000\r\n" + bytes(65_536) + b"\r\n", 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            sent += connection.send(chunk[sent % len(chunk) :])
        except BlockingIOError:
            time.sleep(0.001)
        try:
            connection.recv(1, socket.MSG_PEEK)
            break
        except BlockingIOError:
            continue
    connection.setblocking(True)
    connection.settimeout(30)
    return sent


def test_uploads_together_are_bounded(build_service: Build, running: Running, slow: Any, photo_bytes: bytes) -> None:
    size = len(photo_bytes)
    service = build_service(slow, max_upload_bytes=2 * size, max_buffered_bytes=2 * size, queue_size=50)
    with running(service) as client, connect(client) as first:
        first.sendall(raw_request(photo_bytes))
        slow_start = time.monotonic()
        while not slow.begun and time.monotonic() < slow_start + 20:
            time.sleep(0.01)
        refused = ask(client, photo_bytes)

        assert refused.status_code == 503
        assert "are waiting here already" in refused.json()["error"]
        slow.go_on.set()
        assert b" 200 " in first.recv(100)
        assert ask(client, photo_bytes).status_code == 200


def test_a_key_is_asked_for_everywhere_but_for_life_signs_and_the_page(
    build_service: Build, running: Running, slow: Any, photo_bytes: bytes
) -> None:
    key = "x9kP4mQ7vT2wZ8rL"
    slow.go_on.set()
    with running(build_service(slow, api_key=key)) as client:
        assert [client.get(path).status_code for path in ("/health", "/ready", "/", "/openapi.json")] == [200] * 4
        bare, wrong = ask(client, photo_bytes), client.get("/metrics", headers={"X-API-Key": "wrong"})
        assert (bare.status_code, wrong.status_code, client.get("/model").status_code) == (401, 401, 401)
        assert bare.json()["error"] == "no API key"
        assert wrong.json()["error"] == "a wrong API key"
        client.headers["X-API-Key"] = key
        assert ask(client, photo_bytes).status_code == 200


def test_other_origins_are_closed_out_unless_named(build_service: Build, running: Running, slow: Any) -> None:
    asked = {"Origin": "https://field.example", "Access-Control-Request-Method": "POST"}
    with running(build_service(slow)) as client:
        closed = client.options("/predict", headers=asked)
    with running(build_service(slow, cors_origins="https://field.example, https://b.example")) as client:
        opened = client.options("/predict", headers=asked)
        foreign = client.options("/predict", headers={**asked, "Origin": "https://other.example"})

    assert "Access-Control-Allow-Origin" not in closed.headers
    assert opened.headers["Access-Control-Allow-Origin"] == "https://field.example"
    assert "Access-Control-Allow-Origin" not in foreign.headers


def test_an_unexpected_failure_has_the_shape_too_and_is_logged(
    build_service: Build, running: Running, slow: Any, photo_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def slip(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a slip")

    slow.predict_bytes = slip
    with running(build_service(slow)) as client:
        reply = ask(client, photo_bytes)

        assert reply.status_code == 500
        assert reply.json()["error"] == "an unexpected failure here"
        assert client.get("/health").status_code == 200
    assert "a slip" in caplog.text


def test_an_engine_that_draws_no_overlays_says_so(
    build_service: Build, running: Running, slow: Any, photo_bytes: bytes
) -> None:
    with running(build_service(slow, engine="triton", triton_url="127.0.0.1:1", checkpoint_path=None)) as client:
        reply = client.post("/explain", files={"file": ("leaf.jpg", photo_bytes)})
        card = client.get("/model").json()

    assert reply.status_code == 501
    assert reply.json()["expected"] == "CASSAVA_ENGINE=local"
    assert (card["engine"], card["model"]["name"]) == ("triton", "slow")


def test_a_plant_takes_the_room_of_its_photos(
    full: httpx2.Client, slow: Any, photo_bytes: bytes, eventually: Eventually
) -> None:
    def plant(photos: int) -> httpx2.Response:
        files = [("files", (f"{number}.jpg", photo_bytes, "image/jpeg")) for number in range(photos)]
        return full.post("/predict/plant", files=files)

    assert plant(4).status_code == 503
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(plant, 3)
        eventually(lambda: len(slow.begun) == 3)
        assert ask(full, photo_bytes).status_code == 503
        slow.go_on.set()
        assert waiting.result().json()["counted"] == [0, 1, 2]


def test_a_model_that_is_replaced_all_the_time_gives_no_mixed_answer(
    build_service: Build, running: Running, slow: Any, photo_bytes: bytes
) -> None:
    slow.go_on.set()
    answered = slow.predict_bytes

    async def replaced(data: bytes, *, name: str, top_k: int) -> Any:
        answer = await answered(data, name=name, top_k=top_k)
        return answer.model_copy(update={"model": answer.model.model_copy(update={"version": name})})

    slow.predict_bytes = replaced
    with running(build_service(slow)) as client:
        files = [("files", (f"{number}.jpg", photo_bytes, "image/jpeg")) for number in range(2)]
        reply = client.post("/predict/plant", files=files)

    assert reply.status_code == 503
    assert reply.json()["error"] == "the model is being replaced"
