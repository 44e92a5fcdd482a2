"""Cross-entropy: smoothing and class weights take effect."""

import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.modeling.losses import build_loss


def test_plain_cross_entropy_of_class_ids_and_of_one_hot_targets_agree() -> None:
    loss = build_loss(load_config(["loss.label_smoothing=0"]).loss, None)
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])

    expected = -logits.log_softmax(dim=1)[torch.arange(6), labels].mean()
    torch.testing.assert_close(loss(logits, labels), expected)
    torch.testing.assert_close(loss(logits, torch.nn.functional.one_hot(labels, 5).float()), expected)


def test_smoothing_asks_for_a_share_of_every_class() -> None:
    loss = build_loss(load_config(["loss.label_smoothing=0.1"]).loss, None)
    target = torch.tensor([2])
    smoothed = torch.full((1, 5), 0.02)
    smoothed[0, 2] += 0.9

    best = loss(smoothed.log(), target)
    assert best < loss(torch.tensor([[0.0, 0.0, 20.0, 0.0, 0.0]]), target)
    assert best == pytest.approx(-(smoothed * smoothed.log()).sum().item(), abs=1e-5)


def test_class_weights_make_a_rare_class_count_more() -> None:
    config = load_config(["loss.label_smoothing=0"]).loss
    logits, labels = torch.tensor([[2.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0]]), torch.tensor([0, 1])

    plain = build_loss(config, None)(logits, labels)
    weighted = build_loss(config, torch.tensor([0.5, 4.0, 1.0, 1.0, 1.0]))(logits, labels)
    assert weighted > plain
