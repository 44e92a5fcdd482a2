"""The pinned tree: what is written into pyproject.toml, and what the check finds wrong there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pin_tree import constraints_from_export, direct_requirements, find_mistakes, normalized, with_constraints

REPOSITORY = Path(__file__).resolve().parents[2]
PYPROJECT = """\
[build-system]
requires = ["hatchling==1.33.0"]

[project]
name = "leaf-house"
dependencies = ["Some_Thing[fast]==1.0"]

[project.optional-dependencies]
train = ["deep==2.0 ; sys_platform != 'win32'"]
all = ["leaf-house[train]"]

[dependency-groups]
dev = ["leaf-house[train]", "tool==3.0", { include-group = "other" }]
other = []

[tool.uv]
compile-bytecode = true
constraint-dependencies = [
  "old==0.1 ; python_full_version < '3.12'",
]

[tool.other]
names = ["kept"]
"""
TREE = ["deep==2.0", "some-thing==1.0", "tool==3.0"]


def parsed(text: str = PYPROJECT, tree: list[str] = TREE) -> dict[str, Any]:
    return tomllib.loads(with_constraints(text, tree))


def test_a_marker_is_kept_only_where_a_package_has_several_versions() -> None:
    export = (
        "Zeta==1.0 ; sys_platform == 'linux'\n"
        "alpha[extra]==2.0+local\n"
        "# via nothing\n\n"
        "mid==2.0 ; python_full_version >= '3.12'\n"
        "mid==1.0 ; python_full_version < '3.12'\n"
    )
    assert constraints_from_export(export) == [
        "alpha==2.0+local",
        "mid==1.0 ; python_full_version < '3.12'",
        "mid==2.0 ; python_full_version >= '3.12'",
        "zeta==1.0",
    ]


@pytest.mark.parametrize("line", ["name @ https://somewhere/name.whl", "-e .", "name>=1.0", "./name"])
def test_what_is_no_exact_version_never_reaches_the_tree(line: str) -> None:
    with pytest.raises(ValueError, match="expected name==version"):
        constraints_from_export(line)


def test_only_the_section_is_replaced_and_a_second_time_changes_nothing() -> None:
    once = with_constraints(PYPROJECT, TREE)
    assert tomllib.loads(once)["tool"]["uv"] == {"compile-bytecode": True, "constraint-dependencies": TREE}
    assert once.replace('  "deep==2.0",\n  "some-thing==1.0",\n  "tool==3.0",\n', "") == PYPROJECT.replace(
        "  \"old==0.1 ; python_full_version < '3.12'\",\n", ""
    )
    assert with_constraints(once, TREE) == once


def test_an_emptied_section_can_be_filled_again() -> None:
    emptied = with_constraints(PYPROJECT, [])
    assert "constraint-dependencies = []\n" in emptied
    assert with_constraints(emptied, TREE) == with_constraints(PYPROJECT, TREE)


def test_a_missing_section_is_told() -> None:
    with pytest.raises(ValueError, match="found it 0 times"):
        with_constraints("[project]\n", TREE)


def test_a_pinned_project_has_no_mistakes() -> None:
    assert find_mistakes(parsed()) == []


@pytest.mark.parametrize(
    ("written", "instead", "mistake"),
    [
        ('"tool==3.0"', '"tool>=3.0"', "group dev: 'tool>=3.0': expected an exact version"),
        ('"tool==3.0"', '"tool==3.*"', "group dev: 'tool==3.*': expected an exact version"),
        ('"tool==3.0"', '"tool"', "group dev: 'tool': expected an exact version"),
        ('"tool==3.0"', '"tool @ file:///tool.whl"', "expected an exact version"),
        ('"deep==2.0 ;', '"deep==2.1 ;', "extra train: .* is not in the pinned tree; type `just pin`"),
        ('"hatchling==1.33.0"', '"hatchling"', "build-system: 'hatchling': expected an exact version"),
        ("compile-bytecode = true", "index = []", r"\[tool.uv\] index: no address belongs here"),
    ],
)
def test_a_mistake_names_its_section_and_the_requirement(written: str, instead: str, mistake: str) -> None:
    (found,) = find_mistakes(parsed(PYPROJECT.replace(written, instead)))
    assert re.search(mistake, found)


def test_requirements_of_every_section_are_read() -> None:
    assert [where for where, _ in direct_requirements(parsed())] == [
        "build-system",
        "dependencies",
        "extra train",
        "extra all",
        "group dev",
        "group dev",
    ]


def test_names_compare_as_indexes_compare_them() -> None:
    assert normalized("Ruamel.YAML_clib") == "ruamel-yaml-clib"


def test_this_repository_is_pinned() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert find_mistakes(pyproject) == []
    assert len(pyproject["tool"]["uv"]["constraint-dependencies"]) > 200
