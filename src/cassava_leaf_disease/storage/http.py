"""Files over HTTP: streamed, resumed after a broken connection or a stopped program, checked."""

import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from cassava_leaf_disease.errors import StorageError, first_line
from cassava_leaf_disease.log import byte_bar
from cassava_leaf_disease.storage.partial import Download, Part, check_file

if TYPE_CHECKING:
    from requests import Response, Session

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1 << 16  # what a broken connection loses at most
CONNECT_TIMEOUT_S: Final = 10
READ_TIMEOUT_S: Final = 60
ATTEMPTS: Final = 6  # in a row without a new byte
LONGEST_WAIT_S: Final = 30.0
LONGEST_WISH_S: Final = 120.0  # of a server that says when to come back
_ASK_ATTEMPTS: Final = 3
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RemoteFile:
    """Where a file is, and what is known of it beforehand.

    `identity` stays the same where `url` is made anew for every download; `renew` makes such an address anew.
    `checksums` maps names of `hashlib` to hexadecimal digests.
    """

    url: str
    identity: str
    name: str
    size_bytes: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    renew: Callable[[], str] | None = None


def remote_file(url: str) -> RemoteFile:
    """The file at an address of which no more is known.

    Raises:
        StorageError: It is no address.
    """
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise StorageError(f"{url}: {error}; check the address") from error
    return RemoteFile(url, url, unquote(address.path).rpartition("/")[2] or address.hostname or "download")


def without_secrets(url: str) -> str:
    """An address as it may stand in logs: no password, no query (signed addresses carry their key there)."""
    if not url.startswith(("http://", "https://")):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # no address: it will be told as such
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))


def download(remote: RemoteFile, folder: Path) -> Download:
    """Fetches a file into `folder`, going on where an earlier try stopped.

    A part that stays behind is found again by the file's identity; the server is asked to go on with it only
    if the file is still the same (its ETag or date), else it is fetched anew. A broken connection is tried
    again with growing pauses, as long as bytes arrive in between. The caller sees to it that nobody else
    fetches the same file into the same folder meanwhile.

    Raises:
        StorageError: The server refuses or cannot be reached, there is no room, or the file is not what its
            checksum says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = Part(folder, remote.name, remote.identity)
    with closing(_open_session()) as session:
        _fetch_patiently(session, remote, part)
    try:
        return check_file(part.path, remote.checksums, remote.name, part.reused_bytes)
    except StorageError:
        part.discard()
        raise


def get_json(url: str, parameters: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """The status and the JSON object of a small answer, empty where that is none; three tries.

    Raises:
        StorageError: No answer arrives.
    """
    import requests

    host = urlsplit(url).netloc
    with closing(_open_session()) as session:
        for attempt in range(1, _ASK_ATTEMPTS + 1):
            try:
                answer = session.get(url, params=dict(parameters), timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
            except (requests.RequestException, ValueError) as error:
                if attempt == _ASK_ATTEMPTS:
                    raise StorageError(f"{host}: {_reason(error)}; check the network") from error
                seen = _reason(error)
            else:
                if answer.status_code not in _PASSING or attempt == _ASK_ATTEMPTS:
                    return answer.status_code, _json_object(answer.content)
                seen = f"answers {answer.status_code}"
            _pause(f"{host}: {seen}", _backoff_s(attempt))
    raise AssertionError  # pragma: no cover  the last round returns or raises


class _PassingError(Exception):
    """Something that may be gone on the next try."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _GoneError(StorageError):
    """An address that does not hold any more, or never did."""


def _open_session() -> "Session":
    import requests

    def refuse_plain_http(answer: "Response", *_: Any, **__: Any) -> None:  # noqa: ANN401
        target = urljoin(answer.url, answer.headers.get("Location", ""))
        if answer.is_redirect and answer.url.startswith("https:") and target.startswith("http:"):
            raise StorageError(
                f"{without_secrets(answer.url)}: is redirected to plain http, where anybody on the way may change the "
                "file; give an address of https"
            )

    session = requests.Session()
    session.hooks["response"].append(refuse_plain_http)
    return session


def _fetch_patiently(session: "Session", remote: RemoteFile, part: Part) -> None:
    """Asks again and again, as long as new bytes arrive in between."""
    failures, farthest, renewed_at = 0, part.resumable_bytes, part.size_bytes
    while True:
        try:
            _fetch(session, remote, part)
        except _GoneError:
            if remote.renew is None or part.size_bytes == renewed_at:
                raise
            logger.info("%s: its address has expired: asking for a new one", remote.name)
            remote, renewed_at = replace(remote, url=remote.renew()), part.size_bytes
        except _PassingError as error:
            if part.size_bytes > farthest:
                failures, farthest = 0, part.size_bytes
            failures += 1
            if failures == ATTEMPTS:
                raise StorageError(
                    f"{without_secrets(remote.identity)}: {error}, {failures} times in a row; what has arrived is "
                    "kept: type the same command to go on"
                ) from error
            _pause(
                f"{remote.name}: {error} after {_megabytes(part.size_bytes)}", error.wait_s or _backoff_s(failures + 1)
            )
        else:
            return


def _fetch(session: "Session", remote: RemoteFile, part: Part) -> None:
    """One request, appended to the part; returns when the file is complete."""
    offset = part.resumable_bytes
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": part.validator or ""}
    with _requesting(session, remote, headers) as answer:
        total = _total_bytes(answer)
        if answer.status_code == 416 and total == offset:
            return
        if answer.status_code in (206, 416) and not _continues(answer, part, offset):
            part.discard()
            raise _PassingError("the file on the server has changed, starting anew")
        if answer.status_code == 206:
            logger.info("%s: going on after %s of %s", remote.name, _megabytes(offset), _megabytes(total))
        else:
            if part.size_bytes:
                logger.info("%s: has changed, or its server sends only whole files: starting anew", remote.name)
            offset, total = 0, remote.size_bytes if total is None else total
            part.start(_validator(answer), total)
            logger.info("%s: %s, kept meanwhile in %s", remote.name, _megabytes(total), part.path)
        _append(answer, remote.name, part, total)


@contextmanager
def _requesting(session: "Session", remote: RemoteFile, headers: Mapping[str, str]) -> Iterator["Response"]:
    """The server's answer, its refusals sorted into passing and final ones."""
    import requests

    shown = without_secrets(remote.identity)
    try:
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        answer = session.get(remote.url, stream=True, headers=dict(headers), timeout=timeout)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StorageError(
                f"{shown}: its server's certificate is not trusted; is this machine's clock right, is a login page in "
                "between, is REQUESTS_CA_BUNDLE needed?"
            ) from error
        raise _PassingError(_reason(error)) from error
    except (requests.RequestException, ValueError) as error:  # urllib3 has its own word for names that are none
        raise StorageError(f"{shown}: {first_line(error)}; check the address") from error
    with answer:
        _check_status(answer, shown)
        yield answer


def _check_status(answer: "Response", shown: str) -> None:
    status = answer.status_code
    if status in _PASSING:
        raise _PassingError(f"the server answers {status}", _wished_wait_s(answer))
    if status in (401, 403, 404, 410):
        hint = "it wants a login, or is not public" if status in (401, 403) else "check the address"
        raise _GoneError(f"{shown}: the server answers {status} {answer.reason}; {hint}")
    if status not in (200, 206, 416):
        raise StorageError(f"{shown}: the server answers {status} {answer.reason}; check the address")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise StorageError(f"{shown}: leads to a web page, not to a file; give the address of the archive itself")


def _continues(answer: "Response", part: Part, offset: int) -> bool:
    """Whether a 206 goes on with the very file that the part is of; some servers pass over If-Range."""
    if answer.status_code != 206 or not offset:
        return False
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    total = _total_bytes(answer)
    same_size = total is None or part.total_bytes in (None, total)
    return start == str(offset) and same_size and _validator(answer) in (None, part.validator)


def _append(answer: "Response", name: str, part: Part, total: int | None) -> None:
    """Writes the body as it was sent: servers that declare `.tar.gz` a Content-Encoding mean the file itself."""
    from urllib3.exceptions import HTTPError

    offset = part.size_bytes
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - offset > free:
        raise StorageError(
            f"{name}: {_megabytes(total - offset)} do not fit into {part.path.parent}, where {_megabytes(free)} are "
            "free; make room, or name another folder with paths.cache_dir"
        )
    try:
        with part.path.open("ab") as file, byte_bar(name, total, offset) as advance:
            for chunk in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                advance(len(chunk))
    except HTTPError as error:
        raise _PassingError(f"the connection broke ({type(error).__name__})") from error
    except OSError as error:
        raise StorageError(f"{part.path}: cannot be written ({error.strerror}); what has arrived is kept") from error
    if total is not None and part.size_bytes < total:
        raise _PassingError("the connection broke")
    if total is not None and part.size_bytes > total:
        size = part.size_bytes
        part.discard()
        raise StorageError(f"{name}: the server sent {size} bytes, announced {total}; type the command again")


def _total_bytes(answer: "Response") -> int | None:
    """The size of the whole file, as far as the answer tells."""
    whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
    length = whole if answer.status_code in (206, 416) else answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _validator(answer: "Response") -> str | None:
    """A strong ETag, else the date: what If-Range may hold."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _wished_wait_s(answer: "Response") -> float | None:
    """How long the server asks to wait: in seconds or until a date."""
    wish = answer.headers.get("Retry-After", "")
    if wish.isdecimal():
        return min(float(wish), LONGEST_WISH_S)
    try:
        wait_s: float = (parsedate_to_datetime(wish) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None
    return min(max(wait_s, 0.0), LONGEST_WISH_S)


def _backoff_s(attempt: int) -> float:
    """Doubling pauses, shortened at random so that many clients do not come back at once."""
    return min(LONGEST_WAIT_S, 0.5 * 2.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311


def _pause(what: str, wait_s: float) -> None:
    logger.warning("%s: trying again in %.0f s", what, wait_s)
    time.sleep(wait_s)


def _reason(error: Exception) -> str:
    return f"cannot be reached ({type(error).__name__})"


def _json_object(content: bytes) -> dict[str, object]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _megabytes(size: int | None) -> str:
    return "an unknown size" if size is None else f"{size / 1e6:,.1f} MB"
