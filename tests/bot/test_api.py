"""The bot in front of our own service: real requests, refusals, waits."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from cassava_leaf_disease.bot.diagnosis import ApiDiagnoser
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import (
    BusyError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageError,
)
from cassava_leaf_disease.serving.app import build_answerer, build_app
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.serve import address_of, bound_socket
from cassava_leaf_disease.serving.settings import ServingSettings, with_settings
from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, answered

StartBot = Callable[..., Any]
KEY = "0123456789abcdefXYZ"
ANN, BEN, CLEO = 1001, 1002, 1003


@pytest.fixture
def service(exported_model: Path) -> Iterator[str]:
    """Our service on a real socket; its address."""
    settings = ServingSettings.load({"checkpoint_path": exported_model, "reload_s": 0, "api_key": KEY})
    metrics = Metrics()
    app = build_app(settings, build_answerer(settings, with_settings(load_config(), settings), metrics), metrics)
    with bound_socket("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield address_of(listener)
        server.should_exit = True
        thread.join()


def test_our_service_answers_for_the_bot(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_API_URL", service)
    monkeypatch.setenv("CASSAVA_API_KEY", KEY)
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", "there/is/none/here.onnx")
    telegram.send_photo(ANN, leaves[0])
    telegram.send_album(BEN, [leaves[0], leaves[1][:300], leaves[2]])
    telegram.send_photo(CLEO, leaves[1][:300])
    telegram.say(CLEO, text="/about")
    with running_bot():
        [ann], [ben], [cleo, about] = answered(telegram, ANN), answered(telegram, BEN), answered(telegram, CLEO, 2)

    assert ann.picture
    assert bot_words("en").left_out.format(count=1) in ben.text
    assert cleo.text == bot_words("en").broken
    assert "test_resnet" in about.text


@dataclass
class Scripted:
    """A service that replies as it is told."""

    url: str
    replies: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    asked: int = 0


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    service = Scripted("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service.asked += 1
            status, headers, body = service.replies.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  the base class names it so

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    yield service
    server.shutdown()
    server.server_close()
    thread.join()


def refusal(status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, said, json.dumps({"error": "what was seen", "expected": "something else"}).encode()


def ask(url: str, timeout_s: float = 20) -> Any:
    async def diagnose() -> Any:
        async with httpx.AsyncClient(base_url=url, timeout=timeout_s) as client:
            return await ApiDiagnoser(client).diagnose([b"a photo"])

    return asyncio.run(diagnose())


@pytest.mark.parametrize(
    ("status", "error"),
    [(413, ImageError), (415, ImageError), (422, ImageError), (401, EngineError), (500, EngineError)],
)
def test_a_refusal_is_what_it_is_there(scripted: Scripted, status: int, error: type[Exception]) -> None:
    scripted.replies = [refusal(status)]
    with pytest.raises(error, match=rf"/predict/plant answered {status}: what was seen"):
        ask(scripted.url)


def test_a_busy_service_is_asked_again_when_it_says(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    scripted.replies = [refusal(503, Retry_After="2"), refusal(503), refusal(503, Retry_After="4")]
    with pytest.raises(BusyError) as told:
        ask(scripted.url)

    assert (slept, told.value.retry_after_s, scripted.asked) == ([2, 5], 4, 3)

    scripted.replies = [refusal(503, Retry_After="60")]
    with pytest.raises(BusyError):
        ask(scripted.url)
    assert scripted.asked == 4


def test_no_service_is_told() -> None:
    with pytest.raises(EngineUnavailableError, match="cannot be reached"):
        ask("http://127.0.0.1:9")


def test_another_service_is_told(scripted: Scripted) -> None:
    scripted.replies = [(200, {}, b"<html>hello"), (500, {}, b"oops")]
    with pytest.raises(EngineError, match="gave another answer than `cassava serve` does"):
        ask(scripted.url)
    with pytest.raises(EngineError, match="answered 500: oops"):
        ask(scripted.url)


def test_a_slow_service_is_told(service_that_waits: str) -> None:
    with pytest.raises(EngineTimeoutError, match="gave no answer within"):
        ask(service_that_waits, 0.2)


def test_a_service_without_heatmaps_has_none(scripted: Scripted) -> None:
    scripted.replies = [refusal(501), (200, {}, b"[]")]

    async def ask_both() -> bytes | None:
        async with httpx.AsyncClient(base_url=scripted.url) as client:
            heatmap = await ApiDiagnoser(client).heatmap(b"a photo", 3)
            with pytest.raises(EngineError, match="gave another answer"):
                await ApiDiagnoser(client).about()
            return heatmap

    assert asyncio.run(ask_both()) is None


@pytest.fixture
def service_that_waits() -> Iterator[str]:
    with bound_socket("127.0.0.1", 0) as listener:
        listener.listen(1)
        yield address_of(listener)


def test_who_waits_too_long_for_a_service_is_told_sorry(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CASSAVA_BOT_GIVE_UP_S", "0.5")
    monkeypatch.setattr("cassava_leaf_disease.bot.work._LONGEST_PAUSE_S", 0.2)
    telegram.send_photo(ANN, leaves[0], language="pt")
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.text == bot_words("pt").sorry
