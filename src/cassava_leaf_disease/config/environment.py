"""Settings of the long-running doors: typed, from environment variables, their mistakes told in one way."""

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.log import LEVELS, known_level

LogLevel = Annotated[str, AfterValidator(known_level)]
LogFormat = Literal["json", "text"]
LOG_LEVEL_WORDS: Final = ", ".join(f"`{level}`" for level in LEVELS)
LOG_FORMAT_WORDS: Final = "`json` or `text`, a line a record"

_OTHERS: Final = ("CASSAVA_ROOT", "CASSAVA_TEST_DATA", "CASSAVA_API_URL")  # of other parts of the project
_PREFIXES: Final = ("CASSAVA_BOT_", "CASSAVA_")  # the longer one first

_log = logging.getLogger(__name__)


class EnvironmentSettings(BaseSettings):
    """A field's variable is its name in capitals after the class's prefix, or the alias that it has.

    An empty variable counts as one that is not set.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def variable_of(cls, name: str) -> str:
        """The environment variable of a setting."""
        field = cls.model_fields.get(name)
        alias = None if field is None else field.validation_alias
        return alias if isinstance(alias, str) else f"{cls.model_config['env_prefix']}{name.upper()}"

    @classmethod
    def variables(cls) -> list[str]:
        """All of them."""
        return [cls.variable_of(name) for name in cls.model_fields]

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None) -> Self:
        """The settings of the environment; `overrides` come first.

        Raises:
            ConfigError: One line for each variable that is wrong.
        """
        keys = {name: str(field.validation_alias or name) for name, field in cls.model_fields.items()}
        try:
            return cls(**{keys.get(name, name): value for name, value in (overrides or {}).items()})
        except ValidationError as error:
            details: dict[str, Any] = {}
            for detail in error.errors():  # a union reports each of its members; the user wants the name once
                details.setdefault(str(detail["loc"][:1]), detail)
            raise ConfigError("\n".join(map(cls._explain, details.values()))) from None

    @classmethod
    def _explain(cls, detail: Any) -> str:  # noqa: ANN401  a TypedDict that pydantic keeps to itself
        reason = str(detail["msg"]).removeprefix("Value error, ")
        if not detail["loc"]:
            return reason
        said = str(detail["loc"][0])
        name = next((name for name in cls.model_fields if said in (name, cls.variable_of(name))), said)
        field, variable = cls.model_fields.get(name), cls.variable_of(name)
        if field is None:
            return f"{variable}: no such setting"
        own_words = detail["type"] == "value_error"
        typed = os.environ.get(variable)
        secret = SecretStr in (field.annotation, *get_args(field.annotation))
        seen = "" if typed is None or secret or own_words else f"={typed}"
        expected = "" if own_words and "expected" in reason else f"; expected {field.description}"
        return f"{variable}{seen}: {reason}{expected}"


def typed_values(section: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed for a door whose other settings the environment says: the keys that are not null."""
    return {name: value for name, value in section.items() if value is not None}


def warn_of_misspelled(*kinds: type[EnvironmentSettings], environment: Mapping[str, str] = os.environ) -> None:
    """Logs each variable that is nearly one of these settings, and would be passed over."""
    for line in _misspelled(kinds, environment):
        _log.warning("%s", line)


def _misspelled(kinds: tuple[type[EnvironmentSettings], ...], environment: Mapping[str, str]) -> Iterator[str]:
    known = [*(variable for kind in kinds for variable in kind.variables()), *_OTHERS]
    looked_at = {kind.model_config["env_prefix"] for kind in kinds}
    for name in sorted(environment):
        prefix = next((prefix for prefix in _PREFIXES if name.upper().startswith(prefix)), None)
        if prefix in looked_at and name.upper() not in known:
            for close in difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8):
                yield f"{name}: no such setting, it is passed over; did you mean {close}?"
