"""Focal loss: the paper's formula, cross-entropy at gamma 0, exact slopes where 1 - p rounds to 0."""

import pytest
import torch

from cassava_leaf_disease.modeling.losses.cross_entropy import CrossEntropy
from cassava_leaf_disease.modeling.losses.focal import Focal

WEIGHTS = torch.tensor([3.0, 1.0, 0.5, 0.2, 2.0])


def logits_of(rows: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (torch.randn(rows, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3).to(dtype)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gamma_zero_is_cross_entropy(weight: torch.Tensor | None, smoothing: float) -> None:
    logits = logits_of(dtype=torch.float32)
    for targets in (torch.arange(8) % 5, torch.softmax(logits.flip(0), dim=1)):
        torch.testing.assert_close(
            Focal(0, smoothing, weight)(logits, targets), CrossEntropy(smoothing, weight)(logits, targets)
        )


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_it_is_the_papers_formula_for_class_ids(gamma: float) -> None:
    logits, labels = logits_of(), torch.arange(8) % 5

    p = logits.softmax(dim=1)[torch.arange(8), labels]
    alpha = WEIGHTS.double()[labels]
    torch.testing.assert_close(
        Focal(gamma, 0, WEIGHTS.double())(logits, labels), (-alpha * (1 - p) ** gamma * p.log()).mean()
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_gradient_is_that_of_finite_differences(gamma: float) -> None:
    logits = logits_of(4).requires_grad_()
    targets = torch.softmax(logits_of(4).flip(0), dim=1)

    assert torch.autograd.gradcheck(lambda logits: Focal(gamma, 0.1, WEIGHTS.double())(logits, targets), (logits,))


def test_an_easy_photo_counts_less_against_a_hard_one_than_with_cross_entropy() -> None:
    easy, hard, label = torch.tensor([[4.0, 0, 0, 0, 0]]), torch.tensor([[0.0, 1, 0, 0, 0]]), torch.tensor([0])
    ratios = [(Focal(gamma)(hard, label) / Focal(gamma)(easy, label)).item() for gamma in (0, 1, 2)]

    assert ratios == sorted(ratios)
    assert ratios[2] > 50 * ratios[0]


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_a_photo_that_is_learned_to_the_last_bit_has_a_slope_of_zero(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0, 0, 0, 0]], requires_grad=True)
    Focal(gamma)(logits, torch.tensor([0])).backward()

    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(1, 5), rtol=0, atol=1e-6)
