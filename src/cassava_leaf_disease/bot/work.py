"""Who is answered when: chats side by side, each chat's tasks one after another, failures later again."""

import asyncio
import logging
import time
from typing import Final

from telegram.error import InvalidToken, TelegramError

from cassava_leaf_disease.bot.diagnosis import retry_after_s
from cassava_leaf_disease.bot.dialogue import Dialogue
from cassava_leaf_disease.bot.ledger import DAY_S, Ledger
from cassava_leaf_disease.bot.records import Task
from cassava_leaf_disease.bot.settings import BotSettings
from cassava_leaf_disease.bot.telegram_api import LaterError, UnreachableError
from cassava_leaf_disease.errors import CassavaError

_MAX_ATTEMPTS: Final = 5  # a photo that ends the process each time is left after so many
_LONGEST_PAUSE_S: Final = 60.0
_PRUNE_EVERY_S: Final = 3600.0

_log = logging.getLogger(__name__)


class Work:
    """Takes tasks from the ledger as they are due."""

    def __init__(self, settings: BotSettings, ledger: Ledger, dialogue: Dialogue) -> None:
        self._settings = settings
        self._ledger = ledger
        self._dialogue = dialogue
        self._first_tried: dict[int, float] = {}  # of tasks that are not done yet; this process's own clock
        self._running: dict[int, asyncio.Task[None]] = {}  # by chat
        self._wake = asyncio.Event()
        self._pruned_at = float("-inf")

    def wake(self) -> None:
        """Something has come."""
        self._wake.set()

    async def run(self, until: asyncio.Event) -> None:
        """Answers until told to end; then what has begun is finished, as far as there is time."""
        ending = asyncio.create_task(until.wait())
        try:
            while not until.is_set():
                self._wake.clear()
                self._begin()
                await self._nap(ending)
        finally:
            ending.cancel()
            await self._finish()

    def _begin(self) -> None:
        while len(self._running) < self._settings.parallel:
            task = self._ledger.claim(frozenset(self._running))
            if task is None:
                break
            self._running[task.chat] = asyncio.create_task(self._do(task))
        if time.monotonic() - self._pruned_at > _PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            self._ledger.prune(self._settings.remember_days * DAY_S)

    async def _nap(self, ending: "asyncio.Task[bool]") -> None:
        """Waits until something has come, has been finished, or is due."""
        next_s = self._ledger.seconds_to_next()
        pause_s = _LONGEST_PAUSE_S if next_s is None else min(next_s, _LONGEST_PAUSE_S)
        waking = asyncio.create_task(self._wake.wait())
        await asyncio.wait({waking, ending}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()

    async def _finish(self) -> None:
        running = set(self._running.values())
        if running:
            _, left = await asyncio.wait(running, timeout=self._settings.shutdown_timeout_s)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _do(self, task: Task) -> None:
        try:
            await self._answer(task)
        except asyncio.CancelledError:
            self._ledger.postpone(task.id, 0)
            raise
        except Exception:  # noqa: BLE001  the last place to say anything: the other chats go on
            _log.exception("task %d failed, it is tried again", task.id)
            self._ledger.postpone(task.id, min(2.0**task.attempts, _LONGEST_PAUSE_S), counts=True)
        finally:
            del self._running[task.chat]
            self._wake.set()

    async def _answer(self, task: Task) -> None:
        try:
            await self._try(task)
        except UnreachableError as error:
            _log.info("task %d needs no answer any more: %s", task.id, error)
            self._ledger.finish(task)
        except LaterError as error:
            _log.warning("task %d waits for Telegram: %s", task.id, error)
            self._first_tried.pop(task.id, None)  # however long that takes, the answer is given then
            self._ledger.postpone(task.id, max(1, error.retry_after_s))
        except CassavaError as error:
            pause_s = min(max(retry_after_s(error), 1), _LONGEST_PAUSE_S)
            _log.warning("task %d has no answer yet, next try in %.0f s: %s", task.id, pause_s, error)
            self._ledger.postpone(task.id, pause_s)
        except InvalidToken:
            _log.error("task %d waits: Telegram does not know CASSAVA_BOT_TOKEN any more", task.id)
            self._first_tried.pop(task.id, None)
            self._ledger.postpone(task.id, _LONGEST_PAUSE_S)
        except TelegramError as error:
            _log.error("task %d: Telegram refuses it: %s", task.id, type(error).__name__)
            self._ledger.postpone(task.id, min(2.0**task.attempts, _LONGEST_PAUSE_S), counts=True)
        if self._ledger.is_done(task.id):
            self._first_tried.pop(task.id, None)

    async def _try(self, task: Task) -> None:
        tried_s = time.monotonic() - self._first_tried.setdefault(task.id, time.monotonic())
        if task.attempts > 2 * _MAX_ATTEMPTS:
            _log.error("task %d is dropped: not even an apology arrives", task.id)
            self._ledger.finish(task)
        elif task.attempts > _MAX_ATTEMPTS or tried_s > self._settings.give_up_s:
            _log.error("task %d is given up after %d attempts in %.0f s", task.id, task.attempts - 1, tried_s)
            await self._dialogue.apologise(task)
        else:
            await self._dialogue.answer(task)
