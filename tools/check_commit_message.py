"""The commit-msg hook: the first line is a Conventional Commit, since CHANGELOG.md is made from it."""

import re
import sys
from pathlib import Path

TYPES = ("feat", "fix", "perf", "refactor", "docs", "test", "build", "ci", "chore", "style", "revert")
LONGEST = 100

_HEADER = re.compile(rf"(?:{'|'.join(TYPES)})(?:\([a-z0-9_./-]+\))?!?: (?P<subject>\S.*)")
_BY_GIT = re.compile(r"(?:Merge |Revert \"|fixup! |squash! |amend! )")


def find_mistake(message: str) -> str | None:
    """What is wrong with a commit message, in one line; None where nothing is."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    header = lines[0].rstrip() if lines else ""
    if _BY_GIT.match(header):
        return None
    found = _HEADER.fullmatch(header)
    if found is None:
        return f"{header!r}: expected `type: subject` or `type(room): subject`; types: {', '.join(TYPES)}"
    if len(header) > LONGEST:
        return f"{header!r}: {len(header)} characters, expected at most {LONGEST}"
    if found["subject"].endswith("."):
        return f"{header!r}: expected no full stop at its end"
    if len(lines) > 1 and lines[1].strip():
        return f"{lines[1]!r}: expected an empty second line"
    return None


def main() -> int:
    """Checks the file that git names."""
    mistake = find_mistake(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if mistake:
        sys.stderr.write(f"commit message: {mistake}\n")
    return 1 if mistake else 0


if __name__ == "__main__":
    sys.exit(main())
