"""`cassava serve`: the service in this process, until it is told to end."""

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.serving.answerers import LocalAnswerer
from cassava_leaf_disease.serving.app import build_answerer, build_app
from cassava_leaf_disease.serving.http import BoundedHttpProtocol
from cassava_leaf_disease.serving.logs import configure_service_logging
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.settings import ServingSettings, settings_for, with_settings

_BACKLOG = 2048
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger(__name__)


class ServeResult(BaseModel):
    """What the service did until it was told to end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    requests: int
    seconds: float


def serve(config: AppConfig) -> ServeResult:
    """Answers requests until SIGTERM, then finishes those that have begun.

    Raises:
        ConfigError: A wrong setting, or a port that is taken.
        CassavaError: No model, or one that is damaged.
    """
    settings = settings_for(config)
    configure_service_logging(settings.log_level, settings.log_format)
    with bound_socket(settings.host, settings.port) as listener:
        configured = with_settings(config, settings)
        metrics = Metrics()
        answerer = build_answerer(settings, configured, metrics)
        if isinstance(answerer, LocalAnswerer):  # a wrong model is told before anybody is let in
            answerer.keeper.load()
        app = build_app(settings, answerer, metrics)
        url = address_of(listener)
        _warn_if_open(settings)
        listener.listen(_BACKLOG)  # from now on who comes is served, if not at once
        _log.info("serving at %s", url)
        started = time.monotonic()
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=BoundedHttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(settings.shutdown_timeout_s),
            )
        )
        with _sigterm_is_no_failure():
            server.run(sockets=[listener])
    requests = server.server_state.total_requests
    return ServeResult(url=url, requests=requests, seconds=round(time.monotonic() - started, 1))


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket with that address, on which nobody listens yet.

    Raises:
        ConfigError: The address is taken, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"serve.host={host}: {error.strerror}; expected an address of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"serve.host={host} serve.port={port}: {error.strerror}; expected a free port of this machine; type "
            "serve.port=0 for any"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warn_if_open(settings: ServingSettings) -> None:
    if settings.host not in _LOOPBACK and settings.api_key is None:
        _log.warning("%s: anybody who reaches this machine may ask; CASSAVA_API_KEY asks for a key", settings.host)


@contextlib.contextmanager
def _sigterm_is_no_failure() -> Iterator[None]:
    """Uvicorn raises the signal that ended it once more when it has ended; SIGTERM is how services are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
