"""`cassava bot`: the bot in this process, until it is told to end."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.bot import keeping
from cassava_leaf_disease.bot.diagnosis import open_diagnoser
from cassava_leaf_disease.bot.dialogue import Dialogue
from cassava_leaf_disease.bot.giving import Statistics, Store
from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.receive import poll, serve_webhook, webhook_app
from cassava_leaf_disease.bot.settings import BotSettings, settings_for
from cassava_leaf_disease.bot.telegram_api import LaterError, Telegram
from cassava_leaf_disease.bot.work import Work
from cassava_leaf_disease.config.environment import warn_of_misspelled
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.serving.background import meanwhile
from cassava_leaf_disease.serving.logs import configure_service_logging
from cassava_leaf_disease.serving.serve import address_of, bound_socket
from cassava_leaf_disease.serving.settings import ServingSettings
from cassava_leaf_disease.texts.advice import LANGUAGES
from cassava_leaf_disease.texts.bot import bot_words

Got = TypeVar("Got")

STATE_FILE = Path("bot") / "bot.sqlite"
_BACKLOG = 128

_log = logging.getLogger(__name__)


class BotResult(BaseModel):
    """What the bot did until it was told to end; `open_tasks` are left for the next start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    answers: int
    open_tasks: int
    seconds: float


def bot(config: AppConfig) -> BotResult:
    """Answers in Telegram until SIGTERM, then finishes what has begun.

    Raises:
        ConfigError: A wrong setting or token, or another bot works with the same state.
        CassavaError: No model, or one that is damaged.
    """
    settings = settings_for(config)
    configure_service_logging(settings.log_level, settings.log_format)
    warn_of_misspelled(BotSettings, ServingSettings)  # of the service's it takes the store's and the limits

    async def until_told() -> BotResult:
        ending = asyncio.Event()
        with _ended_by_signals(ending):
            return await run_until(ending, config, settings)

    return asyncio.run(until_told())


async def run_until(
    ending: asyncio.Event,
    config: AppConfig,
    settings: BotSettings,
    store: Store | None = None,
    statistics: Statistics | None = None,
) -> BotResult:
    """Answers until `ending` is set; where neither is given, `store` and `statistics` are what the settings name.

    Without a store nobody is asked to give anything.

    Raises:
        CassavaError: As `bot`.
    """
    started = time.monotonic()
    path = settings.state_path or config.paths.outputs_dir / STATE_FILE
    async with contextlib.AsyncExitStack() as stack:
        ledger = Ledger(path, settings.album_quiet_s, settings.max_waiting)
        stack.callback(ledger.close)
        diagnoser = await stack.enter_async_context(open_diagnoser(config, settings))
        telegram = Telegram(settings)
        stack.push_async_callback(telegram.close)
        if store is None and statistics is None:
            store, statistics = stack.enter_context(keeping.as_set(config))
        dialogue = Dialogue(settings, ledger, telegram, diagnoser, store=store, statistics=statistics)
        work = Work(settings, ledger, dialogue)
        name = await _unless(ending, telegram.connect())
        if name is not None:
            async with _receiving(ending, settings, telegram, ledger, work) as caught_up:
                _log.info("@%s answers; its state is in %s", name, path)
                await _unless(ending, caught_up.wait())
                await work.run(ending)
        return BotResult(
            name=name or "",
            answers=dialogue.answered,
            open_tasks=ledger.open_tasks(),
            seconds=round(time.monotonic() - started, 1),
        )


@contextlib.asynccontextmanager
async def _receiving(
    ending: asyncio.Event, settings: BotSettings, telegram: Telegram, ledger: Ledger, work: Work
) -> AsyncIterator[asyncio.Event]:
    """Meanwhile updates come in; gives what tells that those from before the start are there.

    Raises:
        ConfigError: The webhook's address is taken, or none of this machine's.
    """
    caught_up = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        if settings.webhook_url is None:
            receiving = poll(telegram, ledger, settings.poll_timeout_s, work.wake, caught_up.set)
        else:
            listener = stack.enter_context(bound_socket(settings.host, settings.port))
            listener.listen(_BACKLOG)
            _log.info("the webhook listens at %s", address_of(listener))
            app = webhook_app(ledger, settings.webhook_path, settings.secret_of_webhook, work.wake)
            receiving = serve_webhook(app, listener, caught_up.set)
        task = await stack.enter_async_context(meanwhile(receiving))
        task.add_done_callback(lambda _: ending.set())  # where it fails, the bot ends with its error
        await stack.enter_async_context(meanwhile(_introduce(settings, telegram)))
        yield caught_up


async def _introduce(settings: BotSettings, telegram: Telegram) -> None:
    """Tells Telegram how updates are to come, and the commands; where it cannot be reached, later again."""
    while True:
        try:
            if settings.webhook_url is None:
                await telegram.use_polling()
            else:
                await telegram.use_webhook(settings.webhook_url, settings.secret_of_webhook)
            for language in LANGUAGES:
                commands = bot_words(language).commands.model_dump()
                await telegram.set_commands(commands, language)
                if language == LANGUAGES[0]:
                    await telegram.set_commands(commands, None)
        except LaterError as error:
            _log.warning("Telegram could not be told how updates are to come; next try: %s", error)
            await asyncio.sleep(max(5, error.retry_after_s))
        except Exception as error:  # noqa: BLE001  a menu that Telegram does not take is no reason not to answer
            _log.error("Telegram does not take the bot's webhook or commands: %s", type(error).__name__)
            return
        else:
            return


async def _unless(ending: asyncio.Event, work: Coroutine[Any, Any, Got]) -> Got | None:
    """What `work` gives; None where the bot is told to end before."""
    working, told = asyncio.create_task(work), asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for each in (working, told):
            each.cancel()


@contextlib.contextmanager
def _ended_by_signals(ending: asyncio.Event) -> Iterator[None]:
    """SIGTERM sets the event; Ctrl-C interrupts as everywhere."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, ending.set)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
