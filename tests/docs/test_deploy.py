"""docs/deploy.md and docs/automation.md: what they tell people to type names things that there are."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
AUTOMATION = (REPOSITORY / "docs" / "automation.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
JUSTFILE = (REPOSITORY / "justfile").read_text(encoding="utf-8")


def lines(language: str) -> list[list[str]]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


COMPOSED = [words[2:] for words in lines("sh") if words[:2] == ["docker", "compose"]]


@pytest.mark.parametrize("words", COMPOSED, ids=" ".join)
def test_profiles_and_services_are_those_of_the_file(words: list[str]) -> None:
    profiles = {name for service in COMPOSE.values() for name in service["profiles"]}
    rest = list(words)
    while rest[0] == "--profile":
        assert rest[1] in profiles
        rest = rest[2:]
    assert rest[0] in ("up", "down", "logs", "build", "run", "stop")
    if rest[0] in ("build", "run"):
        assert next(word for word in rest[1:] if not word.startswith("-")) in COMPOSE


def test_the_table_of_profiles_is_complete() -> None:
    told = set(re.findall(r"^\| `(\w+)` \| .* \| (?:<http|Telegram)", DEPLOY, re.MULTILINE))
    assert told == {name for service in COMPOSE.values() for name in service["profiles"]} - {"train"}


def test_the_table_of_variables_is_complete() -> None:
    text = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
    used = {*re.findall(r"\$\{(CASSAVA_\w+)", text), *re.findall(r"^ +(CASSAVA_\w+):(?: #.*)?$", text, re.MULTILINE)}
    assert len(used) > 8
    assert [name for name in sorted(used) if f"`{name}`" not in DEPLOY] == []


def test_powershell_says_the_same() -> None:
    assert [[word.removesuffix(".exe") for word in words] for words in lines("powershell")] == lines("sh")[:3]


def test_files_that_are_named_are_there() -> None:
    named = {*re.findall(r"(?<![\w/])(?:deploy|docker)/[\w./-]+", DEPLOY)} - {"docker/triton.Dockerfile:"}
    assert len(named) > 8
    assert [name for name in sorted(named) if not (REPOSITORY / name.rstrip("./")).exists()] == []


def test_verbs_that_are_named_stand_in_the_justfile() -> None:
    of_page = set() if (REPOSITORY / "web").is_dir() else {"page"}
    verbs = {*re.findall(r"\bjust (\w[\w-]*)", DEPLOY + AUTOMATION)} - of_page
    assert len(verbs) > 10
    assert [verb for verb in sorted(verbs) if not re.search(rf"^{verb}\b.*:", JUSTFILE, re.MULTILINE)] == []


def test_limits_of_the_canary_and_the_gate_are_told_as_they_are() -> None:
    from canary import Limits
    from model_gate import Rules

    limits, rules = Limits(), Rules()
    assert f"more than {limits.max_error_rate:.0%} of its answers" in DEPLOY
    assert f"longer than {limits.max_p95_s:g} s, and longer than {limits.latency_factor:g} times" in DEPLOY
    assert f"fewer than {limits.min_requests} photos" in DEPLOY
    assert (limits.error_factor, limits.min_errors, limits.max_failed_checks) == (2, 3, 2)
    assert f"fewer than {rules.min_photos} |" in AUTOMATION
    assert f"calibration error above {rules.max_calibration_error:g}" in AUTOMATION
    assert f"p below {rules.alpha:g}" in AUTOMATION
    assert f"with {rules.min_support} or more photos | a loss above {rules.max_recall_loss:g}" in AUTOMATION
    assert (rules.max_accuracy_loss, rules.max_f1_loss) == (0, 0)
