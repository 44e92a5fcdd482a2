"""The wording of configuration mistakes: what was seen, what is accepted, what to type."""

import difflib
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from cassava_leaf_disease.config.schema import AppConfig

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException

_MERGING = re.compile(r"Error merging override ([^\s=]+)=(.*)")
_FULL_KEY = re.compile(r"full_key: (\S+)")


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


@cache
def group_choices() -> Mapping[str, tuple[str, ...]]:
    """Each config group of the package and the names of its YAML files, as `augment`: `basic`, `strong`."""
    folders = [entry for entry in files(__package__).iterdir() if entry.is_dir()]
    names = {
        folder.name: tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))
        for folder in folders
    }
    return {group: choices for group, choices in sorted(names.items()) if choices}


def explain_validation(error: ValidationError, settings: Mapping[str, Any]) -> str:
    """One line for each key that is wrong, in the order of the schema."""
    lines: dict[str, str] = {}
    for detail in error.errors():
        key = _key_of(detail["loc"])
        if detail["type"] == "extra_forbidden":
            line = explain_unknown_key(key)
        elif detail["type"] == "missing" and ".".join(map(str, detail["loc"])) == key:
            line = f"{key}: this key is missing; expected {_expected(_schema_of(key))}"
        elif detail["type"] == "value_error" and key not in accepted_keys():
            line = detail["msg"].removeprefix("Value error, ")  # a rule over several keys names them itself
        else:
            line = _explain_value(key, _lookup(settings, key))
        lines.setdefault(key, line)  # a union reports each of its members, the user wants the key once
    return "\n".join(lines.values())


def explain_unknown_key(key: str) -> str:
    """Names the keys that the user may have meant, or the choices of its group that bring this key."""
    group = key.partition(".")[0]
    bringing = [
        f"{group}={choice}"
        for choice in group_choices().get(group, ())
        if key in accepted_keys() and _lookup(choice_settings(group, choice), key) is not None
    ]
    if bringing:
        return f"{key}: only {_join(bringing, 'and')} {'has' if len(bringing) == 1 else 'have'} this key"
    close = _closest(key.replace("/", "."), [*accepted_keys(), *group_choices()])
    hint = f"did you mean {_join(close, 'or')}?" if close else "`cassava train --cfg job` prints every key"
    return f"{key}: no such key; {hint}"


def _closest(key: str, known: Sequence[str]) -> list[str]:
    """Neighbours of nearly the same name, else the same name elsewhere, else whole names that are near."""
    parent, _, last = key.rpartition(".")
    neighbours = {name.removeprefix(f"{parent}."): name for name in known if name.startswith(f"{parent}.")}
    close = [neighbours[name] for name in difflib.get_close_matches(last, neighbours, n=2, cutoff=0.6)]
    close = close or [name for name in known if name.rpartition(".")[2] == last]
    close = close or difflib.get_close_matches(key, known, n=2, cutoff=0.75)
    ratio = {name: difflib.SequenceMatcher(None, key, name).ratio() for name in close}
    return [name for name in close if ratio[name] > max(ratio.values()) - 0.05]


def explain_missing_choice(error: "MissingConfigException") -> str:
    """Lists the choices of a config group."""
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    choices = error.options or group_choices().get(group, ())
    if not group or not choices:
        return _first_line(str(error))
    text = f"{group}={choice}: no such choice; accepted: {', '.join(choices)}"
    close = difflib.get_close_matches(choice, choices, n=1, cutoff=0.75)
    if close:
        return f"{text}; did you mean {group}={close[0]}?"
    return f"{text}; any other timm network: type model.backbone={choice}" if group == "model" else text


def explain_override(error: Exception) -> str:
    """One line for what Hydra and OmegaConf say about an override."""
    word, text = getattr(error, "override", None), str(error)
    if isinstance(word, str):
        return _explain_grammar(word)
    merging = _MERGING.search(text)
    if merging and any(f"{name}.".startswith(f"{merging[1]}.") for name in accepted_keys()):
        return _explain_value(merging[1], merging[2])
    for pattern, explain in _EXPLANATIONS:
        found = pattern.search(text)
        if found:
            return explain(found[1])
    key = _FULL_KEY.search(text)
    causes = (error, error.__cause__ or "")  # OmegaConf repeats itself in the cause while a debugger looks on
    said = " ".join(dict.fromkeys(filter(None, (_first_line(str(cause)) for cause in causes))))
    return f"{key[1]}: {said}" if key else said


def _explain_sweep(word: str) -> str:
    key, _, values = word.partition("=")
    text = f"{word}: several values; add -m to run them one after another"
    takes_list = key in accepted_keys() and "array" in str(_schema_of(key))
    return f"{text}, or type a list: {key}=[{values}]" if takes_list and "(" not in values else text


def _explain_present(key: str) -> str:
    return f"+{key}: the key is there already; type {key} without +"


_EXPLANATIONS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (
        re.compile(r"^(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:$| requires)", re.MULTILINE),
        _explain_sweep,
    ),
    (re.compile(r"An item is already at '([^']+)'"), _explain_present),
    (re.compile(r"Multiple values for (\w+)\."), _explain_present),
    (re.compile(r"Could not (?:override|delete from config\.) '([^']+)'"), explain_unknown_key),
)


def _explain_grammar(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w@/-]*(\.\w+)*", name):
        return f"{word}: expected key=value, for example train.epochs=30"
    if name in accepted_keys() and not accepts_text(name):
        return _explain_value(name, value)
    if value.startswith(("[", "{")):
        example = f'{key}=["a (1).jpg","b.jpg"]'
        return f"{word}: cannot be read; put quotes around each part, for example '{example}'"
    if value.startswith(("'", '"')):
        return f"{word}: cannot be read; its quotes do not match"
    return f"{word}: cannot be read; put the value in quotes: '{key}=\"{value}\"'"


def _explain_value(key: str, value: object) -> str:
    node = _schema_of(key)
    seen = f"{key}={as_typed(value)}"
    if "properties" in node:
        return _explain_group(key, seen, value)
    close = difflib.get_close_matches(str(value).lower(), _options(node), n=1, cutoff=0.6)
    if close:
        return f"{seen}: expected {_expected(node)}; did you mean {close[0]}?"
    default = _lookup(packaged_defaults(), key)
    if _options(node) or isinstance(default, bool) or default is None or "${" in str(default):
        return f"{seen}: expected {_expected(node)}"
    return f"{seen}: expected {_expected(node)}, for example {key}={as_typed(default)}"


def _explain_group(key: str, seen: str, value: object) -> str:
    below = [name for name in accepted_keys() if name.startswith(f"{key}.")]
    meant = [f"{name}={value}" for name in below if str(value) in _options(_schema_of(name))]
    example = f"{below[0]}={as_typed(_lookup(packaged_defaults(), below[0]))}"
    hint = f"did you mean {_join(meant, 'or')}?" if meant else f"type the keys below it, for example {example}"
    return f"{seen}: {key} is a group of keys; {hint}"


def expected(key: str) -> str:
    """What a key accepts, in words: `a whole number from 1 to 10000`."""
    return _expected(_schema_of(key))


def accepts_text(key: str) -> bool:
    """Whether a key takes free text or a path, not only certain words."""
    return _takes_text(_schema_of(key))


def _takes_text(node: Mapping[str, Any]) -> bool:
    members = [*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())]
    return (node.get("type") == "string" and not _options(node)) or any(_takes_text(member) for member in members)


def as_typed(value: object) -> str:
    """A value as a user types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(as_typed(part) for part in value)}]"
    return str(value)


@cache
def packaged_defaults() -> Mapping[str, Any]:
    """The packaged YAML files with their default choices, interpolations unresolved."""
    import yaml

    folder = files(__package__)
    settings: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    entries = ChainMap(*(entry for entry in settings.pop("defaults") if isinstance(entry, dict)))
    chosen = {group: choice for group, choice in entries.items() if choice is not None}
    for group in chosen.keys() & group_choices().keys():
        settings |= choice_settings(group, chosen[group])
    return settings


@cache
def choice_settings(group: str, choice: str) -> Mapping[str, Any]:
    """What the packaged choice of a group sets, by section; most set their own section only."""
    import yaml

    text = (files(__package__) / group / f"{choice}.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text)
    return settings if text.startswith("# @package _global_\n") else {group: settings}


def _key_of(loc: Sequence[str | int]) -> str:
    """The dotted key that an error belongs to: positions in a list and members of a union are left off."""
    dotted = ".".join(str(part) for part in loc)
    return max((key for key in accepted_keys() if dotted.startswith(f"{key}.")), key=len, default=dotted)


def _lookup(settings: object, key: str) -> object:
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


@cache
def _json_schema() -> dict[str, Any]:
    return AppConfig.model_json_schema()


def _schema_of(key: str) -> dict[str, Any]:
    schema = _json_schema()
    node = schema
    for part in key.split("."):
        node = node["properties"][part]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _options(node: Mapping[str, Any]) -> list[str]:
    """The words that a key accepts, where it accepts certain words."""
    if "anyOf" in node:
        return [option for member in node["anyOf"] for option in _options(member)]
    return [str(option) for option in node.get("enum", [node["const"]] if "const" in node else [])]


def _expected(node: Mapping[str, Any]) -> str:
    if "description" in node and "properties" not in node:
        return str(node["description"])
    if "anyOf" in node:
        return _join([_expected(member) for member in node["anyOf"]], "or")
    options = _options(node)
    if options:
        return _join(options, "or")
    if node["type"] == "array":
        parts = node.get("prefixItems")
        return (
            f"a list of {len(parts)}, each {_expected(parts[0])}"
            if parts
            else f"a list, each {_expected(node['items'])}"
        )
    words = {
        "boolean": "true or false",
        "null": "null",
        "object": "a group of keys",
        "integer": "a whole number",
        "number": "a number",
    }
    word = words.get(node["type"]) or ("a path" if node.get("format") == "path" else "text")
    return f"{word}{_bounds(node)}"


def _bounds(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if node["type"] == "integer" and below is not None:
        high, below = below - 1, None
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 1e6 else f" from {low} to {high}"
    parts = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", low), ("above", above), ("≤", high), ("below", below))
        if bound is not None
    ]
    return f" {' and '.join(parts)}" if parts else ""


def _join(parts: Iterable[str], word: str) -> str:
    *most, last = parts
    return f"{', '.join(most)} {word} {last}" if most else last


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
