"""What the packaged YAML files say about each key: the value, as it is written there, and the comment beside it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

_LINE = re.compile(r"( *)(\w+):\s*([^#]*?)\s*(?:# (.*))?$")
_GROUP = re.compile(r"^  - (\w+): (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class DescribedKey:
    """A key of the files, its value as text (empty: a group of keys), and its comment."""

    key: str
    value: str
    comment: str


def default_choices() -> dict[str, str]:
    """The choice of each group that is taken when none is typed."""
    found = _GROUP.findall((files(__package__) / "config.yaml").read_text(encoding="utf-8"))
    return {group: choice for group, choice in found if choice != "null"}


def described_keys(sections: Iterable[str], choices: Mapping[str, str] | None = None) -> list[DescribedKey]:
    """The keys of those sections in the order of the files; groups as `choices` (else the default ones) write them."""
    wanted = frozenset(sections)
    folder = files(__package__)
    lines = (folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    for group, choice in (default_choices() | dict(choices or {})).items():
        if group in wanted:
            own = (folder / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
            lines += [f"{group}:", *(f"  {line}" for line in own if not line.startswith(("#", "name:")))]
    described: list[DescribedKey] = []
    path: list[str] = []
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        indent, name, value, comment = found.groups()
        path = [*path[: len(indent) // 2], name]
        if path[0] in wanted:
            described.append(DescribedKey(".".join(path), value, comment or ""))
    return described
