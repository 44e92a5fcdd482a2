"""The service's settings: typed, from the environment variables `CASSAVA_*`."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from cassava_leaf_disease.config.environment import (
    LOG_FORMAT_WORDS,
    LOG_LEVEL_WORDS,
    EnvironmentSettings,
    LogFormat,
    LogLevel,
    typed_values,
)
from cassava_leaf_disease.config.schema import AbsolutePath, AppConfig, Tta
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.storage.database import sqlite_path

MIN_KEY_LENGTH = 16
_GUESSED_FIRST = ("changeme", "change-me", "changethis", "secret", "password", "example", "test", "cassava", "api-key")


def _split(value: object) -> object:
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


class ServingSettings(EnvironmentSettings):
    """Every setting, its bounds and its default."""

    model_config = SettingsConfigDict(env_prefix="CASSAVA_")

    checkpoint_path: AbsolutePath | None = Field(
        default=None, description="the model file (`.onnx`, `.ckpt`, `ensemble.json`); empty: the newest run"
    )
    checkpoint_s3_uri: str | None = Field(
        default=None, pattern=r"^s3://[^/]+/.+", description="`s3://bucket/key` of a model file"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="`auto`, `cpu` or `cuda`")
    tta: Tta = Field(default="none", description="views of each photo whose answers are averaged, as `infer.tta`")
    engine: Literal["local", "triton"] = Field(default="local", description="`local`, or `triton` for a server of it")
    triton_url: str | None = Field(
        default=None, description="`grpc://host:port` of Triton's gRPC door, `grpcs://` for TLS"
    )
    offline_model_path: AbsolutePath | None = Field(
        default=None,
        description="the `.onnx` that phones download ([offline](offline.md)); empty: the served one if it is small",
    )

    host: str = Field(default="127.0.0.1", min_length=1, description="the address that `cassava serve` listens at")
    port: int = Field(default=8000, ge=0, le=65_535, description="its port; 0: any that is free")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", description="photos that are worked on at a time; `auto`: one a processor"
    )
    queue_size: int = Field(default=64, ge=0, le=100_000, description="photos that may wait; more are answered 503")
    deadline_s: float = Field(default=20, gt=0, le=600, description="an answer that takes longer becomes a 503")
    upload_timeout_s: float = Field(default=30, gt=0, le=600, description="how long an upload may take")
    shutdown_timeout_s: float = Field(
        default=30, ge=0, le=600, description="how long `cassava serve` finishes answers after SIGTERM"
    )
    reload_s: float = Field(
        default=5, ge=0, le=3600, description="how often the model file is looked at for a change; 0: never"
    )

    max_upload_bytes: int = Field(default=20_000_000, ge=1024, le=2**30, description="the largest photo in bytes")
    max_image_pixels: int = Field(default=40_000_000, ge=1024, le=2**30, description="the largest photo in pixels")
    max_files: int = Field(default=10, ge=1, le=100, description="photos in one request of `/predict/plant`")
    max_buffered_bytes: int = Field(
        default=256_000_000, ge=1024, le=2**40, description="all uploads together that are held in memory"
    )
    api_key: SecretStr | None = Field(
        default=None, description=f"asked for in the header `X-API-Key` if set; {MIN_KEY_LENGTH} characters or more"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(), description="other sites whose pages may ask, such as `https://example.org`, with commas between"
    )
    feedback_url: SecretStr | None = Field(
        default=None,
        description="where photos and corrections that people agree to give are kept: `sqlite:///FILE` or "
        "`postgresql://user:password@host/name`; empty: none are taken",
    )
    feedback_photos: str | None = Field(
        default=None,
        description="their photos: a folder, or `s3://bucket/prefix`; empty: `photos` beside SQLite's file",
    )
    feedback_max_rows: int = Field(default=100_000, ge=1, le=10**9, description="feedbacks that are kept at most")
    statistics_url: SecretStr | None = Field(
        default=None,
        description="where counts of answers by day are kept for `cassava drift`, as `CASSAVA_FEEDBACK_URL`; empty: in "
        "memory, until the service ends",
    )
    drift_reference: AbsolutePath | None = Field(
        default=None, description="what `cassava drift reference` wrote; empty: `NAME.drift.json` beside the model file"
    )
    drift_days: int = Field(default=7, ge=1, le=366, description="days that the gauges of drift look back")
    log_level: LogLevel = Field(default="INFO", description=LOG_LEVEL_WORDS)
    log_format: LogFormat = Field(default="json", description=LOG_FORMAT_WORDS)

    @field_validator("api_key")
    @classmethod
    def _hard_to_guess(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        said = key.get_secret_value()
        if (
            len(said) < MIN_KEY_LENGTH
            or len(set(said)) < MIN_KEY_LENGTH // 2
            or said.lower().startswith(_GUESSED_FIRST)
        ):
            raise ValueError(
                f"too easy to guess; expected {MIN_KEY_LENGTH} or more characters drawn at random; type "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if not said.isascii() or not said.isprintable() or " " in said:
            raise ValueError("expected ASCII characters without spaces, since the key travels in a header")
        return key

    @field_validator("feedback_url", "statistics_url")
    @classmethod
    def _known_database(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            try:
                sqlite_path(url.get_secret_value())
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return url

    @field_validator("cors_origins")
    @classmethod
    def _plain_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
                raise ValueError(f"{origin}: expected origins such as https://example.org, without a path; `*` is none")
        return origins

    @model_validator(mode="after")
    def _check_feedback(self) -> Self:
        if self.feedback_url is None or self.feedback_photos is not None:
            return self
        if sqlite_path(self.feedback_url.get_secret_value()) is None:
            raise ValueError("CASSAVA_FEEDBACK_URL=postgresql://…: needs CASSAVA_FEEDBACK_PHOTOS, a folder or s3://…")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.engine == "triton" and self.triton_url is None:
            raise ValueError("CASSAVA_ENGINE=triton: needs CASSAVA_TRITON_URL=grpc://host:port")
        if self.engine == "triton" and self.checkpoint_path is not None:
            raise ValueError(
                "CASSAVA_ENGINE=triton CASSAVA_CHECKPOINT_PATH: the server's model is the one that it was given; "
                "leave CASSAVA_CHECKPOINT_PATH out, or set CASSAVA_ENGINE=local"
            )
        if self.max_buffered_bytes < self.max_upload_bytes:
            raise ValueError(
                f"CASSAVA_MAX_BUFFERED_BYTES={self.max_buffered_bytes}: expected at least CASSAVA_MAX_UPLOAD_BYTES="
                f"{self.max_upload_bytes}, or no photo of that size could be held"
            )
        return self


def settings_for(config: AppConfig) -> ServingSettings:
    """The settings of `cassava serve`: what was typed, else the environment.

    Raises:
        ConfigError: One line for each variable or key that is wrong.
    """
    typed = typed_values(config.serve.model_dump(exclude={"name"}))
    infer = config.infer
    if isinstance(infer.checkpoint_path, tuple):
        raise ConfigError(
            "infer.checkpoint_path: several files; expected one: write an ensemble with `cassava ensemble`, and name it"
        )
    if infer.engine == "triton":
        typed |= {"engine": infer.engine, "triton_url": infer.triton_url}
    if infer.checkpoint_path is not None:
        typed["checkpoint_path"] = infer.checkpoint_path
    if infer.checkpoint_s3_uri is not None:
        typed["checkpoint_s3_uri"] = infer.checkpoint_s3_uri
    if infer.device != "auto":
        typed["device"] = infer.device
    if infer.tta != "none":
        typed["tta"] = infer.tta
    return ServingSettings.load(typed)


def with_settings(config: AppConfig, settings: ServingSettings) -> AppConfig:
    """The configuration whose `infer` is the service's: which model, on what, how large a photo."""
    infer = config.infer.changed(
        checkpoint_path=settings.checkpoint_path,
        checkpoint_s3_uri=settings.checkpoint_s3_uri,
        device=settings.device,
        tta=settings.tta,
        max_image_bytes=settings.max_upload_bytes,
        max_image_pixels=settings.max_image_pixels,
    )
    return config.changed(infer=infer)
