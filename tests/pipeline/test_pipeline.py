"""The DVC pipeline: in a fresh clone it runs, once; its results travel through S3; its figures can be seen."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.params import read_params
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import CLASS_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
STAGES = ("prepare", "split", "train", "evaluate", "export")
RESULTS = Path("outputs") / "pipeline"

Run = Callable[..., str]


def git(folder: Path, *words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8")
    return answer.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of this working tree, what is not committed yet included, with a recipe of seconds."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git repository: this is not a clone")
    folder = tmp_path_factory.mktemp("pipeline") / "clone"
    for name in git(REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (REPOSITORY / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    recipe = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    recipe["data"]["synthetic"].update(train_size=40, val_size=20, test_size=20)
    recipe["model"]["backbone"] = "test_resnet"
    recipe["train"].update(epochs=1, batch_size=10, accelerator="cpu")
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message=a")


@pytest.fixture(scope="module")
def dvc(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs DVC in the clone, as `uv run dvc` does; what it prints."""
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "t"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "t@example.org"),
        **{
            f"DVC_{name}_DIR": str(tmp_path_factory.mktemp("dvc"))
            for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")
        },
    }
    foreign = ("CASSAVA_", "AWS_", "S3_", "DVC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | own

    def run(*words: str, folder: Path = clone) -> str:
        line = [sys.executable, "-P", "-m", "dvc", *words]
        answer = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert answer.returncode == 0, f"{shlex.join(line)}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    return run


@pytest.fixture(scope="module")
def reproduced(clone: Path, dvc: Run) -> Path:
    """The clone after `dvc repro`, its lock file committed."""
    said = dvc("repro")
    assert re.findall(r"Running stage '(\w+)'", said) == list(STAGES)
    commit(clone)
    return clone


@pytest.mark.slow
def test_fresh_clone_makes_every_result(reproduced: Path) -> None:
    declared = [name for stage in PIPELINE["stages"].values() for name in outputs_of(stage)]
    assert [name for name in declared if not (reproduced / name).exists()] == []
    with (reproduced / RESULTS / "split" / "split.csv").open(encoding="utf-8", newline="") as file:
        parts = {row["image_id"]: row["part"] for row in csv.DictReader(file)}
    assert set(parts.values()) == {"train", "val", "test"}
    assert len(parts) == 80
    assert git(reproduced, "status", "--porcelain") == ""


@pytest.mark.slow
def test_training_and_evaluation_use_exactly_the_split_that_was_made(reproduced: Path) -> None:
    results = reproduced / RESULTS
    made = (results / "split" / "split.csv").read_text(encoding="utf-8")
    assert (results / "train" / "split.csv").read_text(encoding="utf-8") == made
    with (results / "evaluate" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        measured = {row["image_id"] for row in csv.DictReader(file)}
    assert measured == {line.split(",")[0] for line in made.splitlines() if line.endswith(",test")}


@pytest.mark.slow
def test_second_repro_does_nothing(reproduced: Path, dvc: Run) -> None:
    said = dvc("repro")

    assert said.count("didn't change, skipping") == len(STAGES)
    assert "Running stage" not in said
    assert "up to date" in dvc("status")
    assert git(reproduced, "status", "--porcelain") == ""


@pytest.mark.slow
def test_metrics_show_has_our_figures(reproduced: Path, dvc: Run) -> None:
    shown = json.loads(dvc("metrics", "show", "--json"))

    ((name, figures),) = shown[""]["data"].items()
    assert Path(name) == RESULTS / "evaluate" / "figures.json"
    measured = json.loads((reproduced / RESULTS / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert figures["data"]["accuracy"] == measured["scores"]["accuracy"]
    assert figures["data"]["f1_macro"] == measured["scores"]["f1_macro"]


@pytest.mark.slow
def test_plots_show_draws_curves_and_the_confusion_matrix(reproduced: Path, dvc: Run, tmp_path: Path) -> None:
    dvc("plots", "show", "--out", str(tmp_path / "plots"))

    page = (tmp_path / "plots" / "index.html").read_text(encoding="utf-8")
    specs = [json.loads(text) for text in re.findall(r"var spec = (\{.*?\});\s*vegaEmbed", page, re.DOTALL)]
    titles = [spec["title"]["text"] for spec in specs]
    assert titles == ["macro F1", "accuracy", "loss", "answers about the test part"]
    rows = specs[-1]["data"]["values"]
    assert len(rows) == 16
    assert {row["label_name"] for row in rows} <= set(CLASS_NAMES)
    assert {row["predicted_name"] for row in rows} <= set(CLASS_NAMES)


@pytest.mark.slow
def test_experiment_with_one_changed_value_runs_only_what_depends_on_it(reproduced: Path, dvc: Run) -> None:
    said = dvc("exp", "run", "-S", "evaluate.bootstrap_samples=200", "--name", "fewer")

    assert re.findall(r"Running stage '(\w+)'", said) == ["evaluate"]
    changed = json.loads(dvc("params", "diff", "--json"))
    assert changed == {"params.yaml": {"evaluate.bootstrap_samples": {"old": 1000, "new": 200, "diff": -800}}}
    assert "fewer" in dvc("exp", "list")
    git(reproduced, "checkout", "--quiet", "--", ".")
    dvc("checkout")


@pytest.fixture(scope="module")
def in_s3(reproduced: Path, dvc: Run, moto_s3: tuple[str, Any]) -> list[str]:
    """The results, pushed to the clone's S3 remote; the keys of what is stored there."""
    url, client = moto_s3
    client.create_bucket(Bucket="pipeline")
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    for key, value in {"url": "s3://pipeline/results", "endpointurl": url, **keys}.items():
        dvc("remote", "modify", "--local", "yandex_s3", key, value)
    dvc("push", "--remote", "yandex_s3")
    return [stored["Key"] for stored in client.list_objects_v2(Bucket="pipeline")["Contents"]]


@pytest.mark.slow
def test_results_come_back_from_s3_when_the_cache_is_wiped(reproduced: Path, dvc: Run, in_s3: list[str]) -> None:
    made = {path: path.read_bytes() for path in (reproduced / RESULTS).rglob("*") if is_declared(path, reproduced)}
    assert len(made) == sum(len(list(outputs_of(stage))) for stage in PIPELINE["stages"].values())
    assert len(in_s3) == len(set(made.values()))  # and none of the photos
    shutil.rmtree(reproduced / ".dvc" / "cache")
    for path in made:
        path.unlink()

    dvc("pull", "--remote", "yandex_s3")

    assert {path: path.read_bytes() for path in made} == made
    assert "Running stage" not in dvc("repro")


@pytest.mark.slow
@pytest.mark.usefixtures("in_s3")
def test_other_clone_pulls_the_results_and_has_only_the_photos_to_draw(
    reproduced: Path, dvc: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other clone"
    git(tmp_path, "clone", "--quiet", str(reproduced), str(other))
    shutil.copy(reproduced / ".dvc" / "config.local", other / ".dvc")

    dvc("pull", "--remote", "yandex_s3", folder=other)

    assert re.findall(r"Running stage '(\w+)'", dvc("repro", folder=other)) == ["prepare"]
    assert git(other, "status", "--porcelain") == ""


def outputs_of(stage: dict[str, Any]) -> Iterator[str]:
    """What a stage makes, the folder of photos aside."""
    for entry in [*stage["outs"], *stage.get("metrics", [])]:
        if isinstance(entry, str):
            yield entry


def is_declared(path: Path, root: Path) -> bool:
    return path.relative_to(root).as_posix() in {
        name for stage in PIPELINE["stages"].values() for name in outputs_of(stage)
    }


def test_recipe_of_the_repository_is_small_and_drawn(small_config: Callable[..., AppConfig]) -> None:
    config = load_config(read_params(REPOSITORY / "params.yaml"))

    assert config.data.synthetic.enabled
    assert config.train.epochs < 10
    assert config.augment.image_size == 64
    assert config.model.name == "resnet18"


@pytest.mark.parametrize("name", STAGES)
def test_command_of_a_stage_composes(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_ROOT", str(REPOSITORY))
    (photos,) = (entry["photos"] for entry in PIPELINE["vars"])
    program, *words = shlex.split(PIPELINE["stages"][name]["cmd"].replace("${photos}", photos))
    assert program == "cassava"

    assert cli.main([*words, "--cfg", "job"]) == 0

    composed = yaml.safe_load(capfd.readouterr().out)
    assert composed["train"]["epochs"] == PARAMS["train"]["epochs"]
    assert composed["data"]["synthetic"]["enabled"] is (name == "prepare")


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]


def test_every_setting_of_the_recipe_belongs_to_a_stage() -> None:
    declared = tuple(name for stage in PIPELINE["stages"].values() for name in stage["params"])

    assert [key for key in leaves(PARAMS) if not any(f"{key}.".startswith(f"{name}.") for name in declared)] == []


def test_every_setting_that_a_stage_declares_stands_in_the_recipe() -> None:
    known = list(leaves(PARAMS))
    declared = [name for stage in PIPELINE["stages"].values() for name in stage["params"]]

    assert [name for name in declared if not any(f"{key}.".startswith(f"{name}.") for key in known)] == []


def test_every_dependency_is_made_by_a_stage_or_lies_in_the_repository() -> None:
    made = {name for stage in PIPELINE["stages"].values() for name in outputs_of(stage)}
    wanted = {name for stage in PIPELINE["stages"].values() for name in stage["deps"]} - {"${paths.data_dir}"}

    assert [name for name in wanted if name not in made and not (REPOSITORY / name).exists()] == []


def test_photos_are_neither_cached_nor_removed_by_the_pipeline() -> None:
    (photos,) = (entry for entry in PIPELINE["stages"]["prepare"]["outs"] if isinstance(entry, dict))

    assert photos == {"${paths.data_dir}": {"cache": False, "persist": True}}


@pytest.mark.slow
def test_repository_knows_both_remotes_and_no_credentials(clone: Path, dvc: Run) -> None:
    settings = dict(line.split("=", 1) for line in dvc("config", "--list", "--project").split())

    storage = "https://storage.yandexcloud.net"
    assert settings == {
        "core.remote": "public_http",
        "core.analytics": "false",
        "core.check_update": "false",
        "remote.public_http.url": f"{storage}/mlops-cassava-project/cassava",
        "remote.yandex_s3.url": "s3://mlops-cassava-project/cassava",
        "remote.yandex_s3.endpointurl": storage,
    }
    ignored = git(clone, "check-ignore", ".dvc/config.local", ".dvc/cache", "artifacts/best.ckpt").split()
    assert ignored == [".dvc/config.local", ".dvc/cache", "artifacts/best.ckpt"]


@pytest.mark.slow
def test_model_that_is_tracked_in_artifacts_is_found_by_dvc_and_by_git(clone: Path, dvc: Run) -> None:
    model = clone / "artifacts" / "best.ckpt"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    dvc("add", "artifacts/best.ckpt")

    assert "artifacts/best.ckpt" in str(json.loads(dvc("ls", "--dvc-only", "--recursive", "--json", ".")))
    assert git(clone, "status", "--porcelain").split() == ["??", "artifacts/"]
    shutil.rmtree(model.parent)
