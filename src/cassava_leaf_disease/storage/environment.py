"""What `.env` in the project's root adds to the environment."""

import logging
import os

from cassava_leaf_disease.errors import ConfigError, MissingDependencyError
from cassava_leaf_disease.paths import root

logger = logging.getLogger(__name__)

ENV_FILE = ".env"
SOURCES_OF_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_CREDENTIALS = (*SOURCES_OF_CREDENTIALS, "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_ARN")
_PREFIXES = ("AWS_", "S3_")


def load_env_file() -> None:
    """Sets the `AWS_*` and `S3_*` variables that the environment lacks from `.env`, and nothing else from there.

    The environment wins. Credentials are taken together or not at all, so that a key from one place never
    meets a token from the other. An empty variable counts as missing: compose files pass many of those, and
    botocore stumbles over them. Values are taken as they stand, without `${…}`; they are never logged.

    Raises:
        ConfigError: The file is no UTF-8 text.
        MissingDependencyError: There is such a file, but python-dotenv is not installed.
    """
    for name in [name for name, value in os.environ.items() if name.startswith(_PREFIXES) and not value]:
        del os.environ[name]
    written = _read()
    if any(name in os.environ for name in _CREDENTIALS):
        written = {name: value for name, value in written.items() if name not in _CREDENTIALS}
    added = {name: value for name, value in written.items() if name not in os.environ}
    if added:
        os.environ.update(added)
        logger.info("from %s: %s", root() / ENV_FILE, ", ".join(sorted(added)))


def _read() -> dict[str, str]:
    path = root() / ENV_FILE
    if not path.is_file():
        return {}
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        raise MissingDependencyError("python-dotenv", "track") from None
    try:
        content = dotenv_values(path, interpolate=False, encoding="utf-8-sig")  # Notepad writes the mark
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no UTF-8 text; save it as UTF-8 (PowerShell: -Encoding utf8)") from None
    return {name: value for name, value in content.items() if value and name.startswith(_PREFIXES)}
