"""The packaged YAML files, read once: Hydra reads all of them for each composition, and a door composes twice."""

import copy
from functools import cache
from typing import Any

from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult


class _ReadOnce(ImportlibResourcesConfigSource):
    """Gives copies of what it has read before: of the largest file 5 ms instead of 24 ms."""

    def load_config(self, config_path: str) -> ConfigResult:
        return copy.deepcopy(_load(self.provider, self.path, config_path))


@cache
def _load(provider: str, path: str, config_path: str) -> ConfigResult:
    return ImportlibResourcesConfigSource(provider, f"{ImportlibResourcesConfigSource.scheme()}://{path}").load_config(
        config_path
    )


@cache
def read_once() -> None:
    """Lets Hydra keep what it reads from packages; files of a user's `--config-dir` are read anew."""
    Plugins.instance()  # knows Hydra's own sources from now on
    sources: dict[str, Any] = SourcesRegistry.instance().types
    sources[_ReadOnce.scheme()] = _ReadOnce
