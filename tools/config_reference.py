"""Writes docs/configuration.md from the schema, the packaged YAML files and their comments.

`just config-reference` after a key, a bound or a comment has changed; tests/docs says when it was forgotten.
"""

import inspect
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cassava_leaf_disease.config.describe import default_choices, described_keys
from cassava_leaf_disease.config.explain import (
    accepted_keys,
    as_typed,
    choice_settings,
    expected,
    group_choices,
    packaged_defaults,
)
from cassava_leaf_disease.config.schema import AppConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

HEAD = """# Configuration reference

<!-- Written by `just config-reference` from config/schema/ and the YAML files beside it: do not edit. -->

Every key of every command, as `cassava COMMAND key=value` takes it. A wrong key or value is one line that says what \
was seen and what is accepted, exit code 2. `cassava COMMAND --help` lists the keys of one command, \
`cassava train --cfg job` prints all of them with their values, and `--params FILE` reads them from a YAML file; what \
is typed wins. Relative paths start at the current directory, or at `CASSAVA_ROOT`. Settings of the service that come \
from the environment stand in [Serving](serving.md#settings).

## Groups

A choice of a group sets several keys at once; keys typed beside it win.
"""


def main() -> int:
    """Writes the page."""
    PAGE.write_text(reference(), encoding="utf-8", newline="\n")
    return 0


def reference() -> str:
    """The page as the schema and the files have it now."""
    parts = [HEAD, _groups()]
    sections: dict[str, Any] = {name: field.annotation for name, field in AppConfig.model_fields.items()}
    comments = _comments(list(sections))
    for section, model in sections.items():
        parts += [f"## {section}\n", f"{_docstring(model)}\n"]
        parts += [_table([key for key in accepted_keys() if key.startswith(f"{section}.")], comments)]
    return "\n".join(parts)


def _comments(sections: list[str]) -> dict[str, str]:
    """What stands beside each key; of keys that only some choices of a group have, beside the first of them."""
    told: dict[str, str] = {}
    others = [{group: choice} for group in ("loss",) for choice in group_choices()[group]]
    for choices in ({}, *others):
        for entry in described_keys(sections, choices):
            told.setdefault(entry.key, entry.comment)
    return told


def _groups() -> str:
    rows = ["| typed | default | what it is |", "| --- | --- | --- |"]
    for group, choices in group_choices().items():
        for choice in choices:
            text = (files("cassava_leaf_disease.config") / group / f"{choice}.yaml").read_text(encoding="utf-8")
            head = [line[2:] for line in text.splitlines() if line.startswith("# ") and "@package" not in line]
            chosen = "yes" if default_choices().get(group) == choice else ""
            rows.append(f"| `{group}={choice}` | {chosen} | {_cell(' '.join(head))} |")
    return "\n".join(rows) + "\n"


def _table(keys: list[str], comments: dict[str, str]) -> str:
    rows = ["| key | default | accepted | what it does |", "| --- | --- | --- | --- |"]
    for key in keys:
        about = comments.get(key, comments.get(key.rpartition(".")[0], ""))  # of a group in one line: the group's
        rows.append(f"| `{key}` | {_default(key)} | {_cell(expected(key))} | {_cell(about)} |")
    return "\n".join(rows) + "\n"


def _default(key: str) -> str:
    value = _lookup(packaged_defaults(), key)
    if value is not None:
        return f"`{_cell(as_typed(value))}`"
    group = key.partition(".")[0]
    brought = {choice: _lookup(choice_settings(group, choice), key) for choice in group_choices().get(group, ())}
    told = [f"`{as_typed(own)}` with `{group}={choice}`" for choice, own in brought.items() if own is not None]
    return ", ".join(told) or "`null`"


def _lookup(settings: object, key: str) -> object:
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


def _docstring(model: type) -> str:
    return inspect.cleandoc(model.__doc__ or "").replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
