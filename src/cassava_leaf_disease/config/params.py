"""A file of settings for the command line (`--params params.yaml`): the overrides that it stands for.

It has the keys of the configuration, nested as YAML, and under `groups` the choices of groups. So one file feeds
both this configuration and the tools that read YAML parameters (`dvc params diff`, `dvc exp run -S train.epochs=3`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cassava_leaf_disease.config.explain import accepted_keys, explain_unknown_key, group_choices
from cassava_leaf_disease.config.load import quoted
from cassava_leaf_disease.errors import ConfigError

GROUPS_KEY = "groups"


def read_params(path: Path) -> list[str]:
    """The Hydra overrides that a YAML file stands for: the choices of groups, then the values, which win over them.

    Raises:
        ConfigError: No such file, not a mapping of keys, or keys that the configuration does not have, a line each.
    """
    content = _read(path)
    groups = content.pop(GROUPS_KEY, None) or {}
    if not isinstance(groups, Mapping):
        raise ConfigError(f"{path}: {GROUPS_KEY}: expected choices such as model: resnet18 below it")
    values = dict(_leaves(content))
    wrong = [_explain(key) for key in values if key not in accepted_keys()] + [
        f"{GROUPS_KEY}.{name}: no such group; groups: {', '.join(group_choices())}"
        for name in groups
        if name not in group_choices()
    ]
    if wrong:
        raise ConfigError("\n".join(f"{path}: {line}" for line in wrong))
    choices = {name: choice for name, choice in groups.items() if choice is not None}
    return [f"{key}={_written(path, key, value)}" for key, value in [*choices.items(), *values.items()]]


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # reads 1e-3 as a number, as Hydra does
    except OSError as error:
        raise ConfigError(f"--params {path}: cannot be read ({error.strerror or error})") from None
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"--params {path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--params {path}: expected keys and values such as train: {{epochs: 3}}")
    return {str(key): value for key, value in content.items()}


def _leaves(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a mapping without entries says nothing."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _explain(key: str) -> str:
    """Why a key of the file is none of the configuration's."""
    if not any(name.startswith(f"{key}.") for name in accepted_keys()):
        return explain_unknown_key(key)
    choice = f"; a choice stands under {GROUPS_KEY}, as {GROUPS_KEY}.{key}" if key in group_choices() else ""
    return f"{key}: expected the keys of this group below it{choice}"


def _written(path: Path, key: str, value: object) -> str:
    """A value in the grammar of Hydra's overrides; text is quoted, so that it stays text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_written(path, key, part) for part in value)}]"
    if isinstance(value, str):
        return quoted(value)
    raise ConfigError(f"{path}: {key}: {value} is read as {type(value).__name__}; put it in quotes")
