"""What comes back from the field: corrections, and photos that change."""

from datetime import date
from typing import Literal, Self

from pydantic import Field, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, Section


class FeedbackConfig(Section):
    """What people said of the answers, out of the store that the service and the bot keep.

    `url` is the store's database, `photos` where its photos lie (null: as the environment says, see
    `serving/settings.py`). `reviewed_csv` holds the labels of an expert, which come before what people say.
    """

    url: str | None = Field(min_length=1)
    photos: str | None = Field(min_length=1)
    reviewed_csv: AbsolutePath | None
    only_reviewed: bool
    output_dir: AbsolutePath | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.only_reviewed and self.reviewed_csv is None:
            raise ValueError(
                "feedback.only_reviewed=true: expected feedback.reviewed_csv=FILE with the expert's labels"
            )
        return self


class DriftConfig(Section):
    """Counts of answers in the `days` days up to `until`, held against the model's reference.

    The levels are population stability indices: up to `watch` nothing has changed, from `alarm` on much has.
    """

    statistics_url: str | None = Field(min_length=1)
    reference: AbsolutePath | None
    part: Literal["train", "val", "test"]
    days: int = Field(ge=1, le=366)
    until: date | None = Field(description="a day such as 2026-11-30, or null")
    source: Literal["all", "service", "bot"]
    min_photos: int = Field(ge=20, le=1_000_000)
    watch: float = Field(gt=0, le=10)
    alarm: float = Field(gt=0, le=10)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.watch > self.alarm:
            raise ValueError(
                f"drift.watch={self.watch} drift.alarm={self.alarm}: expected drift.alarm to be the larger"
            )
        return self
