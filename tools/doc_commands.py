"""The commands that the documents show, and what the tests are to do with them.

A fenced `bash` block is run, line by line, in a folder of drawn leaves. A comment before a block says otherwise:

    <!-- not run: needs a GPU -->   why it is not run; a command of ours must still be accepted by its door
    <!-- fails -->                  it ends with what the `text` block after it says

Blocks of other languages that somebody types (`sh`, `powershell`, `python`) always need the first of these, or stand
beside a `bash` block that says the same.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
DOCS: Final = REPOSITORY / "docs"
DOORS: Final = ("cassava", "cassava-fire")

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>fails|not run: [^>]+?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_RUNNER = re.compile(r"^(\w+=\S+ )*(uv run (--no-dev )?)?")  # what is set for a command, and its environment


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `mark` is the comment before it, empty where there is none."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def not_run(self) -> str:
        """Why the block is not run; empty where it is."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def fails(self) -> bool:
        """Whether the block shows a mistake."""
        return self.mark == "fails"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, `NAME=value` and `uv run` before it taken off."""
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [part for line in lines for part in line.split(" && ") if part.strip()]
        return [shlex.split(_RUNNER.sub("", part.strip()), comments=True) for part in parts]


def pages() -> dict[str, str]:
    """Every page that shows commands: its path in the repository, and its text."""
    names = ["README.md", "README.ru.md", "CONTRIBUTING.md", "SECURITY.md"]
    paths = [*(REPOSITORY / name for name in names), *sorted(DOCS.rglob("*.md"))]
    return {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["text"], found["mark"] or "")
        for found in _BLOCK.finditer(text)
    ]


def all_blocks() -> Iterator[Block]:
    """The fenced blocks of every page."""
    for page, text in pages().items():
        yield from blocks_of(page, text)
