"""Talks with Telegram: sends, fills and fetches, with the patience that its Bot API asks for.

Telegram knows no idempotency keys: a message that was sent while the connection broke may or may not have arrived.
Filling a message that is there already, however, may be repeated without harm. So an answer goes into a message whose
number is known: `send` makes a placeholder, `fill` puts the answer into it.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import httpx
from telegram import Bot, InlineKeyboardMarkup, InputMediaPhoto, LinkPreviewOptions, ReplyParameters
from telegram.constants import ParseMode
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from cassava_leaf_disease.bot.records import JsonObject
from cassava_leaf_disease.bot.settings import BotSettings
from cassava_leaf_disease.errors import BusyError, CassavaError, ConfigError
from cassava_leaf_disease.serving.background import meanwhile

Got = TypeVar("Got")

MAX_FILE_BYTES: Final = 20_000_000  # more Telegram does not hand out to bots
MAX_CAPTION: Final = 1024
UPDATES: Final = ("message", "callback_query")
_TRIES: Final = 5
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_PATIENCE_S: Final = 20.0  # a longer wait that Telegram asks for is not waited out: others have their turn
_TYPING_S: Final = 4.5  # Telegram shows it for five seconds

_log = logging.getLogger(__name__)


class LaterError(BusyError):
    """Telegram cannot be reached, or wants to be left alone for `retry_after_s`."""


class UnreachableError(CassavaError):
    """The user has blocked the bot or left: there is nobody to answer."""


class PhotoGoneError(CassavaError):
    """Telegram does not hand out a photo any more."""


class PhotoTooLargeError(CassavaError):
    """A photo of more than `MAX_FILE_BYTES`."""


class _RawBot(Bot):
    """Gives updates as the JSON that they came as: what this version does not know must not be lost."""

    async def raw_updates(self, offset: int | None, timeout_s: int) -> list[JsonObject]:
        wanted = {"offset": offset, "timeout": timeout_s, "allowed_updates": list(UPDATES)}
        asked = {name: value for name, value in wanted.items() if value is not None}
        got: Any = await self._post("getUpdates", asked, read_timeout=timeout_s + 10)
        return [update for update in got if isinstance(update, dict) and isinstance(update.get("update_id"), int)]


class Telegram:
    """The Bot API, with waiting and trying again."""

    def __init__(self, settings: BotSettings) -> None:
        os.environ.setdefault("PTB_TIMEDELTA", "true")  # else the library warns each time that it is told to wait
        self._token = settings.token.get_secret_value()

        def request() -> HTTPXRequest:
            return HTTPXRequest(read_timeout=20, write_timeout=20, connect_timeout=10, media_write_timeout=60)

        self._bot = _RawBot(
            self._token,
            base_url=f"{settings.telegram_url}/bot",
            base_file_url=f"{settings.telegram_url}/file/bot",
            request=request(),
            get_updates_request=request(),
        )
        self._files = httpx.AsyncClient(timeout=httpx.Timeout(20, connect=10))

    async def connect(self, wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> str:
        """Waits until Telegram answers, and returns the bot's user name.

        Raises:
            ConfigError: Telegram does not know the token.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._bot.initialize()
            except InvalidToken:  # its text has the token in it
                raise ConfigError(
                    "CASSAVA_BOT_TOKEN: Telegram does not know this token; expected the one that @BotFather gave; type "
                    "/mybots there to see it"
                ) from None
            except TelegramError as error:
                _log.warning("Telegram cannot be reached, next try in %.1f s: %s", pause_s, self._told(error))
                await wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                return str(self._bot.username)

    async def close(self) -> None:
        """Ends all connections."""
        await self._files.aclose()
        await self._bot.shutdown()

    async def use_polling(self) -> None:
        """Tells Telegram to keep updates until they are asked for; none is dropped."""
        await self._patiently(lambda: self._bot.delete_webhook(drop_pending_updates=False))

    async def use_webhook(self, url: str, secret: str) -> None:
        """Tells Telegram where to bring updates; none is dropped."""
        await self._patiently(
            lambda: self._bot.set_webhook(url, secret_token=secret, allowed_updates=UPDATES, drop_pending_updates=False)
        )

    async def set_commands(self, commands: dict[str, str], language: str | None) -> None:
        """The menu of commands, for users of a language (None: for all others)."""
        await self._patiently(lambda: self._bot.set_my_commands(list(commands.items()), language_code=language))

    async def updates(self, offset: int | None, timeout_s: int) -> list[JsonObject]:
        """What has come since; all before `offset` is forgotten by Telegram.

        Raises:
            LaterError: Telegram cannot be reached now, or wants to be left alone.
        """
        try:
            return await self._bot.raw_updates(offset, timeout_s)
        except RetryAfter as error:
            raise LaterError(str(error), _seconds(error)) from None
        except TelegramError as error:
            raise LaterError(self._told(error), 0) from None

    async def send(
        self, chat: int, text: str, keyboard: InlineKeyboardMarkup | None = None, reply_to: int | None = None
    ) -> int:
        """Sends a text; the number of the new message.

        Raises:
            LaterError: It could not be sent, or nobody knows whether it was.
            UnreachableError: Nobody is there.
        """
        message = await self._patiently(
            lambda: self._bot.send_message(
                chat,
                text,
                parse_mode=ParseMode.HTML,
                reply_markup=keyboard,
                reply_parameters=_reply(reply_to),
                link_preview_options=LinkPreviewOptions(is_disabled=True),
            )
        )
        return message.message_id

    async def fill(
        self, chat: int, message: int, text: str, picture: bytes | None, keyboard: InlineKeyboardMarkup | None
    ) -> int:
        """Puts an answer into a message that was sent before; the number of the message that has it now.

        That is another one where the first is gone, or cannot be changed. May be repeated.

        Raises:
            LaterError, UnreachableError: As `send`.
        """
        if picture is not None:
            with contextlib.suppress(BadRequest, InvalidToken):
                return await self._fill_with_picture(chat, message, text, picture, keyboard)
        try:
            edited = await self._patiently(
                lambda: self._bot.edit_message_text(
                    text,
                    chat,
                    message,
                    parse_mode=ParseMode.HTML,
                    reply_markup=keyboard,
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                )
            )
        except (BadRequest, InvalidToken) as error:  # InvalidToken: the server does not know the method
            if _is_unchanged(error) or await self._has_caption(chat, message, text, keyboard, error):
                return message
            _log.warning("message %d cannot be filled, another one is sent: %s", message, self._told(error))
        else:
            if not isinstance(edited, bool):
                return message
        return await self._send_whole(chat, text, picture, keyboard)

    async def _has_caption(
        self, chat: int, message: int, text: str, keyboard: InlineKeyboardMarkup | None, error: Exception
    ) -> bool:
        """Whether the message holds a picture already, and now the text below it."""
        if "no text in the message" not in str(error).lower():
            return False
        with contextlib.suppress(BadRequest):
            await self._patiently(
                lambda: self._bot.edit_message_caption(
                    chat, message, caption=text, parse_mode=ParseMode.HTML, reply_markup=keyboard
                )
            )
        return True

    async def _fill_with_picture(
        self, chat: int, message: int, text: str, picture: bytes, keyboard: InlineKeyboardMarkup | None
    ) -> int:
        try:
            media = InputMediaPhoto(picture, caption=text, parse_mode=ParseMode.HTML)
            edited = await self._patiently(
                lambda: self._bot.edit_message_media(media, chat, message, reply_markup=keyboard)
            )
        except BadRequest as error:
            if _is_unchanged(error):
                return message
            raise
        if isinstance(edited, bool):
            raise BadRequest("no message came back")
        return message

    async def _send_whole(
        self, chat: int, text: str, picture: bytes | None, keyboard: InlineKeyboardMarkup | None
    ) -> int:
        if picture is not None:
            with contextlib.suppress(BadRequest):  # a picture that Telegram does not like
                sent = await self._patiently(
                    lambda: self._bot.send_photo(
                        chat, picture, caption=text, parse_mode=ParseMode.HTML, reply_markup=keyboard
                    )
                )
                return sent.message_id
        return await self.send(chat, text, keyboard)

    async def set_keyboard(self, chat: int, message: int, keyboard: InlineKeyboardMarkup | None) -> None:
        """Changes the buttons below a message; may be repeated, and a message that is gone has none."""
        with contextlib.suppress(BadRequest):
            await self._patiently(lambda: self._bot.edit_message_reply_markup(chat, message, reply_markup=keyboard))

    async def acknowledge(self, press: str, text: str | None = None) -> None:
        """Tells Telegram that a button has been seen; old presses cannot be answered, and need not be."""
        with contextlib.suppress(BadRequest):
            await self._patiently(lambda: self._bot.answer_callback_query(press, text))

    @contextlib.asynccontextmanager
    async def acting(self, chat: int, action: str) -> AsyncIterator[None]:
        """Meanwhile the user sees that something is being done."""
        async with meanwhile(self._act(chat, action)):
            yield

    async def _act(self, chat: int, action: str) -> None:
        while True:
            with contextlib.suppress(TelegramError):  # it is only a courtesy
                await self._bot.send_chat_action(chat, action)
            await asyncio.sleep(_TYPING_S)

    async def fetch(self, photo: str) -> bytes:
        """The bytes of a file that a user sent, by Telegram's id of it.

        Raises:
            PhotoGoneError, PhotoTooLargeError: There is no such file, or it has too many bytes.
            LaterError: It cannot be fetched now.
        """
        try:
            about = await self._patiently(lambda: self._bot.get_file(photo))
        except BadRequest as error:
            if "too big" in str(error).lower():
                raise PhotoTooLargeError(str(error)) from None
            raise PhotoGoneError(str(error)) from None
        address = about.file_path or ""
        if not address.startswith(("http://", "https://")):  # a path of this machine is nobody's photo
            raise PhotoGoneError("Telegram names no address for a file")
        return await self._patiently(lambda: self._download(address))

    async def _download(self, address: str) -> bytes:
        data = bytearray()
        try:
            async with self._files.stream("GET", address) as reply:
                if reply.status_code in (400, 404, 410):
                    raise PhotoGoneError(f"status {reply.status_code} for a file")
                if reply.status_code != httpx.codes.OK:
                    raise NetworkError(f"status {reply.status_code} for a file")
                async for chunk in reply.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_FILE_BYTES:
                        raise PhotoTooLargeError(f"more than {MAX_FILE_BYTES:,} bytes")
        except httpx.HTTPError as error:
            raise NetworkError(f"{type(error).__name__} while a file was fetched") from None
        return bytes(data)

    async def _patiently(self, call: Callable[[], Awaitable[Got]]) -> Got:
        """What a call gives; tried again after the waits that Telegram asks for, and when the connection breaks."""
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, _TRIES + 1):
            try:
                return await call()
            except (BadRequest, InvalidToken):
                raise
            except (Forbidden, ChatMigrated) as error:
                raise UnreachableError(self._told(error)) from None
            except RetryAfter as error:
                wait_s = float(_seconds(error))
                if wait_s > _PATIENCE_S or attempt == _TRIES:
                    raise LaterError(str(error), _seconds(error)) from None
                await asyncio.sleep(wait_s)
            except TelegramError as error:
                if attempt == _TRIES:
                    raise LaterError(self._told(error), round(pause_s)) from None
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311  no secret
                pause_s *= 2
        raise AssertionError  # pragma: no cover

    def _told(self, error: Exception) -> str:
        """What an error says, without the token."""
        return str(error).replace(self._token, "…")


def _seconds(error: RetryAfter) -> int:
    wait = error.retry_after
    return max(1, int(wait if isinstance(wait, int) else wait.total_seconds()))


def _is_unchanged(error: Exception) -> bool:
    return "not modified" in str(error).lower()


def _reply(message: int | None) -> ReplyParameters | None:
    return None if message is None else ReplyParameters(message, allow_sending_without_reply=True)
