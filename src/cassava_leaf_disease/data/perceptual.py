"""Photos that look alike: perceptual hashes find the candidates, the pictures themselves decide.

The hash is ImageHash's `phash` (64 bits), taken under the eight symmetries of a picture, so that copies that
were turned by quarters or mirrored are found too. Hashes of dark or plain photos agree by chance, so a pair
counts only where its thumbnails correlate as well, or, for copies that were cropped or turned a little, where
enough points of both are the same.

On 120 field photos, each changed in one way, a distance of 10 found all that were re-encoded, scaled, squeezed,
blurred, mirrored, turned by a quarter, or given other light. Thumbnails alone missed 80% of those cropped by 2%,
and took single leaves on white paper for each other up to a correlation of 0.93.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.keypoints import agreeing_points
from cassava_leaf_disease.log import progress_bar

HASH_SIDE_PX: Final = 32  # what phash looks at; square, so that turning it is exact
THUMBNAIL_SIDE_PX: Final = 64
MIN_CORRELATION: Final = 0.95
MIN_POINTS: Final = 15  # photos of different plants agree in 6 at most, in 4,000 pairs that a network held for similar
MAX_POINT_PAIRS: Final = 2_000  # closest candidates whose points are compared, at 50 ms of one core each
BLANK_STD: Final = 3.0  # of 255; below it there is nothing to recognise
TILE: Final = 2**17  # hashes that are compared at once fit into the processor's cache

_Turn = Image.Transpose
SYMMETRIES: Final[tuple[tuple[str, Image.Transpose | None], ...]] = (
    ("none", None),
    ("mirrored", _Turn.FLIP_LEFT_RIGHT),
    ("flipped", _Turn.FLIP_TOP_BOTTOM),
    ("turned 90", _Turn.ROTATE_90),
    ("turned 180", _Turn.ROTATE_180),
    ("turned 270", _Turn.ROTATE_270),
    ("transposed", _Turn.TRANSPOSE),
    ("transverse", _Turn.TRANSVERSE),
)

Pixels = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What a photo is recognised by: a hash for each symmetry, (8,) uint64, and a grey thumbnail (64, 64)."""

    hashes: npt.NDArray[np.uint64]
    thumbnail: Pixels

    @property
    def blank(self) -> bool:
        """Whether the photo is of one brightness all over."""
        return float(self.thumbnail.std()) < BLANK_STD


@dataclass(frozen=True, slots=True)
class Alike:
    """Two photos, by index, that show the same picture.

    `symmetry` is what was done to the second; `distance` counts the differing bits of their hashes then, and
    `correlation` in -1..1 is that of their thumbnails. `points` are those found in both; None where the
    correlation was enough.
    """

    first: int
    second: int
    symmetry: str
    distance: int
    correlation: float
    points: int | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    first: int
    second: int
    symmetry: int
    distance: int
    correlation: float


def look_at(image: Pixels) -> Look:
    """The look of a photo, (H, W, 3) uint8 RGB of any size."""
    import imagehash

    side = (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX)
    grey = Image.fromarray(image).resize(side, Image.Resampling.BOX, reducing_gap=2.0).convert("L")
    square = grey.resize((HASH_SIDE_PX, HASH_SIDE_PX), Image.Resampling.BOX)
    bits = [imagehash.phash(_turned(square, symmetry)).hash.ravel() for symmetry in range(len(SYMMETRIES))]
    return Look(np.packbits(bits, axis=1).view(np.uint64)[:, 0], np.asarray(grey))


def find_alike(looks: Sequence[Look], max_distance: int, read_photo: Callable[[int], Pixels]) -> list[Alike]:
    """All pairs that look alike, each once, `first` below `second`, most alike first.

    The hashes of a pair differ in at most `max_distance` of 64 bits under a symmetry, and under that its
    thumbnails correlate to `MIN_CORRELATION`, or `MIN_POINTS` points of its photos agree; for those
    `read_photo` gives the pixels (H, W, 3) of an index. Blank photos are like nothing.
    """
    candidates = sorted(_candidates(looks, max_distance), key=lambda pair: -pair.correlation)
    clear = [pair for pair in candidates if pair.correlation >= MIN_CORRELATION]
    unclear = sorted(candidates[len(clear) :], key=lambda pair: pair.distance)
    if len(unclear) > MAX_POINT_PAIRS:
        _log.warning(
            "%d pairs have close hashes and different thumbnails; the points of the closest %d are compared; "
            "type a smaller check_data.near_distance than %d",
            *(len(unclear), MAX_POINT_PAIRS, max_distance),
        )
    points = _count_points(unclear[:MAX_POINT_PAIRS], read_photo)
    found = [_alike(pair, None) for pair in clear]
    found += [_alike(pair, count) for pair, count in zip(unclear, points, strict=False) if count >= MIN_POINTS]
    return sorted(found, key=lambda pair: (pair.points is not None, -pair.correlation, pair.first, pair.second))


def has_black_corners(image: Pixels) -> bool:
    """Whether all four corners of a photo, (H, W, 3), are black, as they are in copies that somebody rotated.

    A corner is a square of 1.5% of the shorter side. Of 1,177 photos as cameras took them none has four.
    """
    side = max(2, round(0.015 * min(image.shape[:2])))
    ends = slice(None, side), slice(-side, None)
    return all(int(image[rows, columns].max()) < 25 for rows in ends for columns in ends)


def _candidates(looks: Sequence[Look], max_distance: int) -> Iterator[_Candidate]:
    """Pairs with close hashes, each once, under the symmetry with the highest correlation."""
    seen = [index for index, look in enumerate(looks) if not look.blank]
    if len(seen) < 2:
        return
    hashes = np.stack([looks[index].hashes for index in seen])
    best: dict[tuple[int, int], _Candidate] = {}
    for row, column, symmetry, distance in _close_hashes(hashes, max_distance):
        first, second = seen[row], seen[column]
        turned = np.asarray(_turned(Image.fromarray(looks[second].thumbnail), symmetry))
        candidate = _Candidate(first, second, symmetry, distance, _correlation(looks[first].thumbnail, turned))
        known = best.get((first, second))
        if known is None or candidate.correlation > known.correlation:
            best[first, second] = candidate
    yield from best.values()


def _close_hashes(hashes: npt.NDArray[np.uint64], max_distance: int) -> Iterator[tuple[int, int, int, int]]:
    """First, second, symmetry, distance; of 21,400 photos all 1.8 * 10^9 distances are computed, in seconds."""
    count = len(hashes)
    rows = max(1, TILE // count)

    def compare(start: int) -> list[tuple[int, int, int, int]]:
        found = []
        for symmetry in range(len(SYMMETRIES)):
            distances = np.bitwise_count(hashes[start : start + rows, :1] ^ hashes[None, start:, symmetry])
            for row, column in np.argwhere(distances <= max_distance).tolist():
                if row < column:  # both count from `start`: each pair once, no photo with itself
                    found.append((start + row, start + column, symmetry, int(distances[row, column])))
        return found

    with ThreadPoolExecutor(available_cpus()) as pool:  # NumPy releases the GIL
        for found in pool.map(compare, range(0, count, rows)):
            yield from found


def _count_points(pairs: Sequence[_Candidate], read_photo: Callable[[int], Pixels]) -> list[int]:
    def count(pair: _Candidate) -> int:
        second = np.asarray(_turned(Image.fromarray(read_photo(pair.second)), pair.symmetry))
        return agreeing_points(read_photo(pair.first), second)

    counts = []
    with (
        ThreadPoolExecutor(available_cpus()) as pool,
        progress_bar("comparing photos with close hashes", len(pairs)) as advance,
    ):
        for found in pool.map(count, pairs):
            counts.append(found)
            advance(1)
    return counts


def _alike(pair: _Candidate, points: int | None) -> Alike:
    return Alike(pair.first, pair.second, SYMMETRIES[pair.symmetry][0], pair.distance, pair.correlation, points)


def _turned(image: Image.Image, symmetry: int) -> Image.Image:
    turn = SYMMETRIES[symmetry][1]
    return image if turn is None else image.transpose(turn)


def _correlation(first: Pixels, second: Pixels) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
