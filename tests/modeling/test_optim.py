"""The optimiser's groups and the schedules of the rate."""

import math

import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import OptimConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.optim import build_optimizer, build_schedulers, warmup_cosine


def optim_config(*overrides: str) -> OptimConfig:
    return load_config(overrides).optim


def rates(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_norms_and_biases_are_not_decayed_and_the_head_has_its_own_rate() -> None:
    network = rebuild_network("test_resnet", 64, 5)
    optimizer = build_optimizer(network, optim_config("optim.head_lr_multiplier=10"), lr=0.01, weight_decay=0.1)

    for group in optimizer.param_groups:
        dimensions = {parameter.ndim > 1 for parameter in group["params"]}
        assert dimensions == {group["weight_decay"] > 0}
    head = {id(parameter) for parameter in network.get_submodule("fc").parameters()}
    for group in optimizer.param_groups:
        inside = {id(parameter) in head for parameter in group["params"]}
        assert inside == {group["lr"] == pytest.approx(0.1)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))


def rate_of_each(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate of each parameter by its name; every parameter is in exactly one group."""
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates) == len([*network.parameters()])
    return {name: rates[id(parameter)] for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("backbone", "first", "last", "head"),
    [
        ("test_resnet", "conv1.0.weight", "layer4.0.conv1.weight", "fc.weight"),
        ("test_efficientnet", "conv_stem.weight", "blocks.4.0.conv_pw.weight", "classifier.weight"),
        ("test_vit", "patch_embed.proj.weight", "blocks.5.mlp.fc2.weight", "head.weight"),
    ],
)
def test_layer_decay_grades_the_rates_from_the_first_layer_to_the_classifier(
    backbone: str, first: str, last: str, head: str
) -> None:
    network = rebuild_network(backbone, 64, 5)
    optimizer = build_optimizer(network, optim_config("optim.layer_decay=0.5"), lr=0.01, weight_decay=0.1)
    rates = rate_of_each(network, optimizer)

    levels = {name: round(math.log2(0.01 / rate)) for name, rate in rates.items()}
    deepest = {"test_resnet": 5, "test_efficientnet": 6, "test_vit": 7}[backbone]
    assert (levels[head], levels[last], levels[first]) == (0, 1, deepest)
    assert set(levels.values()) == set(range(deepest + 1))


def test_the_classifiers_own_rate_comes_on_top_of_layer_decay() -> None:
    network = rebuild_network("test_vit", 64, 5)
    config = optim_config("optim.layer_decay=0.8", "optim.head_lr_multiplier=10")
    rates = rate_of_each(network, build_optimizer(network, config, lr=0.01, weight_decay=0.1))

    assert rates["head.weight"] == rates["head.bias"] == pytest.approx(0.1)
    assert rates["blocks.5.norm1.weight"] == pytest.approx(0.008)
    assert rates["pos_embed"] == rates["cls_token"] == pytest.approx(0.01 * 0.8**7)


def test_without_layer_decay_all_layers_learn_alike() -> None:
    network = rebuild_network("test_vit", 64, 5)
    rates = rate_of_each(network, build_optimizer(network, optim_config(), lr=0.01, weight_decay=0.1))

    assert set(rates.values()) == {0.01}


def test_a_network_whose_layers_timm_does_not_know_is_refused_with_layer_decay() -> None:
    with pytest.raises(ConfigError, match=r"^optim\.layer_decay=0\.5: .* type optim\.layer_decay=null$"):
        build_optimizer(torch.nn.Linear(2, 2), optim_config("optim.layer_decay=0.5"), lr=0.01, weight_decay=0.1)


def test_what_the_network_wants_without_decay_is_not_decayed() -> None:
    network = rebuild_network("test_vit", 64, 5)
    optimizer = build_optimizer(network, optim_config(), lr=0.01, weight_decay=0.1)

    spared = {
        id(parameter) for group in optimizer.param_groups if not group["weight_decay"] for parameter in group["params"]
    }
    names = {name for name, parameter in network.named_parameters() if id(parameter) in spared and parameter.ndim > 1}
    assert names == {"pos_embed", "cls_token"}


def test_frozen_parameters_are_there_to_be_unfrozen() -> None:
    network = rebuild_network("test_resnet", 64, 5).requires_grad_(requires_grad=False)
    optimizer = build_optimizer(network, optim_config("optim.layer_decay=0.9"), lr=0.01, weight_decay=0.1)

    assert len(rate_of_each(network, optimizer)) == len(list(network.parameters()))


def test_on_the_cpu_the_optimiser_is_torchs_default() -> None:
    network = rebuild_network("test_resnet", 64, 5)

    assert build_optimizer(network, optim_config(), lr=0.01, weight_decay=0.1).defaults["fused"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("loss_scaling", [False, True])
def test_on_a_gpu_the_optimiser_is_fused_unless_the_loss_is_scaled(loss_scaling: bool) -> None:
    network = rebuild_network("test_resnet", 64, 5).cuda()
    optimizer = build_optimizer(network, optim_config(), lr=0.01, weight_decay=0.1, loss_scaling=loss_scaling)

    assert bool(optimizer.defaults["fused"]) is not loss_scaling
    network(torch.zeros(2, 3, 64, 64, device="cuda")).sum().backward()
    optimizer.step()


def test_warmup_rises_and_cosine_falls_to_its_floor() -> None:
    factor = warmup_cosine(warmup_steps=10, total_steps=110, floor=0.01)
    factors = [factor(step) for step in range(111)]

    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == pytest.approx(1)
    assert factors[60] == pytest.approx(0.505)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0.01)
    assert factor(1000) == pytest.approx(0.01)


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.01), ("constant", 1.0)])
def test_schedules_by_step(schedule: str, last: float) -> None:
    network = torch.nn.Linear(2, 2)
    config = optim_config(f"optim.schedule={schedule}", "optim.warmup_epochs=0.5")
    optimizer = build_optimizer(network, config, lr=1.0, weight_decay=0)
    [settings] = build_schedulers(optimizer, config, steps_per_epoch=10, epochs=4, monitor="val/f1_macro")

    seen = rates(optimizer, settings["scheduler"], 41)
    assert settings["interval"] == "step"
    assert seen[0] == pytest.approx(1 / 6)
    assert max(seen) == pytest.approx(1)
    assert seen[-1] == pytest.approx(last)


def test_plateau_warms_up_and_then_falls_when_nothing_gets_better() -> None:
    network = torch.nn.Linear(2, 2)
    config = optim_config("optim.schedule=plateau", "optim.plateau.factor=0.5", "optim.plateau.patience_epochs=1")
    optimizer = build_optimizer(network, config, lr=1.0, weight_decay=0)
    warmup, plateau = build_schedulers(optimizer, config, steps_per_epoch=4, epochs=9, monitor="val/f1_macro")

    seen = rates(optimizer, warmup["scheduler"], 6)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    assert (plateau["interval"], plateau["monitor"]) == ("epoch", "val/f1_macro")
    for score in (0.5, 0.6, 0.6, 0.6):
        plateau["scheduler"].step(score)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_plateau_without_warmup_is_the_only_schedule() -> None:
    config = optim_config("optim.schedule=plateau", "optim.warmup_epochs=0")
    optimizer = build_optimizer(torch.nn.Linear(2, 2), config, lr=1.0, weight_decay=0)

    [settings] = build_schedulers(optimizer, config, steps_per_epoch=4, epochs=9, monitor="val/f1_macro")
    assert isinstance(settings["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
