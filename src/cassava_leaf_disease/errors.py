"""The error tree: each kind owns its exit code and its HTTP status.

A message says what was seen, what was expected, and what to type.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class CassavaError(Exception):
    """Any failure that the user can be told about in one line; raise a subclass."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class ConfigError(CassavaError):
    """A wrong command, key or value, found before any work is done."""

    exit_code = 2
    http_status = 400


class DataError(CassavaError):
    """A data set or a table that is missing, incomplete or contradicts itself."""

    exit_code = 2
    http_status = 422


class ImageError(CassavaError):
    """A photo that cannot be used; raise one of the three kinds below."""

    exit_code = 2
    http_status = 422


class UnsupportedImageError(ImageError):
    """The bytes are no JPEG and no PNG (judged by content, not by name)."""

    http_status = 415


class ImageTooLargeError(ImageError):
    """More bytes or more pixels than the limits allow."""

    http_status = 413


class TooManyPixelsError(ImageTooLargeError):
    """More pixels than the limits allow, or a small file that unpacks to more than a photo ever is."""

    http_status = 422


class CorruptImageError(ImageError):
    """A JPEG or PNG that is empty, truncated or damaged, or that holds several frames."""


class CheckpointError(CassavaError):
    """A model file that is missing, damaged, foreign, or made for something else."""

    exit_code = 2
    http_status = 503


class NoClassMapsError(CheckpointError):
    """A model file that answers, but does not show where in a photo it sees what it answers."""

    http_status = 501


class EngineError(CassavaError):
    """A server that answers about photos in our place, and failed to."""

    http_status = 502


class EngineUnavailableError(EngineError):
    """That server is down, not ready, or has no room; the same request may succeed later."""

    http_status = 503


class EngineTimeoutError(EngineUnavailableError):
    """That server gave no answer in time."""

    http_status = 504


class ExportError(CassavaError):
    """A network that cannot be exported, or whose exported file does not answer as it does."""


class WeightsError(CassavaError):
    """Starting weights that cannot be fetched or do not fit the backbone."""

    exit_code = 2


class DeviceError(CassavaError):
    """A device that was asked for and is not there."""

    exit_code = 2


class DeviceMemoryError(DeviceError):
    """A device whose memory is full."""


class DivergedError(CassavaError):
    """A training whose loss is no longer a number."""


class ProcessError(CassavaError):
    """One of the processes that a command started ended without an answer."""


class OtherRankError(CassavaError):
    """Another of the processes that train together has failed, and tells about it: this one ends without a word."""


class StorageError(CassavaError):
    """A file that could not be fetched from, or put to, another machine."""

    http_status = 502


class DatabaseError(CassavaError):
    """A database of ours that cannot be read or written; the same request may succeed later."""

    http_status = 503


class BusyError(CassavaError):
    """A service that has more to do than it can answer in time; the same request may succeed after `retry_after_s`."""

    http_status = 503

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MissingDependencyError(CassavaError):
    """An optional library that the command needs is not installed."""

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        wheel = f"pip install 'cassava-leaf-disease[{extra}]'"
        super().__init__(f"{what} is not installed; type: {wheel}, in a clone: uv sync")


def first_mistake(error: "ValidationError") -> str:
    """Where the first thing that pydantic refuses stands, and why it is refused."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def first_line(error: Exception) -> str:
    """What a library's exception says, in one line; its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
