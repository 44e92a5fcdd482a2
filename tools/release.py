"""The next version: what the commits since the last tag amount to, as a commit and a tag that wait to be pushed.

just release                   version by git-cliff from the Conventional Commits, written everywhere; tag
just release --check v0.2.0    does a tag fit the tree that it stands on? (release.yml asks)
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_VERSION: Final = re.compile(r'^version = "(?P<version>[^"]+)"$', re.MULTILINE)
_SEMVER: Final = re.compile(r"v\d+\.\d+\.\d+")


class ReleaseError(Exception):
    """A tree that is not ready to be released."""


def run(root: Path, *words: str) -> str:
    """What a command prints.

    Raises:
        ReleaseError: It failed.
    """
    said = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    if said.returncode:
        raise ReleaseError(f"{' '.join(words)}: {(said.stderr or said.stdout).strip()}")
    return said.stdout.strip()


def prepare(root: Path) -> str:
    """Writes the version into pyproject.toml and the Kubernetes overlays, and the changelog; commits; the tag made.

    Raises:
        ReleaseError: Something is uncommitted, or no commit since the last tag is worth a release.
    """
    if changed := run(root, "git", "status", "--porcelain"):
        raise ReleaseError(f"uncommitted changes:\n{changed}\ncommit them first")
    tag = run(root, "git-cliff", "--bumped-version")
    if not _SEMVER.fullmatch(tag):
        raise ReleaseError(f"git-cliff says {tag!r}; expected a version such as v0.2.0")
    if run(root, "git", "tag", "--list", tag):
        raise ReleaseError(f"nothing to release: no commit since {tag} changes the version")
    pyproject = root / "pyproject.toml"
    pyproject.write_text(with_version(pyproject.read_text(encoding="utf-8"), tag[1:]), encoding="utf-8", newline="\n")
    for overlay in root.glob("deploy/k8s/overlays/*/kustomization.yaml"):
        text = re.sub(r"newTag: v[\d.]+", f"newTag: {tag}", overlay.read_text(encoding="utf-8"))
        overlay.write_text(text, encoding="utf-8", newline="\n")
    run(root, "git-cliff", "--tag", tag, "--output", "CHANGELOG.md")
    run(root, "git", "commit", "--quiet", "--all", "--message", f"chore: release {tag}")
    run(root, "git", "tag", "--annotate", tag, "--message", tag)
    return tag


def check(root: Path, tag: str) -> None:
    """Compares a tag with the tree.

    Raises:
        ReleaseError: pyproject.toml or CHANGELOG.md tell another version.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        raise ReleaseError(f"tag {tag}, but pyproject.toml says {version}; make tags with `just release`")
    if f"\n## {version} (" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        raise ReleaseError(f"CHANGELOG.md has no section {version}; make tags with `just release`")


def with_version(pyproject: str, version: str) -> str:
    """A pyproject.toml's text with another version of the project.

    Raises:
        ReleaseError: It has no such line, or several.
    """
    replaced, count = _VERSION.subn(f'version = "{version}"', pyproject)
    if count != 1:
        raise ReleaseError(f'pyproject.toml: expected one line `version = "…"`, found {count}')
    return replaced


def main(words: Sequence[str] | None = None) -> int:
    """Prepares a release, or checks one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", metavar="TAG", help="only compare a tag with the tree")
    options = parser.parse_args(words)
    try:
        if options.check:
            check(ROOT, options.check)
        else:
            tag = prepare(ROOT)
            print(f"{tag} stands in this clone; publish it with: git push --atomic origin HEAD {tag}")
    except (ReleaseError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
