"""Which photos the page shows, and their pictures."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from cassava_leaf_disease.data.datasets import Image
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.evaluation.selection import SelectedPhotos
from cassava_leaf_disease.imaging.data_uri import data_uri

SIDE_PX: Final = 256  # of the longer side: a pair of pictures takes about 35 kB of the page
QUALITY: Final = 78

Heat = Callable[[Image, int], Image | None]  # a photo and a class id to the photo under its heatmap, or None


@dataclass(frozen=True)
class Shown:
    """A photo on the page: what it shows, what was answered, and its pictures as data URIs.

    `label_probability` is what the model gave the true class; None where that is none of ours.
    """

    image_id: str
    label_name: str
    answer: str
    confidence: float
    label_probability: float | None
    photo: str
    heat: str | None


def surest_mistakes(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], count: int) -> list[int]:
    """The wrong answers of the highest confidence, surest first."""
    return surest_answers(probabilities, probabilities.argmax(axis=1) != labels, count)


def worst_of_each_class(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], count: int, without: Sequence[int]
) -> list[int]:
    """Of each class the photos whose true class was given least, in turn, those in `without` left out."""
    given = probabilities[np.arange(len(labels)), labels]
    wrong = probabilities.argmax(axis=1) != labels
    wrong[list(without)] = False
    ranked = []
    for label in range(NUM_CLASSES):
        inside = np.flatnonzero(wrong & (labels == label))
        ranked.append(inside[np.argsort(given[inside], kind="stable")].tolist())
    most = max(map(len, ranked), default=0)
    in_turn = [members[rank] for rank in range(most) for members in ranked if rank < len(members)]
    return sorted(in_turn[:count], key=lambda index: (labels[index], given[index]))


def surest_answers(probabilities: npt.NDArray[np.float64], among: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Of the photos `among` `(N,)` those with the surest answers."""
    inside = np.flatnonzero(among)
    order = np.argsort(-probabilities.max(axis=1)[inside], kind="stable")
    return [int(index) for index in inside[order][:count]]


def show(
    photos: SelectedPhotos, probabilities: npt.NDArray[np.float64], chosen: Sequence[int], heat: Heat
) -> tuple[Shown, ...]:
    """The chosen photos, with their heatmaps of the class that was answered."""
    return tuple(_shown(photos, probabilities[index], index, heat) for index in chosen)


def _shown(photos: SelectedPhotos, answer: npt.NDArray[np.float64], index: int, heat: Heat) -> Shown:
    image = photos.originals.image(index)
    best, label = int(answer.argmax()), int(photos.labels[index])
    known = bool(photos.known[index])
    warm = heat(image, best)
    return Shown(
        image_id=photos.image_ids[index],
        label_name=CLASS_NAMES[label] if known or photos.outside is None else photos.outside.classes[index],
        answer=CLASS_NAMES[best],
        confidence=float(answer[best]),
        label_probability=float(answer[label]) if known else None,
        photo=jpeg_uri(image),
        heat=None if warm is None else jpeg_uri(warm),
    )


def jpeg_uri(image: Image) -> str:
    """A photo `(H, W, 3)` uint8, made small, as the text that a page can hold."""
    picture = PillowImage.fromarray(image)
    picture.thumbnail((SIDE_PX, SIDE_PX), PillowImage.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return data_uri("image/jpeg", buffer.getvalue())
