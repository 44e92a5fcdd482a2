"""What goes wrong with S3, in one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cassava_leaf_disease.errors import MissingDependencyError, StorageError
from cassava_leaf_disease.storage.s3_connection import PUBLIC_ENDPOINT, Server, has_credentials

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "403"})
_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) in the environment or in .env"


class UnreachableError(StorageError):
    """The server cannot be reached, or cannot answer now: another try later may do."""


@contextmanager
def told_in_one_line(uri: str, server: Server | None = None) -> Iterator[None]:
    """Turns what boto3 raises about `uri` into a `StorageError`.

    Raises:
        StorageError: The reason, and what to do about it.
        MissingDependencyError: boto3 is not installed.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from s3transfer.exceptions import (  # type: ignore[import-untyped]
            RetriesExceededError,
            S3DownloadFailedError,
            S3ValidationError,
        )
    except ModuleNotFoundError:
        raise MissingDependencyError("boto3", "track") from None
    try:
        yield
    except ClientError as error:
        raise _refused(uri, error, server) from error
    except BotoCoreError as error:
        raise _failed(uri, error, server) from error
    except RetriesExceededError as error:
        raise UnreachableError(f"{uri}: the connection to {server} breaks again and again") from error
    except (S3DownloadFailedError, S3ValidationError) as error:
        raise StorageError(f"{uri}: was replaced while it was read; type the command again") from error


def _refused(uri: str, error: "ClientError", server: Server | None) -> StorageError:
    """What the server's answer means."""
    told = error.response.get("Error", {})
    code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or code == "SlowDown":
        return UnreachableError(f"{uri}: {server} cannot answer now ({code}); try again later")
    if code in _DENIED:
        return StorageError(f"{uri}: access denied: {_denied(error.operation_name)} ({code})")
    return StorageError(f"{uri}: {_reason(uri, code, server) or _as_told(code, told.get('Message'))}")


def _reason(uri: str, code: str, server: Server | None) -> str | None:
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket} at {server}{_other_server(server)}"
    if code in _MISSING:
        return f"the bucket {bucket} holds no such key"
    if code in _REFUSED:
        return f"the server does not accept the credentials in the AWS environment variables or .env ({code})"
    if code in _EXPIRED:
        return f"the credentials in the AWS environment variables or .env have expired ({code}); renew them"
    if code == "RequestTimeTooSkewed":
        now = datetime.now(UTC).isoformat(" ", "minutes").removesuffix("+00:00")
        return f"this machine's clock is wrong: it says {now} UTC; set it and type the command again"
    return None


def _denied(operation: str) -> str:
    if not has_credentials():
        return f"it is not public, or there is none; to read what is not public, set {_KEYS}"
    wanted = "read it, or there is none" if operation in ("HeadObject", "GetObject") else "write there"
    return f"the credentials in the AWS environment variables or .env may not {wanted}"


def _as_told(code: str, message: str | None) -> str:
    return f"the server answered {code}: {' '.join((message or 'no reason given').split())}"


def _other_server(server: Server | None) -> str:
    if server is None or server.named:
        return ""
    example = "https://s3.REGION.amazonaws.com" if server.url else PUBLIC_ENDPOINT
    return f", where buckets are looked for unless S3_ENDPOINT_URL names another server, such as {example}"


def _failed(uri: str, error: "BotoCoreError", server: Server | None) -> StorageError:
    """What went wrong before the server could answer, or while it did."""
    from botocore import exceptions

    where = server or "the server"
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return StorageError(f"{uri}: credentials are missing or incomplete; set {_KEYS}")
    if isinstance(error, exceptions.SSLError):
        return UnreachableError(
            f"{uri}: the certificate of {where} is not trusted; is this machine's clock right, is a login page "
            "in between, is AWS_CA_BUNDLE needed?"
        )
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return UnreachableError(f"{uri}: {where} cannot be reached, or the connection broke ({type(error).__name__})")
    return StorageError(f"{uri}: {' '.join(str(error).split())}")
