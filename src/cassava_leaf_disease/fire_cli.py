"""The Fire door: `cassava-fire COMMAND --flag value … key=value …`.

Flags become Hydra overrides, and the Hydra door runs them. Plain Fire reads values as Python literals
(`1e-3`, `0001`), lets a bare boolean eat the next word, and answers a mistake with a page of usage: so the
words are checked and put into one unambiguous form before Fire takes them apart.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn

from cassava_leaf_disease import __version__, cli
from cassava_leaf_disease.commands import find_command, joined
from cassava_leaf_disease.door import guarded, write_stdout
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.fire_flags import FLAGS, Flag
from cassava_leaf_disease.process import collect_rarely, leave

# Fire keeps `-`, `--` and `--word` for itself; marked so, a word is plain. No process argument holds NUL.
_PLAIN: Final = "\0"
_TRUTH: Final = {"true": "true", "false": "false"}
_WIDTH: Final = 2 + max(len(flag.summary) for flags in FLAGS.values() for flag in flags)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (default: the process's own) and returns its exit code."""
    words = joined(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def script() -> NoReturn:
    """What a shell starts."""
    collect_rarely()
    leave(main())


def to_hydra_words(words: Sequence[str]) -> list[str]:
    """The command line of the Hydra door that a Fire command line stands for.

    Raises:
        ConfigError: An unknown command or flag, or a flag without its value.
    """
    method = words[0].replace("-", "_")
    if method == "raw":
        return list(words[1:])
    import fire
    from fire.decorators import SetParseFn

    def emit(*overrides: str, **flags: str) -> list[str]:
        return _words(method, overrides, flags)

    SetParseFn(str)(emit)  # values stay the text that was typed
    arguments = _normalised(method, words[1:])
    translated: list[str] = fire.Fire(emit, arguments, name="cassava-fire", serialize=lambda _: None)
    return translated


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        return write_stdout(_overview())
    if words[0] == "--version":
        return write_stdout(f"cassava-fire {__version__}\n")
    if words[0].startswith("-") or "=" in words[0]:
        raise ConfigError(
            f"{words[0]}: the command comes first: cassava-fire COMMAND --flag value; commands: {_names()}"
        )
    method = words[0].replace("-", "_")
    if method != "raw" and method not in FLAGS:
        find_command(words[0])
    asks_help = any(word in ("-h", "--help") for word in (words[1:2] if method == "raw" else words[1:]))
    if asks_help or words == ["raw"]:
        return write_stdout(_command_help(method))
    return cli.main(to_hydra_words(words))


def _normalised(method: str, words: Sequence[str]) -> list[str]:
    """Each flag as `--name=value`, then every other word marked as plain."""
    flags: list[str] = []
    free: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            free.append(f"{_PLAIN}{word}")
            continue
        typed, equals, value = word.partition("=")
        flag, negated = _find_flag(method, typed)
        if flag.switch:
            if not equals and rest and rest[0].lower() in _TRUTH:  # `--force true`: no override looks like that
                equals, value = "=", rest.pop(0)
            value = _switch_value(typed, value if equals else "true", negated=negated)
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{typed}: its value is missing; type {typed} VALUE")
            value = rest.pop(0)
        if not value:
            raise ConfigError(f"{typed}: its value is empty; type {typed} VALUE")
        flags.append(f"--{flag.name}={value}")
    return [*flags, *free]


def _find_flag(method: str, typed: str) -> tuple[Flag, bool]:
    """The flag that a word names, and whether `no` stands before it."""
    known = {flag.name: (flag, False) for flag in FLAGS[method]}
    for flag in FLAGS[method]:
        if flag.switch:
            known |= {f"no_{flag.name}": (flag, True), f"no{flag.name}": (flag, True)}
    name = typed.lstrip("-").replace("-", "_")
    if typed.startswith("--") and name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        spelled = close[0].replace("no_", "no-") if known[close[0]][1] else close[0]
        raise ConfigError(f"{typed}: no such flag of {method}; did you mean --{spelled}?")
    flags = ", ".join(flag.spelled for flag in FLAGS[method]) or "none"
    raise ConfigError(
        f"{typed}: no such flag of {method}; flags: {flags}; for Hydra's: cassava-fire raw {method} {typed}"
    )


def _switch_value(typed: str, value: str, *, negated: bool) -> str:
    truth = _TRUTH.get(value.lower())
    if truth is None:
        raise ConfigError(f"{typed}={value}: expected {typed} alone, or {typed}=true or {typed}=false")
    return str((truth == "true") != negated).lower()


def _words(method: str, overrides: Iterable[str], flags: Mapping[str, str]) -> list[str]:
    """The Hydra words of a method: its flags, then the free overrides, which win where both name a key."""
    emitted = [f"{flag.key}={_one_value(flags[flag.name])}" for flag in FLAGS[method] if flag.name in flags]
    return [method, *emitted, *(word.removeprefix(_PLAIN) for word in overrides)]


def _one_value(value: str) -> str:
    """A flag has one value: a comma belongs to it, unless brackets or quotes say otherwise."""
    if "," not in value or value.startswith(("[", "'", '"')):
        return value
    from cassava_leaf_disease.config.load import quoted

    return quoted(value)


def _names() -> str:
    return ", ".join([*FLAGS, "raw"])


def _overview() -> str:
    commands = "\n".join(f"  {name:<16}{_summary(name)}" for name in [*FLAGS, "raw"])
    return f"""CassavaVision {__version__}: photos of cassava leaves in, a trustworthy diagnosis out.

usage: cassava-fire COMMAND [--flag value ...] [key=value ...]

commands:
{commands}

  cassava-fire COMMAND --help   the flags of a command
  cassava COMMAND --help        the keys that can follow as key=value

The result is one JSON document on stdout; logs and progress go to stderr.
"""


def _summary(method: str) -> str:
    if method == "raw":
        return "pass words to `cassava` as they are: raw COMMAND key=value -m"
    return find_command(method)[1].summary


def _command_help(method: str) -> str:
    if method == "raw":
        usage = "usage: cassava-fire raw COMMAND [key=value ...] [-m] [--cfg job]"
        return f"cassava-fire raw: {_summary(method)}\n\n{usage}\n"
    flags = "\n".join(f"  {flag.spelled:<27}{flag.summary:<{_WIDTH}}{flag.key}" for flag in FLAGS[method])
    return f"""cassava-fire {method}: {_summary(method)}

usage: cassava-fire {method} [--flag value ...] [key=value ...]

flags, and the keys they stand for:
{flags or "  none"}

A switch may be followed by anything; `-` and `_` are spelled alike. Other keys follow as key=value.
"""


if __name__ == "__main__":
    script()
