"""Overrides in, a frozen configuration or one clear line out."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from cassava_leaf_disease.config import explain
from cassava_leaf_disease.config.load import (
    accepted_keys,
    config_as_yaml,
    load_config,
    parse_config,
    quote_free_text,
)
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError


def test_packaged_configuration_is_valid_and_paths_are_absolute(tmp_path: Path) -> None:
    config = load_config()

    assert config.paths.outputs_dir == tmp_path / "outputs"
    assert config.paths.cache_dir == tmp_path / "outputs" / "cache"
    assert config.train.epochs == 30


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config().train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "override", [f"{group}={choice}" for group, names in explain.group_choices().items() for choice in names]
)
def test_every_choice_of_every_group_is_valid(override: str) -> None:
    load_config([override])


def test_yaml_of_a_configuration_composes_to_itself() -> None:
    config = load_config(["train.epochs=3", "infer.image_path=[a.jpg,b.jpg]"])

    assert AppConfig.model_validate(yaml.safe_load(config_as_yaml(config))) == config


def test_any_timm_network_goes_through_the_backbone() -> None:
    assert load_config(["model.backbone=convnext_tiny"]).model.backbone == "convnext_tiny"


@pytest.mark.parametrize(
    ("override", "resume"),
    [
        ("train.resume=true", True),
        ("train.resume=false", False),
        ("train.resume=runs/v_1", "runs/v_1"),
        ("train.resume=2024", "2024"),
    ],
)
def test_resume_is_a_switch_or_a_run_folder(override: str, resume: bool | str, tmp_path: Path) -> None:
    expected = tmp_path / resume if isinstance(resume, str) else resume

    assert load_config([override]).train.resume == expected


def test_photo_or_list_of_photos(tmp_path: Path) -> None:
    assert load_config(["infer.image_path=a.jpg"]).infer.image_path == tmp_path / "a.jpg"
    assert load_config(["infer.image_path=[a.jpg,b.jpg]"]).infer.image_path == (
        tmp_path / "a.jpg",
        tmp_path / "b.jpg",
    )
    assert load_config(['infer.image_path=["a (1).jpg",b.jpg]']).infer.image_path == (
        tmp_path / "a (1).jpg",
        tmp_path / "b.jpg",
    )


@pytest.mark.parametrize(
    "name",
    [
        "my photo (1).jpg",
        "a=b.jpg",
        "манго.jpg",
        "0001.jpg",
        "12",
        "1e3",
        "it's.jpg",
        "a#1.jpg",
        "a[1].jpg",
        "50%.jpg",
    ],
)
def test_awkward_file_name_needs_no_quotes(name: str, tmp_path: Path) -> None:
    assert load_config([f"infer.image_path={name}"]).infer.image_path == tmp_path / name
    assert load_config([f"paths.data_dir={name}"]).paths.data_dir == tmp_path / name


def test_free_text_that_looks_like_a_number_stays_text() -> None:
    assert load_config(["logger.run_name=007"]).logger.run_name == "007"
    assert load_config(["logger.run_name=12"]).logger.run_name == "12"


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=3",
        "train.lr=a(b",
        "infer.image_path=null",
        "infer.image_path=a.jpg",
        "infer.image_path=a (1).jpg,b.jpg",
        "infer.image_path=[a (1).jpg",
        "infer.image_path='a (1).jpg'",
        "infer.image_path=choice(a (1).jpg",
        "infer.image_path=${paths.data_dir}/(",
        "~infer.image_path",
    ],
)
def test_what_is_grammar_or_not_text_is_left_alone(override: str) -> None:
    assert quote_free_text([override]) == [override]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "train.epochs=abc",
            "train.epochs=abc: expected a whole number from 1 to 10000, for example train.epochs=30",
        ),
        (
            "train.epochs=",
            "train.epochs=: expected a whole number from 1 to 10000, for example train.epochs=30",
        ),
        (
            "train.epochs=3.5",
            "train.epochs=3.5: expected a whole number from 1 to 10000, for example train.epochs=30",
        ),
        (
            "train.epochs=[1",
            "train.epochs=[1: expected a whole number from 1 to 10000, for example train.epochs=30",
        ),
        ("train.lr=nan", "train.lr=nan: expected a number above 0 and ≤ 10, for example train.lr=0.001"),
        (
            "train.seed=-1",
            "train.seed=-1: expected a whole number from 0 to 4294967295, for example train.seed=42",
        ),
        (
            "data.cache.train_zoom=9",
            "data.cache.train_zoom=9: expected a number from 1 to 4, for example data.cache.train_zoom=1.25",
        ),
        (
            "data.split.strategy=kfolds",
            "data.split.strategy=kfolds: expected holdout or kfold; did you mean kfold?",
        ),
        ("train.precision=16", "train.precision=16: expected auto, 32, 16-mixed or bf16-mixed"),
        ("train.num_workers=-1", "train.num_workers=-1: expected auto or a whole number from 0 to 256"),
        ("train.max_time=5h", "train.max_time=5h: expected DD:HH:MM:SS, such as 00:01:30:00, or null"),
        ("train.max_time=true", "train.max_time=true: expected DD:HH:MM:SS, such as 00:01:30:00, or null"),
        ("logger.enabled=maybe", "logger.enabled=maybe: expected true or false"),
        ("logger.run_name=[a]", "logger.run_name=[a]: expected text or null"),
        ("model.unfreeze_epoch=0", "model.unfreeze_epoch=0: expected a whole number ≥ 1 or null"),
        (
            "optim.betas=[0.9]",
            "optim.betas=[0.9]: expected a list of 2, each a number from 0 to 1, for example optim.betas=[0.9,0.999]",
        ),
        (
            "infer.image_path=",
            "infer.image_path=: expected a path, a list of paths such as [a.jpg,b.jpg], or null",
        ),
        ("infer.checkpoint_s3_uri=x", "infer.checkpoint_s3_uri=x: expected s3://bucket/key or null"),
        (
            "paths.data_dir=null",
            "paths.data_dir=null: expected a path, for example paths.data_dir=data/cassava-leaf-disease-classification",
        ),
        (
            "model.dropout=true,",
            "model.dropout=true,: expected a number ≥ 0 and below 1, for example model.dropout=0.2",
        ),
    ],
)
def test_wrong_value_is_told_with_what_is_accepted(overrides: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([overrides])
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["data.split.fold_index=7"],
            "data.split.fold_index=7: expected a whole number from 0 to 4, since data.split.folds=5",
        ),
        (
            ["data.split.val_size=0.6", "data.split.test_size=0.6"],
            "data.split.val_size=0.6 data.split.test_size=0.6: "
            "nothing is left to train on; expected a sum below 1, for example 0.1 and 0.15",
        ),
        (
            ["model.unfreeze_epoch=2"],
            "model.unfreeze_epoch=2: nothing is frozen; type model.freeze_backbone=true or model.unfreeze_epoch=null",
        ),
        (
            ["augment.crop.scale=[0.5,0.1]"],
            "augment.crop.scale=[0.5,0.1]: expected two rising numbers above 0",
        ),
    ],
)
def test_rule_over_several_keys_names_them_in_full(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(overrides)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.epoch=2", "train.epoch: no such key; did you mean train.epochs?"),
        ("+train.epoch=2", "train.epoch: no such key; did you mean train.epochs?"),
        ("++train.epoch=2", "train.epoch: no such key; did you mean train.epochs?"),
        ("trian.epochs=2", "trian.epochs: no such key; did you mean train.epochs?"),
        ("epochs=2", "epochs: no such key; did you mean train.epochs or demo.epochs?"),
        ("modl=resnet18", "modl: no such key; did you mean model?"),
        ("train.epochs.x=3", "train.epochs.x: no such key; did you mean train.epochs?"),
        ("+xyz=1", "xyz: no such key; `cassava train --cfg job` prints every key"),
        ("hydra.foo=1", "hydra.foo: no such key; `cassava train --cfg job` prints every key"),
        ("~train.xyz", "train.xyz: no such key; `cassava train --cfg job` prints every key"),
        ("~train.epochs", "train.epochs: this key is missing; expected a whole number from 1 to 10000"),
        ("+train=5", "+train: the key is there already; type train without +"),
        ("+model=resnet18", "+model: the key is there already; type model without +"),
        ("train=5", "train=5: train is a group of keys; type the keys below it, for example train.epochs=30"),
        (
            "data.split=kfold",
            "data.split=kfold: data.split is a group of keys; did you mean data.split.strategy=kfold?",
        ),
        ("train..epochs=1", "train..epochs=1: expected key=value, for example train.epochs=30"),
        ("photo.jpg", "photo.jpg: expected key=value, for example train.epochs=30"),
        (
            "hydra.mode=FOO",
            "Error merging override hydra.mode=FOO Invalid value 'FOO', expected one of [RUN, MULTIRUN]",
        ),
    ],
)
def test_wrong_key_is_told_with_the_nearest(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([override])
    assert str(error.value) == line


@pytest.mark.parametrize("choice", ["convnext_tiny", "5", "null"])
def test_unknown_preset_says_how_to_name_a_timm_network(choice: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([f"model={choice}"])

    assert str(error.value).startswith(f"model={choice}: no such choice; accepted: efficientnet_b0, ")
    assert str(error.value).endswith(f"; any other timm network: type model.backbone={choice}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "augment=stron",
            "augment=stron: no such choice; accepted: basic, strong; did you mean augment=strong?",
        ),
        ("augment=heavy", "augment=heavy: no such choice; accepted: basic, strong"),
        ("augment=[heavy]", "augment=heavy: no such choice; accepted: basic, strong"),
    ],
)
def test_unknown_choice_lists_the_choices(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([override])
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.epochs=1,2", "train.epochs=1,2: several values; add -m to run them one after another"),
        (
            "train.epochs=choice(1,2)",
            "train.epochs=choice(1,2): several values; add -m to run them one after another",
        ),
        (
            "infer.image_path=a.jpg,b.jpg",
            "infer.image_path=a.jpg,b.jpg: several values; add -m to run them one after "
            "another, or type a list: infer.image_path=[a.jpg,b.jpg]",
        ),
        (
            "infer.image_path=[a (1).jpg]",
            "infer.image_path=[a (1).jpg]: cannot be read; put quotes around each part, "
            'for example \'infer.image_path=["a (1).jpg","b.jpg"]\'',
        ),
        ("infer.image_path='a.jpg", "infer.image_path='a.jpg: cannot be read; its quotes do not match"),
        (
            "infer.image_path=a (1).jpg,b.jpg",
            "infer.image_path=a (1).jpg,b.jpg: cannot be read; put the value in "
            "quotes: 'infer.image_path=\"a (1).jpg,b.jpg\"'",
        ),
    ],
)
def test_what_hydra_cannot_read_is_told_with_what_to_type(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([override])
    assert str(error.value) == line


def test_all_wrong_values_are_told_together_each_once() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(["train.num_workers=x", "train.epochs=0", "infer.image_path=[[]]"])

    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "train.epochs=0",
        "train.num_workers=x",
        "infer.image_path=[[]]",
    ]


def test_every_key_tells_what_it_accepts() -> None:
    composed = OmegaConf.create(load_config().model_dump(mode="json"))
    for key in accepted_keys():
        OmegaConf.update(composed, key, {"no": {"no": 1}}, merge=False)

    with pytest.raises(ConfigError) as error:
        parse_config(composed)

    lines = str(error.value).splitlines()
    assert [line.partition("=")[0] for line in lines] == accepted_keys()
    for line in lines:
        assert re.fullmatch(r"[\w.]+={'no': {'no': 1}}: expected (a class map such as {[^{}]+})?[^{}]+", line)


def test_group_that_is_no_mapping_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^train=\[1,2\]: train is a group of keys; type the keys below it"):
        load_config(["train=[1,2]"])


def test_packaged_files_are_read_once_and_no_configuration_changes_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_config()
    monkeypatch.setattr(OmegaConf, "load", None)

    changed = load_config(["train.epochs=3", "data.split.folds=4"])

    assert (changed.train.epochs, changed.data.split.folds) == (3, 4)
    assert load_config() == before
