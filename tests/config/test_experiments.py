"""Whole recipes, and what a wrong value says while one is chosen or none is."""

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError


def test_an_experiment_sets_its_recipe_and_yields_to_the_command_line() -> None:
    config = load_config(["experiment=field_384", "train.epochs=3", "model=resnet18"])

    assert (config.augment.name, config.augment.image_size, config.augment.mix.p) == ("strong", 384, 0.8)
    assert (config.data.sampling, config.optim.ema_decay, config.train.lr) == ("sqrt_inverse", 0.998, 5e-4)
    assert (config.train.epochs, config.model.backbone) == (3, "resnet18")


def test_the_better_recipe_tests_larger_photos_and_chooses_nothing_on_the_validation_photos() -> None:
    config = load_config(["experiment=field_448", "model=mobilenetv2"])

    assert (config.augment.image_size, config.augment.eval_size, config.augment.mix.p) == (384, 448, 0.8)
    assert (config.train.epochs, config.train.keep, config.data.sampling) == (24, "last", "sqrt_inverse")


def test_the_packaged_recipe_teaches_two_students_on_all_photos_but_one_in_ten() -> None:
    config = load_config(["experiment=default_model"])

    assert (config.model.backbone, config.train.epochs, config.augment.eval_size) == ("mobilenetv2_100", 40, 448)
    assert (config.data.split.val_size, config.data.split.test_size) == (0.1, 0)
    assert (config.distill.teachers, config.distill.students, config.distill.teacher_epochs) == (2, 2, 24)
    assert (config.loss.label_smoothing, config.distill.teacher_label_smoothing) == (0, 0.1)
    assert config.data.extra.ratio == 0.3


@pytest.mark.parametrize("experiment", [[], ["experiment=field_384"]])
def test_a_wrong_value_is_one_clear_line_with_and_without_an_experiment(experiment: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^train\.epochs=abc: expected a whole number from 1"):
        load_config([*experiment, "train.epochs=abc"])


def test_an_unknown_experiment_lists_those_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match=r"experiment=foo: no such choice; accepted: default_model, field_384, field_448, field_distilled",
    ):
        load_config(["experiment=foo"])
