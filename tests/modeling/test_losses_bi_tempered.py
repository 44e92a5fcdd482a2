"""The bi-tempered loss: the paper's properties, an independent solution, finite differences."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import brentq

from cassava_leaf_disease.modeling.losses.bi_tempered import BiTempered, fixed_point_steps, tempered_log_softmax

TEMPERATURES = [0.5, 0.9, 0.999, 1.0, 1.0001, 1.2, 1.4, 2.0, 4.0]
PAIRS = [(0.0, 1.0), (0.2, 1.2), (0.8, 1.4), (1.0, 1.0), (1.0, 2.0), (0.5, 4.0)]


def softmax(logits: torch.Tensor, t: float) -> torch.Tensor:
    return tempered_log_softmax(logits, t).exp()


def exp_t(x: npt.NDArray[np.float64], t: float) -> npt.NDArray[np.float64]:
    return np.exp(x) if t == 1 else np.maximum(1 + (1 - t) * x, 0) ** (1 / (1 - t))


def log_t(x: float, t: float) -> float:
    return math.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def solved(row: npt.NDArray[np.float64], t: float) -> npt.NDArray[np.float64]:
    """The tempered softmax of one row, its normalisation found by Brent's method."""
    top, widest = float(row.max()), -log_t(1 / len(row), t)
    root = brentq(lambda at: exp_t(row - at, t).sum() - 1, top - 1e-9, top + widest + 1e-9, xtol=1e-14, rtol=1e-14)
    return exp_t(row - root, t)


def logits_of(scale: float, dtype: torch.dtype = torch.float64, rows: int = 12) -> torch.Tensor:
    return (torch.randn(rows, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("t", TEMPERATURES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 3e-6)])
def test_probabilities_equal_an_independent_solution_and_sum_to_one(
    t: float, scale: float, dtype: torch.dtype, tolerance: float
) -> None:
    logits = logits_of(scale, dtype)
    probabilities = softmax(logits, t)

    assert probabilities.dtype == dtype
    expected = np.stack([solved(row, t) for row in logits.double().numpy()])
    np.testing.assert_allclose(probabilities.numpy(), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(probabilities.sum(dim=1).numpy(), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [1.0001, 1.4, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("classes", [2, 5, 12])
def test_the_promised_number_of_steps_is_enough_for_the_worst_logits(t: float, classes: int) -> None:
    levels = torch.logspace(-4, 4, 400, dtype=torch.float64)
    logits = torch.cat([torch.zeros(400, 1, dtype=torch.float64), -levels[:, None].expand(400, classes - 1)], dim=1)
    exact = softmax(logits, t)

    assert fixed_point_steps(t, classes, 1e-7) < fixed_point_steps(t, classes, 1e-14)
    np.testing.assert_allclose(softmax(logits.float(), t).numpy(), exact.numpy(), rtol=3e-5, atol=1e-30)


def test_both_temperatures_one_is_cross_entropy() -> None:
    logits, labels = logits_of(3), torch.arange(12) % 5

    torch.testing.assert_close(BiTempered(1, 1)(logits, labels), torch.nn.functional.cross_entropy(logits, labels))
    soft = torch.softmax(logits_of(1).flip(0), dim=1)
    entropy = -(soft * soft.log()).sum(dim=1).mean()
    torch.testing.assert_close(
        BiTempered(1, 1)(logits, soft) + entropy, torch.nn.functional.cross_entropy(logits, soft)
    )


def test_temperatures_near_one_are_near_cross_entropy() -> None:
    logits, labels = logits_of(3, torch.float32), torch.arange(12) % 5

    near = BiTempered(1 - 1e-5, 1 + 1e-5)(logits, labels)
    torch.testing.assert_close(near, torch.nn.functional.cross_entropy(logits, labels), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("t1", "t2"), PAIRS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_papers_formula(t1: float, t2: float, smoothing: float) -> None:
    logits = logits_of(3)
    targets = torch.softmax(logits_of(1).flip(0), dim=1)
    expected = 0.0
    for row, target in zip(logits.numpy(), targets.numpy(), strict=True):
        wanted = target * (1 - smoothing) + smoothing / 5
        for y, p in zip(wanted, solved(row, t2), strict=True):
            expected += y * (log_t(y, t1) - log_t(p, t1)) - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1)

    assert BiTempered(t1, t2, smoothing)(logits, targets).item() == pytest.approx(expected / 12, rel=1e-9)


@pytest.mark.parametrize(("t1", "t2"), PAIRS)
@pytest.mark.parametrize("hard", [True, False])
def test_the_gradient_is_that_of_finite_differences(t1: float, t2: float, hard: bool) -> None:
    logits = logits_of(3, rows=6).requires_grad_()
    targets = torch.eye(5, dtype=torch.float64)[torch.arange(6) % 5] if hard else logits_of(1, rows=6).softmax(dim=1)

    assert torch.autograd.gradcheck(lambda logits: BiTempered(t1, t2)(logits, targets), (logits,), atol=1e-7)


@pytest.mark.parametrize("t1", [0.0, 0.5, 0.8])
def test_below_one_t1_bounds_the_loss_of_a_wrong_label(t1: float) -> None:
    label = torch.tensor([1])
    losses = [BiTempered(t1, 1.4)(torch.tensor([[x, 0, 0, 0, 0]]), label).item() for x in (1e1, 1e3, 1e6, 1e12)]

    bound = 1 / (1 - t1)  # all on the wrong class: -log_t1(0), and nothing more
    assert losses == sorted(losses)
    assert losses[-1] <= bound + 1e-5
    assert BiTempered(t1, 1.0)(torch.tensor([[1e12, 0, 0, 0, 0]]), label).item() == pytest.approx(bound, rel=1e-5)
    assert BiTempered(1.0, 1.4)(torch.tensor([[1e12, 0, 0, 0, 0]]), label).item() > 10 * bound


@pytest.mark.parametrize("t2", [1.2, 1.4, 2.0, 4.0])
def test_above_one_t2_gives_tails_that_fall_as_a_power(t2: float) -> None:
    far, farther = (softmax(torch.tensor([[0.0, -x]], dtype=torch.float64), t2)[0, 1] for x in (1e6, 1e7))

    assert (far / farther).item() == pytest.approx(10 ** (1 / (t2 - 1)), rel=1e-3)
    assert softmax(torch.tensor([[0.0, -50.0]]), t2)[0, 1] > 1e3 * softmax(torch.tensor([[0.0, -50.0]]), 1.0)[0, 1]


def test_below_one_t2_gives_a_finite_support() -> None:
    probabilities = softmax(torch.tensor([[0.0, -0.5, -50.0]]), 0.5)

    assert probabilities[0, 2] == 0
    assert (probabilities[0, :2] > 0).all()


@pytest.mark.parametrize(("t1", "t2"), PAIRS)
def test_it_is_least_where_the_probabilities_are_those_of_the_labels(t1: float, t2: float) -> None:
    shares = torch.tensor([[0.5, 0.25, 0.15, 0.07, 0.03]], dtype=torch.float64)
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def expected_loss() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.stack([BiTempered(t1, t2)(logits, torch.tensor([label])) for label in range(5)])
        mean: torch.Tensor = (shares[0] * loss).sum()
        mean.backward()  # type: ignore[no-untyped-call]
        return mean

    optimizer.step(expected_loss)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(softmax(logits.detach(), t2), shares, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("t1", "t2"), PAIRS)
def test_it_is_zero_at_the_target_and_above_zero_elsewhere(t1: float, t2: float) -> None:
    logits = logits_of(1)
    targets = softmax(logits, t2)

    assert BiTempered(t1, t2)(logits, targets).item() == pytest.approx(0, abs=1e-12)
    assert BiTempered(t1, t2)(logits + logits_of(1).flip(0), targets).item() > 1e-6


def test_a_wrong_label_far_from_the_border_pulls_less_than_with_cross_entropy() -> None:
    logits, label = torch.tensor([[8.0, 0, 0, 0, 0]]), torch.tensor([1])
    slopes = []
    for t1, t2 in ((1.0, 1.0), (0.8, 1.4), (0.2, 1.4)):
        leaf = logits.clone().requires_grad_()
        BiTempered(t1, t2)(leaf, label).backward()
        assert leaf.grad is not None
        slopes.append(leaf.grad.abs().sum().item())

    assert slopes == sorted(slopes, reverse=True)
    assert slopes[2] < slopes[0] / 4
