"""Photos and requests that mean harm: honest refusals in the one shape, no crash, and memory stays."""

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from starlette.testclient import TestClient

from cassava_leaf_disease.serving import http
from hostile_photos import hand_made, mutations, sample_photos

HONEST = {200, 413, 415, 422}


def test_every_attack_is_answered_honestly(client: TestClient) -> None:
    for name, data in hand_made(sample_photos()):
        reply = client.post("/predict", files={"file": ("photo", data, "image/jpeg")})

        assert reply.status_code in HONEST, name
        assert reply.status_code == 200 or set(reply.json()) == {"error", "expected"}, name


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_photos_changed_at_random_are_answered_honestly(path: str, client: TestClient) -> None:
    statuses: Counter[int] = Counter()
    for data in mutations(sample_photos(), 200, seed=5):
        reply = client.post(path, files={"file": ("photo", data, "image/jpeg")})
        statuses[reply.status_code] += 1

    assert set(statuses) <= HONEST
    assert statuses[200] > 10
    assert statuses[422] > 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which only Linux has")
def test_memory_stays_under_attack(start_server: Callable[..., Any]) -> None:
    server = start_server(("cassava", "serve", "serve.port=0", "serve.workers=2"))

    def resident_bytes() -> int:
        pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def attack(seed: int) -> None:
        for data in [*(data for _, data in hand_made(sample_photos())), *mutations(sample_photos(), 100, seed)]:
            reply = server.client.post("/predict", files={"file": ("photo", data, "image/jpeg")})
            assert reply.status_code in HONEST

    attack(1)
    before = resident_bytes()
    for seed in (2, 3):
        attack(seed)

    assert resident_bytes() < 1.1 * before
    server.stop()


HOSTILE_REQUESTS = {
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "wrong length": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "huge length": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 99999999999999999999\r\n\r\n",
    "climbing path": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "encoded climbing path": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "null in path": b"GET /%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE_REQUESTS)
def test_hostile_requests_harm_nobody(
    name: str,
    build_service: Callable[..., FastAPI],
    running: Callable[[FastAPI], AbstractContextManager[httpx2.Client]],
    slow: Any,
) -> None:
    with running(build_service(slow)) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as connection:
            connection.sendall(HOSTILE_REQUESTS[name])
            answer = answer_of(connection)

        assert b"root:" not in answer
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
        assert client.get("/health").status_code == 200


def test_a_head_that_never_ends_or_comes_too_slowly_is_given_up(
    build_service: Callable[..., FastAPI],
    running: Callable[[FastAPI], AbstractContextManager[httpx2.Client]],
    slow: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(connection: socket.socket) -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"a" * 10_000)
        return answer_of(connection)

    def sluggish(connection: socket.socket) -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        return answer_of(connection)

    with running(build_service(slow)) as client:
        address = ("127.0.0.1", client.base_url.port or 0)
        with socket.create_connection(address, timeout=20) as connection:
            assert endless(connection)[:12] in (b"HTTP/1.1 400", b"")  # or the connection was cut before it was read
        monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 0.2)
        with socket.create_connection(address, timeout=20) as connection:
            assert sluggish(connection) == b""
        assert client.get("/health").status_code == 200


def answer_of(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("feedback_url", [None, "sqlite:///given/feedback.db"])
def test_the_service_keeps_to_its_openapi(
    build_service: Callable[..., FastAPI],
    running: Callable[[FastAPI], AbstractContextManager[httpx2.Client]],
    feedback_url: str | None,
) -> None:
    """Schemathesis makes requests from the description, and holds the answers to it."""
    with running(build_service(feedback_url=feedback_url)) as client:
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]

        assert {operation.path for operation in operations} == PATHS
        for operation in operations:
            ask_at_random(operation)


PATHS = {
    *("/health", "/ready", "/model", "/metrics", "/predict", "/predict/plant", "/explain"),
    *("/feedback", "/forget"),
    *("/offline/model.json", "/offline/model.onnx"),
}


def ask_at_random(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])  # it cannot know what a photo is

    ask()
