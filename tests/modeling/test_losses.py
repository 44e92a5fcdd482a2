"""What every loss promises: ids and probabilities alike, float32, finite gradients, a training that ends."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.explain import group_choices
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.modeling.losses import build_loss, loss_weights
from cassava_leaf_disease.modeling.losses.bi_tempered import tempered_log_softmax

CHOICES = group_choices()["loss"]
LABELS = [0] * 3 + [1] * 9 + [2] * 20 + [3] * 50 + [4] * 18


def loss_of(choice: str, *overrides: str) -> torch.nn.Module:
    """The loss as training builds it, weighted where it takes weights, by the labels above."""
    weighted = ["loss.class_weights=inverse"] if choice in {"cross_entropy", "focal"} else []
    config = load_config([f"loss={choice}", *weighted, *overrides]).loss
    weights = loss_weights(config, LABELS)
    return build_loss(config, None if weights is None else torch.from_numpy(weights))


def slope_of(loss: torch.nn.Module, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The gradient of the loss by the logits."""
    leaf = logits.clone().requires_grad_()
    loss(leaf, targets).backward()
    assert leaf.grad is not None
    return leaf.grad


def random_logits(count: int = 7) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(3)) * 4


@pytest.mark.parametrize("choice", CHOICES)
def test_class_ids_and_the_same_as_probabilities_give_the_same_loss(choice: str) -> None:
    loss, labels = loss_of(choice), torch.tensor([0, 1, 2, 3, 4, 3, 0])

    torch.testing.assert_close(
        loss(random_logits(), labels), loss(random_logits(), torch.nn.functional.one_hot(labels, 5).double())
    )


@pytest.mark.parametrize("choice", CHOICES)
def test_half_precision_logits_under_autocast_are_computed_in_float32(choice: str) -> None:
    loss, labels = loss_of(choice), torch.tensor([0, 1, 2, 3, 4, 3, 0])
    half = random_logits().bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_extreme_logits_give_a_finite_loss_and_finite_gradients(choice: str, scale: float, smoothing: float) -> None:
    loss = loss_of(choice, f"loss.label_smoothing={smoothing}")
    logits = scale * torch.tensor([[1.0, -1, -1, -1, -1], [-1.0, 1, 1, 1, 1], [0.0, 0, 0, 0, 1], [1.0, 1, 0, 0, -1]])

    for targets in (torch.tensor([0, 0, 4, 1]), torch.tensor([1, 0, 0, 4]), torch.full((4, 5), 0.2)):
        assert loss(logits, targets).isfinite()
        assert slope_of(loss, logits, targets).isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
def test_the_slope_raises_the_target_and_no_logit_drifts(choice: str) -> None:
    labels = torch.arange(7) % 5
    slopes = slope_of(loss_of(choice, "loss.label_smoothing=0"), random_logits(), labels)

    assert (slopes.gather(1, labels[:, None]) < 0).all()
    torch.testing.assert_close(slopes.sum(dim=1), torch.zeros(7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("shape", [(7,), (7, 5)])
def test_nothing_waits_for_the_device(choice: str, shape: tuple[int, ...]) -> None:
    """Tensors without data refuse whatever would have to read a value back."""
    targets = torch.empty(shape, dtype=torch.int64 if len(shape) == 1 else torch.float32, device="meta")
    logits = torch.empty(7, 5, device="meta", requires_grad=True)

    loss_of(choice).to("meta")(logits, targets).backward()
    assert logits.grad is not None


@pytest.mark.parametrize("choice", CHOICES)
def test_a_mixed_photo_pulls_as_the_mix_of_its_parts(choice: str) -> None:
    loss = loss_of(choice)
    first, second = torch.eye(5)[[0, 1, 2, 3, 4, 0, 1]], torch.eye(5)[[3, 3, 4, 4, 0, 1, 2]]

    mixed = slope_of(loss, random_logits(), 0.3 * first + 0.7 * second)
    parts = 0.3 * slope_of(loss, random_logits(), first) + 0.7 * slope_of(loss, random_logits(), second)
    torch.testing.assert_close(mixed, parts, rtol=1e-4, atol=1e-6)


def test_the_plain_softmax_of_an_answer_orders_classes_as_the_tempered_one_of_the_loss() -> None:
    logits = random_logits(50)

    tempered = tempered_log_softmax(logits, load_config(["loss=bi_tempered"]).loss.t2 or 1)
    assert torch.equal(tempered.argsort(dim=1), logits.softmax(dim=1).argsort(dim=1))
    assert (tempered.exp().amax(dim=1) < logits.softmax(dim=1).amax(dim=1)).all()  # heavier tails


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "cross_entropy"])
def test_a_run_with_mixed_photos_trains_to_the_end(choice: str, small_config: Callable[..., AppConfig]) -> None:
    from cassava_leaf_disease.training.fit import train

    result = train(small_config(f"loss={choice}", "train.epochs=1", "augment.mix.p=1", "augment.mix.mixup_alpha=0.4"))
    assert result.epochs == 1
    assert np.isfinite(result.metrics["val/loss"])


class TestCrossEntropy:
    def test_is_the_negative_logarithm_of_the_targets_probability(self) -> None:
        loss = build_loss(load_config(["loss.label_smoothing=0"]).loss, None)
        logits, labels = random_logits(6), torch.tensor([0, 1, 2, 3, 4, 0])

        expected = -logits.log_softmax(dim=1)[torch.arange(6), labels].mean()
        torch.testing.assert_close(loss(logits, labels), expected)

    def test_smoothing_asks_for_a_share_of_every_class(self) -> None:
        loss = build_loss(load_config(["loss.label_smoothing=0.1"]).loss, None)
        target = torch.tensor([2])
        smoothed = torch.full((1, 5), 0.02)
        smoothed[0, 2] += 0.9

        best = loss(smoothed.log(), target)
        assert best < loss(torch.tensor([[0.0, 0.0, 20.0, 0.0, 0.0]]), target)
        assert best == pytest.approx(-(smoothed * smoothed.log()).sum().item(), abs=1e-5)

    def test_class_weights_make_a_rare_class_count_more(self) -> None:
        config = load_config(["loss.label_smoothing=0"]).loss
        logits, labels = torch.tensor([[2.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0]]), torch.tensor([0, 1])

        plain = build_loss(config, None)(logits, labels)
        weighted = build_loss(config, torch.tensor([0.5, 4.0, 1.0, 1.0, 1.0]))(logits, labels)
        assert weighted > plain

    def test_without_class_weights_there_are_none(self) -> None:
        assert loss_weights(load_config().loss, LABELS) is None
        assert loss_weights(load_config(["loss=bi_tempered"]).loss, LABELS) is None
