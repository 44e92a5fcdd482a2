"""Every key of the YAML files has a meaning, code that reads it, and only keys that exist are written about."""

import ast
import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import cassava_leaf_disease
from cassava_leaf_disease.config.describe import described_keys
from cassava_leaf_disease.config.explain import accepted_keys, choice_settings, group_choices, packaged_defaults
from cassava_leaf_disease.config.schema import AppConfig, Section
from doc_commands import blocks_of, pages

PACKAGE = Path(cassava_leaf_disease.__file__).parent
MODELS: list[type[Section]] = [Section, *Section.__subclasses__()]
SECTIONS = {model.__name__: model for model in MODELS}
Names = dict[str, type[Section]]
NAMES_A_CHOICE = {f"{group}.name" for group in group_choices()}  # read where a choice is told from others, if at all


def test_every_key_of_the_files_is_in_the_schema() -> None:
    known = set(accepted_keys())
    written = set(leaves(packaged_defaults()))
    for group, choices in group_choices().items():
        for choice in choices:
            settings = {name: part for name, part in choice_settings(group, choice).items() if name != "defaults"}
            written |= set(leaves(settings))

    assert {key for key in written if not key.startswith("hydra.")} - {"experiment"} == known


def test_every_key_is_explained() -> None:
    comments = {entry.key: entry.comment for entry in described_keys(AppConfig.model_fields)}
    own = [key for key in accepted_keys() if key in comments and key not in NAMES_A_CHOICE]

    assert len(own) > 100
    assert [key for key in own if not comments[key]] == []


def test_every_key_is_read_by_code() -> None:
    read = set(keys_read_in_the_package())

    assert [key for key in accepted_keys() if key not in read and key not in NAMES_A_CHOICE] == []


def test_a_key_that_nobody_reads_is_noticed() -> None:
    code = "def f(config: AppConfig) -> int:\n    train = config.train\n    return train.epochs + config.train.seed"

    assert set(keys_read(ast.parse(code))) == {"train", "train.epochs", "train.seed"}


@pytest.mark.parametrize("page", sorted(pages()))
def test_every_documented_key_exists(page: str) -> None:
    text = pages()[page]
    for mistake in [block for block in blocks_of(page, text) if block.fails]:
        text = text.replace(mistake.text, "")
    sections = "|".join(AppConfig.model_fields)
    written = re.findall(rf"(?<![\w./-])((?:{sections})(?:\.[a-z_][a-z_0-9]*)+)(?=[=`,; ]|$)", text, re.MULTILINE)
    known = {*accepted_keys(), *groups_of_keys()}

    assert [key for key in written if key not in known and not is_file_name(key)] == []


def groups_of_keys() -> set[str]:
    """Keys that hold others, as `train.early_stopping`."""
    return {key.rpartition(".")[0] for key in accepted_keys()}


def is_file_name(key: str) -> bool:
    return key.rpartition(".")[2] in {
        "csv",
        "json",
        "jsonl",
        "yaml",
        "yml",
        "py",
        "md",
        "onnx",
        "png",
        "html",
        "db",
        "parquet",
    }


def leaves(settings: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of nested settings; lists and empty groups are values."""
    for name, part in settings.items():
        if isinstance(part, dict) and part:
            yield from leaves(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# What an attribute is read of is found by following annotations and assignments: enough of a type checker for frozen
# sections, which are handed on by annotated parameters, fields, or plain names.


def keys_read_in_the_package() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent != PACKAGE / "config" / "schema":
            yield from keys_read(ast.parse(path.read_text(encoding="utf-8")))


def keys_read(module: ast.Module) -> Iterator[str]:
    """The dotted keys that a module's functions read."""
    fields = dict(annotated_fields(module))
    for function in [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        names: Names = {}
        arguments = function.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            add(names, argument.arg, section_named(argument.annotation))
        for statement in statements(function):
            if isinstance(statement, ast.Assign):
                for target, value in pairs(statement.targets[0], statement.value):
                    if isinstance(target, ast.Name):
                        add(names, target.id, section_of(value, names, fields))
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                add(names, statement.target.id, section_named(statement.annotation))
        for node in ast.walk(function):
            owner, attributes = read_by(node, names, fields)
            yield from (
                f"{prefix}{name}"
                for prefix in prefixes().get(owner, ())
                for name in attributes
                if name in owner.model_fields
            )


def read_by(node: ast.AST, names: Names, fields: Names) -> tuple[type[Section], list[str]]:
    """What an expression or a pattern reads of a section."""
    if isinstance(node, ast.Attribute):
        owner = section_of(node.value, names, fields) or Section
        whole = node.attr == "model_dump" and owner is not AppConfig  # handed on as a whole, as `serve`
        return owner, list(owner.model_fields) if whole else [node.attr]
    if isinstance(node, ast.MatchClass):
        return section_named(node.cls) or Section, node.kwd_attrs
    return Section, []


def statements(function: ast.AST) -> list[ast.stmt]:
    found = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function]
    return sorted(found, key=lambda statement: statement.lineno)


def pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Target and value of an assignment, one by one."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=False)
    else:
        yield target, value


def annotated_fields(module: ast.Module) -> Iterator[tuple[str, type[Section]]]:
    """Attributes that hold sections: annotated in a class, or given a parameter in a constructor."""
    for node in ast.walk(module):
        if not isinstance(node, ast.ClassDef):
            continue
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                section = section_named(part.annotation)
                if section is not None:
                    yield part.target.id, section
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                names = {argument.arg: section_named(argument.annotation) for argument in part.args.args}
                for statement in statements(part):
                    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
                        known = {name: section for name, section in names.items() if section is not None}
                        section = section_of(statement.value, known, {})
                        if section is not None:
                            yield statement.targets[0].attr, section


def add(names: Names, name: str, section: type[Section] | None) -> None:
    if section is not None:
        names[name] = section


def section_named(annotation: ast.expr | None) -> type[Section] | None:
    """The section that an annotation names, quoted or with `| None`."""
    words = re.findall(r"\w+", "" if annotation is None else ast.unparse(annotation))
    return next((SECTIONS[word] for word in words if word in SECTIONS), None)


def section_of(node: ast.expr, names: Names, fields: Names) -> type[Section] | None:
    """The section that an expression is, as far as names tell."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Call):  # load_config(…), config.train.changed(…)
        if isinstance(node.func, ast.Name) and node.func.id in ("load_config", "parse_config"):
            return AppConfig
        changes = isinstance(node.func, ast.Attribute) and node.func.attr in ("changed", "model_copy")
        return section_of(node.func.value, names, fields) if changes and isinstance(node.func, ast.Attribute) else None
    if isinstance(node, ast.Attribute):
        owner = section_of(node.value, names, fields)
        return fields.get(node.attr) if owner is None else part_of(owner, node.attr)
    return None


def part_of(owner: type[Section], name: str) -> type[Section] | None:
    field = owner.model_fields.get(name)
    annotation = None if field is None else field.annotation
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((part for part in members if isinstance(part, type) and issubclass(part, Section)), None)


@cache
def prefixes() -> dict[type[Section], list[str]]:
    """Where each section stands, as `train.early_stopping.`."""
    found: dict[type[Section], list[str]] = {section: [] for section in SECTIONS.values()}
    found[AppConfig].append("")

    def walk(section: type[Section], prefix: str) -> None:
        for name in section.model_fields:
            part = part_of(section, name)
            if part is not None:
                found[part].append(f"{prefix}{name}.")
                walk(part, f"{prefix}{name}.")

    walk(AppConfig, "")
    return found
