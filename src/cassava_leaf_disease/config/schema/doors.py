"""What the service and the bot set beside the environment."""

from typing import Annotated, Literal

from pydantic import Field

from cassava_leaf_disease.config.schema.base import AbsolutePath, Section


class ServeConfig(Section):
    """What `cassava serve` sets beside the environment variables `CASSAVA_*`; null: as they say.

    Which model answers is said by `infer`; the service's other settings are environment variables only (see
    `serving/settings.py`).
    """

    name: str
    host: str | None
    port: int | None = Field(ge=0, le=65_535, description="a whole number from 0 to 65535, or null")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] | None
    queue_size: int | None = Field(ge=0, le=100_000, description="a whole number from 0 to 100000, or null")
    deadline_s: float | None = Field(gt=0, le=600, description="a number above 0, to 600, or null")
    reload_s: float | None = Field(ge=0, le=3600, description="a number from 0 to 3600, or null")
    offline_model_path: AbsolutePath | None
    log_format: Literal["json", "text"] | None


class BotConfig(Section):
    """What `cassava bot` sets beside the environment variables `CASSAVA_BOT_*`; null: as they say.

    Which model answers is said by `infer`; the token and the other settings are environment variables only (see
    `bot/settings.py`).
    """

    name: str
    api_url: str | None
    state_path: AbsolutePath | None
    webhook_url: str | None
    host: str | None
    port: int | None = Field(ge=0, le=65_535, description="a whole number from 0 to 65535, or null")
    album_quiet_s: float | None = Field(gt=0, le=30, description="a number above 0, to 30, or null")
    photos_per_hour: int | None = Field(ge=1, le=100_000, description="a whole number from 1 to 100000, or null")
    max_waiting: int | None = Field(ge=1, le=1000, description="a whole number from 1 to 1000, or null")
    log_format: Literal["json", "text"] | None
