"""How updates come in: long polling, or a webhook. Both record what has come before Telegram may forget it."""

import asyncio
import contextlib
import json
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI, Request, Response

from cassava_leaf_disease.bot.ledger import Ledger
from cassava_leaf_disease.bot.records import JsonObject
from cassava_leaf_disease.bot.telegram_api import LaterError, Telegram
from cassava_leaf_disease.serving.http import BoundedHttpProtocol

SECRET_HEADER: Final = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105  its name, not its content
_MAX_UPDATE_BYTES: Final = 1_000_000
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0

_log = logging.getLogger(__name__)


Received = Callable[[], None]  # called when something new has been recorded


async def poll(telegram: Telegram, ledger: Ledger, timeout_s: int, received: Received, first: Received) -> None:
    """Asks for updates for ever; `first` is called when Telegram has told what had come before.

    What was answered with an offset is forgotten by Telegram: it is taken from the ledger, where all before it is.
    """
    pause_s = _FIRST_PAUSE_S
    asked_before = False
    while True:
        try:
            updates = await telegram.updates(ledger.offset(), timeout_s if asked_before else 0)
        except LaterError as error:
            wait_s = max(pause_s, error.retry_after_s)
            _log.warning("no updates from Telegram, next try in %.1f s: %s", wait_s, error)
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            continue
        pause_s = _FIRST_PAUSE_S
        if ledger.record(updates):
            received()
        if not asked_before:
            asked_before = True
            first()


def webhook_app(ledger: Ledger, path: str, secret: str, received: Received) -> FastAPI:
    """What Telegram calls: an update that is answered 200 has been recorded."""
    app = FastAPI(title="CassavaVision's Telegram webhook", docs_url=None, redoc_url=None, openapi_url=None)

    async def take(request: Request) -> Response:
        shown = request.headers.get(SECRET_HEADER, "")
        if not secrets.compare_digest(shown.encode(), secret.encode()):
            return Response(status_code=403)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_UPDATE_BYTES:
                return Response(status_code=413)
        update = _read(bytes(body))
        if update is None:
            return Response(status_code=400)
        if ledger.record([update]):
            received()
        return Response(status_code=200)

    async def health() -> Response:
        return Response('{"status":"alive"}', media_type="application/json")

    app.add_api_route(path, take, methods=["POST"])
    if path != "/health":
        app.add_api_route("/health", health, methods=["GET"])
    return app


def _read(body: bytes) -> JsonObject | None:
    try:
        update = json.loads(body)
    except ValueError:
        return None
    return update if isinstance(update, dict) and isinstance(update.get("update_id"), int) else None


class _Server(uvicorn.Server):
    """Ends when it is told by the bot, which takes the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_webhook(app: FastAPI, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Listens until it is cancelled; calls that have begun are answered then."""
    server = _Server(
        uvicorn.Config(
            app, http=BoundedHttpProtocol, log_config=None, access_log=False, server_header=False, proxy_headers=False
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        ready()
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving
