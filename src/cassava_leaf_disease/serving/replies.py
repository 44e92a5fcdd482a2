"""Every answer that is not the wanted one has the same JSON: what was seen, what was expected, what to do."""

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from cassava_leaf_disease.errors import BusyError, CassavaError, DatabaseError, EngineUnavailableError

_log = logging.getLogger(__name__)

ENGINE_RETRY_AFTER_S: Final = "5"  # a Triton server loads its models in about so long
CLIENT_GONE: Final = 499  # nginx's number for a client that did not wait for its answer; nobody receives it


class ErrorBody(BaseModel):
    """Why there is no answer: what was seen, and what was expected and can be done."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(examples=["leaf.jpg: no image (12 bytes starting b'not a ph')"])
    expected: str = Field(examples=["a JPEG or PNG photo; save it as JPEG"])


class RequestError(CassavaError):
    """A request that cannot be understood; `status` is the answer's."""

    def __init__(self, status: int, error: str, expected: str) -> None:
        super().__init__(f"{error}; expected {expected}")
        self.status = status
        self.body = ErrorBody(error=error, expected=expected)


class ClientGoneError(CassavaError):
    """The client went away before its answer was ready."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is told of an endpoint's refusals."""
    return {status: {"model": ErrorBody, "description": _WHEN[status]} for status in sorted(statuses)}


_WHEN: Final = {
    400: "The multipart body is damaged.",
    401: "The API key is missing or wrong.",
    404: "There is no such thing, or the service was not set up for it.",
    408: "The upload took too long.",
    413: "A photo, or the whole request, has too many bytes.",
    415: "The request is no multipart form, or a file is neither JPEG nor PNG, judged by its content.",
    422: "A photo is damaged or has too many pixels, the form lacks its field, or a parameter is wrong.",
    501: "The engine that is set cannot do this.",
    507: "The store is full.",
    502: "The Triton server failed.",
    504: "The Triton server gave no answer in time.",
    503: "More to do than can be answered in time, or no model is loaded yet; see Retry-After.",
}


def install(app: FastAPI) -> None:
    """Makes the app answer every failure in the one shape."""
    app.add_exception_handler(CassavaError, _for_our_own)
    app.add_exception_handler(RequestValidationError, _for_parameters)
    app.add_exception_handler(HTTPException, _for_frameworks)


def reply(status: int, error: str, expected: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape."""
    return JSONResponse(ErrorBody(error=error, expected=expected).model_dump(), status, headers)


async def _for_our_own(_: Request, failure: Exception) -> JSONResponse:
    if isinstance(failure, RequestError):
        headers = {"WWW-Authenticate": "ApiKey"} if failure.status == HTTPStatus.UNAUTHORIZED else None
        return JSONResponse(failure.body.model_dump(), failure.status, headers)
    if isinstance(failure, ClientGoneError):
        return reply(CLIENT_GONE, "the client went away", "to wait for the answer")
    assert isinstance(failure, CassavaError)  # noqa: S101  for the type checker: the handler is registered for these
    error, expected = split_message(str(failure))
    headers = None
    if isinstance(failure, BusyError):
        headers = {"Retry-After": str(failure.retry_after_s)}
    elif isinstance(failure, EngineUnavailableError | DatabaseError):
        headers = {"Retry-After": ENGINE_RETRY_AFTER_S}
    if failure.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(failure, BusyError):
        _log.error("%s", failure)
    return reply(failure.http_status, error, expected, headers)


def split_message(message: str) -> tuple[str, str]:
    """What a message of ours says was seen, and what it says was expected and can be done."""
    seen, found, rest = message.partition("; expected ")
    if not found:
        seen, _, rest = message.partition("; ")
    return seen, rest or "see the service's log"


async def _for_parameters(_: Request, failure: Exception) -> JSONResponse:
    assert isinstance(failure, RequestValidationError)  # noqa: S101
    [first, *_rest] = failure.errors()
    name = first["loc"][-1]
    return reply(422, f"{name}={first.get('input')!r}: {first['msg']}", f"{name} as /openapi.json describes it")


async def _for_frameworks(request: Request, failure: Exception) -> JSONResponse:
    assert isinstance(failure, HTTPException)  # noqa: S101
    seen = f"{request.method} {request.url.path}: {HTTPStatus(failure.status_code).phrase}"
    return reply(failure.status_code, seen, "a path and method of /openapi.json", dict(failure.headers or {}))
