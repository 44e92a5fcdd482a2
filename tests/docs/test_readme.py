"""The README is run: its commands, its JSON, its table of keys, its links.

Commands that need a data set are composed by the real door and checked by the schema; all others run.
"""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.config.load import load_config, parse_config

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md"))]
DOORS: dict[str, Callable[[list[str]], int]] = {"cassava": cli.main, "cassava-fire": fire_cli.main}

SMALL_DEMO = ("demo.train_size=50", "demo.epochs=1", "train.accelerator=cpu", "train.num_workers=0")
SMALL_DATA = (
    *("data.synthetic.train_size=40", "data.synthetic.val_size=20", "data.synthetic.test_size=20"),
    *("model.backbone=test_resnet", "augment.image_size=64", "train.accelerator=cpu"),
)


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every shell command of the README and of docs/, `uv run` taken off."""
    pages = [block for page in PAGES for block in re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    lines = [part for block in [*fenced("bash"), *pages] for line in block.splitlines() for part in line.split(" && ")]
    return [shlex.split(line.removeprefix("uv run ")) for line in lines]


# photos, a run, a network
WANT_MORE = {
    *(
        "train",
        "crossval",
        "tune",
        "evaluate",
        "download-data",
        "check-data",
        "download-model",
        "export",
        "track",
        "publish",
        "serve",
        "score",
        "bot",
    ),
    *(
        "prepare",
        "split",
        "ensemble",
        "pseudo-label",
        "plants",
        "fit-gate",
        "audit",
        "feedback",
        "drift",
        "export-triton",
        "export-tensorrt",
    ),
}


def needs_photos(words: list[str]) -> bool:
    """Whether a command of a door wants what is not there."""
    asks_only = {"--help", "--cfg"} & set(words)
    drawn = {"--synthetic", "data.synthetic.enabled=true"} & set(words)
    asks_triton = "infer.engine=triton" in words
    return (words[1] in WANT_MORE or asks_triton) and not asks_only and not drawn


DOOR_COMMANDS = [words for words in commands() if words[0] in DOORS]
WITH_PHOTOS = [words for words in DOOR_COMMANDS if needs_photos(words)]


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Runs a command by its door, in this process; what it prints."""
    code = DOORS[words[0]](words[1:])
    captured = capfd.readouterr()
    assert code == 0, f"{shlex.join(words)}\n{captured.err}"
    return captured.out


def test_the_first_screen_holds_exactly_two_set_up_commands() -> None:
    set_up = README.split("\n## ")[1]
    assert set_up.startswith("Set up\n")
    assert README.index(set_up) + len(set_up) < 2000
    assert fenced("bash")[0] in set_up
    assert set_up.count("```") == 4
    assert fenced("bash")[0].splitlines() == [
        "python -m pip install uv && uv run cassava demo",
        "uv run just test",
    ]


def test_powershell_gets_the_same_two_commands() -> None:
    (block,) = fenced("powershell")
    assert block == fenced("bash")[0].replace(" &&", ";")


def test_every_command_is_one_of_ours() -> None:
    programs = {words[0] for words in commands()}
    assert programs == {*DOORS, "just", "python"}
    assert [words for words in commands() if words[0] == "python"] == [["python", "-m", "pip", "install", "uv"]]


def test_every_verb_stands_in_the_justfile() -> None:
    summary = ask_just("--summary")
    verbs = {words[1] for words in commands() if words[0] == "just"}
    assert verbs
    assert verbs <= set(summary.split())


def test_the_test_command_runs_pytest_under_the_coverage_floor() -> None:
    assert re.search(r"uv run pytest .*--cov ", ask_just("--show", "test"))
    coverage = load_pyproject()["tool"]["coverage"]
    assert coverage["run"]["branch"] is True
    assert coverage["report"]["fail_under"] >= 95


def test_commands_without_a_data_set_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to_run = [words for words in DOOR_COMMANDS if words not in WITH_PHOTOS]
    assert to_run[0] == ["cassava", "demo"]
    answers: dict[str, str] = {}
    for words in to_run:
        trains = words[1] == "train" and not {"--help", "--cfg"} & set(words)
        small = SMALL_DEMO if words[1] == "demo" else SMALL_DATA if trains else ()
        answers[shlex.join(words)] = run([*words, *small], capfd)

    promised = json.loads(fenced("json")[0])
    answer = json.loads(answers["cassava infer infer.image_path=outputs/demo/leaf.jpg infer.top_k=3"])
    assert shape_of(answer | {"reasons": []}) == shape_of(promised)  # the small network may be unsure
    assert answer["model"]["path"].startswith(str(tmp_path))
    runs = json.loads(next(said for command, said in answers.items() if " -m " in command))
    assert [result["seed"] for result in runs] == [1, 2]


@pytest.mark.parametrize("words", WITH_PHOTOS, ids=shlex.join)
def test_commands_with_a_data_set_compose(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert words[0] == "cassava"
    composed: dict[str, Any] = yaml.safe_load(run([*words, "--cfg", "job"], capfd))
    parse_config(OmegaConf.create(composed))


def table_of_keys() -> list[tuple[str, str, list[str]]]:
    """(key, default, accepted values that are written as code) of each row."""
    section = README.split("\n## Configuration\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(row[0].strip("`"), row[1].strip("`"), re.findall(r"`([^`]+)`", row[2])) for row in rows]


def test_the_table_tells_the_defaults(capfd: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load(run(["cassava", "train", "--cfg", "job"], capfd))
    rows = table_of_keys()
    assert len(rows) > 30
    assert {key: default for key, default, _ in rows} == {key: default_of(settings, key) for key, _, _ in rows}


def default_of(settings: dict[str, Any], key: str) -> str:
    """A key's value as it is typed; a group's choice."""
    if key == "experiment":
        return "null"
    value: Any = settings
    for name in key.split("."):
        value = value[name]
    if isinstance(value, dict):
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)


NEEDED = {
    "model.unfreeze_epoch": ("model.freeze_backbone=true",),
    "distill.out_of_fold": ("distill.teacher=outputs/crossval/version_0",),
}


def test_the_values_of_the_table_are_accepted() -> None:
    typed = list(
        itertools.chain.from_iterable([(key, value) for value in values] for key, _, values in table_of_keys())
    )
    assert len(typed) > 50
    for key, value in typed:
        load_config([f"{key}={value}", *NEEDED.get(key, ())])


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert [target for target in targets if "://" not in target and not (REPOSITORY / target).exists()] == []


def ask_just(*words: str) -> str:
    """What the environment's own `just` says."""
    just = shutil.which("just", path=str(Path(sys.executable).parent)) or "just"
    return subprocess.run([just, *words], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def shape_of(value: Any) -> Any:
    """Keys and kinds of a JSON document, without its values."""
    if isinstance(value, dict):
        return {name: shape_of(part) for name, part in value.items()}
    return [shape_of(part) for part in value] if isinstance(value, list) else type(value)


def load_pyproject() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
