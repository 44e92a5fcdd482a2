"""`--params FILE`: the overrides that a YAML file stands for, and what is said about mistakes in it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.params import read_params
from cassava_leaf_disease.errors import ConfigError

Write = Callable[[str], Path]
Door = Callable[..., tuple[int, str, str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "my params.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def door(capfd: pytest.CaptureFixture[str]) -> Door:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_values_reach_the_configuration_as_they_stand(write: Write, tmp_path: Path) -> None:
    path = write(
        """
train: {epochs: 3, lr: 1e-4, max_time: 00:01:30:00, precision: 32}
augment: {crop: {scale: [0.5, 1.0]}}
logger: {enabled: true, run_name: "a, b's [1] = 007", tracking_uri: null}
paths: {data_dir: "meine Fotos/манго", artifacts_dir: "${paths.outputs_dir}/kept"}
infer: {image_path: ["a.jpg", "b, c (1).jpg"]}
"""
    )

    config = load_config(read_params(path))

    assert (config.train.epochs, config.train.lr, config.train.max_time) == (3, 1e-4, "00:01:30:00")
    assert config.train.precision == "32"
    assert config.augment.crop.scale == (0.5, 1.0)
    assert (config.logger.enabled, config.logger.run_name) == (True, "a, b's [1] = 007")
    assert config.logger.tracking_uri is None
    assert config.paths.data_dir == tmp_path / "meine Fotos" / "манго"
    assert config.paths.artifacts_dir == tmp_path / "outputs" / "kept"
    assert config.infer.image_path == (tmp_path / "a.jpg", tmp_path / "b, c (1).jpg")


def test_groups_are_chosen_and_values_win_over_them(write: Write) -> None:
    path = write(
        "augment: {image_size: 96}\ngroups: {augment: strong, model: resnet18, experiment: field_384, loss: null}\n"
    )

    config = load_config(read_params(path))

    assert (config.augment.name, config.augment.image_size) == ("strong", 96)
    assert config.model.backbone == "resnet18"
    assert config.optim.ema_decay == 0.998  # the experiment's


def test_empty_sections_and_an_empty_file_say_nothing(write: Write) -> None:
    assert read_params(write("train: {}\naugment:\n  crop: {}\ngroups:\n")) == []
    assert read_params(write("")) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "train: {epoch: 3}\nx: {y: 1}\ngroups: {modl: resnet18}\n",
            [
                "train.epoch: no such key; did you mean train.epochs?",
                "x.y: no such key; `cassava train --cfg job` prints every key",
                "groups.modl: no such group; groups: augment, bot, data, experiment, logger, loss, model, optim, serve",
            ],
        ),
        (
            "model: resnet18\ntrain: 3\n",
            [
                "model: expected the keys of this group below it; a choice stands under groups, as groups.model",
                "train: expected the keys of this group below it",
            ],
        ),
        ("groups: strong\n", ["groups: expected choices such as model: resnet18 below it"]),
        ("train: {epochs: !!binary aGk=}\n", ["train.epochs: b'hi' is read as bytes; put it in quotes"]),
    ],
)
def test_wrong_key_is_told_with_its_file(write: Write, text: str, lines: list[str]) -> None:
    path = write(text)

    with pytest.raises(ConfigError) as error:
        read_params(path)

    assert str(error.value).splitlines() == [f"{path}: {line}" for line in lines]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- train\n", "expected keys and values such as train: {epochs: 3}"),
        ("5\n", "cannot be read (Invalid loaded object type: int)"),
        ("train: {epochs: \n", "no YAML: "),
        ("train: 1\ntrain: 2\n", "no YAML: "),
    ],
)
def test_file_that_holds_no_keys_is_told(write: Write, text: str, said: str) -> None:
    path = write(text)

    with pytest.raises(ConfigError) as error:
        read_params(path)
    assert str(error.value).startswith(f"--params {path}: {said}")
    assert "\n" not in str(error.value)


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--params .*gone\.yaml: cannot be read \(No such file or directory\)"):
        read_params(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"train: {epochs: \xff}\n")
    with pytest.raises(ConfigError, match=r"--params .*latin\.yaml: no YAML: "):
        read_params(tmp_path / "latin.yaml")


@pytest.mark.parametrize("words", [("--params", "p.yaml"), ("--params=p.yaml",)])
def test_door_takes_a_file_and_what_is_typed_wins(door: Door, tmp_path: Path, words: tuple[str, ...]) -> None:
    text = "groups: {model: resnet18, augment: strong}\ntrain: {epochs: 3, seed: 7}\n"
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")

    code, out, err = door("train", "train.epochs=5", *words, "model=mobilenetv2", "--cfg", "job")

    assert (code, err) == (0, "")
    composed = yaml.safe_load(out)
    assert (composed["train"]["epochs"], composed["train"]["seed"]) == (5, 7)
    assert (composed["model"]["name"], composed["augment"]["name"]) == ("mobilenetv2", "strong")


def test_of_two_files_the_later_one_wins(door: Door, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {epochs: 3, seed: 7}\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("train: {epochs: 4}\n", encoding="utf-8")

    composed = yaml.safe_load(door("train", "--params", "a.yaml", "--params", "b.yaml", "--cfg", "job")[1])

    assert (composed["train"]["epochs"], composed["train"]["seed"]) == (4, 7)


def test_sweep_varies_what_is_typed_over_what_the_file_says(door: Door, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("train: {epochs: 3, seed: 7}\noptim: {betas: [0.8, 0.9]}\n", encoding="utf-8")

    code, out, err = door("infer", "--params", "p.yaml", "-m", "train.seed=1,2")

    assert (code, json.loads(out)) == (2, [None, None])  # no photo was named
    assert "job 1 of 2: train.seed=1\n" in err
    assert "job 2 of 2: train.seed=2\n" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--params",), "argument --params: expected one argument; "),
        (("--params", "gone.yaml"), "--params {folder}gone.yaml: cannot be read (No such file or directory)"),
        (("--paramz", "a.yaml"), "unrecognized arguments: --paramz"),
        (("--params", "bad.yaml"), "train.epochs=x: expected a whole number from 1 to 10000"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(door: Door, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "bad.yaml").write_text("train: {epochs: x}\n", encoding="utf-8")

    code, out, err = door("train", *words)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}".replace("{folder}", f"{tmp_path}/"))
    assert err.count("\n") == 1


def test_help_tells_about_the_file(door: Door) -> None:
    assert "cassava COMMAND --params FILE" in door("--help")[1]
    assert "[--params FILE]" in door("train", "--help")[1]
