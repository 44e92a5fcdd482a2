"""The README is run: its first command with the package's own model, its JSON, its links; its Russian twin agrees."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease import cli
from doc_commands import REPOSITORY, blocks_of

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUSSIAN = (REPOSITORY / "README.ru.md").read_text(encoding="utf-8")
FIRST = "python -m pip install uv && uv run --no-dev cassava infer infer.image_path=photo.jpg"
TESTS = "uv run just test"


def fenced(language: str, text: str = README) -> list[str]:
    return [block.text for block in blocks_of("README", text) if block.language == language]


def test_the_first_screen_holds_exactly_two_commands() -> None:
    start = README.split("\n## ")[1]
    assert start.startswith("Start\n")
    assert README.index(start) + len(start) < 2000
    assert start.count("```") == 4
    assert fenced("bash")[0].splitlines() == [FIRST, TESTS]


def test_powershell_gets_the_same_two_commands() -> None:
    (block,) = fenced("powershell")
    assert block == fenced("bash")[0].replace(" &&", ";")


def test_the_test_command_runs_pytest_under_the_coverage_floor() -> None:
    shown = ask_just("--show", "test")
    coverage = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["slipcover"]
    assert re.search(r"uv run slipcover .*--out (\S+) -m pytest .*\n.*uv run slipcover .*--merge \1\n", shown)
    assert "--fail-under 95 " in shown
    assert coverage["branch"] is True


def test_the_first_command_answers_as_the_readme_shows(
    tmp_path: Path, photo_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo_bytes)
    words = FIRST.partition(" && ")[2].removeprefix("uv run --no-dev cassava ").split()

    assert cli.main(words) == 0

    answer, promised = json.loads(capfd.readouterr().out), json.loads(fenced("json")[0])
    assert answer["model"]["source"] == promised["model"]["source"] == "package"
    assert shape_of(answer) == shape_of(promised)


def test_links_lead_somewhere() -> None:
    for text in (README, RUSSIAN):
        targets = [target.partition("#")[0] for target in links(text)]
        assert [target for target in targets if "://" not in target and not (REPOSITORY / target).exists()] == []


def test_the_russian_readme_says_the_same() -> None:
    assert [re.sub(r"\n<!--.*", "", text) for text in fenced("bash", RUSSIAN)] == fenced("bash")
    assert fenced("powershell", RUSSIAN) == fenced("powershell")
    assert fenced("json", RUSSIAN) == fenced("json")
    assert links(RUSSIAN)[1:] == links(README)[1:]
    assert (links(README)[0], links(RUSSIAN)[0]) == ("README.ru.md", "README.md")
    assert inline_code(RUSSIAN) == inline_code(README)
    assert [len(heading) for heading in re.findall(r"^(#+) ", RUSSIAN, re.MULTILINE)] == [
        len(heading) for heading in re.findall(r"^(#+) ", README, re.MULTILINE)
    ]


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def inline_code(text: str) -> list[str]:
    """What stands in backticks, in order of the alphabet: a translation may say it in another order."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return sorted(set(re.findall(r"`([^`]+)`", prose)))


def ask_just(*words: str) -> str:
    """What the environment's own `just` says."""
    just = shutil.which("just", path=str(Path(sys.executable).parent)) or "just"
    return subprocess.run([just, *words], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def shape_of(value: Any) -> Any:
    """Keys and kinds of a JSON document, without its values; lists by their first entry, empty ones as null."""
    if isinstance(value, dict):
        return {name: shape_of(part) for name, part in value.items() if name not in ("reasons", "at_least", "at_most")}
    return (shape_of(value[0]) if value else None) if isinstance(value, list) else type(value)
