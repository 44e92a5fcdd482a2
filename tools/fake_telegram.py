"""Telegram's Bot API over real HTTP on 127.0.0.1, as far as the bot uses it, with all that can go wrong on the way.

It keeps what a user would see: each chat's messages as they are now, edits in their place. `getUpdates` forgets what
lies before its offset, as Telegram does.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

TOKEN = "123456:a-token-of-tests"  # noqa: S105  of nobody
JsonObject = dict[str, Any]
Held = TypeVar("Held")


@dataclass
class SentMessage:
    """A message of the bot as it stands in the chat now."""

    chat: int
    number: int
    text: str
    keyboard: JsonObject | None = None
    picture: bytes | None = None
    reply_to: int | None = None
    edits: int = 0

    @property
    def buttons(self) -> list[str]:
        """What the buttons bring back."""
        rows = (self.keyboard or {}).get("inline_keyboard", [])
        return [button["callback_data"] for row in rows for button in row]


@dataclass
class Fault:
    """Something that goes wrong with one call of a method.

    `before`: instead of what the call does; `after`: when it has been done, in place of the reply. `retry_after`
    answers 429, `status` that status, `error` a 400 with that text; `cut` breaks the connection; `hold` waits for the
    event, `reached` tells that the call is there. `chat` limits it to one chat.
    """

    method: str
    when: str = "before"
    cut: bool = False
    retry_after: int | None = None
    status: int | None = None
    error: str | None = None
    hold: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    chat: int | None = None


@dataclass(frozen=True)
class Call:
    """A call that came in."""

    method: str
    parameters: JsonObject
    at: float


class RefusalError(Exception):
    """A reply that is not ok."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.body = {"ok": False, "error_code": code, "description": description}
        if parameters:
            self.body["parameters"] = parameters
        self.code = code


class FakeTelegram(ThreadingHTTPServer):
    """The server; its methods are what users do, its fields what they see."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.changed = threading.Condition()
        self.updates: dict[int, JsonObject] = {}
        self.messages: dict[tuple[int, int], SentMessage] = {}
        self.files: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}  # what Telegram says of a file, where it is not so
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.unknown: set[str] = set()  # methods that this server does not have
        self.webhook: JsonObject | None = None
        self.polling = 0
        self.next_update = 700
        self.next_message = 10

    # What users do

    def say(self, chat: int, *, language: str = "en", **message: object) -> int:
        """A user sends something; the number of the update."""
        return self._put({"message": self._message(chat, language, message)})

    def send_photo(self, chat: int, data: bytes, *, language: str = "en", **more: object) -> int:
        """A user sends a photo, which Telegram has in three sizes."""
        name = self._file(data)
        self.files[f"{name}-small"] = b"a thumbnail"
        sizes = [
            {"file_id": f"{name}-small", "file_unique_id": f"u{name}s", "width": 90, "height": 67, "file_size": 11},
            {"file_id": name, "file_unique_id": f"u{name}", "width": 800, "height": 600, "file_size": len(data)},
        ]
        return self.say(chat, language=language, photo=sizes, **more)

    def send_document(self, chat: int, data: bytes, kind: str | None = "image/jpeg", **about: object) -> int:
        """A user sends a file."""
        document = {"file_id": self._file(data), "file_unique_id": "u", "file_size": len(data), **about}
        return self.say(chat, document=document if kind is None else {**document, "mime_type": kind})

    def send_album(self, chat: int, photos: list[bytes], *, language: str = "en") -> list[int]:
        """A user sends several photos at once."""
        album = f"album-{self.next_update}"
        return [self.send_photo(chat, data, language=language, media_group_id=album) for data in photos]

    def press(self, message: SentMessage, button: str, *, person: int | None = None, language: str = "en") -> int:
        """A user presses a button, by the beginning of what it brings back."""
        data = next(each for each in message.buttons if each.startswith(button))
        person = message.chat if person is None else person
        query = {
            "id": f"press-{self.next_update}",
            "from": _user(person, language),
            "chat_instance": "1",
            "data": data,
            "message": self.shown(message),
        }
        return self._put({"callback_query": query})

    def shown(self, message: SentMessage) -> JsonObject:
        """A message of the bot as Telegram tells of it."""
        about: JsonObject = {
            "message_id": message.number,
            "date": 1,
            "chat": _chat(message.chat),
            "from": {"id": 123456, "is_bot": True, "first_name": "Cassava", "username": "cassava_bot"},
        }
        if message.picture is None:
            return {**about, "text": message.text}
        size = {"file_id": "p", "file_unique_id": "p", "width": 9, "height": 9}
        return {**about, "caption": message.text, "photo": [size]}

    # What users see

    def in_chat(self, chat: int) -> list[SentMessage]:
        """The bot's messages in a chat, in their order."""
        with self.changed:
            return [message for (where, _), message in sorted(self.messages.items()) if where == chat]

    def called(self, method: str) -> list[Call]:
        """The calls of a method, in their order."""
        with self.changed:
            return [call for call in self.calls if call.method == method]

    def wait(self, holds: Callable[[], Held | Literal[False] | None], at_most_s: float = 40) -> Held:
        """Waits until something holds, and gives it."""
        deadline = time.monotonic() + at_most_s
        while True:
            held = holds()
            if held:
                return held
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {at_most_s} s; calls: {[call.method for call in self.calls][-30:]}, "
                    f"messages: {[(m.chat, m.text[:60]) for m in self.messages.values()][-10:]}"
                )
            with self.changed:
                self.changed.wait(0.05)

    def nothing_pends(self) -> bool:
        """Whether all updates have been taken, and forgotten."""
        with self.changed:
            return not self.updates

    def _message(self, chat: int, language: str, content: JsonObject) -> JsonObject:
        self.next_message += 1
        return {
            "message_id": self.next_message,
            "date": 1,
            "chat": _chat(chat),
            "from": _user(content.pop("person", abs(chat)), language),
            **content,
        }

    def _file(self, data: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return name

    def _put(self, update: JsonObject) -> int:
        with self.changed:
            self.next_update += 1
            self.updates[self.next_update] = {"update_id": self.next_update, **update}
            self.changed.notify_all()
            return self.next_update

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that break are part of the tests."""


def _user(person: int, language: str) -> JsonObject:
    return {"id": person, "is_bot": False, "first_name": "A", "language_code": language}


def _chat(chat: int) -> JsonObject:
    return (
        {"id": chat, "type": "group", "title": "g"} if chat < 0 else {"id": chat, "type": "private", "first_name": "A"}
    )


class _Handler(BaseHTTPRequestHandler):
    server: FakeTelegram
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Hands out files."""
        path = urlsplit(self.path).path
        prefix = f"/file/bot{TOKEN}/"
        self._answer("download", {"path": path}, lambda: self._file(path.partition(prefix)[2]))

    def do_POST(self) -> None:
        """Does what a method does, and what is to go wrong with it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token, _, method = urlsplit(self.path).path.removeprefix("/bot").partition("/")
        parameters, files = _read_body(self.headers.get("Content-Type") or "", body)
        action = getattr(self, f"_{_snake(method)}", None)
        if method in self.server.unknown:
            action = None

        def act() -> bytes:
            if token != TOKEN:
                raise RefusalError(401, "Unauthorized")
            if action is None:
                raise RefusalError(404, "Not Found")
            return json.dumps({"ok": True, "result": action(parameters, files)}).encode()

        self._answer(method, parameters, act)

    def _answer(self, method: str, parameters: JsonObject, act: Callable[[], bytes]) -> None:
        server = self.server
        with server.changed:
            server.calls.append(Call(method, parameters, time.monotonic()))
            fault = next(
                (
                    each
                    for each in server.faults
                    if each.method == method and each.chat in (None, _number(parameters.get("chat_id")))
                ),
                None,
            )
            if fault is not None:
                server.faults.remove(fault)
            server.changed.notify_all()
        try:
            if fault is not None and fault.when == "before" and self._fails(fault):
                return
            reply = act()
            with server.changed:
                server.changed.notify_all()
            if fault is not None and fault.when == "after" and self._fails(fault):
                return
            self._reply(200, reply)
        except RefusalError as refusal:
            self._reply(refusal.code, json.dumps(refusal.body).encode())

    def _fails(self, fault: Fault) -> bool:
        """Does what goes wrong; whether that was the reply."""
        fault.reached.set()
        if fault.hold is not None:
            fault.hold.wait(60)
        if fault.cut:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return True
        if fault.retry_after is not None:
            wait = fault.retry_after
            raise RefusalError(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
        if fault.error is not None:
            raise RefusalError(400, f"Bad Request: {fault.error}")
        if fault.status is not None:
            raise RefusalError(fault.status, "failed")
        return False

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str) -> bytes:
        if name not in self.server.files:
            raise RefusalError(404, "Not Found")
        return self.server.files[name]

    # The methods

    def _get_me(self, _: JsonObject, __: JsonObject) -> JsonObject:
        about = {"id": 123456, "is_bot": True, "first_name": "Cassava", "username": "cassava_bot"}
        return {**about, "can_join_groups": True, "can_read_all_group_messages": False}

    def _get_updates(self, asked: JsonObject, _: JsonObject) -> list[JsonObject]:
        server, offset = self.server, int(asked.get("offset") or 0)
        if server.webhook is not None:
            raise RefusalError(409, "Conflict: can't use getUpdates method while webhook is active")
        deadline = time.monotonic() + min(int(asked.get("timeout") or 0), 20)
        with server.changed:
            for number in [number for number in server.updates if number < offset]:
                del server.updates[number]
            server.changed.notify_all()
            server.polling += 1
            try:
                while True:
                    found = [update for number, update in sorted(server.updates.items()) if number >= offset]
                    left_s = deadline - time.monotonic()
                    if found or left_s <= 0 or not self._is_connected():
                        return found[: int(asked.get("limit") or 100)]
                    server.changed.wait(min(left_s, 0.1))
            finally:
                server.polling -= 1

    def _is_connected(self) -> bool:
        try:
            self.connection.settimeout(0.0001)
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self.connection.settimeout(None)

    def _set_webhook(self, asked: JsonObject, _: JsonObject) -> bool:
        self.server.webhook = asked
        return True

    def _delete_webhook(self, _: JsonObject, __: JsonObject) -> bool:
        self.server.webhook = None
        return True

    def _set_my_commands(self, _: JsonObject, __: JsonObject) -> bool:
        return True

    def _send_chat_action(self, _: JsonObject, __: JsonObject) -> bool:
        return True

    def _answer_callback_query(self, _: JsonObject, __: JsonObject) -> bool:
        return True

    def _send_message(self, asked: JsonObject, _: JsonObject) -> JsonObject:
        return self._new(asked, asked["text"], None)

    def _send_photo(self, asked: JsonObject, files: dict[str, bytes]) -> JsonObject:
        return self._new(asked, asked.get("caption", ""), _attached(asked["photo"], files))

    def _new(self, asked: JsonObject, text: str, picture: bytes | None) -> JsonObject:
        server = self.server
        _check(text, 4096 if picture is None else 1024)
        with server.changed:
            server.next_message += 1
            reply = (asked.get("reply_parameters") or {}).get("message_id")
            message = SentMessage(
                int(asked["chat_id"]), server.next_message, text, asked.get("reply_markup"), picture, reply
            )
            server.messages[message.chat, message.number] = message
        return server.shown(message)

    def _edit_message_text(self, asked: JsonObject, _: JsonObject) -> JsonObject:
        message = self._known(asked)
        if message.picture is not None:
            raise RefusalError(400, "Bad Request: there is no text in the message to edit")
        return self._edited(message, asked, asked["text"], None)

    def _edit_message_caption(self, asked: JsonObject, _: JsonObject) -> JsonObject:
        message = self._known(asked)
        return self._edited(message, asked, asked["caption"], message.picture)

    def _edit_message_media(self, asked: JsonObject, files: dict[str, bytes]) -> JsonObject:
        media = asked["media"]
        return self._edited(self._known(asked), asked, media["caption"], _attached(media["media"], files))

    def _edit_message_reply_markup(self, asked: JsonObject, _: JsonObject) -> JsonObject:
        message = self._known(asked)
        return self._edited(message, asked, message.text, message.picture)

    def _known(self, asked: JsonObject) -> SentMessage:
        message = self.server.messages.get((int(asked["chat_id"]), int(asked["message_id"])))
        if message is None:
            raise RefusalError(400, "Bad Request: message to edit not found")
        return message

    def _edited(self, message: SentMessage, asked: JsonObject, text: str, picture: bytes | None) -> JsonObject:
        _check(text, 4096 if picture is None else 1024)
        keyboard = asked.get("reply_markup")
        if (message.text, message.keyboard, message.picture) == (text, keyboard, picture):
            raise RefusalError(400, "Bad Request: message is not modified: specified new message content is the same")
        message.text, message.keyboard, message.picture = text, keyboard, picture
        message.edits += 1
        return self.server.shown(message)

    def _get_file(self, asked: JsonObject, _: JsonObject) -> JsonObject:
        name, server = asked["file_id"], self.server
        if name not in server.files:
            raise RefusalError(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        size = server.sizes.get(name, len(server.files[name]))
        if size > 20_000_000:
            raise RefusalError(400, "Bad Request: file is too big")
        return {"file_id": name, "file_unique_id": f"u{name}", "file_size": size, "file_path": name}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Tests read `calls` instead."""


def _check(html: str, most: int) -> None:
    """As Telegram does: no empty text, none that is too long, and tags that match."""
    from cassava_leaf_disease.bot.replies import length

    for tag in ("b", "i"):
        if html.count(f"<{tag}>") != html.count(f"</{tag}>"):
            raise RefusalError(400, "Bad Request: can't parse entities")
    if not html.strip():
        raise RefusalError(400, "Bad Request: message text is empty")
    if length(html) > most:
        raise RefusalError(400, "Bad Request: message is too long")


def _attached(said: str, files: dict[str, bytes]) -> bytes:
    return files[said.removeprefix("attach://")] if said.startswith("attach://") else files["photo"]


def _number(said: object) -> int | None:
    return int(str(said)) if said is not None else None


def _snake(method: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in method)


def _read_body(kind: str, body: bytes) -> tuple[JsonObject, dict[str, bytes]]:
    """Parameters and files of a form; what is JSON inside is read."""
    if kind.startswith("multipart/form-data"):
        message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        texts: dict[str, str] = {}
        files: dict[str, bytes] = {}
        parts: Any = message.get_payload()
        for part in parts:
            name = part.get_param("name", header="content-disposition")
            content: bytes = part.get_payload(decode=True)
            if part.get_filename() is None:
                texts[name] = content.decode()
            else:
                files[name] = content
        texts.setdefault("photo", "")
        return {name: _read_value(text) for name, text in texts.items()}, files
    return {
        name: _read_value(values[0]) for name, values in parse_qs(body.decode(), keep_blank_values=True).items()
    }, {}


def _read_value(text: str) -> Any:  # noqa: ANN401  JSON
    return json.loads(text) if text[:1] in ("{", "[") else text


def answered(telegram: FakeTelegram, chat: int, count: int = 1) -> list[SentMessage]:
    """The messages of a chat, when that many stand there and none waits to be filled."""

    def complete() -> list[SentMessage] | None:
        messages = telegram.in_chat(chat)
        return messages if len(messages) >= count and not any(map(is_waiting, messages)) else None

    messages: list[SentMessage] = telegram.wait(complete)
    return messages


def is_waiting(message: SentMessage) -> bool:
    """Whether a message is to be filled with an answer."""
    from cassava_leaf_disease.texts.advice import LANGUAGES
    from cassava_leaf_disease.texts.bot import bot_words

    return message.text in {bot_words(language).looking for language in LANGUAGES}


@contextmanager
def fake_telegram() -> Iterator[FakeTelegram]:
    """A server that runs meanwhile."""
    server = FakeTelegram()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
