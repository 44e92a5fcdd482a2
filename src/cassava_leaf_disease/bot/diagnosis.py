"""Photos to an answer about a plant: by the model in this process, or by our service elsewhere."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

import httpx
from pydantic import ValidationError

from cassava_leaf_disease.bot.settings import BotSettings
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import ModelIdentity, PlantPrediction
from cassava_leaf_disease.errors import (
    BusyError,
    CassavaError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    ImageError,
    NoClassMapsError,
)
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.inference.aggregate import combine_photos
from cassava_leaf_disease.serving.answerers import Answerer, LocalAnswerer
from cassava_leaf_disease.serving.app import build_answerer
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.settings import settings_for as serving_settings_for
from cassava_leaf_disease.serving.settings import with_settings

_TOP_K: Final = 5
_API_TIMEOUT_S: Final = 60.0
_LONGEST_WAIT_S: Final = 10.0  # that a busy service may ask for, before others have their turn
_TRIES: Final = 3


class Diagnoser(Protocol):
    """What answers; calls may overlap."""

    async def diagnose(self, photos: Sequence[bytes]) -> PlantPrediction:
        """The answer about the plant that photos show.

        Raises:
            ImageError: One of them cannot be used.
            CassavaError: There is no answer now.
        """
        ...

    async def heatmap(self, photo: bytes, class_id: int) -> bytes | None:
        """A PNG that shows what speaks for a class in a photo; None where the model shows nothing."""
        ...

    async def about(self) -> ModelIdentity:
        """What answers now."""
        ...


@dataclass(frozen=True)
class Diagnosis:
    """The answer from the photos that could be read, which are `readable`; the others with what is wrong with them."""

    plant: PlantPrediction
    readable: tuple[int, ...]
    unreadable: tuple[ImageError, ...]


async def diagnose_readable(diagnoser: Diagnoser, photos: Sequence[bytes]) -> Diagnosis:
    """The answer from those of the photos that can be read.

    Raises:
        ImageError: None of them can.
        CassavaError: There is no answer now.
    """
    try:
        return Diagnosis(await diagnoser.diagnose(photos), tuple(range(len(photos))), ())
    except ImageError as error:
        failures = [await asyncio.to_thread(_failure, photo) for photo in photos]
        readable = tuple(index for index, failure in enumerate(failures) if failure is None)
        if not readable or len(readable) == len(photos):
            raise next(filter(None, failures), error) from None
    plant = await diagnoser.diagnose([photos[index] for index in readable])
    return Diagnosis(plant, readable, tuple(filter(None, failures)))


def _failure(photo: bytes) -> ImageError | None:
    try:
        decode_image(photo, DecodeLimits(), name="photo")
    except ImageError as error:
        return error
    return None


class LocalDiagnoser:
    """The model in this process, or Triton's: the service's own engine, without its HTTP."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    async def diagnose(self, photos: Sequence[bytes]) -> PlantPrediction:
        """See `Diagnoser`; asked again if the model was replaced between the photos."""
        for _ in range(_TRIES):
            about = await self._answerer.about()
            predictions = await asyncio.gather(
                *(
                    self._answerer.predict_bytes(data, name=f"photo {number}", top_k=_TOP_K)
                    for number, data in enumerate(photos, start=1)
                )
            )
            if {prediction.model.version for prediction in predictions} == {about.identity.version}:
                return combine_photos(predictions, about.min_confidence, about.pooling)
        raise BusyError("the model is being replaced; expected one model for all photos of a plant; try again")

    async def heatmap(self, photo: bytes, class_id: int) -> bytes | None:
        """See `Diagnoser`."""
        if not isinstance(self._answerer, LocalAnswerer):
            return None
        with contextlib.suppress(NoClassMapsError):
            return await self._answerer.explain(photo, name="photo", class_id=class_id)
        return None

    async def about(self) -> ModelIdentity:
        """See `Diagnoser`."""
        return (await self._answerer.about()).identity


class ApiDiagnoser:
    """Our service at another address."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def diagnose(self, photos: Sequence[bytes]) -> PlantPrediction:
        """See `Diagnoser`."""
        files = [("files", (f"photo {number}", data)) for number, data in enumerate(photos, start=1)]
        reply = await self._ask(lambda: self._client.post("/predict/plant", files=files, params={"top_k": _TOP_K}))
        try:
            return PlantPrediction.model_validate_json(reply.content)
        except ValidationError:
            raise EngineError(f"{self._client.base_url} gave another answer than `cassava serve` does") from None

    async def heatmap(self, photo: bytes, class_id: int) -> bytes | None:
        """See `Diagnoser`."""
        files = [("file", ("photo", photo))]
        with contextlib.suppress(NoClassMapsError):
            reply = await self._ask(lambda: self._client.post("/explain", files=files, params={"class_id": class_id}))
            return reply.content
        return None

    async def about(self) -> ModelIdentity:
        """See `Diagnoser`."""
        reply = await self._ask(lambda: self._client.get("/model"))
        try:
            return ModelIdentity.model_validate(reply.json()["model"])
        except (ValueError, KeyError, TypeError):
            raise EngineError(f"{self._client.base_url} gave another answer than `cassava serve` does") from None

    async def _ask(self, call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """What the service replies; a busy one is asked again when it says."""
        for attempt in itertools.count(1):
            try:
                reply = await call()
                _raise_for(reply)
            except httpx.TimeoutException:
                raise EngineTimeoutError(
                    f"{self._client.base_url} gave no answer within {_API_TIMEOUT_S:g} s"
                ) from None
            except httpx.HTTPError as error:
                said = str(error) or type(error).__name__
                raise EngineUnavailableError(f"{self._client.base_url} cannot be reached: {said}") from None
            except BusyError as error:
                if attempt == _TRIES or error.retry_after_s > _LONGEST_WAIT_S:
                    raise
                await asyncio.sleep(error.retry_after_s)
            else:
                return reply
        raise AssertionError  # pragma: no cover


def _raise_for(reply: httpx.Response) -> None:
    """Turns a refusal of the service into the error that it stands for there."""
    if reply.status_code == HTTPStatus.OK:
        return
    said = f"{reply.url.path} answered {reply.status_code}: {_said(reply)}"
    if reply.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        asked = reply.headers.get("retry-after", "")
        raise BusyError(said, int(asked) if asked.isascii() and asked.isdecimal() else 5)
    if reply.status_code == HTTPStatus.NOT_IMPLEMENTED:
        raise NoClassMapsError(said)
    if reply.status_code in (413, 415, 422):
        raise ImageError(said)
    raise EngineError(said)


def _said(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return reply.text[:100]


@contextlib.asynccontextmanager
async def open_diagnoser(config: AppConfig, settings: BotSettings) -> AsyncIterator[Diagnoser]:
    """What these settings say that answers; a model of this process is loaded when the block begins.

    Raises:
        CassavaError: There is no model, or it is damaged.
    """
    if settings.api_url is not None:
        key = {} if settings.api_key is None else {"X-API-Key": settings.api_key.get_secret_value()}
        async with httpx.AsyncClient(base_url=settings.api_url, headers=key, timeout=_API_TIMEOUT_S) as client:
            yield ApiDiagnoser(client)
        return
    serving = serving_settings_for(config)
    answerer = build_answerer(serving, with_settings(config, serving), Metrics())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(answerer.close)
        if isinstance(answerer, LocalAnswerer):
            await asyncio.to_thread(answerer.keeper.load)
            await stack.enter_async_context(answerer.keeper.kept(serving.reload_s))
        yield LocalDiagnoser(answerer)


def retry_after_s(error: CassavaError) -> float:
    """When it may be worth to ask again."""
    return float(error.retry_after_s) if isinstance(error, BusyError) else 5.0
