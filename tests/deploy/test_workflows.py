"""What actionlint and zizmor do not know: the workflows call the verbs that people type, with nothing beside them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".github"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("workflows/*.yml")}
TEXTS = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.rglob("*.yml"))]


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workflow in sorted(WORKFLOWS.items()):
        for job, content in workflow["jobs"].items():
            yield f"{name}/{job}", content


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        for step in job.get("steps", ()):
            yield name, step


def test_the_workflows_are_those_of_the_docs() -> None:
    page = (REPOSITORY / "docs" / "automation.md").read_text(encoding="utf-8")
    assert {*WORKFLOWS} == {"ci", "train", "deploy", "release", "images"}
    assert [name for name in WORKFLOWS if f"`{name}.yml`" not in page] == []


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it() -> None:
    used = [line for text in TEXTS for line in re.findall(r"uses: +(.+)", text)]
    foreign = [line for line in used if not line.startswith("$/")]
    assert len(foreign) > 20
    assert [line for line in foreign if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_one_action_has_one_version_everywhere() -> None:
    pinned = {tuple(line.split("@")) for text in TEXTS for line in re.findall(r"uses: +([^$].+)", text)}
    assert len(pinned) == len({name for name, _ in pinned})


@pytest.mark.parametrize(("name", "job"), [*jobs()], ids=lambda value: value if isinstance(value, str) else "")
def test_every_job_says_what_it_may_and_how_long_it_takes(name: str, job: dict[str, Any]) -> None:
    assert "permissions" in job
    assert "uses" in job or 5 <= job["timeout-minutes"] <= 360


def test_nothing_is_allowed_beyond_what_a_job_says() -> None:
    assert [name for name, workflow in WORKFLOWS.items() if workflow["permissions"] != {}] == []


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) > 8
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_every_verb_stands_in_the_justfile() -> None:
    said = subprocess.run(
        ["just", "--summary"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()
    verbs = {verb for _, step in steps() for verb in re.findall(r"uv run just ([\w-]+)", step.get("run", ""))}
    assert verbs >= {"lint", "test", "wheel", "page", "pipeline", "rivals", "gate", "rollout", "release", "dist"}
    of_page = set() if (REPOSITORY / "web").is_dir() else {"page", "page-test"}
    assert sorted(verbs - {*said} - of_page) == []


def test_programs_of_ours_are_run_by_verbs_alone() -> None:
    lines = [line for _, step in steps() for line in step.get("run", "").splitlines()]
    assert [line for line in lines if "tools/" in line or "pytest" in line] == []


def test_windows_and_macos_type_what_the_readme_says() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    typed = {step.get("shell", "bash"): step["run"] for name, step in steps() if name == "ci/readme" and "run" in step}
    for shell, language in (("powershell", "powershell"), ("bash", "bash")):
        first = re.search(rf"^```{language}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        assert first is not None
        assert typed[shell].strip() == first[1].strip()


def test_ci_runs_on_every_python_that_the_package_promises() -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    promised = re.findall(r"Programming Language :: Python :: (3\.\d+)", pyproject)
    assert WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == promised


def test_one_check_stands_for_all_jobs_of_ci() -> None:
    ci = WORKFLOWS["ci"]["jobs"]
    assert {*ci["all"]["needs"]} == {*ci} - {"all"}


def test_nothing_of_an_earlier_run_goes_into_what_is_published() -> None:
    for name in ("release", "deploy", "images"):
        said = yaml.safe_dump(WORKFLOWS[name])
        assert "cache-from" not in said
        assert not re.search(r"enable-cache: true|cache: npm", said)


def test_a_model_is_published_only_where_the_gate_lets_it_pass() -> None:
    publish = WORKFLOWS["train"]["jobs"]["publish"]
    assert publish["if"].startswith("needs.train.outputs.verdict == 'pass' && ")
    assert publish["environment"] == "models"
