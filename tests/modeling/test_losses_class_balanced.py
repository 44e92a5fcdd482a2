"""Class-balanced weights: the paper's effective numbers, from equal to inverse frequency."""

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data.sampling import class_weights
from cassava_leaf_disease.modeling.losses import build_loss, loss_weights
from cassava_leaf_disease.modeling.losses.class_balanced import effective_number_weights

COUNTS = (61, 167, 422, 773, 417)
LABELS = [label for label, count in enumerate(COUNTS) for _ in range(count)]


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99, 0.999, 0.9999])
def test_ratios_are_those_of_the_paper_and_the_mean_over_the_samples_is_one(beta: float) -> None:
    weights = effective_number_weights(LABELS, beta)

    inverse = [(1 - beta) / (1 - beta**count) for count in COUNTS]
    papers = np.array(inverse) / sum(inverse) * 5  # the paper scales to the sum C
    np.testing.assert_allclose(weights / weights.sum() * 5, papers, rtol=1e-6)
    assert weights[LABELS].mean() == pytest.approx(1)
    assert weights.dtype == np.float32


def test_beta_goes_from_equal_weights_to_inverse_frequency() -> None:
    np.testing.assert_allclose(effective_number_weights(LABELS, 0), np.ones(5))
    np.testing.assert_allclose(effective_number_weights(LABELS, 1 - 1e-9), class_weights(LABELS, "inverse"), rtol=1e-5)


def test_a_class_without_samples_weighs_nothing() -> None:
    weights = effective_number_weights([0, 0, 3], 0.99)

    assert (weights[[1, 2, 4]] == 0).all()
    assert weights[3] > weights[0] > 0


def test_the_loss_is_cross_entropy_weighed_by_the_class_of_the_label() -> None:
    config = load_config(["loss=class_balanced", "loss.beta=0.99", "loss.label_smoothing=0"]).loss
    weights = loss_weights(config, LABELS)
    assert weights is not None
    logits, labels = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 5

    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (torch.from_numpy(weights)[labels] * each).mean()
    torch.testing.assert_close(build_loss(config, torch.from_numpy(weights))(logits, labels), expected)
