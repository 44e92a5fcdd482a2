"""The bot's settings: typed, from the environment variables `CASSAVA_BOT_*`; the token comes from nowhere else."""

import hashlib
import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cassava_leaf_disease.config.schema import AbsolutePath, AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.log import LEVELS, known_level

PREFIX: Final = "CASSAVA_BOT_"
ALBUM_PHOTOS: Final = 10  # as many as Telegram puts into one album
_SHARED: Final = {  # by the names that the service uses, too
    "api_url": "CASSAVA_API_URL",
    "api_key": "CASSAVA_API_KEY",
    "log_level": "CASSAVA_LOG_LEVEL",
    "log_format": "CASSAVA_LOG_FORMAT",
    "telegram_url": "CASSAVA_BOT_API_URL",
}


class BotSettings(BaseSettings):
    """Every setting, its bounds and its default; the variable is the name in capitals after `CASSAVA_BOT_`.

    Those in `_SHARED` have names of their own. An empty variable counts as one that is not set.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    token: SecretStr = Field(description="what BotFather gave you: `123456:ABC…`")
    telegram_url: str = Field(
        default="https://api.telegram.org",
        validation_alias=_SHARED["telegram_url"],
        description="the Bot API server; another one for a server of your own",
    )
    api_url: str | None = Field(
        default=None,
        validation_alias=_SHARED["api_url"],
        description="`http://host:port` of `cassava serve`, which then answers; empty: the model in this process",
    )
    api_key: SecretStr | None = Field(
        default=None, validation_alias=_SHARED["api_key"], description="the key of that service, if it asks for one"
    )
    state_path: AbsolutePath | None = Field(
        default=None,
        description="the SQLite file of what has come and is to be answered; empty: `outputs/bot/bot.sqlite`",
    )
    webhook_url: str | None = Field(
        default=None, description="the `https://…` address that Telegram calls; empty: long polling"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="what Telegram shows with each call; empty: made of the token"
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="the address that the webhook listens at")
    port: int = Field(default=8443, ge=0, le=65_535, description="its port; 0: any that is free")
    poll_timeout_s: int = Field(
        default=50, ge=0, le=50, description="how long Telegram holds a request while nothing comes"
    )
    album_quiet_s: float = Field(
        default=1.5, gt=0, le=30, description="an album is complete when nothing more of it came for so long"
    )
    same_plant_s: float = Field(
        default=900, ge=0, le=86_400, description="photos that follow an unsure answer so soon are of the same plant"
    )
    photos_per_hour: int = Field(default=60, ge=1, le=100_000, description="photos of one user in an hour")
    max_waiting: int = Field(default=20, ge=1, le=1000, description="photos of one user that may wait")
    parallel: int = Field(default=16, ge=1, le=256, description="chats that are answered at a time")
    give_up_s: float = Field(
        default=900, gt=0, le=86_400, description="for so long it is tried to get an answer, then the user is told"
    )
    remember_days: float = Field(
        default=7, ge=2, le=90, description="how long answers are remembered, so that the buttons below them work"
    )
    shutdown_timeout_s: float = Field(
        default=20, ge=0, le=600, description="how long answers that have begun are finished after SIGTERM"
    )
    log_level: Annotated[str, AfterValidator(known_level)] = Field(
        default="INFO", validation_alias=_SHARED["log_level"], description=", ".join(f"`{level}`" for level in LEVELS)
    )
    log_format: Literal["json", "text"] = Field(
        default="json", validation_alias=_SHARED["log_format"], description="`json` or `text`, a line a record"
    )

    @field_validator("token")
    @classmethod
    def _looks_like_one(cls, token: SecretStr) -> SecretStr:
        number, colon, rest = token.get_secret_value().strip().partition(":")
        if not colon or not number.isdecimal() or not rest or not rest.isascii() or not rest.isprintable():
            raise ValueError("no token of a bot (its text is not shown here)")
        return SecretStr(f"{number}:{rest}")

    @field_validator("telegram_url", "api_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"{url}: no address of a server")
        return url.rstrip("/")

    @field_validator("webhook_url")
    @classmethod
    def _public_address(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme != "https" or not urlsplit(url).netloc):
            raise ValueError(f"{url}: Telegram calls https addresses only")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _as_telegram_takes_it(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        said = secret.get_secret_value()
        if not 16 <= len(said) <= 256 or not all(each.isascii() and (each.isalnum() or each in "_-") for each in said):
            raise ValueError("expected 16 to 256 of A-Z a-z 0-9 _ - drawn at random")
        return secret

    @property
    def secret_of_webhook(self) -> str:
        """What Telegram has to show: the one that was set, else one that only the token's holder can know."""
        if self.webhook_secret is not None:
            return self.webhook_secret.get_secret_value()
        return hashlib.sha256(f"webhook {self.token.get_secret_value()}".encode()).hexdigest()

    @property
    def webhook_path(self) -> str:
        """The path of the public address, at which the webhook listens."""
        return urlsplit(self.webhook_url or "").path or "/"


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return _SHARED.get(name, f"{PREFIX}{name.upper()}")


def settings_for(config: AppConfig) -> BotSettings:
    """The settings of `cassava bot`: what was typed, else the environment.

    Raises:
        ConfigError: One line for each variable or key that is wrong.
    """
    typed = {name: value for name, value in config.bot.model_dump(exclude={"name"}).items() if value is not None}
    if not os.environ.get(variable_of("token")):
        raise ConfigError(
            "CASSAVA_BOT_TOKEN is not set; expected the token that @BotFather gives for /newbot; type export "
            "CASSAVA_BOT_TOKEN=123456:ABC…"
        )
    return load_settings(typed)


def load_settings(overrides: Mapping[str, Any] | None = None) -> BotSettings:
    """The settings of the environment; `overrides` come first.

    Raises:
        ConfigError: One line for each variable that is wrong.
    """
    try:
        return BotSettings(**{_SHARED.get(name, name): value for name, value in (overrides or {}).items()})
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(map(_explain, error.errors())))) from None


def _explain(detail: Any) -> str:  # noqa: ANN401  a TypedDict that pydantic keeps to itself
    said = str(detail["loc"][0])
    name = next((name for name, variable in _SHARED.items() if variable == said), said)
    field = BotSettings.model_fields.get(name)
    if field is None:
        return f"{said}: no such setting"
    variable = variable_of(name)
    typed = os.environ.get(variable)
    secret = name in ("token", "api_key", "webhook_secret")
    seen = f"={typed}" if typed is not None and not secret and detail["type"] != "value_error" else ""
    return f"{variable}{seen}: {detail['msg'].removeprefix('Value error, ')}; expected {field.description}"
