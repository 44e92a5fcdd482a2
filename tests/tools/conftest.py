"""Services that say of themselves what a test wants; they count and answer over real HTTP."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class FakeService:
    """`errors` of a hundred answers are 500, each takes `seconds`; every look at its metrics brings `visitors` more."""

    def __init__(self, *, errors: int = 0, seconds: float = 0.03, visitors: int = 0) -> None:
        self.errors, self.seconds, self.visitors = errors, seconds, visitors
        self.started_at = 1000.0
        self.unready = 0  # looks that /ready says no to
        self.asked = self.failed = self.failed_reloads = 0
        self.url = ""
        self.key: str | None = None  # that every request has to show

    def answer(self) -> int:
        """One more answer about a photo; its status."""
        self.asked += 1
        bad = self.asked * 37 % 100 < self.errors  # evenly spread
        self.failed += bad
        return 500 if bad else 200

    def exposition(self) -> str:
        """What Prometheus reads."""
        good = self.asked - self.failed
        lines = [
            f'cassava_requests_total{{method="POST",path="/predict",status="200"}} {good}',
            f'cassava_requests_total{{method="POST",path="/predict",status="500"}} {self.failed}',
            'cassava_requests_total{method="GET",path="/metrics",status="200"} 100000',
            f'cassava_model_reloads_total{{result="failed"}} {self.failed_reloads}',
            f"process_start_time_seconds {self.started_at}",
        ]
        for bound in ("0.05", "0.2", "1", "5", "+Inf"):
            count = self.asked if self.seconds <= float(bound) else 0
            lines.append(f'cassava_request_seconds_bucket{{path="/predict",le="{bound}"}} {count}')
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def serving(service: FakeService) -> Iterator[FakeService]:
    """The service at an address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if service.key and self.headers.get("X-API-Key") != service.key:
                self.reply(401, "no key")
            elif self.path == "/metrics":
                for _ in range(service.visitors):
                    service.answer()
                self.reply(200, service.exposition())
            elif self.path == "/ready" and service.unready:
                service.unready -= 1
                self.reply(503, "no model")
            else:
                self.reply(200, "{}")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(service.answer(), "{}")

        def reply(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeService]]:
    """Starts services, each at an address of its own; they end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **about: stack.enter_context(serving(FakeService(**about)))
