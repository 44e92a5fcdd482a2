"""The endpoints."""

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader

from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES, Prediction
from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.serving import metrics
from cassava_leaf_disease.serving.answerers import LocalAnswerer
from cassava_leaf_disease.serving.replies import RequestError, error_responses
from cassava_leaf_disease.serving.schemas import Health, Limits, ModelCard, Ready, describe_member
from cassava_leaf_disease.serving.service import Service

KEY_HEADER: Final = "X-API-Key"
JSON: Final = "application/json"
_UPLOAD_REFUSALS: Final = (400, 401, 408, 413, 415, 422, 503)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
TopK = Annotated[int, Query(ge=1, le=NUM_CLASSES, description="how many classes to rank")]


def _check_key(
    service: ServiceDep, given: Annotated[str | None, Security(APIKeyHeader(name=KEY_HEADER, auto_error=False))]
) -> None:
    wanted = service.settings.api_key
    if wanted is None:
        return
    if not secrets.compare_digest((given or "").encode(), wanted.get_secret_value().encode()):
        seen = "no API key" if given is None else "a wrong API key"
        raise RequestError(401, seen, f"the key of this service in the header {KEY_HEADER}")


open_routes = APIRouter()
routes = APIRouter(dependencies=[Depends(_check_key)])


@open_routes.get("/health", summary="Is the process alive?")
async def health() -> Health:
    """Answers at once, whatever the model does."""
    return Health()


@open_routes.get("/ready", summary="Is a model loaded?", responses=error_responses(503))
async def ready(service: ServiceDep) -> Ready:
    """Yes when a model has been loaded and has answered once."""
    if not await service.answerer.is_ready():
        raise BusyError("no model answers yet; expected one that is loaded and warm; see the service's log", 5)
    return Ready()


def _form(field: str, *, several: bool) -> dict[str, Any]:
    one = {"type": "string", "format": "binary", "description": "a JPEG or PNG photo"}
    schema = {"type": "array", "items": one, "minItems": 1} if several else one
    form = {"type": "object", "required": [field], "properties": {field: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


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


def _answered(example: dict[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {JSON: {"example": example}}}, **error_responses(*refusals)}


@routes.post(
    "/predict",
    summary="Diagnose one photo",
    response_model=Prediction,
    responses=_answered(_EXAMPLE, *_UPLOAD_REFUSALS),
    openapi_extra=_form("file", several=False),
)
async def predict(request: Request, service: ServiceDep, top_k: TopK = NUM_CLASSES) -> Response:
    """The multipart field `file` holds one JPEG or PNG."""
    async with service.photos(request, "file", 1) as [photo]:
        prediction = await service.answer(request, 1, lambda: service.predict(photo, top_k))
    return Response(prediction.model_dump_json(), media_type=JSON)


@routes.get("/model", summary="Which model answers?", responses=error_responses(401, 501, 503))
async def model(service: ServiceDep) -> ModelCard:
    """Name, version, classes, metrics, and what may be asked."""
    settings, local = service.settings, _local(service)
    predictor = local.model.predictor
    return ModelCard(
        model=predictor.identity,
        classes=CLASS_NAMES,
        members=tuple(describe_member(member.metadata) for member in predictor.members),
        views=predictor.views,
        engine=settings.engine,
        limits=Limits(**settings.model_dump(include={*Limits.model_fields} - {"formats"})),
    )


@routes.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **error_responses(401)},
)
async def prometheus(service: ServiceDep) -> Response:
    """Requests, latency by stage, batch sizes, verdicts and classes, the model's version."""
    return Response(service.metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _local(service: Service) -> LocalAnswerer:
    if not isinstance(service.answerer, LocalAnswerer):
        raise RequestError(501, f"CASSAVA_ENGINE={service.settings.engine}", "CASSAVA_ENGINE=local for this")
    return service.answerer
