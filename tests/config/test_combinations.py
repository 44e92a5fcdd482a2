"""Settings that make no sense together are refused at the door; those that do are not."""

import pytest

from cassava_leaf_disease.config.explain import group_choices
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "loss=class_balanced data.sampling=sqrt_inverse",
            "loss=class_balanced data.sampling=sqrt_inverse: the imbalance would be corrected twice; "
            "type data.sampling=none or loss=cross_entropy",
        ),
        (
            "loss=focal loss.class_weights=inverse data.sampling=inverse",
            "loss.class_weights=inverse data.sampling=inverse: each makes up for the whole imbalance, both turn it "
            "round; type data.sampling=none or loss.class_weights=none, or sqrt_inverse for both",
        ),
        (
            "model.pretrained=true model.weights_path=/a.ckpt",
            "model.pretrained=true model.weights_path=/a.ckpt: the network cannot start from both; "
            "type model.pretrained=false or model.weights_path=null",
        ),
        (
            "optim.layer_decay=0.75 model.freeze_backbone=true",
            "optim.layer_decay=0.75 model.freeze_backbone=true: only the classifier learns, there are no rates "
            "to grade; type optim.layer_decay=null or model.unfreeze_epoch=5",
        ),
        (
            "augment=strong augment.mix.cutmix_alpha=0",
            "augment.mix.p=0.5: MixUp and CutMix are both switched off; type augment.mix.p=0, "
            "augment.mix.mixup_alpha=0.4 or augment.mix.cutmix_alpha=1",
        ),
        (
            "optim.warmup_epochs=5 train.epochs=4",
            "optim.warmup_epochs=5 train.epochs=4: training would end before the warm-up; "
            "type optim.warmup_epochs=0.4 or more epochs",
        ),
        (
            "model.freeze_backbone=true model.unfreeze_epoch=4 train.epochs=4",
            "model.unfreeze_epoch=4 train.epochs=4: training would end before the backbone learns; "
            "type model.unfreeze_epoch=null, an earlier epoch, or more epochs",
        ),
        (
            "train.early_stopping.enabled=true train.epochs=10",
            "train.early_stopping.patience_epochs=10 train.epochs=10: it could never stop early; "
            "type train.early_stopping.enabled=false, less patience, or more epochs",
        ),
    ],
)
def test_a_contradiction_is_one_line_that_says_why_and_what_to_type(overrides: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(overrides.split())
    assert str(error.value) == line


def test_all_contradictions_are_told_together() -> None:
    with pytest.raises(ConfigError) as error:
        load_config(["loss=class_balanced", "data.sampling=inverse", "optim.warmup_epochs=99"])
    assert [line.split("=")[0] for line in str(error.value).splitlines()] == ["loss", "optim.warmup_epochs"]


@pytest.mark.parametrize(
    "overrides",
    [
        "data.sampling=inverse loss.class_weights=sqrt_inverse",
        "data.sampling=sqrt_inverse loss.class_weights=sqrt_inverse",
        "data.sampling=inverse loss=bi_tempered",
        "data.sampling=inverse loss=focal",
        "optim.layer_decay=0.75 model.freeze_backbone=true model.unfreeze_epoch=2",
        "augment.mix.mixup_alpha=0 augment.mix.cutmix_alpha=0",
        "train.epochs=1",
        "train.epochs=2 train.early_stopping.patience_epochs=10",
        "train.epochs=3 train.early_stopping.enabled=true train.early_stopping.patience_epochs=2",
    ],
)
def test_what_makes_sense_is_not_refused(overrides: str) -> None:
    load_config(overrides.split())


@pytest.mark.parametrize("experiment", group_choices()["experiment"])
@pytest.mark.parametrize("model", group_choices()["model"])
def test_every_recipe_goes_with_every_network(experiment: str, model: str) -> None:
    load_config([f"experiment={experiment}", f"model={model}"])


class TestKeysOfALoss:
    @pytest.mark.parametrize(
        ("overrides", "line"),
        [
            ("loss=focal loss.t1=0.5", "loss.t1: only loss=bi_tempered has this key"),
            ("loss.gamma=2", "loss.gamma: only loss=focal has this key"),
            (
                "loss=bi_tempered loss.class_weights=inverse",
                "loss.class_weights: only loss=cross_entropy and loss=focal have this key",
            ),
            (
                "loss=focal +loss.beta=0.5",
                "loss.beta=0.5: no key of loss=focal; leave it out, or type loss=class_balanced",
            ),
            (
                "loss=bi_tempered +loss.class_weights=inverse",
                "loss.class_weights=inverse: no key of loss=bi_tempered; "
                "leave it out, or type loss=cross_entropy or loss=focal",
            ),
            ("loss.name=focal", "loss.gamma: loss=focal needs this key; type loss=focal, which brings a value"),
            ("loss.gama=2", "loss.gama: no such key; did you mean loss.gamma?"),
        ],
    )
    def test_a_key_of_another_loss_is_told_with_the_loss_that_has_it(self, overrides: str, line: str) -> None:
        with pytest.raises(ConfigError) as error:
            load_config(overrides.split())
        assert str(error.value) == line

    @pytest.mark.parametrize(
        ("overrides", "line"),
        [
            ("loss=bi_tempered loss.t1=1.2", "loss.t1=1.2: expected a number from 0 to 1 (1: the plain logarithm)"),
            ("loss=bi_tempered loss.t1=-1", "loss.t1=-1: expected a number from 0 to 1 (1: the plain logarithm)"),
            ("loss=bi_tempered loss.t2=0.9", "loss.t2=0.9: expected a number from 1 to 10 (1: the plain softmax)"),
            ("loss=focal loss.gamma=x", "loss.gamma=x: expected a number from 0 to 10"),
            ("loss=class_balanced loss.beta=1", "loss.beta=1: expected a number from 0 to below 1"),
            ("loss.class_weights=sqrt", "loss.class_weights=sqrt: expected none, sqrt_inverse or inverse"),
            (
                "loss=focall",
                "loss=focall: no such choice; accepted: bi_tempered, class_balanced, cross_entropy, focal; "
                "did you mean loss=focal?",
            ),
        ],
    )
    def test_a_wrong_value_is_told_with_what_is_accepted(self, overrides: str, line: str) -> None:
        with pytest.raises(ConfigError) as error:
            load_config(overrides.split())
        assert str(error.value) == line

    @pytest.mark.parametrize("choice", group_choices()["loss"])
    def test_a_configuration_holds_the_keys_of_its_own_loss_only(self, choice: str) -> None:
        loss = load_config([f"loss={choice}"]).loss

        own = {
            "cross_entropy": {"class_weights"},
            "bi_tempered": {"t1", "t2"},
            "focal": {"gamma", "class_weights"},
            "class_balanced": {"beta"},
        }
        assert set(loss.model_dump()) == {"name", "label_smoothing"} | own[choice]


class TestImageSizeOfAPreset:
    @pytest.mark.parametrize(
        ("overrides", "size_px"),
        [
            ("", 224),
            ("model=efficientnet_b3", 300),
            ("model=efficientnet_b4", 380),
            ("model=vit_base_384", 384),
            ("augment=strong model=efficientnet_b4", 380),
            ("model=efficientnet_b4 augment=strong", 380),
            ("model=efficientnet_b4 augment.image_size=224", 224),
            ("augment.image_size=512 model=vit_base_384", 512),
            ("model=efficientnet_b4 experiment=field_384", 384),
        ],
    )
    def test_a_preset_brings_its_size_and_yields_to_recipes_and_to_what_is_typed(
        self, overrides: str, size_px: int
    ) -> None:
        assert load_config(overrides.split()).augment.image_size == size_px
