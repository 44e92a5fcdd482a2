"""Writes the whole resolved dependency tree into pyproject.toml, as versions without any address.

    just pin              keeps the versions of uv.lock wherever the direct pins allow it
    just pin --upgrade    takes the newest versions that the direct pins allow
    just pins             only checks: direct pins are exact, and the tree agrees with them

uv.lock records download addresses and stays out of git; these constraints are what makes two machines install the
same versions. A marker is kept only where the tree holds several versions of one package.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

_SECTION = re.compile(r"^constraint-dependencies = \[.*?\](?= #|$)", re.MULTILINE | re.DOTALL)
_EXACT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+]+)")
_EXPORT = (
    *("uv", "export", "--quiet", "--frozen", "--all-extras", "--all-groups"),
    *("--no-hashes", "--no-emit-project", "--no-annotate", "--no-header"),
)


def main() -> int:
    """Pins or checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, tell what is wrong")
    parser.add_argument("--upgrade", action="store_true", help="do not keep the versions of uv.lock")
    options = parser.parse_args()
    text = PYPROJECT.read_text(encoding="utf-8")
    if not options.check:
        text = with_constraints(text, constraints_from_export(resolve_tree(text, upgrade=options.upgrade)))
        PYPROJECT.write_text(text, encoding="utf-8", newline="\n")
    mistakes = find_mistakes(tomllib.loads(text))
    sys.stderr.writelines(f"pyproject.toml: {mistake}\n" for mistake in mistakes)
    return 1 if mistakes else 0


def resolve_tree(text: str, *, upgrade: bool) -> str:
    """What `uv export` prints for a pyproject.toml whose own constraints are set aside."""
    with tempfile.TemporaryDirectory(prefix="cassava-pin-") as folder:
        Path(folder, "pyproject.toml").write_text(with_constraints(text, []), encoding="utf-8")
        lock = PYPROJECT.with_name("uv.lock")
        if lock.is_file() and not upgrade:
            shutil.copy(lock, folder)
        subprocess.run(["uv", "lock", "--quiet"], cwd=folder, check=True)
        return subprocess.run(_EXPORT, cwd=folder, check=True, capture_output=True, text=True).stdout


def constraints_from_export(export: str) -> list[str]:
    """Sorted `name==version` entries of a requirements listing, `; marker` where a name has several versions.

    Raises:
        ValueError: A line that is no exact version, such as an address or a path.
    """
    found: dict[str, dict[str, str]] = {}
    for line in export.splitlines():
        requirement, _, marker = (part.strip() for part in line.partition(" ;"))
        if not requirement or requirement.startswith("#"):
            continue
        exact = _EXACT.fullmatch(requirement)
        if exact is None:
            raise ValueError(f"{line!r}: expected name==version, as a package index gives it")
        found.setdefault(normalized(exact["name"]), {})[exact["version"]] = marker
    return [
        f"{name}=={version} ; {marker}" if len(versions) > 1 and marker else f"{name}=={version}"
        for name, versions in sorted(found.items())
        for version, marker in sorted(versions.items())
    ]


def with_constraints(text: str, constraints: Iterable[str]) -> str:
    """A pyproject.toml's text with its `constraint-dependencies` replaced.

    Raises:
        ValueError: The text holds no such section, or several.
    """
    lines = "".join(f'  "{constraint}",\n' for constraint in constraints)
    section = f"constraint-dependencies = [\n{lines}]" if lines else "constraint-dependencies = []"
    replaced, count = _SECTION.subn(lambda _: section, text)
    if count != 1:
        raise ValueError(f"expected `constraint-dependencies = [...]` once in pyproject.toml, found it {count} times")
    return replaced


def find_mistakes(pyproject: Mapping[str, Any]) -> list[str]:
    """Direct dependencies that are not exact, addresses, and pins that the tree contradicts or lacks."""
    own = normalized(pyproject["project"]["name"])
    uv = pyproject.get("tool", {}).get("uv", {})
    mistakes = [f"[tool.uv] {key}: no address belongs here" for key in ("index", "sources", "find-links") if key in uv]
    tree = uv.get("constraint-dependencies", [])
    pinned = {(normalized(exact["name"]), exact["version"]) for pin in tree if (exact := _EXACT.match(pin))}
    for where, requirement in direct_requirements(pyproject):
        bare = requirement.partition(";")[0].strip()
        if normalized(re.split(r"[\[=<>!~ @]", bare, maxsplit=1)[0]) == own:
            continue
        exact = _EXACT.fullmatch(bare)
        if exact is None:
            mistakes.append(f"{where}: {requirement!r}: expected an exact version, name==1.2.3")
        elif where != "build-system" and (normalized(exact["name"]), exact["version"]) not in pinned:
            mistakes.append(f"{where}: {requirement!r} is not in the pinned tree; type `just pin`")
    return mistakes


def direct_requirements(pyproject: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(section, requirement) of everything that this project asks for by name."""
    project = pyproject["project"]
    sections: dict[str, list[Any]] = {
        "build-system": pyproject["build-system"]["requires"],
        "dependencies": project.get("dependencies", []),
        **{f"extra {name}": listed for name, listed in project.get("optional-dependencies", {}).items()},
        **{f"group {name}": listed for name, listed in pyproject.get("dependency-groups", {}).items()},
    }
    return [(where, entry) for where, listed in sections.items() for entry in listed if isinstance(entry, str)]


def normalized(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
