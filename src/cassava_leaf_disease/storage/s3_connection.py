"""A connection to S3: which server, and with which credentials."""

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.storage.environment import SOURCES_OF_CREDENTIALS, load_env_file

if TYPE_CHECKING:
    from botocore.session import Session

PUBLIC_ENDPOINT: Final = "https://storage.yandexcloud.net"  # where the project's own public bucket lies
_ENDPOINT_VARIABLES = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Server:
    """Where buckets are looked for; `url` is None for AWS, `named` says whether the settings name it."""

    url: str | None
    named: bool

    def __str__(self) -> str:
        return self.url or "AWS"


def find_server() -> Server:
    """The server that the settings name, else AWS where they hold credentials, else the public one.

    Settings are `S3_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` (environment or `.env`), then
    `endpoint_url` of the AWS profile.

    Raises:
        ConfigError: What they name is no http(s) address.
        BotoCoreError: The profile is missing or its file is damaged.
    """
    load_env_file()
    url = next((url for name in _ENDPOINT_VARIABLES if (url := os.environ.get(name))), None) or _profile_endpoint()
    if url is None:
        return Server(None, named=False) if has_credentials() else Server(PUBLIC_ENDPOINT, named=False)
    if not _is_address(url):
        raise ConfigError(f"S3_ENDPOINT_URL={url}: expected an address such as {PUBLIC_ENDPOINT}")
    return Server(url.rstrip("/"), named=True)


def has_credentials() -> bool:
    """Whether the environment or `.env` (read before) says who asks; files in the home alone do not count."""
    return any(os.environ.get(name) for name in SOURCES_OF_CREDENTIALS)


def open_client(server: Server, *, signed: bool, attempts: int, timeout_s: float = 60) -> Any:  # noqa: ANN401
    """A boto3 client that tries each request so many times, with growing pauses of up to 20 s between.

    Raises:
        BotoCoreError: The credentials are missing or incomplete.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    session = _session()
    if signed and session.get_credentials() is None:
        raise NoCredentialsError
    config = Config(
        signature_version=None if signed else UNSIGNED,
        s3={"addressing_style": "path"} if server.url else None,  # other servers seldom have a host for each bucket
        connect_timeout=min(10, timeout_s),
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        **_checksums(server),
    )
    region = session.get_config_variable("region") or os.environ.get("AWS_REGION")
    made: Any = boto3.session.Session(botocore_session=session, region_name=region)
    return made.client("s3", endpoint_url=server.url, config=config)


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0 and " " not in url
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _checksums(server: Server) -> dict[str, str]:
    """Servers other than AWS often refuse the checksum headers that boto3 adds by itself; ours do the work there."""
    names = ("request_checksum_calculation", "response_checksum_validation")
    return {name: "when_required" for name in names if server.url and f"AWS_{name.upper()}" not in os.environ}


def _profile_endpoint() -> str | None:
    """`endpoint_url` of the profile's S3 service, or of the profile."""
    session = _session()
    profile = session.get_scoped_config()
    service = session.full_config.get("services", {}).get(profile.get("services"), {}).get("s3", {})
    url: str | None = service.get("endpoint_url") or profile.get("endpoint_url")
    return url


def _session() -> "Session":
    import botocore.session

    session = botocore.session.get_session()
    session.register_component("data_loader", _service_models())
    return session


@cache
def _service_models() -> Any:  # noqa: ANN401
    """The description of S3's requests, read once: the second client takes 11 ms instead of 84."""
    from botocore.loaders import create_loader

    return create_loader()
