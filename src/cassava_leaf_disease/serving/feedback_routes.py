"""The endpoints where people say what an answer was worth, and have it forgotten."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.feedback.store import MAX_REMARK, RECEIPT, Feedback
from cassava_leaf_disease.serving.replies import RequestError, error_responses
from cassava_leaf_disease.serving.routes import JSON, UploadRoute, service_of

MAX_FORGET_BYTES: Final = 4096
_TEXTS: Final = frozenset({"answer", "correct", "remark", "consent", "source", "contributor", "receipt"})
_SECRET_PATTERN: Final = f"^{RECEIPT.pattern}$"
_DOOR: Final = "http:"  # contributors of this door are never those of another one

feedback = APIRouter(route_class=UploadRoute)  # for those who have the key


class Receipt(BaseModel):
    """What a feedback can be forgotten with; nobody else knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipt: str


class ForgetRequest(BaseModel):
    """What to forget: one feedback by its receipt, or all that came under a contributor's word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipt: str | None = Field(default=None, pattern=_SECRET_PATTERN)
    contributor: str | None = Field(default=None, pattern=_SECRET_PATTERN)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.receipt is None) == (self.contributor is None):
            raise ValueError("expected `receipt` or `contributor`, one of them")
        return self


class Forgotten(BaseModel):
    """How many feedbacks are gone now, with their photos; 0 where there were none (any more)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forgotten: int


def _secret(description: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _SECRET_PATTERN, "description": description}


_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file", "answer", "consent"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "the photo, JPEG or PNG"},
        "answer": {"type": "string", "description": "the JSON that POST /predict gave about it"},
        "consent": {"type": "string", "enum": ["true"], "description": "the person agrees that the photo is kept"},
        "correct": {
            "type": "string",
            "enum": ["right", *map(str, range(len(CLASS_NAMES)))],
            "description": "`right`, or the id of the right class; left out where they do not know",
        },
        "remark": {"type": "string", "maxLength": MAX_REMARK, "description": "in their own words"},
        "source": {"type": "string", "enum": ["page", "bot", "api"], "default": "api"},
        "contributor": _secret("a random word of the sender's; with it all that they gave can be forgotten"),
        "receipt": _secret("a random word, so that a request that is sent again is kept once; else one is drawn"),
    },
}
_FORGET: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
    "properties": {"receipt": _secret("of one feedback"), "contributor": _secret("the sender's word")},
}


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


@feedback.post(
    "/feedback",
    summary="Say whether an answer was right, and give the photo",
    response_model=Receipt,
    responses=error_responses(400, 401, 404, 408, 413, 415, 422, 502, 503, 507),
    openapi_extra=_body("multipart/form-data", _FORM),
)
async def give(request: Request) -> Response:
    """A photo, the answer about it and the consent to keep it; the receipt in return lets the sender delete it."""
    service = service_of(request)
    service.feedback.require_open()
    async with service.form(request, "file", 1, _TEXTS) as form:
        given, receipt = read_feedback(form.texts)
        [photo] = form.photos
        receipt = await service.answer(request, 1, lambda: service.feedback.add(given, photo.data, receipt))
    return Response(Receipt(receipt=receipt).model_dump_json(), media_type=JSON)


@feedback.post(
    "/forget",
    summary="Delete what was given",
    response_model=Forgotten,
    responses=error_responses(400, 401, 404, 408, 413, 422, 502, 503),
    openapi_extra=_body(JSON, _FORGET),
)
async def forget(request: Request) -> Response:
    """Row and photo are gone when it answers; asked again, it answers 0."""
    service = service_of(request)
    service.feedback.require_open()
    wanted = await _forget_request(request, service.settings.upload_timeout_s)
    who = None if wanted.contributor is None else _DOOR + wanted.contributor
    work = partial(service.feedback.forget, contributor=who, receipt=wanted.receipt)
    count = await service.answer(request, 1, work)
    return Response(Forgotten(forgotten=count).model_dump_json(), media_type=JSON)


def read_feedback(texts: Mapping[str, str]) -> tuple[Feedback, str | None]:
    """What the fields of a form say, and the receipt that the sender drew.

    Raises:
        RequestError: A field is missing or wrong.
    """
    for name in ("receipt", "contributor"):
        if name in texts and not RECEIPT.fullmatch(texts[name]):
            raise RequestError(422, f"{name} of {len(texts[name])} characters", "16 to 128 of A-Z a-z 0-9 _ -")
    correct: int | str | None = texts.get("correct") or None
    if isinstance(correct, str) and correct.isascii() and correct.isdecimal():
        correct = int(correct[:4])
    contributor = texts.get("contributor")
    try:
        given = Feedback.model_validate(
            {
                "contributor": None if contributor is None else _DOOR + contributor,
                "source": texts.get("source") or "api",
                "answer": _answer(texts),
                "correct": correct,
                "remark": texts.get("remark"),
                "consent": texts.get("consent") == "true",
            }
        )
    except ValidationError as error:
        name, reason = _first(error)
        raise RequestError(422, f"{name}: {reason}", _expected(name)) from None
    return given, texts.get("receipt")


def _answer(texts: Mapping[str, str]) -> object:
    """The answer's JSON as it stands: what it must be is checked with the other fields."""
    import json

    if "answer" not in texts:
        raise RequestError(422, "a form without the field `answer`", "the JSON that POST /predict gave about the photo")
    try:
        return json.loads(texts["answer"])
    except (ValueError, RecursionError):
        raise RequestError(422, "answer: no JSON", "the JSON that POST /predict gave about the photo") from None


async def _forget_request(request: Request, timeout_s: float) -> ForgetRequest:
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_FORGET_BYTES:
                    raise RequestError(413, f"a request of over {MAX_FORGET_BYTES} bytes", 'JSON as {"receipt": "…"}')
    except TimeoutError:
        raise RequestError(408, f"a request that took over {timeout_s:g} s", "a faster one") from None
    try:
        return ForgetRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        name, reason = _first(error)
        raise RequestError(422, f"{name}: {reason}", 'JSON as {"receipt": "…"} or {"contributor": "…"}') from None


def _first(error: ValidationError) -> tuple[str, str]:
    [first, *_others] = error.errors(include_url=False, include_context=False, include_input=False)
    path = ".".join(map(str, first["loc"])) or "body"
    return path[:100], first["msg"].removeprefix("Value error, ")


def _expected(name: str) -> str:
    field = name.partition(".")[0]
    if field == "consent":
        return "consent=true: without it nothing is kept"
    if field == "correct":
        return "right, or a class id from 0 to 4, or nothing"
    if field == "answer":
        return "the JSON that POST /predict gave about the photo"
    return f"{field} as /openapi.json describes it"
