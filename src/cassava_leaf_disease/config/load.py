"""From Hydra's composed configuration to the typed, frozen one; every mistake becomes one clear line."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pydantic_core import ErrorDetails

CONFIG_MODULE = "cassava_leaf_disease.config"


def load_config(overrides: Sequence[str] = ()) -> AppConfig:
    """Composes the packaged YAML files with Hydra overrides such as `train.epochs=3`.

    Raises:
        ConfigError: An unknown key, an unknown choice of a group, or a value that is not accepted.
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra_errors_in_one_line(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        composed = compose("config", overrides=list(overrides))
        return parse_config(composed)


def parse_config(composed: "DictConfig") -> AppConfig:
    """Checks a composed configuration and freezes it.

    Raises:
        ConfigError: Names the key, the value seen and what is accepted.
    """
    from omegaconf import OmegaConf

    with hydra_errors_in_one_line():
        plain = OmegaConf.to_container(composed, resolve=True)
    try:
        return AppConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(detail) for detail in _most_specific(error.errors()))) from None


def config_as_yaml(config: AppConfig) -> str:
    """The whole configuration as YAML, keys in the order of the schema."""
    import yaml

    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


@contextmanager
def hydra_errors_in_one_line() -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise about a user's overrides into a `ConfigError`."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_describe_missing_choice(str(error))) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_describe_override(str(error), str(error.__cause__ or ""))) from None


def accepted_keys(model: type[BaseModel] = AppConfig, prefix: str = "") -> list[str]:
    """All dotted keys of the schema."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys.extend(accepted_keys(annotation, f"{prefix}{name}."))
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _describe_missing_choice(message: str) -> str:
    group, _, choice = (re.search(r"'([^']+)'", message) or ["", ""])[1].rpartition("/")
    options = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
    if group and options:
        return f"{group}={choice}: no such choice; accepted: {', '.join(options)}"
    return _first_line(message)


def _describe_override(message: str, cause: str) -> str:
    key = re.search(r"Could not override '([^']+)'", message)
    if key:
        wrong = key[1]
        close = difflib.get_close_matches(wrong, accepted_keys(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`cassava train --cfg job` prints every key"
        return f"{wrong}: no such key; {hint}"
    group = re.search(r"Could not find '([^']+)'", message)
    if group:
        return _describe_missing_choice(message)
    return " ".join(part for part in (_first_line(message), _first_line(cause)) if part)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""


def _most_specific(errors: "list[ErrorDetails]") -> "list[ErrorDetails]":
    """One error a key: a union reports each of its members, the user wants the key once."""
    by_key: dict[str, ErrorDetails] = {}
    for detail in errors:
        by_key.setdefault(_key(detail), detail)
    return list(by_key.values())


def _key(detail: "ErrorDetails") -> str:
    known = accepted_keys()
    dotted = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return dotted
    return max((key for key in known if dotted == key or dotted.startswith(f"{key}.")), key=len, default=dotted)


def _describe(detail: "ErrorDetails") -> str:
    key = _key(detail)
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}"
    seen: Any = detail["input"]
    return f"{key}={seen}: {message[0].lower()}{message[1:]}"
