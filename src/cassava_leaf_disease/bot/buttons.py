"""What the buttons below an answer do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from telegram import CallbackQuery

from cassava_leaf_disease.bot import replies
from cassava_leaf_disease.bot.giving import Store, gifts
from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.photo_answers import PhotoAnswers
from cassava_leaf_disease.bot.records import Answer
from cassava_leaf_disease.bot.said import Said
from cassava_leaf_disease.bot.telegram_api import PhotoGoneError, PhotoTooLargeError, Telegram
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.texts.advice import nearest_language
from cassava_leaf_disease.texts.bot import bot_words

MAX_TEXT: Final = 4096

_log = logging.getLogger(__name__)


class Buttons:
    """Judging an answer, asking for more or for another plant, giving photos, choosing the language."""

    def __init__(self, ledger: Ledger, telegram: Telegram, photo_answers: PhotoAnswers, store: Store | None) -> None:
        self._ledger = ledger
        self._telegram = telegram
        self._photo_answers = photo_answers
        self._store = store

    async def press(self, said: Said, press: CallbackQuery) -> None:
        """Does what the pressed button stands for; one below an answer that is forgotten is told to be too old."""
        verb, _, rest = (press.data or "").partition(":")
        number, _, chosen = rest.partition(":")
        if verb == "l":
            await self._choose_language(said, press, rest)
            return
        answer = self._ledger.answer(int(number)) if number.isdecimal() else None
        action = self._actions.get(verb)
        if action is None or answer is None or answer.person != said.task.person or press.message is None:
            await self._telegram.acknowledge(press.id, said.words.too_old)
            return
        await action(said, press, answer, chosen)

    @property
    def _actions(self) -> Mapping[str, Callable[[Said, CallbackQuery, Answer, str], Awaitable[None]]]:
        return {
            "r": lambda said, press, answer, _: self._judge(said, press, answer, "right"),
            "w": self._ask_class,
            "c": self._judge,
            "m": self._tell_more,
            "o": self._other_plant,
            "k": self._keep,
            "d": self._drop,
        }

    async def _choose_language(self, said: Said, press: CallbackQuery, chosen: str) -> None:
        language = nearest_language(chosen)
        self._ledger.set_language(said.task.person, language)
        words = bot_words(language)
        await self._telegram.acknowledge(press.id)
        if press.message is not None:
            text = replies.in_html(words.language_chosen)
            await self._telegram.fill(said.task.chat, press.message.message_id, text, None, None)

    async def _ask_class(self, said: Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id, said.words.what_is_it)
        if answer.correct is None:
            keyboard = replies.class_keyboard(answer.id, said.language)
            await self._telegram.set_keyboard(answer.chat, answer.message, keyboard)

    async def _judge(self, said: Said, press: CallbackQuery, answer: Answer, chosen: str) -> None:
        """Somebody says what an answer was worth; the first word counts."""
        await self._telegram.acknowledge(press.id, said.words.thanks)
        if answer.correct is not None:
            return
        keyboard = replies.answer_keyboard(answer.id, answer.plant.verdict, said.language, same_plant=False, asks=False)
        await self._telegram.set_keyboard(answer.chat, answer.message, keyboard)
        if self._store is not None:
            text = said.words.ask_to_keep.format(count=len(answer.photos))
            consent = replies.consent_keyboard(answer.id, said.language)
            await self._telegram.send(said.task.chat, replies.in_html(text), consent, answer.message)
        self._ledger.put_answer(replace(answer, correct=chosen))

    async def _tell_more(self, said: Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id)
        text = replies.more_text(answer.plant, said.language, MAX_TEXT)
        await self._telegram.send(answer.chat, text, reply_to=answer.message)

    async def _other_plant(self, said: Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        """The photos of the last message alone: the answer changes in its place."""
        await self._telegram.acknowledge(press.id)
        own = answer.photos[len(answer.photos) - answer.own_photos :]
        if not own or answer.own_photos == len(answer.photos):
            return
        task = replace(said.task, id=answer.id, placeholder=answer.message)
        await self._photo_answers.answer(replace(said, task=task), own, own)

    async def _keep(self, said: Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id, said.words.thanks)
        if answer.settled or answer.correct is None or self._store is None or press.message is None:
            return
        text = said.words.kept
        try:
            fetched = await self._photo_answers.fetched(answer.photos)
            places = [(answer.photos.index(photo), data) for photo, data in fetched]
            for gift in gifts(answer.plant, places, answer.person, answer.correct, answer.receipt):
                await asyncio.to_thread(self._store.keep, gift)
        except (PhotoGoneError, PhotoTooLargeError):
            text = said.words.gone
        except CassavaError as error:
            _log.error("a given photo could not be kept: %s", error)
            text = said.words.not_kept_failed
        await self._telegram.fill(said.task.chat, press.message.message_id, replies.in_html(text), None, None)
        self._ledger.put_answer(replace(answer, settled=True))

    async def _drop(self, said: Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id)
        if answer.settled or press.message is None:
            return
        text = replies.in_html(said.words.not_kept)
        await self._telegram.fill(said.task.chat, press.message.message_id, text, None, None)
        self._ledger.put_answer(replace(answer, settled=True))
