"""The service's log: a line a record on stderr, with the request's id, without anything of the photos."""

import contextvars
import functools
import json
import logging
import time
from typing import Final, Literal

from typing_extensions import override

from cassava_leaf_disease.log import configure_logging

request_id: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar("request_id", default=None)
FIELDS: Final = "fields"  # `extra={FIELDS: {...}}` adds to a record's JSON


class JsonFormatter(logging.Formatter):
    """A record as one JSON object."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_surroundings(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record as one line for people, and its traceback."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={value}" for name, value in _surroundings(record).items())
        return f"{super().format(record)}{' ' if about else ''}{about}"


def configure_service_logging(level: str, form: Literal["json", "text"]) -> None:
    """Sends the package's records and uvicorn's to stderr in one form; uvicorn's access log is replaced by ours."""
    configure_logging(level)
    package = logging.getLogger("cassava_leaf_disease")
    formatter = JsonFormatter() if form == "json" else TextFormatter("%(levelname)s %(message)s")
    for handler in package.handlers:
        handler.setFormatter(formatter)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = package.handlers
        logger.propagate = False
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


@functools.lru_cache(maxsize=2)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def _surroundings(record: logging.LogRecord) -> dict[str, object]:
    current = request_id.get()
    fields: dict[str, object] = getattr(record, FIELDS, {})
    return {**({} if current is None else {"request_id": current}), **fields}
