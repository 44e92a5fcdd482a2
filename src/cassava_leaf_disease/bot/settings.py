"""The bot's settings: typed, from the environment variables `CASSAVA_BOT_*`; the token comes from nowhere else."""

import hashlib
import os
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from cassava_leaf_disease.config.environment import (
    LOG_FORMAT_WORDS,
    LOG_LEVEL_WORDS,
    EnvironmentSettings,
    LogFormat,
    LogLevel,
    typed_values,
)
from cassava_leaf_disease.config.schema import AbsolutePath, AppConfig
from cassava_leaf_disease.errors import ConfigError

ALBUM_PHOTOS: Final = 10  # as many as Telegram puts into one album


class BotSettings(EnvironmentSettings):
    """Every setting, its bounds and its default; those with an alias share the variable with other parts."""

    model_config = SettingsConfigDict(env_prefix="CASSAVA_BOT_")

    token: SecretStr = Field(description="what BotFather gave you: `123456:ABC…`")
    telegram_url: str = Field(
        default="https://api.telegram.org",
        validation_alias="CASSAVA_BOT_API_URL",
        description="the Bot API server; another one for a server of your own",
    )
    api_url: str | None = Field(
        default=None,
        validation_alias="CASSAVA_API_URL",
        description="`http://host:port` of `cassava serve`, which then answers; empty: the model in this process",
    )
    api_key: SecretStr | None = Field(
        default=None, validation_alias="CASSAVA_API_KEY", description="the key of that service, if it asks for one"
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
    log_level: LogLevel = Field(default="INFO", validation_alias="CASSAVA_LOG_LEVEL", description=LOG_LEVEL_WORDS)
    log_format: LogFormat = Field(default="json", validation_alias="CASSAVA_LOG_FORMAT", description=LOG_FORMAT_WORDS)

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


def settings_for(config: AppConfig) -> BotSettings:
    """The settings of `cassava bot`: what was typed, else the environment.

    Raises:
        ConfigError: One line for each variable or key that is wrong.
    """
    if not os.environ.get(BotSettings.variable_of("token")):
        raise ConfigError(
            "CASSAVA_BOT_TOKEN is not set; expected the token that @BotFather gives for /newbot; type export "
            "CASSAVA_BOT_TOKEN=123456:ABC…"
        )
    return BotSettings.load(typed_values(config.bot.model_dump(exclude={"name"})))
