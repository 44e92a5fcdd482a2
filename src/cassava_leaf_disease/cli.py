"""The Hydra door: `cassava COMMAND key=value …`, with Hydra's own multirun, `--cfg` and `--info`.

Hydra parses, composes and sweeps; the commands themselves run after it has finished. So every job of a sweep
is checked before the first one starts, and no global state of Hydra is alive while a command works.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from cassava_leaf_disease import __version__
from cassava_leaf_disease.commands import COMMANDS, Command, find_command, joined
from cassava_leaf_disease.door import EXIT_INTERRUPTED, guarded, run_workflow, write_result, write_stdout
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.process import collect_rarely, leave
from cassava_leaf_disease.ranks import launched_rank, launcher

if TYPE_CHECKING:
    from argparse import Namespace

    from omegaconf import DictConfig

    from cassava_leaf_disease.config.schema import AppConfig

# Hydra would log its launches to stdout and write a log file; the door tells about jobs itself.
_QUIET_HYDRA = ("hydra/hydra_logging=none", "hydra/job_logging=none")


@dataclass(frozen=True)
class Job:
    """One composed run of a command: the overrides that are its own, and the settings they lead to."""

    overrides: tuple[str, ...]
    settings: "DictConfig"
    multirun: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (default: the process's own) and returns its exit code."""
    words = joined(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def script() -> NoReturn:
    """What a shell starts."""
    collect_rarely()
    leave(main())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        return write_stdout(_overview())
    if "--version" in words:
        return write_stdout(f"cassava {__version__}\n")
    if words[0].startswith("-") or "=" in words[0]:
        raise ConfigError(
            f"{words[0]}: the command comes first: cassava COMMAND key=value; commands: {', '.join(COMMANDS)}"
        )
    name, command = find_command(words[0])
    if "-h" in words or "--help" in words:
        return write_stdout(_command_help(name, command))
    return _run(command, words[1:])


def _run(command: Command, words: list[str]) -> int:
    from cassava_leaf_disease.log import configure_logging

    words, filed = _take_params(words)
    args = _parse_flags(words)
    jobs = _compose_jobs(words, args, filed)
    if args.cfg or args.info or args.hydra_help or args.shell_completion:
        return 0
    if not jobs:
        raise ConfigError("nothing to run: a range or list after -m is empty")
    configs = _check_all(jobs)
    rank = launched_rank() if command.in_ranks else 0
    configure_logging(rank=rank)
    if jobs[0].multirun:
        return _run_one_by_one(command, jobs, configs, rank)
    result = run_workflow(command, configs[0])
    return 0 if rank else write_result(result)


def _run_one_by_one(command: Command, jobs: Sequence[Job], configs: Sequence["AppConfig"], rank: int) -> int:
    """All jobs of a sweep; one array with the answer of each, null for one that failed."""
    results: list[object] = []
    exit_code = 0
    together = command.in_ranks and launcher() is not None  # ranks that go on without one that failed wait for ever
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True), start=1):
        if not rank:
            sys.stderr.write(f"job {number} of {len(jobs)}: {' '.join(job.overrides)}\n")

        def run(config: "AppConfig" = config) -> int:
            results.append(run_workflow(command, config))
            return 0

        failure = guarded(run)
        if failure == EXIT_INTERRUPTED or (failure and together):
            return failure
        if failure:
            results.append(None)
            exit_code = exit_code or failure
    return exit_code if rank else write_result(results) or exit_code


def _check_all(jobs: Sequence[Job]) -> list["AppConfig"]:
    from cassava_leaf_disease.config.load import parse_config

    configs: list[AppConfig] = []
    mistakes: dict[str, None] = {}
    for job in jobs:
        try:
            configs.append(parse_config(job.settings))
        except ConfigError as error:
            mistakes.update(dict.fromkeys(str(error).splitlines()))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return configs


def _parse_flags(words: Sequence[str]) -> "Namespace":
    from hydra._internal.utils import get_args_parser  # what hydra.main itself parses with

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(list(words))
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun is not supported: it would load a pickle")
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; this door takes key=value, `cassava-fire` takes named flags")


def _take_params(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line without `--params FILE`, and the overrides in those files, but for keys that are typed too."""
    if not any(word.startswith("--params") for word in words):
        return list(words), []
    from argparse import ArgumentParser

    from cassava_leaf_disease.config.params import read_params
    from cassava_leaf_disease.paths import resolve

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--params", action="append", metavar="FILE")
    parser.error = _refuse  # type: ignore[method-assign]
    found, rest = parser.parse_known_args(list(words))
    filed = [override for file in found.params or () for override in read_params(resolve(file))]
    typed = {word.partition("=")[0] for word in rest}
    return rest, [override for override in filed if override.partition("=")[0] not in typed]


def _compose_jobs(words: Sequence[str], args: "Namespace", filed: Sequence[str]) -> list[Job]:
    """Lets hydra.main work with the command line, and collects what it would run; `filed` overrides come first."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from cassava_leaf_disease.config.load import (
        CONFIG_MODULE,
        hydra_errors_in_one_line,
        quote_free_text,
        quoted,
    )
    from cassava_leaf_disease.config.packaged import read_once

    read_once()
    jobs: list[Job] = []

    def collect(settings: "DictConfig") -> None:
        about = HydraConfig.get()
        overrides: Any = OmegaConf.to_container(about.overrides.task, resolve=False)
        own = tuple(override for override in overrides if override not in filed)
        jobs.append(Job(own, settings, multirun=about.mode == RunMode.MULTIRUN))

    entry = hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")(collect)
    flags = [word for word in words if word not in args.overrides]
    # The commands make their own run folders: what Hydra makes for a sweep goes away with a temporary folder.
    with tempfile.TemporaryDirectory(prefix="cassava-sweep-") as folder, hydra_errors_in_one_line():
        quiet = [*_QUIET_HYDRA, f"hydra.sweep.dir={quoted(folder)}"]
        arguments = [*flags, *([] if args.cfg else quiet), *filed, *quote_free_text(args.overrides)]
        with _hydra_surroundings(arguments):
            _call_hydra(entry)
    return jobs


def _call_hydra(entry: Callable[[], None]) -> None:
    try:
        entry()
    except SystemExit as end:  # --hydra-help and the like
        if end.code:
            raise
    except (ValueError, AssertionError) as error:  # Hydra's own: no command has run yet
        raise ConfigError((str(error).strip() or repr(error)).splitlines()[0]) from None


@contextlib.contextmanager
def _hydra_surroundings(arguments: Sequence[str]) -> Iterator[None]:
    """What hydra.main reads from the process while it works; HYDRA_FULL_ERROR lets it raise, not print."""
    argv, full_error, root = sys.argv, os.environ.get("HYDRA_FULL_ERROR"), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.argv = ["cassava", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        root.handlers[:] = handlers  # --info adds one
        root.setLevel(level)
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items())
    return f"""CassavaVision {__version__}: photos of cassava leaves in, a trustworthy diagnosis out.

usage: cassava COMMAND [key=value ...]

commands:
{commands}

  cassava COMMAND --help          the keys of a command, with examples
  cassava COMMAND --cfg job       every key, as the command would see it
  cassava COMMAND -m a=1,2        several values, one run after another
  cassava COMMAND --params FILE   keys from a YAML file; those typed beside it win

The result is one JSON document on stdout; logs and progress go to stderr.
`cassava-fire` takes the same commands with named flags.
"""


def _command_help(name: str, command: Command) -> str:
    examples = "\n".join(f"  {example}" for example in command.examples)
    return f"""cassava {name}: {command.summary}

usage: cassava {name} [key=value ...] [-m] [--cfg job] [--params FILE] [--config-dir FOLDER]

keys and their defaults:
{_keys_text(command.sections)}

groups, each a set of keys (group=choice):
{_groups_text()}

examples:
{examples}

`cassava {name} --cfg job` prints every key; `--hydra-help` tells about Hydra's own flags.
"""


def _keys_text(sections: Sequence[str]) -> str:
    """The keys of sections of the configuration as they are typed, with the comments that stand beside them."""
    from cassava_leaf_disease.config.describe import described_keys

    described = [entry for entry in described_keys(sections) if entry.value]
    return "\n".join(
        f"  {f'{entry.key}={entry.value}':<34}  {entry.comment}".rstrip()
        for section in sections
        for entry in described
        if entry.key.startswith(f"{section}.")
    )


def _groups_text() -> str:
    from cassava_leaf_disease.config.explain import group_choices

    return "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in group_choices().items())


if __name__ == "__main__":
    script()
