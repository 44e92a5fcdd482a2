"""MixUp and CutMix on batches."""

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.schema import MixConfig
from cassava_leaf_disease.modeling.mixing import mix_batch


def batch(size: int = 8, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image is filled with its own number."""
    images = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1).expand(size, 3, side, side).clone()
    return images, torch.arange(size) % 5


def mix(config: MixConfig, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = batch()
    return mix_batch(images, labels, 5, config, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "config",
    [
        MixConfig(p=0, mixup_alpha=1, cutmix_alpha=1),
        MixConfig(p=1, mixup_alpha=0, cutmix_alpha=0),
    ],
)
def test_switched_off_leaves_the_batch_as_it_is(config: MixConfig) -> None:
    images, targets = mix(config, 0)
    expected, labels = batch()

    assert torch.equal(images, expected)
    assert torch.equal(targets, torch.nn.functional.one_hot(labels, 5).float())


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_targets_are_the_shares_of_the_pixels(seed: int) -> None:
    images, targets = mix(MixConfig(p=1, mixup_alpha=0, cutmix_alpha=1), seed)

    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    for index, image in enumerate(images):
        shares = torch.zeros(5)
        for value in image[0].flatten().long():
            shares[int(value) % 5] += 1 / 256
        torch.testing.assert_close(targets[index], shares, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_whole_images_and_their_targets_alike(seed: int) -> None:
    images, targets = mix(MixConfig(p=1, mixup_alpha=1, cutmix_alpha=0), seed)

    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert all(image.unique().numel() == 1 for image in images)
    changed = [index for index in range(8) if images[index, 0, 0, 0] != index]
    assert changed
    assert all((targets[index] > 0).sum() <= 2 for index in range(8))


def test_with_both_on_each_batch_takes_one_of_them() -> None:
    config = MixConfig(p=1, mixup_alpha=1, cutmix_alpha=1)
    blended = [all(image.unique().numel() == 1 for image in mix(config, seed)[0]) for seed in range(40)]

    assert 8 < sum(blended) < 36


def test_p_is_the_fraction_of_mixed_batches() -> None:
    expected, _ = batch()
    config = MixConfig(p=0.3, mixup_alpha=1, cutmix_alpha=0)
    mixed = sum(not torch.equal(mix(config, seed)[0], expected) for seed in range(400))

    assert 0.2 < mixed / 400 < 0.4


def test_the_same_generator_gives_the_same_batch() -> None:
    config = MixConfig(p=1, mixup_alpha=0.4, cutmix_alpha=1)
    assert torch.equal(mix(config, 5)[0], mix(config, 5)[0])


@pytest.mark.parametrize(
    "config", [MixConfig(p=1, mixup_alpha=1, cutmix_alpha=0), MixConfig(p=0, mixup_alpha=1, cutmix_alpha=0)]
)
def test_probabilities_are_mixed_as_the_labels_that_they_stand_for(config: MixConfig) -> None:
    images, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 5).float()

    _, from_labels = mix_batch(images, labels, 5, config, np.random.default_rng(3))
    _, from_probabilities = mix_batch(images, one_hot, 5, config, np.random.default_rng(3))
    _, softer = mix_batch(images, 0.6 * one_hot + 0.08, 5, config, np.random.default_rng(3))

    assert torch.equal(from_probabilities, from_labels)
    torch.testing.assert_close(softer, 0.6 * from_labels + 0.08)
