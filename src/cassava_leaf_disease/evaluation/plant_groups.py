"""Groups of photos of one class, drawn as if each were a plant's."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.domain import NUM_CLASSES

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Draw = Literal["independent", "alike"]
Prevalence = Literal["natural", "balanced"]

NEAR: Final = 2  # an `alike` group is drawn from so many times as many nearest photos


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers `(N, C)` about photos with labels `(N,)`, and of each photo the others of its class, nearest first.

    `order` lists the photos by class; those of class c stand from `starts[c]`, `counts[c]` of them. `neighbours`
    `(N, K)` are places in `probabilities`, and -1 where the class has no more photos.
    """

    probabilities: FloatArray
    labels: IntArray
    order: IntArray
    starts: IntArray
    counts: IntArray
    neighbours: IntArray


def arrange(
    probabilities: FloatArray, labels: IntArray, features: FloatArray | None, neighbours: int
) -> LabelledAnswers:
    """The answers with what drawing groups needs; without `features` no photo has neighbours."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=NUM_CLASSES)
    starts = np.cumsum(counts) - counts
    nearest = np.full((len(labels), neighbours), -1, np.int64)
    for start, count in zip(starts, counts, strict=True):
        members = order[start : start + count]
        if features is None or count < 2:
            continue
        kept = min(neighbours, int(count) - 1)
        for photo in members:
            alike = features[members] @ features[photo]
            alike[members == photo] = -np.inf
            nearest[photo, :kept] = members[np.argsort(-alike, kind="stable")[:kept]]
    return LabelledAnswers(probabilities, labels, order, starts, counts, nearest)


def classes_of_plants(counts: IntArray, groups: int, prevalence: Prevalence) -> IntArray:
    """The class of each of about `groups` plants, from the number of photos of each class; at least one of each."""
    shares = counts / counts.sum() if prevalence == "natural" else (counts > 0) / (counts > 0).sum()
    plants_each = np.maximum(np.rint(shares * groups).astype(np.int64), counts > 0)
    return np.repeat(np.arange(len(counts)), plants_each)


def draw_independent(answers: LabelledAnswers, classes: IntArray, photos: int, random: np.random.Generator) -> IntArray:
    """Places `(G, photos)` of different photos of each plant's class."""
    return answers.order[slots(answers, classes, photos, random)]


def draw_alike(answers: LabelledAnswers, classes: IntArray, photos: int, random: np.random.Generator) -> IntArray:
    """Places `(G, photos)` of a photo of each plant's class, and of others among its nearest `2 * photos`."""
    first = answers.order[slots(answers, classes, 1, random)]  # (G, 1)
    near = np.minimum(NEAR * photos, answers.counts[classes] - 1)
    places = distinct(near, photos - 1, random)
    return np.concatenate([first, answers.neighbours[first, places]], axis=1)


def distinct(sizes: IntArray, count: int, random: np.random.Generator) -> IntArray:
    """For each size `(G,)` as many different numbers from 0 to below it, `(G, count)`, all sets equally likely."""
    chosen = np.empty((len(sizes), 0), np.int64)
    for taken in range(count):
        number = (random.random(len(sizes)) * (sizes - taken)).astype(np.int64)
        for lower in np.sort(chosen, axis=1).T:  # skip those that are taken, lowest first
            number += number >= lower
        chosen = np.column_stack([chosen, number])
    return chosen


def slots(answers: LabelledAnswers, classes: IntArray, photos: int, random: np.random.Generator) -> IntArray:
    """Places `(G, photos)` in `order` of different photos of each plant's class."""
    return answers.starts[classes][:, None] + distinct(answers.counts[classes], photos, random)
