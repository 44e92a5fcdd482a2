"""Photos fetched and diagnosed, and the answer put where the user waits for it."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from telegram.constants import ChatAction

from cassava_leaf_disease.bot import replies
from cassava_leaf_disease.bot.diagnosis import Diagnoser, Diagnosis, diagnose_readable
from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.records import Answer
from cassava_leaf_disease.bot.said import Said
from cassava_leaf_disease.bot.telegram_api import (
    MAX_CAPTION,
    MAX_FILE_BYTES,
    PhotoGoneError,
    PhotoTooLargeError,
    Telegram,
)
from cassava_leaf_disease.errors import CassavaError, CorruptImageError, ImageError

MAX_MEGABYTES: Final = MAX_FILE_BYTES // 1_000_000

_log = logging.getLogger(__name__)


class PhotoAnswers:
    """Asks about photos that Telegram keeps; what was answered stays in the ledger, for its buttons."""

    def __init__(self, ledger: Ledger, telegram: Telegram, diagnoser: Diagnoser) -> None:
        self._ledger = ledger
        self._telegram = telegram
        self._diagnoser = diagnoser

    async def answer(self, said: Said, photos: tuple[str, ...], own: tuple[str, ...]) -> Answer | None:
        """Fills the placeholder with the answer about photos, the last of which are the message's own.

        None where they cannot be used, and that was told.
        """
        task = said.task
        assert task.placeholder is not None  # noqa: S101  it was sent before
        try:
            async with self._telegram.acting(task.chat, ChatAction.TYPING):
                fetched = await self.fetched(photos)
                diagnosis = await diagnose_readable(self._diagnoser, [data for _, data in fetched])
                picture = await self._heatmap(diagnosis, [data for _, data in fetched])
        except (ImageError, PhotoGoneError, PhotoTooLargeError) as error:
            text = replies.in_html(why_not(said, _kind_of(error)))
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

    async def _show(self, said: Said, answer: Answer, picture: bytes | None, unread: int) -> int:
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

    async def fetched(self, photos: Sequence[str]) -> list[tuple[str, bytes]]:
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


def why_not(said: Said, kind: str) -> str:
    """What the user is told about a message without a photo that can be used."""
    return str(getattr(said.words, kind)).format(megabytes=MAX_MEGABYTES)


def _kind_of(error: CassavaError) -> str:
    """Which words tell the user what is wrong with a photo."""
    if isinstance(error, PhotoGoneError):
        return "gone"
    if isinstance(error, PhotoTooLargeError):
        return "too_large"
    if isinstance(error, CorruptImageError):
        return "broken"
    return "wrong_format"  # another format, too many pixels, or what the service does not take
