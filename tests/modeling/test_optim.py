"""The optimiser's groups and the schedules of the rate."""

import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import OptimConfig
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
