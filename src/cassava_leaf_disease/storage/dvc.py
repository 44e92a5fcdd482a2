"""Files in DVC's care: found, pulled, tracked and pushed, one at a time.

DVC runs as a child process. Its command line is what it keeps stable, and it says there why a transfer
failed, which its Python exceptions do not; nothing of it is imported here. Whether a file is tracked is read
from the repository's own files, so that asking costs nothing and needs no DVC.
"""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cassava_leaf_disease.errors import MissingDependencyError, StorageError
from cassava_leaf_disease.log import stderr_is_terminal
from cassava_leaf_disease.storage.environment import load_env_file

logger = logging.getLogger(__name__)

LOCK_FILE = "dvc.lock"

_HOW: Final = (
    "; type: dvc remote modify --local {name} access_key_id … and the same for secret_access_key, "
    "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
# What DVC and the libraries beneath it say, and what that means; the first that is found counts.
_FAILURES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (
            "Unable to acquire lock|is busy, it is being blocked",
            "another DVC command is at work in this repository; wait for it, then type the same again",
        ),
        ("Unable to locate credentials|Partial credentials", "{remote} wants credentials{how}"),
        (
            "Forbidden|Access ?Denied|InvalidAccessKeyId|SignatureDoesNotMatch|not exist in our records|"
            r"signature we calculated|\b40[13]\b",
            "{remote} refuses access ({reason}){how}",
        ),
        ("Missing cache files|missing-files", "{remote} does not hold it, or cannot be reached"),
        ("could not connect|cannot connect|failed to connect|timed? ?out", "{remote} cannot be reached ({reason})"),
    )
)


@dataclass(frozen=True)
class Remote:
    """A storage that DVC knows by a name."""

    name: str
    url: str


@dataclass(frozen=True)
class Remotes:
    """All remotes of a repository, and the name of the one that is used where none is named."""

    urls: Mapping[str, str]
    default: str | None


def find_repository(path: Path) -> Path | None:
    """The root of the DVC repository that `path` lies in."""
    return next((folder for folder in path.parents if (folder / ".dvc").is_dir()), None)


def is_tracked(path: Path) -> bool:
    """Whether a `.dvc` file, or the `dvc.lock` of a finished pipeline, names the path or a folder above it."""
    root = find_repository(path)
    return root is not None and _target(path, root) is not None


def require_dvc(what: str = "dvc") -> None:
    """Fails where DVC is not installed; `what` is how the message calls it.

    Raises:
        MissingDependencyError: It is not.
    """
    if importlib.util.find_spec("dvc") is None:
        raise MissingDependencyError(what, "track")


def read_remotes(root: Path) -> Remotes:
    """The remotes of a repository, with what the user's own DVC settings add.

    Raises:
        MissingDependencyError: DVC is not installed.
        StorageError: Its settings cannot be read.
    """
    answer = _run(root, "config", "--list")
    if answer.returncode:
        raise StorageError(f"{root}: the settings of its DVC repository cannot be read: {_reason(answer.stderr)}")
    settings = dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
    urls = {
        found[1]: value for key, value in settings.items() if (found := re.fullmatch(r"remote\.(.+)\.url", key.strip()))
    }
    return Remotes(urls, settings.get("core.remote"))


def pull_target(path: Path) -> Path:
    """Fetches one tracked file, and nothing else, from the remote that DVC has for it; returns `path`.

    Raises:
        MissingDependencyError: DVC is not installed.
        StorageError: Not tracked, or the remote does not give it.
    """
    root = _repository_of(path)
    target = _target(path, root)
    if target is None:
        raise StorageError(f"{path}: DVC does not track it; type: dvc add {path.name}")
    load_env_file()
    _work(root, f"pulling {path.name} with DVC", path, None, "pull", target)
    return path


def track(path: Path) -> Path:
    """Puts a file into DVC's care as it stands; returns the `.dvc` file that names it, to be committed to git.

    Raises:
        MissingDependencyError: DVC is not installed.
        StorageError: There is no repository, or DVC refuses the file.
    """
    _work(_repository_of(path), f"tracking {path.name} with DVC", path, None, "add", str(path))
    return _dvc_file(path)


def push_target(path: Path, remote: Remote) -> None:
    """Sends one file that `track` took, and nothing else, to a remote.

    Raises:
        MissingDependencyError: DVC is not installed.
        StorageError: The remote does not take it.
    """
    root = _repository_of(path)
    load_env_file()
    doing = f"pushing {path.name} to {remote.name} with DVC"
    _work(root, doing, path, remote, "push", "--remote", remote.name, str(_dvc_file(path)))


def _repository_of(path: Path) -> Path:
    root = find_repository(path)
    if root is None:
        raise StorageError(f"{path}: lies in no DVC repository; type `dvc init` in its project, or go to the clone")
    return root


def _dvc_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.dvc")


def _target(path: Path, root: Path) -> str | None:
    """What `dvc pull` is to be told: the `.dvc` file where there is one, else the path itself."""
    if _dvc_file(path).is_file():
        return str(_dvc_file(path))
    inside = [path, *(folder for folder in path.parents if folder.is_relative_to(root) and folder != root)]
    if any(_dvc_file(part).is_file() for part in inside[1:]):
        return str(path)
    outputs = {output for folder in path.parents if folder.is_relative_to(root) for output in _pipeline_outputs(folder)}
    return str(path) if outputs.intersection(inside) else None


def _pipeline_outputs(folder: Path) -> Iterator[Path]:
    """What the `dvc.lock` in a folder says that its stages have made."""
    try:
        text = (folder / LOCK_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder / LOCK_FILE}: cannot be read ({error})") from None
    import yaml

    try:
        content: Any = yaml.safe_load(text)
        for stage in content["stages"].values():
            for output in stage.get("outs", ()):
                yield Path(os.path.normpath(folder / output["path"]))
    except (yaml.YAMLError, LookupError, TypeError, AttributeError):
        raise StorageError(f"{folder / LOCK_FILE}: no lock file of DVC; type: dvc repro") from None


def _work(root: Path, doing: str, path: Path, remote: Remote | None, *words: str) -> None:
    """One command of DVC, as a line or a spinner on stderr.

    Raises:
        StorageError: DVC failed; one line that says why and what to type.
    """
    require_dvc()
    logger.info("%s", doing)
    with _spinner(doing):
        answer = _run(root, *words)
    if answer.returncode:
        raise StorageError(f"{path}: {_explain(root, answer.stderr, remote)}")


def _run(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    require_dvc()
    command = [sys.executable, "-P", "-m", "dvc", *words]  # -P: a dvc.py in the user's folder is not DVC
    environment = {**os.environ, "PYTHONUTF8": "1", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(  # noqa: S603  our own words; paths are arguments of their own
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _spinner(doing: str) -> AbstractContextManager[object]:
    """DVC draws no bar where nobody sees its stderr: something has to move."""
    if not stderr_is_terminal():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(doing)


def _explain(root: Path, stderr: str, remote: Remote | None) -> str:
    """Why DVC failed, and what to do about it; `remote` None: its default remote was asked, if any."""
    reason = _reason(stderr)
    meaning = next((text for pattern, text in _FAILURES if pattern.search(stderr)), reason)
    if "{remote}" not in meaning:
        return meaning
    if remote is None:
        remotes = read_remotes(root)
        if remotes.default is None:
            return "the DVC repository has no default remote to ask; type: dvc remote add --default NAME URL"
        remote = Remote(remotes.default, remotes.urls.get(remotes.default, "unknown"))
    how = _HOW.format(name=remote.name) if remote.url.startswith("s3://") else ""
    return meaning.format(remote=f"DVC's remote {remote.name} ({remote.url})", reason=reason, how=how)


def _reason(stderr: str) -> str:
    """The first thing that DVC calls an error, without its own introduction."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING: ")]
    text = next((line for line in lines if line.startswith("ERROR: ")), next(iter(lines), "no reason given"))
    return re.sub(r"^ERROR: |failed to (pull|push) data \w+ the cloud - |unexpected error - ", "", text)
