"""`cassava-fire COMMAND --flag value …`: the overrides it emits, and what it says about mistakes."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease import __version__, commands, fire_cli
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.fire_cli import to_hydra_words
from cassava_leaf_disease.fire_flags import FLAGS

Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def door(capfd: pytest.CaptureFixture[str]) -> Door:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = fire_cli.main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def words(line: str) -> list[str]:
    return to_hydra_words(line.split())


def test_every_flag_of_train_becomes_its_override() -> None:
    numbers = "--epochs 1 --batch_size 8 --lr 1e-3 --precision bf16-mixed --num_workers 0"

    assert words(f"train {numbers} --synthetic --no-mlflow") == [
        "train",
        "train.epochs=1",
        "train.batch_size=8",
        "train.lr=1e-3",
        "train.precision=bf16-mixed",
        "train.num_workers=0",
        "data.synthetic.enabled=true",
        "logger.enabled=false",
    ]


def test_every_flag_of_the_other_commands_becomes_its_override() -> None:
    assert words("infer --image a.jpg --ckpt b.ckpt --ckpt_s3 s3://c/d --device cpu --top_k 3") == [
        "infer",
        "infer.image_path=a.jpg",
        "infer.checkpoint_path=b.ckpt",
        "infer.checkpoint_s3_uri=s3://c/d",
        "infer.device=cpu",
        "infer.top_k=3",
    ]
    assert words("evaluate --ckpt b.ckpt --ckpt_s3 s3://c/d --part val --csv t.csv --images photos") == [
        "evaluate",
        "infer.checkpoint_path=b.ckpt",
        "infer.checkpoint_s3_uri=s3://c/d",
        "evaluate.part=val",
        "evaluate.csv_path=t.csv",
        "evaluate.images_dir=photos",
    ]
    assert words("crossval --epochs 2 crossval.resume=true") == [
        "crossval",
        "train.epochs=2",
        "crossval.resume=true",
    ]
    assert words("demo demo.epochs=1") == ["demo", "demo.epochs=1"]
    assert words("prepare --synthetic --data_dir data/drawn") == [
        "prepare",
        "paths.data_dir=data/drawn",
        "data.synthetic.enabled=true",
    ]
    assert words("split --output split.csv --data_dir photos") == [
        "split",
        "paths.data_dir=photos",
        "data.split.manifest=split.csv",
    ]
    assert words("score --input photos --output a.csv --ckpt b.onnx --resume --workers 4") == [
        "score",
        "score.input=photos",
        "score.output=a.csv",
        "infer.checkpoint_path=b.onnx",
        "score.workers=4",
        "score.resume=true",
    ]
    assert words("download_data --force") == ["download_data", "download_data.force=true"]
    assert words("download-model --s3_uri s3://a/b --dst_dir here --overwrite --push") == [
        "download_model",
        "download_model.s3_uri=s3://a/b",
        "download_model.dst_dir=here",
        "download_model.overwrite=true",
        "download_model.push=true",
    ]


def test_every_command_has_its_place_at_this_door() -> None:
    assert {method.replace("_", "-") for method in FLAGS} == {*commands.COMMANDS}


@pytest.mark.parametrize("order", list(itertools.permutations(["--synthetic", "--no-mlflow", "a.b=1", "--epochs=2"])))
def test_booleans_work_in_any_order(order: tuple[str, ...]) -> None:
    assert to_hydra_words(["train", *order]) == [
        "train",
        "train.epochs=2",
        "data.synthetic.enabled=true",
        "logger.enabled=false",
        "a.b=1",
    ]


def test_free_overrides_come_after_the_flags_in_their_order() -> None:
    assert words("train a=1 --epochs 1 train.epochs=2 b=3") == [
        "train",
        "train.epochs=1",
        "a=1",
        "train.epochs=2",
        "b=3",
    ]


@pytest.mark.parametrize(
    ("line", "override"),
    [
        ("train --synthetic=true", "data.synthetic.enabled=true"),
        ("train --synthetic=False", "data.synthetic.enabled=false"),
        ("train --synthetic false", "data.synthetic.enabled=false"),
        ("train --no_synthetic", "data.synthetic.enabled=false"),
        ("train --nosynthetic", "data.synthetic.enabled=false"),
        ("train --no-synthetic=false", "data.synthetic.enabled=true"),
        ("train --synthetic --no-synthetic", "data.synthetic.enabled=false"),
        ("train --num-workers auto", "train.num_workers=auto"),
        ("train --epochs 1 --epochs 2", "train.epochs=2"),
        ("train --epochs -1", "train.epochs=-1"),
        ("infer --image 0001.jpg", "infer.image_path=0001.jpg"),
        ("infer --image 12", "infer.image_path=12"),
        ("infer --image 1e3", "infer.image_path=1e3"),
        ("infer --image None", "infer.image_path=None"),
        ("infer --image [a.jpg,b.jpg]", "infer.image_path=[a.jpg,b.jpg]"),
        ("infer --image=a=b.jpg", "infer.image_path=a=b.jpg"),
        ("infer --image #1.jpg", "infer.image_path=#1.jpg"),
        ("infer --image -", "infer.image_path=-"),
    ],
)
def test_value_reaches_hydra_as_it_was_typed(line: str, override: str) -> None:
    assert words(line)[1:] == [override]


@pytest.mark.parametrize(
    "name", ["my photo (1).jpg", "a,b.jpg", "it's.jpg", 'say "x".jpg', "12", "манго.jpg", "a=b.jpg"]
)
def test_any_file_name_is_the_file_that_is_meant(name: str, tmp_path: Path) -> None:
    _, *overrides = to_hydra_words(["infer", "--image", name])

    assert load_config(overrides).infer.image_path == tmp_path / name


def test_raw_passes_everything_through() -> None:
    assert words("raw train -m --cfg job a=1 -- - --epochs 3") == [
        "train",
        "-m",
        "--cfg",
        "job",
        "a=1",
        "--",
        "-",
        "--epochs",
        "3",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --epoch 3", "--epoch: no such flag of train; did you mean --epochs?"),
        ("train --no-synthetics", "--no-synthetics: no such flag of train; did you mean --no-synthetic?"),
        (
            "train -e 3",
            "-e: no such flag of train; flags: --epochs, --batch_size, --lr, --precision, --num_workers, "
            "--synthetic/--no-synthetic, --mlflow/--no-mlflow; for Hydra's: cassava-fire raw train -e",
        ),
        (
            "demo --cfg job",
            "--cfg: no such flag of demo; flags: none; for Hydra's: cassava-fire raw demo --cfg",
        ),
        ("train --lr", "--lr: its value is missing; type --lr VALUE"),
        ("train --lr --epochs 3", "--lr: its value is missing; type --lr VALUE"),
        ("train --lr=", "--lr: its value is empty; type --lr VALUE"),
        (
            "train --synthetic=maybe",
            "--synthetic=maybe: expected --synthetic alone, or --synthetic=true or --synthetic=false",
        ),
    ],
)
def test_wrong_flag_is_one_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        words(line)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train --epochs abc",
            "train.epochs=abc: expected a whole number from 1 to 10000, for example train.epochs=30",
        ),
        ("infer photo.jpg", "photo.jpg: expected key=value, for example train.epochs=30"),
        ("download-model --push x=1", "x: no such key; `cassava train --cfg job` prints every key"),
        ("benchmark --port 80", "--port: no such flag of benchmark; flags: --ckpt, "),
        ("tain", "tain: no such command; did you mean train? commands: "),
        (
            "--epochs 3",
            "--epochs: the command comes first: cassava-fire COMMAND --flag value; commands: train, ",
        ),
        ("raw bench", "bench: no such command; did you mean benchmark? commands: "),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(door: Door, line: str, message: str) -> None:
    code, out, err = door(*line.split())

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_both_doors_compose_the_same_configuration(door: Door) -> None:
    _, fire, _ = door(*["raw", "train", "--cfg", "job", "train.epochs=7"])

    assert "epochs: 7" in fire


@pytest.mark.parametrize("line", ["", "-h", "--help"])
def test_overview_lists_every_command(door: Door, line: str) -> None:
    code, out, err = door(*line.split())

    assert (code, err) == (0, "")
    for name in ("train", "infer", "evaluate", "crossval", "demo", "download_data", "download_model", "raw"):
        assert f"\n  {name} " in out
    assert all(command.summary in out for command in commands.COMMANDS.values())


def test_version_is_the_packages_own(door: Door) -> None:
    assert door("--version") == (0, f"cassava-fire {__version__}\n", "")


@pytest.mark.parametrize("line", ["train --help", "train --epochs 3 -h", "train synthetic=1 --help"])
def test_help_of_a_command_lists_its_flags(door: Door, line: str) -> None:
    code, out, err = door(*line.split())

    assert (code, err) == (0, "")
    assert out.startswith(f"cassava-fire train: {commands.COMMANDS['train'].summary}\n")
    for flag in (
        "--epochs",
        "--batch_size",
        "--lr",
        "--precision",
        "--num_workers",
        "--synthetic/--no-synthetic",
    ):
        assert flag in out


@pytest.mark.parametrize("method", list(FLAGS))
def test_help_keeps_a_gap_between_what_a_flag_does_and_its_key(method: str, door: Door) -> None:
    out = door(method, "--help")[1]

    assert all(f"  {flag.key}\n" in out for flag in FLAGS[method])


def test_help_of_a_command_without_flags_says_so(door: Door) -> None:
    assert "they stand for:\n  none\n" in door("demo", "--help")[1]


@pytest.mark.parametrize("line", ["raw", "raw --help"])
def test_help_of_raw(door: Door, line: str) -> None:
    assert "usage: cassava-fire raw COMMAND" in door(*line.split())[1]


def test_help_behind_raw_is_the_other_doors(door: Door) -> None:
    assert "usage: cassava train [key=value ...]" in door("raw", "train", "--help")[1]


def test_module_answers_in_a_fresh_process() -> None:
    line = [sys.executable, "-m", "cassava_leaf_disease.fire_cli", "train", "--epoch", "3"]

    answer = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error: --epoch: no such flag of train; did you mean --epochs?\n"
