"""The Telegram bot's own words; those about diseases are in `advice`."""

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.texts.advice import Language


class CommandWords(BaseModel):
    """What each command does, for Telegram's menu."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    help: str
    language: str
    about: str
    privacy: str
    forget: str


class BotWords(BaseModel):
    """All of a language, plain text. What stands in braces is filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commands: CommandWords
    start: str
    help: str
    about: str
    privacy: str
    choose_language: str
    language_chosen: str
    forgotten: str
    looking: str
    text: str
    sticker: str
    video: str
    voice: str
    other: str
    not_an_image: str
    too_large: str
    broken: str
    wrong_format: str
    gone: str
    left_out: str
    from_photos: str
    heatmap: str
    sureness: str
    button_right: str
    button_wrong: str
    button_more: str
    button_other_plant: str
    button_keep: str
    button_drop: str
    button_none: str
    what_is_it: str
    thanks: str
    ask_to_keep: str
    kept: str
    not_kept: str
    not_kept_failed: str
    too_old: str
    slow_down: str
    too_many: str
    sorry: str


@cache
def bot_words(language: Language) -> BotWords:
    """The words of a language."""
    return BotWords.model_validate_json((files(__package__) / f"bot.{language}.json").read_text(encoding="utf-8"))
