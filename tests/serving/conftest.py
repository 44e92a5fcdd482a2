"""Services to ask: by the test client, and real servers on 127.0.0.1."""

import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction, probabilities_by_name, rank_classes
from cassava_leaf_disease.inference.aggregate import DEFAULT_POOLING
from cassava_leaf_disease.serving.answerers import About, Answerer
from cassava_leaf_disease.serving.app import build_answerer, build_app
from cassava_leaf_disease.serving.http import BoundedHttpProtocol
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.serve import address_of, bound_socket
from cassava_leaf_disease.serving.settings import ServingSettings, with_settings

BuildService = Callable[..., FastAPI]
Running = Callable[[FastAPI], AbstractContextManager[httpx2.Client]]


@pytest.fixture(autouse=True, scope="session")
def no_settings_of_the_user() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ServingSettings.model_fields:
            patch.delenv(f"CASSAVA_{name.upper()}", raising=False)
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    loggers = [
        logging.getLogger(name) for name in ("cassava_leaf_disease", "uvicorn", "uvicorn.error", "uvicorn.access")
    ]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def build_service(exported_model: Path) -> BuildService:
    """A service of the small model with other settings, or of another answerer."""

    def build(answerer: Answerer | None = None, **changed: object) -> FastAPI:
        settings = ServingSettings.load({"checkpoint_path": exported_model, "reload_s": 0, **changed})
        metrics = Metrics()
        answerer = answerer or build_answerer(settings, with_settings(load_config(), settings), metrics)
        return build_app(settings, answerer, metrics)

    return build


@pytest.fixture(scope="module")
def client(build_service: BuildService) -> Iterator[TestClient]:
    """A client of a service that is ready; a module's tests share it."""
    with ready(build_service()) as asking:
        yield asking


@contextlib.contextmanager
def ready(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as asking:
        wait_until(lambda: asking.get("/ready").status_code == 200)
        yield asking


@pytest.fixture
def asking() -> Callable[[FastAPI], AbstractContextManager[TestClient]]:
    """A test client of an app that is ready."""
    return ready


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something holds; fails after half a minute."""
    return wait_until


@pytest.fixture
def running() -> Running:
    """Runs an app on a real socket, in a thread of this process."""

    @contextlib.contextmanager
    def run(app: FastAPI) -> Iterator[httpx2.Client]:
        with bound_socket("127.0.0.1", 0) as listener:
            server = uvicorn.Server(uvicorn.Config(app, http=BoundedHttpProtocol, log_config=None, access_log=False))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                with httpx2.Client(base_url=address_of(listener), timeout=60) as asking:
                    wait_until(lambda: server.started and asking.get("/ready").status_code == 200)
                    yield asking
            finally:
                server.should_exit = True
                thread.join()

    return run


def wait_until(holds: Callable[[], object], at_most_s: float = 30) -> None:
    deadline = time.monotonic() + at_most_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {at_most_s} s"
        time.sleep(0.02)


IDENTITY = ModelIdentity(name="slow", version="1", source="explicit", path="nowhere")


@dataclass
class SlowAnswerer:
    """Answers when it is let, and notes what has begun and what was cancelled: stands for a busy machine."""

    go_on: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    closed: bool = False

    async def predict_bytes(self, data: bytes, *, name: str, top_k: int) -> Prediction:
        self.begun.append(name)
        try:
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return some_prediction(name, top_k)

    async def about(self) -> About:
        return About(IDENTITY, (), ("identity",), 0.5, DEFAULT_POOLING)

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        self.closed = True


def some_prediction(name: str, top_k: int) -> Prediction:
    shares = [0.1, 0.1, 0.1, 0.6, 0.1]
    return Prediction(
        predicted_class_id=3,
        class_name=CLASS_NAMES[3],
        confidence=0.6,
        probabilities=dict(probabilities_by_name(shares, CLASS_NAMES)),
        top_k=rank_classes(shares, CLASS_NAMES, top_k),
        verdict="diagnosis",
        model=IDENTITY,
        image=name,
    )


@pytest.fixture
def slow() -> Iterator[SlowAnswerer]:
    answerer = SlowAnswerer()
    yield answerer
    answerer.go_on.set()


@dataclass
class ServerProcess:
    """A service in a process of its own, and what it has said on stderr."""

    process: subprocess.Popen[str]
    lines: list[str]
    client: httpx2.Client
    listening: threading.Thread

    def stop(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ends it as a container's engine would; exit code and stdout."""
        assert self.process.stdout is not None
        self.process.send_signal(by)
        code = self.process.wait(60)
        self.listening.join()
        return code, self.process.stdout.read()


StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path, exported_model: Path) -> Iterator[StartServer]:
    """Starts a command line of the environment, such as `cassava serve`, and waits until it is ready."""
    started: list[ServerProcess] = []

    def start(words: Sequence[str], **environment: str) -> ServerProcess:
        script, *arguments = words
        surroundings = {**os.environ, "CASSAVA_CHECKPOINT_PATH": str(exported_model), **environment}
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(script)), *arguments],
            cwd=tmp_path,
            env=surroundings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        lines: list[str] = []
        assert process.stderr is not None
        listening = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        listening.start()
        wait_until(lambda: process.poll() is not None or url_in(lines))
        assert process.poll() is None, "".join(lines)
        server = ServerProcess(process, lines, httpx2.Client(base_url=str(url_in(lines)), timeout=60), listening)
        started.append(server)
        wait_until(lambda: server.client.get("/ready").status_code == 200)
        return server

    yield start
    for server in started:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        server.listening.join()
        for stream in (server.process.stdout, server.process.stderr):
            assert stream is not None
            stream.close()


def url_in(lines: Sequence[str]) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
    return found and found[0]


@pytest.fixture(scope="session")
def large_photo() -> bytes:
    """A PNG of ten megapixels, a third of a second to decode."""
    buffer = io.BytesIO()
    Image.effect_noise((400, 250), 60).convert("RGB").resize((4000, 2500)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
