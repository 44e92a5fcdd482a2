"""Around every request: its id, the headers of safety, one line in the log, its count; and whatever goes wrong."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cassava_leaf_disease.serving.logs import FIELDS, request_id
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.replies import reply

REQUEST_ID: Final = "X-Request-ID"
OTHER_PATH: Final = "other"  # what metrics and log call the page's files, and what is not there
LINGER_S: Final = 1.0  # how long the rest of a refused upload is read and thrown away, so that its answer arrives
_OUR_KIND_OF_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # WebAssembly for a page that runs the model itself; blob: for previews of photos and its worker
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
}

_RAW_SECURITY_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_PROCESS: Final = secrets.token_hex(4)  # of ids that are told apart between processes, at the price of a number
_numbers = itertools.count(1)

_log = logging.getLogger(__name__)


class Surroundings:
    """Plain ASGI: nothing between the client's disconnect and the endpoint that waits for it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or what else the server has to say."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        token = request_id.set(exchange.id)
        started = time.perf_counter()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001  a door: the last place to say anything
            _log.exception("a bug: please report it with these lines")
            if exchange.status is None:
                unexpected = reply(500, "an unexpected failure here", "an answer; report it with the X-Request-ID")
                await unexpected(scope, receive, exchange.send)
        finally:
            self._tell(scope, exchange, time.perf_counter() - started)
            request_id.reset(token)

    def _tell(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", OTHER_PATH)
        status = exchange.status or 0
        self._metrics.request(scope["method"], route, status, seconds)
        fields = {
            "method": scope["method"],
            "path": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "bytes_in": exchange.bytes_in,
        }
        level = logging.DEBUG if route in _CHATTY else logging.INFO
        if _log.isEnabledFor(level):  # made here, since `log` would look through the stack for who called it
            about = {"name": __name__, "levelno": level, "levelname": logging.getLevelName(level), "msg": "request"}
            _log.handle(logging.makeLogRecord({**about, FIELDS: fields}))


_CHATTY: Final = ("/health", "/ready", "/metrics")


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value for name, value in scope["headers"] if name in _LOOKED_AT}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _OUR_KIND_OF_ID.fullmatch(given) else f"{_PROCESS}-{next(_numbers):x}"
        self.status: int | None = None
        self.bytes_in = 0
        self._receive = receive
        self._send = send
        self._unread = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            self._unread = message.get("more_body", False)
        else:
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self.id.encode()), *_RAW_SECURITY_HEADERS]
            close = [(b"connection", b"close")] if self._unread else []
            message = {**message, "headers": [*message.get("headers", ()), *own, *close]}
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """A connection that is closed on a client that still sends would take the answer away from it."""
        try:
            async with asyncio.timeout(LINGER_S):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            self._unread = False


_LOOKED_AT: Final = (b"x-request-id", b"content-length", b"transfer-encoding")
