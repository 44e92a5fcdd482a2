"""In which order and how often training photos are drawn, and how much each class weighs in the loss."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from cassava_leaf_disease.config.schema import Weighting
from cassava_leaf_disease.domain import NUM_CLASSES

SampleKey = tuple[int, int]  # (index of the photo, seed of its random changes)

Labels = Sequence[int] | npt.NDArray[np.int64]

_EXPONENTS = {"none": 0.0, "sqrt_inverse": -0.5, "inverse": -1.0}


def class_weights(labels: Labels, weighting: Weighting, num_classes: int = NUM_CLASSES) -> npt.NDArray[np.float32]:
    """A weight for each class, (C,) float32: its frequency to the power 0, -1/2 or -1; scaled by `mean_one`."""
    counts = count_classes(labels, num_classes)
    return mean_one(np.power(np.maximum(counts, 1.0), _EXPONENTS[weighting]), counts)


def count_classes(labels: Labels, num_classes: int = NUM_CLASSES) -> npt.NDArray[np.float64]:
    """How often each class occurs, (C,); negative labels are of no class."""
    known = np.asarray(labels, dtype=np.int64)
    return np.bincount(known[known >= 0], minlength=num_classes).astype(np.float64)


def mean_one(weights: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Weights of classes with `counts` samples, scaled so that their mean over the samples is 1.

    So the size of the loss does not change. A class without samples weighs 0.
    """
    occurring = weights * (counts > 0)
    return np.asarray(occurring * (counts.sum() / (occurring * counts).sum()), np.float32)


class EpochSampler(Sampler[SampleKey]):
    """Draws (index, seed) for one epoch; both depend only on the seed, the epoch and the position.

    With weighting "none" every photo comes once; otherwise as many photos are drawn with replacement, by
    the weights of their classes, those of no class by the mean weight of the others. Of the last `extra` photos each
    epoch takes `extra_drawn`, each at most once more than any other. Of the epoch's order the first `taken` positions
    are used (None: all). Several ranks share them: position p goes to rank p modulo `num_replicas`, so that the
    ranks' batches of a step are together the batch of one process; the first positions come again at the end where
    the number does not divide.
    """

    def __init__(  # noqa: PLR0913 # the epoch's recipe, and this rank's place in it
        self,
        labels: Labels,
        weighting: Weighting,
        seed: int,
        *,
        shuffle: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
        extra: int = 0,
        extra_drawn: int = 0,
        taken: int | None = None,
    ) -> None:
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} is outside 0..{num_replicas - 1}")
        self._labels = np.asarray(labels, dtype=np.int64)
        self._weighting: Weighting = weighting
        self._seed = seed
        self._shuffle = shuffle
        self._num_replicas = num_replicas
        self._rank = rank
        self._extra = extra
        self._extra_drawn = extra_drawn
        drawn = len(self._labels) - extra + extra_drawn
        self._taken = drawn if taken is None else min(taken, drawn)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws; the trainer calls it before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._taken / self._num_replicas)

    def __iter__(self) -> Iterator[SampleKey]:
        rng = np.random.default_rng((self._seed, self._epoch))
        indices = self._draw(rng)
        seeds = rng.integers(0, 2**32, size=len(indices), dtype=np.int64)
        for position in range(self._rank, len(self) * self._num_replicas, self._num_replicas):
            wrapped = position % self._taken
            yield int(indices[wrapped]), int(seeds[wrapped])

    def _draw(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        photos = self._photos(rng)
        count = len(photos)
        if self._weighting != "none":
            labels = self._labels[photos]
            weights = class_weights(labels, self._weighting)[labels].astype(np.float64)
            weights[labels < 0] = 1
            return photos[rng.choice(count, size=count, replace=True, p=weights / weights.sum())]
        return photos[rng.permutation(count)] if self._shuffle else photos

    def _photos(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The photos that this epoch draws from."""
        count = len(self._labels)
        if self._extra_drawn == self._extra:
            return np.arange(count)
        rounds, rest = divmod(self._extra_drawn, self._extra)
        first = count - self._extra
        chosen = first + rng.permutation(self._extra)[:rest]
        return np.concatenate([np.arange(first), np.tile(np.arange(first, count), rounds), chosen])


def drops_last(samples: int, batch_size: int, ranks: int = 1) -> bool:
    """Whether the last, smaller batch of an epoch is left out.

    It is where two full batches or more remain; with one full batch only a rest is that leaves one of the ranks
    that share it a single sample, on which batch normalisation could not train.
    """
    full, rest = divmod(samples, batch_size)
    return full > 1 or (full == 1 and 0 < rest < 2 * ranks)
