"""uvicorn's quickest HTTP parser, with the bounds that it lacks: how long a request's head may be, and may take."""

import asyncio
from typing import Any, Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024  # as h11's
HEAD_TIMEOUT_S: Final = 20.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head (request line and headers) that never ends, and closes a connection that sends it too slowly.

    How large a body may be, and how long it may take, is checked where it is read (`uploads.py`).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  uvicorn's business
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        within = self._in_head
        super().data_received(data)
        if within and self._in_head:
            self._head_bytes += len(data)
            self._check_head()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        self._head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._check_head():
            super().on_headers_complete()

    def _expect_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _check_head(self) -> bool:
        if self._head_bytes <= MAX_HEAD_BYTES or self.transport.is_closing():
            return self._head_bytes <= MAX_HEAD_BYTES
        self.send_400_response(f"The request's head has over {MAX_HEAD_BYTES} bytes.")
        return False

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
