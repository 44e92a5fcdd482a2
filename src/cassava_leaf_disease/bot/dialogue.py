"""What the bot does with each task: a command, photos, or a button that was pressed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from telegram import Message, Update
from telegram.constants import ChatType

from cassava_leaf_disease.bot import replies
from cassava_leaf_disease.bot.buttons import Buttons
from cassava_leaf_disease.bot.diagnosis import Diagnoser
from cassava_leaf_disease.bot.giving import NoStatistics, Statistics, Store, contributor_of
from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.photo_answers import MAX_MEGABYTES, PhotoAnswers, why_not
from cassava_leaf_disease.bot.photos import SentPhoto, photo_in
from cassava_leaf_disease.bot.records import Task
from cassava_leaf_disease.bot.said import Said
from cassava_leaf_disease.bot.settings import ALBUM_PHOTOS, BotSettings
from cassava_leaf_disease.bot.telegram_api import Telegram
from cassava_leaf_disease.texts.advice import LANGUAGES, Language, nearest_language
from cassava_leaf_disease.texts.bot import bot_words

_HOUR_S: Final = 3600.0
_MINUTE_S: Final = 60.0
_MESSAGES_PER_MINUTE: Final = 20  # of one user that are no photos
_TELL_AGAIN_S: Final = 60.0  # how often somebody is told of a limit

_log = logging.getLogger(__name__)


class Dialogue:
    """Answers tasks, one after another for each chat. A task may come again if the process ended before `finish`."""

    def __init__(  # noqa: PLR0913  the parts of a running bot
        self,
        settings: BotSettings,
        ledger: Ledger,
        telegram: Telegram,
        diagnoser: Diagnoser,
        *,
        store: Store | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._telegram = telegram
        self._diagnoser = diagnoser
        self._store = store
        self._photo_answers = PhotoAnswers(ledger, telegram, diagnoser)
        self._buttons = Buttons(ledger, telegram, self._photo_answers, store)
        self._statistics = statistics or NoStatistics()
        self.answered = 0

    async def answer(self, task: Task) -> None:
        """Answers a task and finishes it.

        Raises:
            LaterError: It is to be done later.
            CassavaError: There is no answer now.
        """
        updates = [Update.de_json(update, None) for update in task.updates]
        messages = [update.message for update in updates if update.message is not None]
        press = updates[0].callback_query if updates else None
        person = press.from_user if press else messages[0].from_user if messages else None
        said = Said(task, self._language(task.person, person.language_code if person else None))
        if press is not None:
            await self._buttons.press(said, press)
        elif messages and task.photos:
            await self._photos(said, messages)
        elif messages:
            await self._text(said, messages[0])
        self._ledger.finish(task)  # once more where it was finished with an answer: that changes nothing

    async def apologise(self, task: Task) -> None:
        """Tells the user that there will be no answer, and finishes the task."""
        language = self._language(task.person, _language_code(task))
        text = replies.in_html(bot_words(language).sorry)
        if task.placeholder is None:
            await self._telegram.send(task.chat, text)
        else:
            await self._telegram.fill(task.chat, task.placeholder, text, None, None)
        self._ledger.finish(task)

    def _language(self, person: int, code: str | None) -> Language:
        chosen = self._ledger.language(person)
        return next((each for each in LANGUAGES if each == chosen), nearest_language(code))

    async def _tell(self, said: Said, text: str, **more: object) -> None:
        await self._telegram.send(said.task.chat, replies.in_html(text), **more)  # type: ignore[arg-type]

    # Words

    async def _text(self, said: Said, message: Message) -> None:
        command = _command_in(message)
        if self._ledger.messages_before(said.task, _MINUTE_S) >= _MESSAGES_PER_MINUTE:
            _log.warning(
                "somebody sends more than %d messages a minute, which go without answers", _MESSAGES_PER_MINUTE
            )
        elif command is not None and command in self._commands:
            await self._commands[command](said)
        elif message.chat.type == ChatType.PRIVATE:  # among others in a group, what is said is not said to a bot
            kind = photo_in(message)
            words = said.words.text if isinstance(kind, SentPhoto) else getattr(said.words, kind)
            await self._tell(said, words)

    @property
    def _commands(self) -> Mapping[str, Callable[[Said], Awaitable[None]]]:
        return {
            "start": lambda said: self._tell(said, said.words.start),
            "help": lambda said: self._tell(said, said.words.help.format(count=ALBUM_PHOTOS, megabytes=MAX_MEGABYTES)),
            "about": self._about,
            "privacy": lambda said: self._tell(
                said, said.words.privacy.format(days=round(self._settings.remember_days))
            ),
            "language": lambda said: self._tell(said, said.words.choose_language, keyboard=replies.language_keyboard()),
            "forget": self._forget,
        }

    async def _about(self, said: Said) -> None:
        model = await self._diagnoser.about()
        await self._tell(said, said.words.about.format(name=model.name, version=model.version))

    async def _forget(self, said: Said) -> None:
        count = 0
        if self._store is not None:
            count = await asyncio.to_thread(self._store.forget, contributor_of(said.task.person))
        self._ledger.forget(said.task.person)
        await self._tell(said, said.words.forgotten.format(count=count))

    # Photos

    async def _photos(self, said: Said, messages: Sequence[Message]) -> None:
        task = said.task
        if await self._is_over_a_limit(said):
            return
        found = [photo_in(message) for message in messages]
        files = tuple(each.file for each in found if isinstance(each, SentPhoto))
        if not files:
            kind = next(each for each in found if not isinstance(each, SentPhoto))
            await self._tell(said, why_not(said, kind), reply_to=messages[0].message_id)
            return
        if task.placeholder is None:
            number = await self._telegram.send(
                task.chat, replies.in_html(said.words.looking), reply_to=messages[0].message_id
            )
            self._ledger.set_placeholder(task.id, number)
            task = replace(task, placeholder=number)
        earlier = self._same_plant(task, messages)
        photos = (*earlier, *files)[-ALBUM_PHOTOS:]
        answer = await self._photo_answers.answer(replace(said, task=task), photos, files)
        if answer is not None:
            self.answered += 1
            for prediction in answer.plant.photos[len(answer.photos) - answer.own_photos :]:
                self._statistics.record(prediction)

    async def _is_over_a_limit(self, said: Said) -> bool:
        settings, task = self._settings, said.task
        if task.placeholder is not None:  # it has been let in before
            return False
        if task.refused:
            text = said.words.too_many.format(count=settings.max_waiting)
        elif self._ledger.photos_before(task, _HOUR_S) >= settings.photos_per_hour:
            text = said.words.slow_down.format(minutes=round(_HOUR_S / 60))
        else:
            return False
        if self._ledger.tell_limit(task.person, _TELL_AGAIN_S):
            await self._tell(said, text)
        return True

    def _same_plant(self, task: Task, messages: Sequence[Message]) -> tuple[str, ...]:
        """Earlier photos of the plant: of the answer that was replied to, or of one that asked for more leaves."""
        replied = messages[0].reply_to_message
        if replied is not None:
            before = self._ledger.answer_in(task.chat, replied.message_id)
            return () if before is None or before.person != task.person else before.photos
        last = self._ledger.latest_answer(task.chat, task.person)
        if last is None or last.plant.verdict != "uncertain" or not last.plant.more_leaves or last.id == task.id:
            return ()
        return last.photos if task.received_at - last.answered_at <= self._settings.same_plant_s else ()


def _command_in(message: Message) -> str | None:
    """`/help@some_bot more` is `help`."""
    text = message.text or ""
    return text[1:].split(maxsplit=1)[0].partition("@")[0].lower() if len(text) > 1 and text[0] == "/" else None


def _language_code(task: Task) -> str | None:
    update = task.updates[0] if task.updates else {}
    sender = (update.get("callback_query") or update.get("message") or {}).get("from") or {}
    code = sender.get("language_code")
    return code if isinstance(code, str) else None
