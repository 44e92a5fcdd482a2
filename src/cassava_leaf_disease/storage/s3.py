"""Files from S3 and from what speaks its language (MinIO, Yandex Object Storage …)."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError, StorageError
from cassava_leaf_disease.storage.files import replacing

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

CHUNK_BYTES = 1 << 20
_CREDENTIAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_MISSING = frozenset({"NoSuchBucket", "NoSuchKey", "NotFound", "404"})
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "ExpiredToken", "Forbidden", "403"})
_REFUSED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"})


def fetch_s3(uri: str, destination: Path) -> Path:
    """Downloads `s3://bucket/key` to `destination`, whole or not at all, and returns `destination`.

    Without credentials in the AWS environment variables the object is read anonymously, as anybody may read
    a public bucket; with them the request is signed. `S3_ENDPOINT_URL` or `AWS_ENDPOINT_URL` names another
    server.

    Raises:
        ConfigError: `uri` is not of the form `s3://bucket/key`.
        MissingDependencyError: boto3 is not installed.
        StorageError: The object is missing, denied or out of reach.
    """
    parts = re.fullmatch(r"s3://([^/]+)/(.+)", uri)
    if parts is None:
        raise ConfigError(f"{uri}: expected s3://bucket/key")
    bucket, key = parts.groups()
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError:
        raise MissingDependencyError("boto3", "track") from None
    try:
        body = _client().get_object(Bucket=bucket, Key=key)["Body"]
        with replacing(destination) as file:
            for chunk in body.iter_chunks(CHUNK_BYTES):
                file.write(chunk)
    except ClientError as error:
        raise StorageError(f"{uri}: {_answered(error, bucket)}") from error
    except BotoCoreError as error:
        raise StorageError(f"{uri}: {_failed(error)}") from error
    return destination


def _client() -> Any:  # noqa: ANN401  (boto3 makes its classes at run time)
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    endpoint = _endpoint()
    config = Config(
        signature_version=None if _has_credentials() else UNSIGNED,
        s3={"addressing_style": "path"} if endpoint else None,  # other servers seldom have a host name for each bucket
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


def _endpoint() -> str | None:
    named = (os.environ.get(name) for name in ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    return next((url for url in named if url), None)


def _has_credentials() -> bool:
    return any(os.environ.get(name) for name in _CREDENTIAL_VARIABLES)


def _answered(error: "ClientError", bucket: str) -> str:
    """What the server's refusal means, and what to do about it."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket} at {_endpoint() or 'AWS'}"
    if code in _MISSING:
        return f"the bucket {bucket} holds no such key"
    if code in _REFUSED:
        return f"the server does not accept the credentials in the AWS environment variables ({code})"
    if code in _DENIED:
        if _has_credentials():
            return f"access denied: the credentials in the AWS environment variables may not read it ({code})"
        return "access denied: the bucket is not public; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return f"the server answered {code}: {error.response.get('Error', {}).get('Message', 'no reason given')}"


def _failed(error: "BotoCoreError") -> str:
    """What went wrong before the server could answer, or while it did."""
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "credentials are incomplete; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return f"{_endpoint() or 'AWS'} cannot be reached, or the connection broke ({type(error).__name__})"
    return " ".join(str(error).split())
