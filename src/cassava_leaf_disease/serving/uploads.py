"""Photos out of a multipart form, in memory only, with every limit checked while the bytes arrive."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.replies import ClientGoneError, RequestError

MAX_OTHER_BYTES: Final = 64 * 1024  # boundaries, headers of parts, fields that are no photo
MAX_NAME_LENGTH: Final = 120


@dataclass(frozen=True)
class Photo:
    """A file of a form: what the client calls it, made harmless, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class UploadLimits:
    """The largest photo in bytes, and the number of photos in one request."""

    max_bytes: int
    max_files: int

    @property
    def max_body_bytes(self) -> int:
        """The largest body that can be within the limits."""
        return self.max_bytes * self.max_files + MAX_OTHER_BYTES


class UploadMemory:
    """Bytes of all uploads that are held at a time."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self.held_bytes = 0

    @contextmanager
    def lease(self) -> Iterator["UploadLease"]:
        """What one request holds; given back when it has been answered."""
        lease = UploadLease(self)
        try:
            yield lease
        finally:
            self.held_bytes -= lease.held_bytes

    def take(self, count: int) -> None:
        """Holds so many bytes more.

        Raises:
            BusyError: Too much is held already.
        """
        if self.held_bytes + count > self._max_bytes:
            self._metrics.rejected("memory")
            raise BusyError(
                f"uploads of {self.held_bytes:,} bytes are waiting here already; expected room for this one; try again"
            )
        self.held_bytes += count


@dataclass
class UploadLease:
    """The share of one request."""

    memory: UploadMemory
    held_bytes: int = 0

    def take(self, count: int) -> None:
        """As `UploadMemory.take`."""
        self.memory.take(count)
        self.held_bytes += count


@dataclass(frozen=True)
class Form:
    """What a form holds: the photos of one field, and the texts of others by their names."""

    photos: list[Photo]
    texts: dict[str, str]


async def read_form(
    request: Request, field_name: str, limits: UploadLimits, lease: UploadLease, texts: frozenset[str] = frozenset()
) -> Form:
    """The files in a form's field, one or more, in their order, and the fields named in `texts` that are there.

    Raises:
        RequestError: No form, no such field, too many files or bytes; the rest of the body is not read then.
        BusyError: All uploads together hold too much memory.
        ClientGoneError: The client went away.
    """
    boundary = _boundary(request, field_name)
    _check_announced(request, limits)
    form = _Form(field_name, boundary, limits, texts)
    try:
        async for chunk in _chunks(request):
            lease.take(len(chunk))
            form.write(chunk)
    except FormParserError as error:
        raise RequestError(400, f"a damaged multipart body ({error})", "a form as browsers and curl send it") from None
    except ClientDisconnect:
        raise ClientGoneError("the client went away while it sent its photo") from None
    return Form(form.photos(), form.texts())


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _boundary(request: Request, field_name: str) -> bytes:
    wanted = f"multipart/form-data with the field `{field_name}`; type curl -F {field_name}=@leaf.jpg"
    announced = request.headers.get("content-type")
    if announced is None:
        raise RequestError(422, "a request without a form", wanted)
    kind, options = parse_options_header(announced)
    if kind != b"multipart/form-data":
        raise RequestError(415, f"Content-Type {announced[:100]!r}", wanted)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, section 5.1.1
        raise RequestError(400, f"a multipart boundary of {len(boundary)} characters", "1 to 70")
    return boundary


def _check_announced(request: Request, limits: UploadLimits) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced) > limits.max_body_bytes:
        raise _too_large(f"a request of {int(announced):,} bytes", limits)


def _too_large(seen: str, limits: UploadLimits) -> RequestError:
    photos = "one photo" if limits.max_files == 1 else f"at most {limits.max_files} photos"
    return RequestError(413, seen, f"{photos} of at most {limits.max_bytes:,} bytes; save it smaller")


@dataclass
class _Part:
    """A part of the form while it arrives."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects the parts that the parser tells of."""

    def __init__(self, field_name: str, boundary: bytes, limits: UploadLimits, texts: frozenset[str]) -> None:
        self._field_name = field_name
        self._names_of_texts = texts
        self._texts: dict[str, bytearray] = {}
        self._limits = limits
        self._part = _Part()
        self._header_name, self._header_value = bytearray(), bytearray()
        self._photos: list[_Part] = []
        self._other_files: list[str] = []
        self._other_bytes = 0
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_field,
                "on_header_value": self._header_text,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes of the body."""
        before = sum(len(photo.data) for photo in self._photos)
        self._parser.write(chunk)
        self._other_bytes += len(chunk) - (sum(len(photo.data) for photo in self._photos) - before)
        if self._other_bytes > MAX_OTHER_BYTES:
            raise RequestError(
                413, f"a form with over {MAX_OTHER_BYTES:,} bytes beside its photos", f"only `{self._field_name}`"
            )

    def photos(self) -> list[Photo]:
        """What the complete form holds."""
        if not self._complete:
            raise RequestError(400, "a multipart body that breaks off", "the whole form; send it again")
        if not self._photos:
            others = ", ".join(f"`{name}`" for name in self._other_files)
            raise RequestError(
                422,
                f"a form without the field `{self._field_name}`{f', but with {others}' if others else ''}",
                f"a photo in it; type curl -F {self._field_name}=@leaf.jpg",
            )
        names = [part.filename or self._field_name for part in self._photos]
        return [Photo(name, bytes(part.data)) for name, part in zip(names, self._photos, strict=True)]

    def texts(self) -> dict[str, str]:
        """What the fields beside the photos say; not UTF-8 is told as such by a mark in the text."""
        return {name: bytes(text).decode("utf-8", "replace") for name, text in self._texts.items()}

    def _begin_part(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._part.headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        disposition = self._part.headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._part.filename = None if filename is None else harmless_name(filename.decode("utf-8", "replace"))
        if self._part.name == self._field_name:
            self._photos.append(self._part)
            if len(self._photos) > self._limits.max_files:
                seen = f"more than {self._limits.max_files} file{'s' * (self._limits.max_files > 1)} in one request"
                raise RequestError(413, seen, "fewer; send the others in another request")
        elif self._part.name in self._names_of_texts:
            self._texts[self._part.name] = self._part.data  # of one that comes twice the last
        else:
            self._other_files.append(harmless_name(self._part.name))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name != self._field_name and self._part.name not in self._names_of_texts:
            return
        self._part.data += memoryview(data)[start:end]
        if self._part.name == self._field_name and len(self._part.data) > self._limits.max_bytes:
            seen = f"{self._part.filename or self._field_name}: more than {self._limits.max_bytes:,} bytes"
            raise _too_large(seen, self._limits)

    def _end(self) -> None:
        self._complete = True


def harmless_name(name: str) -> str:
    """A client's file name without folders, control characters and semicolons, and not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(character if character.isprintable() and character != ";" else "_" for character in last)
    return plain[:MAX_NAME_LENGTH]
