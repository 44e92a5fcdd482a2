"""Class weights, and the order of an epoch."""

import numpy as np
import pytest

from cassava_leaf_disease.config.schema import Weighting
from cassava_leaf_disease.data.sampling import EpochSampler, class_weights

LABELS = [0] * 4 + [1] * 16 + [3] * 64


def test_class_weights_are_powers_of_the_frequency() -> None:
    assert class_weights(LABELS, "none", 4).tolist() == [1, 1, 0, 1]
    assert class_weights(LABELS, "inverse", 4).tolist() == pytest.approx([7, 1.75, 0, 0.4375])
    sqrt = class_weights(LABELS, "sqrt_inverse", 4)
    assert sqrt[0] / sqrt[1] == pytest.approx(2)
    assert sqrt[1] / sqrt[3] == pytest.approx(2)
    assert sqrt.dtype == np.float32


@pytest.mark.parametrize("weighting", ["none", "sqrt_inverse", "inverse"])
def test_the_mean_weight_over_the_samples_is_one(weighting: Weighting) -> None:
    weights = class_weights(np.array(LABELS), weighting)
    assert weights.shape == (5,)
    assert weights[LABELS].mean() == pytest.approx(1)


def test_without_weighting_every_photo_comes_once_in_an_order_of_its_epoch() -> None:
    sampler = EpochSampler(LABELS, "none", seed=7)
    first = list(sampler)
    assert sorted(index for index, _ in first) == list(range(84))
    assert len(sampler) == 84
    assert list(sampler) == first  # the order depends on the epoch, not on earlier iterations
    sampler.set_epoch(1)
    second = list(sampler)
    assert [index for index, _ in second] != [index for index, _ in first]
    assert dict(second) != dict(first)  # the same photo, changed in another way
    assert list(EpochSampler(LABELS, "none", seed=7)) == first
    assert list(EpochSampler(LABELS, "none", seed=8)) != first


def test_without_shuffling_the_photos_come_in_order() -> None:
    assert [index for index, _ in EpochSampler(LABELS, "none", 0, shuffle=False)] == list(range(84))


def test_seeds_differ_from_photo_to_photo_and_fit_32_bits() -> None:
    seeds = [seed for _, seed in EpochSampler(range(10_000), "none", seed=0)]
    assert len(set(seeds)) > 9_990
    assert 0 <= min(seeds) < max(seeds) < 2**32


def test_inverse_weighting_draws_all_classes_alike() -> None:
    drawn = [LABELS[index] for epoch in range(40) for index in _epoch("inverse", epoch)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares[[0, 1, 3]] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert len(drawn) == 40 * 84


def _epoch(weighting: Weighting, epoch: int) -> list[int]:
    sampler = EpochSampler(LABELS, weighting, seed=1)
    sampler.set_epoch(epoch)
    return [index for index, _ in sampler]


@pytest.mark.parametrize("replicas", [2, 5])
def test_ranks_share_one_epoch_and_all_get_the_same_number(replicas: int) -> None:
    whole = list(EpochSampler(LABELS, "sqrt_inverse", seed=3))
    ranks = [
        list(EpochSampler(LABELS, "sqrt_inverse", seed=3, num_replicas=replicas, rank=rank)) for rank in range(replicas)
    ]
    assert {len(keys) for keys in ranks} == {-(-84 // replicas)}
    interleaved = [key for step in zip(*ranks, strict=True) for key in step]
    assert interleaved[:84] == whole
    assert interleaved[84:] == whole[: len(interleaved) - 84]


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank 2 is outside 0\.\.1"):
        EpochSampler(LABELS, "none", 0, num_replicas=2, rank=2)
