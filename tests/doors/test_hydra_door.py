"""`cassava COMMAND key=value …`: what it prints, where, and with which exit code."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from cassava_leaf_disease import __version__, cli, commands
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.door import PACKAGE
from cassava_leaf_disease.errors import DataError

HEAVY = (
    *("torch", "lightning", "mlflow", "dvc", "ray", "albumentations", "cv2", "sklearn"),
    *("hydra", "pydantic", "numpy"),  # not heavy, but `cassava --help` answers at once without them
)


class Answer(BaseModel):
    """What the tiny workflow returns."""

    epochs: int
    backbone: str
    val_loss: float = float("nan")


def tiny(config: AppConfig) -> Answer:
    """A workflow that answers at once; seed 13 has no luck, seed 14 meets a bug."""
    if config.train.seed == 13:
        raise DataError("no luck with seed 13")
    if config.train.seed == 14:
        raise ZeroDivisionError("a slip")
    if config.train.seed == 15:
        raise KeyboardInterrupt
    return Answer(epochs=config.train.epochs, backbone=config.model.backbone)


@pytest.fixture(autouse=True)
def _tiny_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The `train` of the table leads to the tiny workflow; the current directory is empty."""
    module = ModuleType("tiny")
    module.__dict__["tiny"] = tiny
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.tiny", module)
    command = commands.Command("tiny", "tiny:tiny", ("train",), ("cassava train",))
    monkeypatch.setitem(commands.COMMANDS, "train", command)
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger(PACKAGE).level
    yield
    logging.getLogger(PACKAGE).setLevel(level)
    logging.getLogger(PACKAGE).handlers.clear()


@pytest.fixture
def door(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


Door = Callable[..., tuple[int, str, str]]


def test_result_is_one_json_document_on_stdout_and_nan_is_null(door: Door) -> None:
    code, out, _ = door("train", "train.epochs=3", "model=resnet18")

    assert code == 0
    assert json.loads(out) == {"epochs": 3, "backbone": "resnet18", "val_loss": None}
    assert out.startswith('{\n  "epochs"')


def test_plain_run_leaves_no_folder_and_no_trace_in_the_process(door: Door, tmp_path: Path) -> None:
    argv, environment, handlers = sys.argv[:], dict(os.environ), logging.getLogger().handlers[:]

    assert door("train")[0] == 0

    assert list(tmp_path.iterdir()) == []
    assert sys.argv == argv
    assert dict(os.environ) == environment
    assert logging.getLogger().handlers == handlers


def test_multirun_prints_one_array_in_the_order_of_the_jobs(door: Door, tmp_path: Path) -> None:
    code, out, err = door("train", "-m", "train.epochs=range(1,3)", "model=resnet18,mobilenetv2")

    assert code == 0
    assert [(answer["epochs"], answer["backbone"]) for answer in json.loads(out)] == [
        (1, "resnet18"),
        (1, "mobilenetv2_100"),
        (2, "resnet18"),
        (2, "mobilenetv2_100"),
    ]
    assert "job 4 of 4: train.epochs=2 model=mobilenetv2" in err
    assert list(tmp_path.iterdir()) == []


def test_flags_and_overrides_may_be_mixed_in_any_order(door: Door) -> None:
    assert len(json.loads(door("train", "train.seed=1,2", "-m", "train.epochs=1")[1])) == 2


def test_hydra_keeps_a_sweep_folder_where_it_is_asked_to(door: Door, tmp_path: Path) -> None:
    assert door("train", "-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/my sweep")[0] == 0

    assert (tmp_path / "my sweep" / "multirun.yaml").is_file()


def test_sweep_of_one_job_is_still_an_array(door: Door) -> None:
    assert len(json.loads(door("train", "--multirun", "train.seed=1")[1])) == 1


def test_failed_job_is_null_and_the_others_go_on(door: Door) -> None:
    code, out, err = door("train", "-m", "train.seed=13,1,14")

    assert code == 2
    assert [answer is None for answer in json.loads(out)] == [True, False, True]
    assert "error: no luck with seed 13\n" in err


def test_interrupted_sweep_stops_at_once(door: Door) -> None:
    code, out, err = door("train", "-m", "train.seed=1,15,2")

    assert code == 130
    assert out == ""
    assert err.endswith("interrupted\n")
    assert "job 3" not in err


def test_all_jobs_of_a_sweep_are_checked_before_the_first_runs(door: Door, tmp_path: Path) -> None:
    code, out, err = door("train", "-m", "train.seed=1,2", "train.epochs=1,x")

    assert (code, out) == (2, "")
    assert err == "error: train.epochs=x: expected a whole number from 1 to 10000, for example train.epochs=30\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.epoch=3"], "train.epoch: no such key; did you mean train.epochs?"),
        (["train.lr=${foo}"], "train.lr: Interpolation key 'foo' not found"),
        (["train.seed=1,2"], "train.seed=1,2: several values; add -m to run them one after another"),
        (["-m", "train.lr=interval(0,1)"], "BasicSweeper does not support sweep type : INTERVAL_SWEEP"),
        (
            ["--cfg", "job", "-m"],
            "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified",
        ),
        (
            ["--config-name", "foo"],
            "Cannot find primary config 'foo'. Check that it's in your config search path.",
        ),
        (["--config-dir", "/nowhere"], "Additional config directory '/nowhere' not found"),
        (
            ["--epochs", "3"],
            "unrecognized arguments: --epochs; this door takes key=value, `cassava-fire` takes named flags",
        ),
        (
            ["--experimental-rerun", "job.pickle"],
            "--experimental-rerun is not supported: it would load a pickle",
        ),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(door: Door, words: list[str], line: str) -> None:
    assert door("train", *words) == (2, "", f"error: {line}\n")


def test_each_wrong_key_of_a_command_line_has_its_line(door: Door) -> None:
    code, _, err = door("train", "train.epochs=abc", "data.split.strategy=kfolds", "train.num_workers=-1")

    assert code == 2
    assert err.splitlines() == [
        "error: data.split.strategy=kfolds: expected holdout or kfold; did you mean kfold?",
        "error: train.epochs=abc: expected a whole number from 1 to 10000, for example train.epochs=30",
        "error: train.num_workers=-1: expected auto or a whole number from 0 to 256",
    ]


def test_error_of_a_workflow_is_one_line_with_its_own_exit_code(door: Door) -> None:
    assert door("train", "train.seed=13") == (2, "", "error: no luck with seed 13\n")


def test_bug_shows_its_traceback_and_asks_for_a_report(door: Door) -> None:
    code, out, err = door("train", "train.seed=14")

    assert (code, out) == (1, "")
    assert "ZeroDivisionError: a slip\nthis is a bug in cassava: please report it with the lines above\n" in err


def test_interrupt_ends_with_130(door: Door) -> None:
    assert door("train", "train.seed=15") == (130, "", "interrupted\n")


def test_full_error_of_the_environment_is_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    assert door("train", "train.epochs=x")[0] == 2

    assert os.environ["HYDRA_FULL_ERROR"] == "0"


def test_cfg_prints_the_composed_configuration_and_runs_nothing(door: Door) -> None:
    code, out, err = door("train", "--cfg", "job", "train.seed=14", "--package", "train")

    assert (code, err) == (0, "")
    assert "seed: 14" in out


def test_info_and_hydra_help_leave_no_log_handler_behind(door: Door) -> None:
    handlers = logging.getLogger().handlers[:]

    assert "pkg://cassava_leaf_disease.config" in door("train", "--info", "searchpath")[1]
    assert "hydra/launcher" in door("train", "--hydra-help")[1]

    assert logging.getLogger().handlers == handlers


def test_exit_of_hydra_itself_is_passed_on() -> None:
    with pytest.raises(SystemExit, match="3"):
        cli._call_hydra(lambda: sys.exit(3))


def test_config_dir_adds_choices_to_a_group(door: Door, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    packaged = Path(commands.__file__).parent / "config" / "model" / "resnet18.yaml"
    text = packaged.read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(text.replace("backbone: resnet18", "backbone: mine"), encoding="utf-8")

    code, out, _ = door("train", "--config-dir", str(tmp_path / "conf"), "model=mine")

    assert code == 0
    assert json.loads(out)["backbone"] == "mine"


def test_broken_yaml_of_the_user_is_one_line(door: Door, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("name: [mine\n", encoding="utf-8")

    code, out, err = door("train", "--config-dir", str(tmp_path), "model=mine")

    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "mine.yaml" in err
    assert err.count("\n") == 1


def test_sweep_over_nothing_is_a_mistake(door: Door) -> None:
    assert door("train", "-m", "train.epochs=range(1,1)") == (
        2,
        "",
        "error: nothing to run: a range or list after -m is empty\n",
    )


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_overview_lists_every_command(door: Door, words: list[str]) -> None:
    code, out, err = door(*words)

    assert (code, err) == (0, "")
    for name in commands.COMMANDS:
        assert name in out


def test_version_is_the_packages_own(door: Door) -> None:
    assert door("--version") == (0, f"cassava {__version__}\n", "")
    assert door("train", "--version") == (0, f"cassava {__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command_shows_keys_groups_and_examples(door: Door, flag: str) -> None:
    code, out, err = door("train", "model=resnet18", flag)

    assert (code, err) == (0, "")
    assert "  train.epochs=30 " in out
    assert "  train.early_stopping.patience_epochs=10 " in out
    assert "auto | cpu | gpu | mps" in out
    assert "  augment=basic|strong\n" in out
    assert "  cassava train\n" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "trian: no such command; did you mean train? commands: train, "),
        (["xyz"], "xyz: no such command; commands: train, "),
        (
            ["train.epochs=3"],
            "train.epochs=3: the command comes first: cassava COMMAND key=value; commands: train, ",
        ),
        (["-m", "train"], "-m: the command comes first: cassava COMMAND key=value; commands: train, "),
        (["bench"], "bench: no such command; did you mean benchmark? commands: train, "),
    ],
)
def test_wrong_command_is_one_line_and_exit_code_2(door: Door, words: list[str], line: str) -> None:
    code, out, err = door(*words)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_text_file_is_no_photo(door: Door, tmp_path: Path) -> None:
    (tmp_path / "my photo (1).jpg").write_text("not a photo", encoding="utf-8")

    code, out, err = door("infer", "infer.image_path=my photo (1).jpg")

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'my photo (1).jpg'}: ")
    assert err.count("\n") == 1


def test_temporary_folder_of_a_sweep_is_gone(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert door("train", "-m", "train.seed=1,2")[0] == 0

    assert list(tmp_path.iterdir()) == []


def test_help_answers_in_a_fresh_process() -> None:
    for module in ("cassava_leaf_disease", "cassava_leaf_disease.cli"):
        answer = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False, timeout=60
        )
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "usage: cassava COMMAND" in answer.stdout


def test_importing_the_doors_loads_nothing_heavy() -> None:
    code = (
        "import sys, cassava_leaf_disease.cli, cassava_leaf_disease.fire_cli, cassava_leaf_disease.__main__\n"
        f"print(*{{name.partition('.')[0] for name in sys.modules}} & set({HEAVY!r}))"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (answer.returncode, answer.stdout.strip()) == (0, "")
