"""docs/bot.md tells the settings that there are."""

from pathlib import Path

from cassava_leaf_disease.bot.settings import BotSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bot.md").read_text(encoding="utf-8")


def row_of(name: str) -> str:
    field = BotSettings.model_fields[name]
    default = "" if field.default is None or field.is_required() else f"`{field.default}`"
    return f"| `{BotSettings.variable_of(name)}` | {default} | {field.description} |"


def test_the_table_of_settings_is_the_settings() -> None:
    told = [line for line in PAGE.splitlines() if line.startswith("| `CASSAVA_")]

    assert told == [row_of(name) for name in BotSettings.model_fields]
