"""Asks a Triton server that serves a repository of `cassava export-triton`: bytes there, a `Prediction` back.

One connection (gRPC, HTTP/2) carries all requests of a client. Each has a deadline. Asking about a photo changes
nothing on the server, so that a request which found no server, or a server without room, is sent again after a random
pause; one that ran out of time is not, since the server may still be at work on it.
"""

import asyncio
import random
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import ValidationError

from cassava_leaf_disease.domain import ModelIdentity, Prediction
from cassava_leaf_disease.errors import (
    CassavaError,
    CheckpointError,
    ConfigError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageError,
    MissingDependencyError,
    first_mistake,
)
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference.answer import to_prediction
from cassava_leaf_disease.inference.served import (
    DESCRIPTION_KEY,
    ENSEMBLE,
    FOREIGN,
    IMAGE,
    MODEL,
    PROBABILITIES,
    QUALITY,
    ServedModel,
)

if TYPE_CHECKING:
    from tritonclient.grpc import InferResult
    from tritonclient.grpc.aio import InferenceServerClient

Answer = TypeVar("Answer")

ATTEMPTS: Final = 5
_FIRST_PAUSE_S: Final = 0.1  # before the second attempt at most so long, before each further one twice that
_PROBE_TIMEOUT_S: Final = 2.0
_SERVE_IT: Final = "serve a repository that `cassava export-triton` wrote"

# gRPC alone would wait longer and longer, up to two minutes, before it tries a server again that was down; and it would
# not notice a machine that went away without a word.
_CHANNEL: Final = (
    *(("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100)),
    *(("grpc.max_reconnect_backoff_ms", 250), ("grpc.keepalive_time_ms", 10_000)),
    *(("grpc.keepalive_timeout_ms", 5_000), ("grpc.max_send_message_length", -1)),
)


@dataclass(frozen=True)
class Address:
    """Where a server listens, whether by TLS, and which model to ask."""

    target: str
    secure: bool
    model: str

    def __str__(self) -> str:
        return f"grpc{'s' * self.secure}://{self.target}/{self.model}"


def parse_address(url: str) -> Address:
    """`grpc://host:port`, `grpcs://host:port` or `host:port`, with `/model` after it where that is not `cassava`.

    Raises:
        ConfigError: Something else.
    """
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    model = parts.path.strip("/") or ENSEMBLE
    try:
        complete = bool(parts.hostname and parts.port)
    except ValueError:  # no number
        complete = False
    if parts.scheme not in ("grpc", "grpcs") or not complete or "@" in parts.netloc or "/" in model:
        raise ConfigError(
            f"{url}: no address of Triton's gRPC door; expected grpc://HOST:PORT, such as grpc://127.0.0.1:8001, or "
            "grpcs:// for TLS"
        )
    return Address(parts.netloc, parts.scheme == "grpcs", model)


class TritonClient:
    """Asks about photos from one event loop, any number at the same time.

    `timeout_s` is how long one answer may take, all attempts together.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.address = parse_address(url)
        self._timeout_s = timeout_s
        self._connected: InferenceServerClient | None = None
        self._described: ServedModel | None = None
        self._closed = False

    async def predict_bytes(self, data: bytes, *, name: str, top_k: int = 5) -> Prediction:
        """The answer about one JPEG or PNG file; `name` is what errors call it.

        Raises:
            ImageError: The bytes cannot be used as a photo; the kinds and the texts are those of `decode_image`.
            EngineUnavailableError: No server, or one that cannot answer now.
            EngineTimeoutError: No answer in time.
            CheckpointError: The server serves something else, or a network that gives no finite answer.
        """
        deadline = self._deadline()
        try:
            result = await self._retrying(lambda left_s: self._infer(data, left_s), deadline)
            served = await self._who_answered(result.as_numpy(MODEL).item().decode(), deadline)
        except ImageError as error:
            text = str(error)
            raise type(error)(name + text.removeprefix("photo") if text.startswith("photo:") else text) from None
        quality, foreign = result.as_numpy(QUALITY), result.as_numpy(FOREIGN)  # None where nothing has a gate
        return to_prediction(
            result.as_numpy(PROBABILITIES)[0].tolist(),
            self.identity(served),
            served.thresholds,
            served.quality_limits,
            served.views,
            top_k=top_k,
            name=name,
            quality=None if quality is None else _quality(quality[0].tolist()),
            foreign=None if foreign is None else float(foreign[0, 0]),
        )

    async def describe(self) -> ServedModel:
        """What the server serves, read anew.

        Raises:
            CassavaError: As `predict_bytes`.
        """
        self._described = await self._retrying(self._read_description, self._deadline())
        return self._described

    async def is_ready(self) -> bool:
        """Whether the server answers and has the model loaded; asked within two seconds."""
        try:
            return await self._retrying(self._probe, asyncio.get_running_loop().time() + _PROBE_TIMEOUT_S)
        except CassavaError:
            return False

    async def close(self) -> None:
        """Ends the connection; requests that are under way fail."""
        self._closed = True
        if self._connected is not None:
            await self._connected.close()
            self._connected = None

    def _client(self) -> "InferenceServerClient":
        """The connection, opened by the first request: gRPC binds it to the event loop that runs then."""
        if self._closed:
            raise EngineUnavailableError(f"{self.address}: this client is closed; make another one")
        if self._connected is None:
            from tritonclient.grpc.aio import InferenceServerClient

            target, secure = self.address.target, self.address.secure
            self._connected = InferenceServerClient(target, ssl=secure, channel_args=list(_CHANNEL))
        return self._connected

    async def _infer(self, data: bytes, left_s: float) -> "InferResult":
        from tritonclient.grpc import InferInput

        photo = InferInput(IMAGE, [1, 1], "BYTES")
        photo.set_data_from_numpy(np.array([[data]], np.object_))
        return await self._client().infer(self.address.model, [photo], client_timeout=left_s)

    async def _probe(self, left_s: float) -> bool:
        return bool(await self._client().is_model_ready(self.address.model, client_timeout=left_s))

    async def _read_description(self, left_s: float) -> ServedModel:
        answer = await self._client().get_model_config(self.address.model, as_json=True, client_timeout=left_s)
        try:
            text = answer["config"]["parameters"][DESCRIPTION_KEY]["string_value"]
            return ServedModel.model_validate_json(text)
        except (LookupError, TypeError):
            raise CheckpointError(
                f"{self.address}: not a CassavaVision model (no self-description); {_SERVE_IT}"
            ) from None
        except ValidationError as error:
            raise CheckpointError(
                f"{self.address}: its self-description is wrong ({first_mistake(error)}); {_SERVE_IT} of this version"
            ) from None

    async def _who_answered(self, digest: str, deadline: float) -> ServedModel:
        """The description that an answer came with; read anew where the server serves another model than before."""
        if self._described is None or self._described.digest != digest:
            self._described = await self._retrying(self._read_description, deadline)
        if self._described.digest == digest:
            return self._described
        raise EngineUnavailableError(f"{self.address}: its model is being replaced; ask again")

    def identity(self, served: ServedModel) -> ModelIdentity:
        """How answers name what the server serves."""
        several = served.members if len(served.members) > 1 else ()
        members = tuple(f"{each.model}: {each.metadata.name} {each.metadata.version}" for each in several)
        return ModelIdentity(
            name=served.name, version=served.version, source="triton", path=str(self.address), members=members
        )

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s

    async def _retrying(self, ask: Callable[[float], Awaitable[Answer]], deadline: float) -> Answer:
        """Asks, and asks again where that is safe and there is time; `ask` is told how many seconds are left."""
        from tritonclient.utils import InferenceServerException

        loop = asyncio.get_running_loop()
        pauses = _pauses()
        while True:
            left_s = deadline - loop.time()
            try:
                if left_s <= 0:
                    raise self._too_slow()
                return await ask(left_s)
            except InferenceServerException as failure:
                error = self._told(failure)
                pause_s = next(pauses, None) if isinstance(error, EngineUnavailableError) else None
                if isinstance(error, EngineTimeoutError) or pause_s is None or loop.time() + pause_s >= deadline:
                    raise error from None
                await asyncio.sleep(pause_s)

    def _told(self, failure: Exception) -> CassavaError:
        """Our error for what Triton's client raised."""
        status = str(failure.status()).removeprefix("StatusCode.")  # type: ignore[attr-defined]
        text = str(failure.message())  # type: ignore[attr-defined]
        kind, _, message = re.sub(r"^in ensemble '[^']*', ", "", text).partition(": ")
        if kind in _kinds():
            return _kinds()[kind](message)
        if status == "DEADLINE_EXCEEDED":
            return self._too_slow()
        if status == "UNAVAILABLE":
            return EngineUnavailableError(
                f"{self.address}: no answer ({text}); start a Triton server there, or ask again when it is ready"
            )
        if status == "NOT_FOUND":
            return CheckpointError(f"{self.address}: {text}; {_SERVE_IT}")
        return EngineError(f"{self.address}: the server failed ({status}: {text}); its log says more")

    def _too_slow(self) -> EngineTimeoutError:
        return EngineTimeoutError(
            f"{self.address}: no answer within {self._timeout_s:g} s; ask again, or allow more time by "
            "infer.triton_timeout_s"
        )


class BlockingTritonClient:
    """The same for code without an event loop: a thread of its own runs one. Threads may share it."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._client = TritonClient(url, timeout_s=timeout_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="triton-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict_bytes(self, data: bytes, *, name: str, top_k: int = 5) -> Prediction:
        """As `TritonClient.predict_bytes`."""
        return self._run(self._client.predict_bytes(data, name=name, top_k=top_k))

    def describe(self) -> ServedModel:
        """As `TritonClient.describe`."""
        return self._run(self._client.describe())

    def is_ready(self) -> bool:
        """As `TritonClient.is_ready`."""
        return self._run(self._client.is_ready())

    def close(self) -> None:
        """Ends the connection and the thread."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def require_client() -> None:
    """Fails where Triton's client is not installed.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import tritonclient.grpc  # noqa: F401
    except ImportError:
        raise MissingDependencyError("Triton's client", "triton") from None


def _quality(row: Sequence[float]) -> PhotoQuality:
    """From the tensor's row, which has a place for each field."""
    named = dict(zip((field.name for field in fields(PhotoQuality)), row, strict=True))
    return PhotoQuality(**{**named, "colors": int(named["colors"])})  # type: ignore[arg-type]


def _pauses() -> Iterator[float]:
    """Seconds before each further attempt: random, so that clients that fail together do not come back together.

    Source: Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015 ("full jitter").
    """
    for attempt in range(ATTEMPTS - 1):
        yield random.uniform(0, _FIRST_PAUSE_S * 2**attempt)  # noqa: S311  no secret


def _kinds() -> dict[str, type[CassavaError]]:
    """What the models in Python may call an error, by name."""
    kinds: list[type[CassavaError]] = [ImageError, CheckpointError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return {kind.__name__: kind for kind in kinds}
