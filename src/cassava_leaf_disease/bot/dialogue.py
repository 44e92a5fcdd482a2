"""What the bot does with each task: commands, photos, buttons."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from telegram import CallbackQuery, Message, Update
from telegram.constants import ChatAction, ChatType

from cassava_leaf_disease.bot import replies
from cassava_leaf_disease.bot.diagnosis import Diagnoser, Diagnosis, diagnose_readable
from cassava_leaf_disease.bot.giving import NoStatistics, Statistics, Store, contributor_of, gifts
from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.photos import SentPhoto, photo_in
from cassava_leaf_disease.bot.records import Answer, Task
from cassava_leaf_disease.bot.settings import ALBUM_PHOTOS, BotSettings
from cassava_leaf_disease.bot.telegram_api import (
    MAX_CAPTION,
    MAX_FILE_BYTES,
    PhotoGoneError,
    PhotoTooLargeError,
    Telegram,
)
from cassava_leaf_disease.errors import CassavaError, CorruptImageError, ImageError
from cassava_leaf_disease.texts.advice import LANGUAGES, Language, nearest_language
from cassava_leaf_disease.texts.bot import BotWords, bot_words

MAX_TEXT: Final = 4096
_HOUR_S: Final = 3600.0
_MINUTE_S: Final = 60.0
_MESSAGES_PER_MINUTE: Final = 20  # of one user that are no photos
_TELL_AGAIN_S: Final = 60.0  # how often somebody is told of a limit
_MEGABYTES: Final = MAX_FILE_BYTES // 1_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Said:
    """Who is spoken to, and in which language."""

    task: Task
    language: Language

    @property
    def words(self) -> BotWords:
        return bot_words(self.language)


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
        said = _Said(task, self._language(task.person, person.language_code if person else None))
        if press is not None:
            await self._press(said, press)
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

    async def _tell(self, said: _Said, text: str, **more: object) -> None:
        await self._telegram.send(said.task.chat, replies.in_html(text), **more)  # type: ignore[arg-type]

    # Words

    async def _text(self, said: _Said, message: Message) -> None:
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
    def _commands(self) -> Mapping[str, Callable[[_Said], Awaitable[None]]]:
        return {
            "start": lambda said: self._tell(said, said.words.start),
            "help": lambda said: self._tell(said, said.words.help.format(count=ALBUM_PHOTOS, megabytes=_MEGABYTES)),
            "about": self._about,
            "privacy": lambda said: self._tell(
                said, said.words.privacy.format(days=round(self._settings.remember_days))
            ),
            "language": lambda said: self._tell(said, said.words.choose_language, keyboard=replies.language_keyboard()),
            "forget": self._forget,
        }

    async def _about(self, said: _Said) -> None:
        model = await self._diagnoser.about()
        await self._tell(said, said.words.about.format(name=model.name, version=model.version))

    async def _forget(self, said: _Said) -> None:
        count = 0
        if self._store is not None:
            count = await asyncio.to_thread(self._store.forget, contributor_of(said.task.person))
        self._ledger.forget(said.task.person)
        await self._tell(said, said.words.forgotten.format(count=count))

    # Photos

    async def _photos(self, said: _Said, messages: Sequence[Message]) -> None:
        task = said.task
        if await self._is_over_a_limit(said):
            return
        found = [photo_in(message) for message in messages]
        files = tuple(each.file for each in found if isinstance(each, SentPhoto))
        if not files:
            kind = next(each for each in found if not isinstance(each, SentPhoto))
            await self._tell(said, self._why_not(said, kind), reply_to=messages[0].message_id)
            return
        if task.placeholder is None:
            number = await self._telegram.send(
                task.chat, replies.in_html(said.words.looking), reply_to=messages[0].message_id
            )
            self._ledger.set_placeholder(task.id, number)
            task = replace(task, placeholder=number)
        earlier = self._same_plant(task, messages)
        answer = await self._answer_photos(replace(said, task=task), (*earlier, *files)[-ALBUM_PHOTOS:], files)
        if answer is not None:
            self.answered += 1
            for prediction in answer.plant.photos[len(answer.photos) - answer.own_photos :]:
                self._statistics.record(prediction)

    async def _is_over_a_limit(self, said: _Said) -> bool:
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

    async def _answer_photos(self, said: _Said, photos: tuple[str, ...], own: tuple[str, ...]) -> Answer | None:
        """Fills the placeholder with the answer about photos, the last of which are the message's own.

        None where they cannot be used, and that was told.
        """
        task = said.task
        assert task.placeholder is not None  # noqa: S101  it was sent before
        try:
            async with self._telegram.acting(task.chat, ChatAction.TYPING):
                fetched = await self._fetched(photos)
                diagnosis = await diagnose_readable(self._diagnoser, [data for _, data in fetched])
                picture = await self._heatmap(diagnosis, [data for _, data in fetched])
        except (ImageError, PhotoGoneError, PhotoTooLargeError) as error:
            text = replies.in_html(self._why_not(said, _kind_of(error)))
            await self._telegram.fill(task.chat, task.placeholder, text, None, None)
            return None
        answer = Answer(
            id=task.id,
            chat=task.chat,
            person=task.person,
            message=task.placeholder,
            answered_at=time.time(),
            photos=tuple(fetched[place][0] for place in diagnosis.readable),
            own_photos=sum(fetched[place][0] in own for place in diagnosis.readable),
            plant=diagnosis.plant,
            receipt=self._ledger.new_receipt(),
            correct=None,
            settled=False,
        )
        unread = len(photos) - len(diagnosis.readable)
        answer = replace(answer, message=await self._show(said, answer, picture, unread))
        self._ledger.finish(task, answer)
        return answer

    async def _show(self, said: _Said, answer: Answer, picture: bytes | None, unread: int) -> int:
        photos = len(answer.photos) + unread
        text = replies.answer_text(answer.plant, photos, unread, said.language, MAX_CAPTION)
        if picture is not None:
            text = replies.with_note_on_heatmap(text, said.language, MAX_CAPTION)
        keyboard = replies.answer_keyboard(
            answer.id,
            answer.plant.verdict,
            said.language,
            same_plant=answer.own_photos < len(answer.photos),
            asks=answer.correct is None,
        )
        return await self._telegram.fill(answer.chat, answer.message, text, picture, keyboard)

    async def _fetched(self, photos: Sequence[str]) -> list[tuple[str, bytes]]:
        """The bytes of photos, by their ids; those that are gone or too large are left out.

        Raises:
            PhotoGoneError, PhotoTooLargeError: None is left.
        """
        got = await asyncio.gather(*map(self._telegram.fetch, photos), return_exceptions=True)
        failures = [each for each in got if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, PhotoGoneError | PhotoTooLargeError):
                raise failure
        fetched = [(photo, data) for photo, data in zip(photos, got, strict=True) if isinstance(data, bytes)]
        if not fetched:
            raise failures[0]
        return fetched

    async def _heatmap(self, diagnosis: Diagnosis, photos: Sequence[bytes]) -> bytes | None:
        """What speaks for the answer, in the photo that says it most clearly; an answer comes without one, too."""
        plant = diagnosis.plant
        if plant.verdict not in ("diagnosis", "uncertain"):
            return None
        clearest = max(plant.counted, key=lambda place: plant.photos[place].probabilities[plant.class_name])
        try:
            return await self._diagnoser.heatmap(photos[diagnosis.readable[clearest]], plant.predicted_class_id)
        except CassavaError as error:
            _log.warning("an answer goes without its heatmap: %s", error)
            return None

    def _why_not(self, said: _Said, kind: str) -> str:
        return str(getattr(said.words, kind)).format(megabytes=_MEGABYTES)

    # Buttons

    async def _press(self, said: _Said, press: CallbackQuery) -> None:
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
    def _actions(self) -> Mapping[str, Callable[[_Said, CallbackQuery, Answer, str], Awaitable[None]]]:
        return {
            "r": lambda said, press, answer, _: self._judge(said, press, answer, "right"),
            "w": self._ask_class,
            "c": self._judge,
            "m": self._tell_more,
            "o": self._other_plant,
            "k": self._keep,
            "d": self._drop,
        }

    async def _choose_language(self, said: _Said, press: CallbackQuery, chosen: str) -> None:
        language = nearest_language(chosen)
        self._ledger.set_language(said.task.person, language)
        words = bot_words(language)
        await self._telegram.acknowledge(press.id)
        if press.message is not None:
            text = replies.in_html(words.language_chosen)
            await self._telegram.fill(said.task.chat, press.message.message_id, text, None, None)

    async def _ask_class(self, said: _Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id, said.words.what_is_it)
        if answer.correct is None:
            keyboard = replies.class_keyboard(answer.id, said.language)
            await self._telegram.set_keyboard(answer.chat, answer.message, keyboard)

    async def _judge(self, said: _Said, press: CallbackQuery, answer: Answer, chosen: str) -> None:
        """Somebody says what an answer was worth; the first word counts."""
        await self._telegram.acknowledge(press.id, said.words.thanks)
        if answer.correct is not None:
            return
        keyboard = replies.answer_keyboard(answer.id, answer.plant.verdict, said.language, same_plant=False, asks=False)
        await self._telegram.set_keyboard(answer.chat, answer.message, keyboard)
        if self._store is not None:
            text = said.words.ask_to_keep.format(count=len(answer.photos))
            consent = replies.consent_keyboard(answer.id, said.language)
            await self._tell(said, text, keyboard=consent, reply_to=answer.message)
        self._ledger.put_answer(replace(answer, correct=chosen))

    async def _tell_more(self, said: _Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id)
        text = replies.more_text(answer.plant, said.language, MAX_TEXT)
        await self._telegram.send(answer.chat, text, reply_to=answer.message)

    async def _other_plant(self, said: _Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        """The photos of the last message alone: the answer changes in its place."""
        await self._telegram.acknowledge(press.id)
        own = answer.photos[len(answer.photos) - answer.own_photos :]
        if not own or answer.own_photos == len(answer.photos):
            return
        task = replace(said.task, id=answer.id, placeholder=answer.message)
        await self._answer_photos(replace(said, task=task), own, own)

    async def _keep(self, said: _Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id, said.words.thanks)
        if answer.settled or answer.correct is None or self._store is None or press.message is None:
            return
        text = said.words.kept
        try:
            fetched = await self._fetched(answer.photos)
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

    async def _drop(self, said: _Said, press: CallbackQuery, answer: Answer, _: str) -> None:
        await self._telegram.acknowledge(press.id)
        if answer.settled or press.message is None:
            return
        text = replies.in_html(said.words.not_kept)
        await self._telegram.fill(said.task.chat, press.message.message_id, text, None, None)
        self._ledger.put_answer(replace(answer, settled=True))


def _command_in(message: Message) -> str | None:
    """`/help@some_bot more` is `help`."""
    text = message.text or ""
    return text[1:].split(maxsplit=1)[0].partition("@")[0].lower() if len(text) > 1 and text[0] == "/" else None


def _kind_of(error: CassavaError) -> str:
    """Which words tell the user what is wrong with a photo."""
    if isinstance(error, PhotoGoneError):
        return "gone"
    if isinstance(error, PhotoTooLargeError):
        return "too_large"
    if isinstance(error, CorruptImageError):
        return "broken"
    return "wrong_format"  # another format, too many pixels, or what the service does not take


def _language_code(task: Task) -> str | None:
    update = task.updates[0] if task.updates else {}
    sender = (update.get("callback_query") or update.get("message") or {}).get("from") or {}
    code = sender.get("language_code")
    return code if isinstance(code, str) else None
