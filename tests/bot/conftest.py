"""Bots to talk to, in this process or in one of their own, and the Telegram that they talk with."""

import asyncio
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cassava_leaf_disease.bot.giving import Gift
from cassava_leaf_disease.bot.run import BotResult, run_until
from cassava_leaf_disease.bot.settings import BotSettings, settings_for
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.serving.settings import ServingSettings
from fake_telegram import TOKEN, FakeTelegram, fake_telegram

QUIET_S = "0.3"


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*ServingSettings.variables(), *BotSettings.variables()):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("cassava_leaf_disease")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    """A Telegram of this test's own."""
    with fake_telegram() as server:
        yield server


@pytest.fixture
def of_the_bot(monkeypatch: pytest.MonkeyPatch, telegram: FakeTelegram, exported_model: Path) -> None:
    """The environment of a bot that answers with the small model."""
    monkeypatch.setenv("CASSAVA_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("CASSAVA_BOT_API_URL", telegram.url)
    monkeypatch.setenv("CASSAVA_BOT_ALBUM_QUIET_S", QUIET_S)
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", str(exported_model))
    monkeypatch.setenv("CASSAVA_LOG_FORMAT", "text")


@dataclass
class RunningBot:
    """A bot in a thread of this process."""

    result: BotResult | None = None
    error: Exception | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _ending: asyncio.Event | None = None
    _started: threading.Event = field(default_factory=threading.Event)

    def run(self, overrides: tuple[str, ...], parts: dict[str, Any]) -> None:
        async def until_told() -> BotResult:
            self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
            self._started.set()
            config = load_config(overrides)
            return await run_until(self._ending, config, settings_for(config), **parts)

        try:
            self.result = asyncio.run(until_told())
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error
        finally:
            self._started.set()

    def end(self) -> None:
        self._started.wait()
        if self._loop is not None and self._ending is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ending.set)


StartBot = Callable[..., AbstractContextManager[RunningBot]]


@pytest.fixture
def running_bot(of_the_bot: None) -> StartBot:
    """Runs a bot meanwhile; takes overrides, and a store and statistics for it."""

    @contextmanager
    def run(*overrides: str, **parts: Any) -> Iterator[RunningBot]:
        running = RunningBot()
        thread = threading.Thread(target=running.run, args=(overrides, parts))
        thread.start()
        try:
            yield running
        finally:
            running.end()
            thread.join(60)
            assert not thread.is_alive()
            assert running.error is None, running.error

    return run


@pytest.fixture
def start_process(of_the_bot: None, tmp_path: Path) -> Iterator[Callable[..., "BotProcess"]]:
    """Starts `cassava bot` in a process of its own."""
    started: list[BotProcess] = []

    def start(*overrides: str) -> BotProcess:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("cassava")), "bot", *overrides],
            cwd=tmp_path,
            env={**os.environ},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        lines: list[str] = []
        assert process.stderr is not None
        listening = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        listening.start()
        bot = BotProcess(process, lines, listening)
        started.append(bot)
        return bot

    yield start
    for bot in started:
        bot.kill()
        for stream in (bot.process.stdout, bot.process.stderr):
            assert stream is not None
            stream.close()


@dataclass
class BotProcess:
    """A bot in a process of its own, and what it has said on stderr."""

    process: subprocess.Popen[str]
    lines: list[str]
    listening: threading.Thread

    def kill(self) -> None:
        """kill -9."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.listening.join(30)

    def stop(self) -> tuple[int, str]:
        """Ends it as a container's engine would; exit code and stdout."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.listening.join(30)
        return code, self.process.stdout.read()


@dataclass
class MemoryStore:
    """Keeps gifts in memory, as the feedback store does on the disk."""

    kept: dict[str, Gift] = field(default_factory=dict)
    fails: bool = False

    def keep(self, gift: Gift) -> None:
        if self.fails:
            raise StorageError("the disk is full")
        self.kept.setdefault(gift.receipt, gift)

    def forget(self, contributor: str) -> int:
        mine = [receipt for receipt, gift in self.kept.items() if gift.contributor == contributor]
        for receipt in mine:
            del self.kept[receipt]
        return len(mine)


@pytest.fixture
def store() -> MemoryStore:
    """A store of this test's own."""
    return MemoryStore()


@dataclass
class Counted:
    """Notes what is counted."""

    predictions: list[Prediction] = field(default_factory=list)

    def record(self, prediction: Prediction) -> None:
        self.predictions.append(prediction)


@pytest.fixture
def counted() -> Counted:
    """Statistics of this test's own."""
    return Counted()


@pytest.fixture(scope="session")
def leaves() -> list[bytes]:
    """Drawn leaves as JPEG files."""

    def leaf(seed: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(draw_leaf(seed, seed % 5, 200)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    return [leaf(seed) for seed in range(6)]


@pytest.fixture(scope="session")
def dark_photo() -> bytes:
    """A photo on which nothing can be seen."""
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), (3, 3, 3)).save(buffer, "JPEG")
    return buffer.getvalue()
