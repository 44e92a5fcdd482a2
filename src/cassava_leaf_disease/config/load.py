"""From the command line's overrides to the typed, frozen configuration; a mistake becomes one clear line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cassava_leaf_disease.config.explain import (
    accepted_keys,
    accepts_text,
    explain_missing_choice,
    explain_override,
    explain_validation,
    group_choices,
)
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "CONFIG_MODULE",
    "accepted_keys",
    "config_as_yaml",
    "hydra_errors_in_one_line",
    "load_config",
    "parse_config",
    "quote_free_text",
    "quoted",
]

CONFIG_MODULE = "cassava_leaf_disease.config"
_WRITTEN_AS_GRAMMAR = re.compile(
    r"""\s*(['"\[{]|\$\{|(choice|range|interval|glob|sort|shuffle|tag|str|int|float|bool)\()"""
)


def load_config(overrides: Sequence[str] = ()) -> AppConfig:
    """Composes the packaged YAML files with Hydra overrides such as `train.epochs=3`.

    Raises:
        ConfigError: An unknown key, an unknown choice of a group, or a value that is not accepted.
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from cassava_leaf_disease.config.packaged import read_once

    read_once()
    GlobalHydra.instance().clear()
    with hydra_errors_in_one_line(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        return parse_config(compose("config", overrides=quote_free_text(overrides)))


def parse_config(composed: "DictConfig") -> AppConfig:
    """Checks a composed configuration and freezes it.

    Raises:
        ConfigError: One line for each wrong key: the value seen, what is accepted, what to type.
    """
    from omegaconf import OmegaConf

    with hydra_errors_in_one_line():
        plain = OmegaConf.to_container(composed, resolve=True)
    try:
        return AppConfig.model_validate(plain)
    except ValidationError as error:
        settings = plain if isinstance(plain, dict) else {}
        raise ConfigError(explain_validation(error, {str(key): value for key, value in settings.items()})) from None


def config_as_yaml(config: AppConfig) -> str:
    """The whole configuration as YAML, keys in the order of the schema."""
    import yaml

    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def quote_free_text(overrides: Sequence[str]) -> list[str]:
    """Quotes values of paths and other free text that Hydra's grammar would refuse or read as a number.

    `infer.image_path=leaf (1).jpg` and `logger.run_name=007` mean what they say. Lists, quoted values and
    functions of the grammar stay as they are, and so does what holds a comma: that may be a sweep.
    """
    return [_quote(override) for override in overrides]


def quoted(text: str) -> str:
    """Text that Hydra's grammar reads back as it is, commas and brackets included."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


@contextmanager
def hydra_errors_in_one_line() -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise about a user's overrides into a `ConfigError`."""
    import yaml
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(explain_missing_choice(error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_override(error)) from None
    except yaml.YAMLError as error:  # a file in the user's --config-dir
        raise ConfigError(" ".join(str(error).split())) from None


def _quote(override: str) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or name not in _free_text_keys() or "," in value or _WRITTEN_AS_GRAMMAR.match(value):
        return override
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        understood = OverridesParser.create().parse_override(override).value()
    except HydraException:
        as_typed = False
    else:
        as_typed = isinstance(understood, str) or (name not in group_choices() and isinstance(understood, bool | None))
    return override if as_typed else f"{key}={quoted(value)}"


@cache
def _free_text_keys() -> frozenset[str]:
    return frozenset([*filter(accepts_text, accepted_keys()), *group_choices()])
