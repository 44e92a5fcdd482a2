"""The endpoints."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from typing_extensions import override

from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES, PlantPrediction, Prediction
from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.serving import metrics
from cassava_leaf_disease.serving.answerers import LocalAnswerer
from cassava_leaf_disease.serving.replies import RequestError, error_responses
from cassava_leaf_disease.serving.schemas import Health, Limits, ModelCard, OfflineModel, Ready, describe_member
from cassava_leaf_disease.serving.service import Service

KEY_HEADER: Final = "X-API-Key"
JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
PNG: Final = "image/png"
Default = TypeVar("Default", int, None)
_UPLOAD_REFUSALS: Final = (400, 401, 408, 413, 415, 422, 502, 503, 504)


def service_of(request: Request) -> Service:
    """The service that was asked; called and not injected, since FastAPI's injection costs more than all the rest."""
    service: Service = request.app.state.service
    return service


async def check_key(
    request: Request, given: Annotated[str | None, Security(APIKeyHeader(name=KEY_HEADER, auto_error=False))]
) -> None:
    """Refuses a request without the service's key; a dependency of a service that has one."""
    wanted = service_of(request).settings.api_key
    if wanted is not None and not secrets.compare_digest((given or "").encode(), wanted.get_secret_value().encode()):
        seen = "no API key" if given is None else "a wrong API key"
        raise RequestError(401, seen, f"the key of this service in the header {KEY_HEADER}")


open_routes = APIRouter()


class UploadRoute(APIRoute):
    """An endpoint that reads its request itself: FastAPI describes it, but injects and checks nothing.

    That is a seventh of all work beside the photo's own, on a processor that photos wait for.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            await check_key(request, request.headers.get(KEY_HEADER))
            answer: Response = await self.endpoint(request)
            return answer

        return handle


routes = APIRouter()  # for those who have the key
uploads = APIRouter(route_class=UploadRoute)  # for those who have the key, too


@open_routes.get("/health", summary="Is the process alive?")
async def health() -> Health:
    """Answers at once, whatever the model does."""
    return Health()


@open_routes.get("/ready", summary="Is a model loaded?", responses=error_responses(503))
async def ready(request: Request) -> Ready:
    """Yes when a model has been loaded and has answered once."""
    if not await service_of(request).answerer.is_ready():
        raise BusyError("no model answers yet; expected one that is loaded and warm; see the service's log", 5)
    return Ready()


_TOP_K: Final = {
    "name": "top_k",
    "in": "query",
    "description": "how many classes to rank",
    "schema": {"type": "integer", "minimum": 1, "maximum": NUM_CLASSES, "default": NUM_CLASSES},
}
_CLASS_ID: Final = {
    "name": "class_id",
    "in": "query",
    "description": "the class to show; without it the predicted one",
    "schema": {"type": "integer", "minimum": 0, "maximum": NUM_CLASSES - 1},
}


def _described(field: str, parameter: dict[str, Any], *, several: bool = False) -> dict[str, Any]:
    """What OpenAPI is told of an upload."""
    one = {"type": "string", "format": "binary", "description": "a JPEG or PNG photo"}
    schema = {"type": "array", "items": one, "minItems": 1} if several else one
    form = {"type": "object", "required": [field], "properties": {field: schema}}
    body = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return {"requestBody": body, "parameters": [parameter]}


def _whole_number(request: Request, name: str, lowest: int, highest: int, default: Default) -> int | Default:
    """A query parameter within its bounds."""
    typed = request.query_params.get(name)
    if typed is None:
        return default
    if not typed.isascii() or not typed.isdecimal() or not lowest <= int(typed[:4]) <= highest:
        raise RequestError(422, f"{name}={typed[:40]}", f"a whole number from {lowest} to {highest}")
    return int(typed)


_CHUNK_BYTES: Final = 64 * 1024
_SHA256: Final = "the digest of the file, as /offline/model.json names it"

_EXAMPLE: Final = {
    "predicted_class_id": 3,
    "class_name": CLASS_NAMES[3],
    "confidence": 0.877,
    "probabilities": dict(zip(CLASS_NAMES, (0.004, 0.101, 0.014, 0.877, 0.004), strict=True)),
    "top_k": [{"class_id": 3, "class_name": CLASS_NAMES[3], "prob": 0.877}],
    "verdict": "diagnosis",
    "model": {
        "name": "mobilenetv2_100",
        "version": "0.1.0+20261123T0237",
        "source": "explicit",
        "path": "/models/best.onnx",
    },
    "image": "leaf.jpg",
}


_PLANT_EXAMPLE: Final = {
    **_EXAMPLE,
    "image": None,
    "counted": [0],
    "left_out": [{"index": 1, "image": "dark.jpg", "reason": "poor_photo"}],
    "more_leaves": 0,
    "photos": [_EXAMPLE, {**_EXAMPLE, "image": "dark.jpg", "verdict": "poor_photo"}],
}


def _answered(example: dict[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {JSON: {"example": example}}}, **error_responses(*refusals)}


@uploads.post(
    "/predict",
    summary="Diagnose one photo",
    response_model=Prediction,
    responses=_answered(_EXAMPLE, *_UPLOAD_REFUSALS),
    openapi_extra=_described("file", _TOP_K),
)
async def predict(request: Request) -> Response:
    """The multipart field `file` holds one JPEG or PNG."""
    service, top_k = service_of(request), _whole_number(request, "top_k", 1, NUM_CLASSES, NUM_CLASSES)
    async with service.photos(request, "file", 1) as [photo]:
        prediction = await service.answer(request, 1, lambda: service.predict(photo, top_k))
    return Response(prediction.model_dump_json(), media_type=JSON)


@uploads.post(
    "/predict/plant",
    summary="Diagnose one plant from several photos",
    response_model=PlantPrediction,
    responses=_answered(_PLANT_EXAMPLE, *_UPLOAD_REFUSALS),
    openapi_extra=_described("files", _TOP_K, several=True),
)
async def predict_plant(request: Request) -> Response:
    """The multipart field `files`, given several times, holds photos of one plant; they get one verdict."""
    service, top_k = service_of(request), _whole_number(request, "top_k", 1, NUM_CLASSES, NUM_CLASSES)
    async with service.photos(request, "files", service.settings.max_files) as photos:
        plant = await service.answer(request, len(photos), lambda: service.predict_plant(photos, top_k))
    return Response(plant.model_dump_json(), media_type=JSON)


@uploads.post(
    "/explain",
    summary="Show where in a photo the model sees it",
    response_class=Response,
    responses={
        200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}, "description": "the overlay"},
        **error_responses(*_UPLOAD_REFUSALS, 501),
    },
    openapi_extra=_described("file", _CLASS_ID),
)
async def explain(request: Request) -> Response:
    """A PNG of the photo in `file` under a heatmap; what the model was not shown is dark."""
    service = service_of(request)
    class_id = _whole_number(request, "class_id", 0, NUM_CLASSES - 1, None)
    answerer = service.answerer
    if not isinstance(answerer, LocalAnswerer):
        raise RequestError(
            501, f"CASSAVA_ENGINE={service.settings.engine}, which draws no overlays", "CASSAVA_ENGINE=local"
        )
    async with service.photos(request, "file", 1) as [photo]:
        picture = await service.answer(
            request, 1, lambda: answerer.explain(photo.data, name=photo.name, class_id=class_id)
        )
    return Response(picture, media_type=PNG)


@routes.get("/model", summary="Which model answers?", responses=error_responses(401, 502, 503, 504))
async def model(request: Request) -> ModelCard:
    """Name, version, classes, metrics, and what may be asked."""
    service = service_of(request)
    settings, about = service.settings, await service.answerer.about()
    return ModelCard(
        model=about.identity,
        classes=CLASS_NAMES,
        members=tuple(map(describe_member, about.members)),
        views=about.views,
        engine=settings.engine,
        feedback=service.feedback.is_open,
        limits=Limits(**settings.model_dump(include={*Limits.model_fields} - {"formats"})),
        offline=await asyncio.to_thread(service.offline.in_short),
    )


_NOT_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "The client has it already, as its If-None-Match says."}
}


@routes.get(
    "/offline/model.json",
    summary="What a phone needs to know to answer without a network",
    response_model=OfflineModel,
    responses={**_NOT_CHANGED, **error_responses(401, 404, 503)},
)
async def offline_description(request: Request) -> Response:
    """Classes, preprocessing, thresholds and gate of the model that is offered, and where its file lies."""
    offered = await asyncio.to_thread(service_of(request).offline.current)
    headers = {"ETag": f'"{offered.digest}"', "Cache-Control": "no-cache"}
    if _has_already(request, offered.digest):
        return Response(status_code=304, headers=headers)
    return Response(offered.description, media_type=JSON, headers=headers)


@routes.get(
    "/offline/model.onnx",
    summary="The model that a phone answers with",
    response_class=Response,
    responses={
        200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}, "description": "the file"},
        206: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}, "description": "a part of it"},
        **_NOT_CHANGED,
        **error_responses(401, 404, 422, 503),
    },
)
async def offline_model(
    request: Request, sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description=_SHA256)] = None
) -> Response:
    """With `sha256` it may be cached for ever. A download that broke goes on by `Range: bytes=START-`."""
    offered = await asyncio.to_thread(service_of(request).offline.current)
    if sha256 not in (None, offered.sha256):
        raise RequestError(404, f"no model file {sha256} (any more)", "the one that /offline/model.json names")
    kept = "no-cache" if sha256 is None else "max-age=31536000, immutable"
    headers = {"ETag": f'"{offered.sha256}"', "Cache-Control": f"private, {kept}", "Accept-Ranges": "bytes"}
    if _has_already(request, offered.sha256):
        return Response(status_code=304, headers=headers)
    size = len(offered.content)
    start = _start_of_range(request, offered.sha256, size)
    headers["Content-Length"] = str(size - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    body = _chunks(memoryview(offered.content)[start:])
    return StreamingResponse(body, 206 if start else 200, headers, BINARY)


def _start_of_range(request: Request, digest: str, size: int) -> int:
    """Where the rest that a client asks for begins; 0 (the whole) for any other range, as RFC 9110 allows."""
    asked = re.fullmatch(r"bytes=(\d{1,15})-", request.headers.get("range", ""))
    same = request.headers.get("if-range", f'"{digest}"') == f'"{digest}"'
    return int(asked[1]) if asked and same and int(asked[1]) < size else 0


async def _chunks(content: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]


def _has_already(request: Request, digest: str) -> bool:
    known = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") == f'"{digest}"' for tag in known)


@routes.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **error_responses(401)},
)
async def prometheus(request: Request) -> Response:
    """Requests, latency by stage, batch sizes, verdicts and classes, the model's version."""
    return Response(service_of(request).metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})
