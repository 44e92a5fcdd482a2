"""Drawn cassava leaves: palmate, five to seven lobes, before soil or foliage, ill in the way of their class.

For trying out the whole path without photos, and for tests. A picture depends on its seed, its label and its
size only. Light, white balance, pose, blur and background vary more than the mean colour of the classes
does, so that a network has to look at where on the leaf the colour changes.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]  # (S, S), one value a pixel

_YELLOW = np.array((0.86, 0.80, 0.28), np.float32)
_PALE_GREEN = np.array((0.68, 0.78, 0.42), np.float32)
_BROWN = np.array((0.30, 0.19, 0.09), np.float32)
_SOAKED = np.array((0.12, 0.20, 0.08), np.float32)
_SOIL = np.array((0.45, 0.33, 0.24), np.float32)
_FOLIAGE = np.array((0.20, 0.33, 0.13), np.float32)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """The leaf's geometry, planes of (S, S).

    `inside` is the coverage in 0..1; `along` runs from 0 at the stalk to 1 at a lobe's tip; `across` is
    the distance from the lobe's midrib, 1 at its edge.
    """

    inside: Plane
    along: Plane
    across: Plane


def draw_leaf(index_seed: int, label: int, size_px: int) -> Pixels:
    """One picture of class `label`, (size_px, size_px, 3) uint8 RGB."""
    rng = np.random.default_rng((index_seed, label))
    leaf = _shape(rng, size_px, crooked=label == CLASS_NAMES.index("Cassava Mosaic Disease"))
    tissue = _SYMPTOMS[label](rng, leaf, _healthy_tissue(rng, leaf))
    cover = leaf.inside[..., None]
    picture = tissue * cover + _background(rng, size_px) * (1 - cover)
    return _photograph(rng, picture)


def balanced_labels(size: int, seed: int) -> npt.NDArray[np.int64]:
    """`size` class ids in random order, each class as often as the others, give or take one."""
    return np.random.default_rng(seed).permutation(np.arange(size, dtype=np.int64) % NUM_CLASSES)


def write_synthetic_dataset(data_dir: Path, size: int, image_size_px: int, seed: int) -> None:
    """Writes `size` drawn leaves as JPEGs in the Kaggle layout: `train.csv` and `train_images/`."""
    images_dir = data_dir / "train_images"
    images_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, label in enumerate(balanced_labels(size, seed).tolist()):
        name = f"{seed}_{index:06d}.jpg"
        picture = draw_leaf((seed << 32) + index, label, image_size_px)
        Image.fromarray(picture).save(images_dir / name, quality=92)
        rows.append((name, label))
    with (data_dir / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_id", "label"))
        writer.writerows(rows)


def _shape(rng: np.random.Generator, size: int, *, crooked: bool) -> _Leaf:
    lobes = int(rng.choice((5, 7)))
    turn = rng.uniform(0, 2 * np.pi)
    spread = rng.uniform(0.62, 0.80) * 2 * np.pi / lobes * (1.15 if lobes == 5 else 1.0)
    length = rng.uniform(0.48, 0.68)
    width = rng.uniform(0.13, 0.20) * (rng.uniform(0.55, 0.9) if crooked else 1.0)
    stalk = 0.5 + 0.14 * np.array((-np.cos(turn), -np.sin(turn))) + rng.uniform(-0.08, 0.08, 2)
    y, x = np.mgrid[:size, :size].astype(np.float32) / np.float32(size)
    x, y = x - np.float32(stalk[0]), y - np.float32(stalk[1])
    depth = np.full((size, size), -1.0, np.float32)
    along, across = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    for number in range(lobes):
        offset = number - (lobes - 1) / 2
        angle = turn + spread * offset + rng.normal(0, 0.14 if crooked else 0.04)
        reach = length * (1 - 0.07 * abs(offset)) * (rng.uniform(0.6, 1.0) if crooked else rng.uniform(0.92, 1.0))
        bend = rng.normal(0, 0.6 if crooked else 0.12)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u = (x * cos + y * sin) / np.float32(reach)
        v = (y * cos - x * sin) - np.float32(bend * reach) * u * u
        t = np.clip(u, 0, 1)
        half = np.float32(width * 2.6) * t * (1 - t) * (1 - np.float32(0.35) * (t - 1)) * np.float32(0.7)
        inner = np.where((u > 0) & (u < 1), half - np.abs(v), np.float32(-1))
        nearest = inner > depth
        depth = np.where(nearest, inner, depth)
        along = np.where(nearest, t, along)
        across = np.where(nearest, np.abs(v) / np.maximum(half, np.float32(1e-4)), across)
    return _Leaf(np.clip(depth * np.float32(size) + np.float32(0.5), 0, 1), along, np.minimum(across, np.float32(1.5)))


def _healthy_tissue(rng: np.random.Generator, leaf: _Leaf) -> Plane:
    """Even green with lighter veins, (S, S, 3); its hue wanders from bluish to yellowish."""
    size = len(leaf.inside)
    green = np.array((rng.uniform(0.16, 0.38), rng.uniform(0.42, 0.62), rng.uniform(0.10, 0.24)), np.float32)
    shade = 1 - 0.22 * leaf.across**2 + 0.16 * (_noise(rng, size, 4) - 0.5)
    tissue = green * shade[..., None]
    return _blend(tissue, _PALE_GREEN, 0.45 * _veins(leaf, 0.06))


def _blight(rng: np.random.Generator, leaf: _Leaf, tissue: Plane) -> Plane:
    """Bacterial blight: angular brown spots with a water-soaked rim, and lobes that wilt from the tip."""
    size = len(leaf.inside)
    cells = int(rng.integers(20, 30))
    blocks = rng.random((cells, cells), dtype=np.float32)
    spots = _enlarge(blocks, size, Image.Resampling.NEAREST, angle=float(rng.uniform(15, 75)))
    rims = _enlarge(blocks, size, Image.Resampling.BILINEAR, angle=0)
    share = rng.uniform(0.08, 0.22)
    tissue = _blend(tissue, _SOAKED, 0.5 * (rims > 1 - 1.6 * share))
    tissue = _blend(tissue, _BROWN, 0.9 * (spots > 1 - share))
    wilt = rng.uniform(0.75, 1.25)
    return _blend(tissue, _BROWN * 1.5, 0.75 * _step(leaf.along + 0.25 * _noise(rng, size, 7), wilt, 0.08))


def _brown_streak(rng: np.random.Generator, leaf: _Leaf, tissue: Plane) -> Plane:
    """Brown streak disease: yellow that follows the veins and fades out like a feather."""
    size = len(leaf.inside)
    patchy = np.clip(2.2 * _noise(rng, size, 5) - 0.35, 0, 1)
    feather = np.maximum(_veins(leaf, rng.uniform(0.16, 0.3)), np.exp(-((leaf.across / rng.uniform(0.3, 0.5)) ** 2)))
    return _blend(tissue, _YELLOW, rng.uniform(0.65, 0.95) * feather * patchy)


def _green_mottle(rng: np.random.Generator, leaf: _Leaf, tissue: Plane) -> Plane:
    """Green mottle: fine pale speckles all over."""
    size = len(leaf.inside)
    fine = _noise(rng, size, min(int(rng.integers(36, 50)), size // 2))
    where = np.clip(1.4 * _noise(rng, size, 4) + 0.25, 0, 1)
    return _blend(tissue, _PALE_GREEN, rng.uniform(0.5, 0.9) * _step(fine, rng.uniform(0.52, 0.6), 0.06) * where)


def _mosaic(rng: np.random.Generator, leaf: _Leaf, tissue: Plane) -> Plane:
    """Mosaic disease: large, sharply bounded yellow fields on narrow, crooked lobes."""
    size = len(leaf.inside)
    fields = _noise(rng, size, int(rng.integers(11, 18)))
    return _blend(tissue, _YELLOW, rng.uniform(0.7, 0.95) * _step(fields, rng.uniform(0.44, 0.56), 0.03))


def _healthy(_rng: np.random.Generator, _leaf: _Leaf, tissue: Plane) -> Plane:
    return tissue


_SYMPTOMS: tuple[Callable[[np.random.Generator, _Leaf, Plane], Plane], ...] = (
    _blight,
    _brown_streak,
    _green_mottle,
    _mosaic,
    _healthy,
)


def _background(rng: np.random.Generator, size: int) -> Plane:
    """Soil with clods and stones, other leaves out of focus, or both, (S, S, 3)."""
    grain = 0.65 + 0.5 * _noise(rng, size, int(rng.integers(12, 40))) + 0.3 * (_noise(rng, size, 5) - 0.5)
    foliage = np.float32(rng.choice((0.0, 0.5, 1.0)))
    mixed = _step(_noise(rng, size, 4), 1 - float(foliage), 0.05)[..., None]
    soil = _SOIL * (rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    return (soil * (1 - mixed) + _FOLIAGE * rng.uniform(0.8, 1.8) * mixed).astype(np.float32) * grain[..., None]


def _photograph(rng: np.random.Generator, picture: Plane) -> Pixels:
    """Light from a side, exposure, white balance, sometimes out of focus, sensor noise; to uint8."""
    size = len(picture)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.18, 0.18, 2).astype(np.float32)
    light = rng.uniform(0.75, 1.25) * (1 + slope_x * ramp[None, :] + slope_y * ramp[:, None])
    balance = rng.uniform(0.91, 1.09, 3).astype(np.float32)
    exposed = picture * light[..., None].astype(np.float32) * balance
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(0.005, 0.03))
    pixels: Pixels = (np.clip(exposed + grain, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9) * size / 96))
        pixels = np.array(blurred)
    return pixels


def _veins(leaf: _Leaf, thickness: float) -> Plane:
    """The midrib and the side veins that leave it at an angle: 1 on a vein, 0 between."""
    midrib = np.exp(-((leaf.across / thickness) ** 2))
    phase = (leaf.along * 9 - leaf.across * 1.6) % 1 - np.float32(0.5)
    sides = np.exp(-((phase / (2 * thickness)) ** 2)) * np.clip(1.1 - leaf.across, 0, 1)
    return np.asarray(np.maximum(midrib, 0.8 * sides), np.float32)


def _noise(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Smooth noise in 0..1 with `cells` bumps along a side."""
    return _enlarge(rng.random((cells, cells), dtype=np.float32), size, Image.Resampling.BICUBIC)


def _enlarge(values: Plane, size: int, how: Image.Resampling, angle: float = 0) -> Plane:
    image = Image.fromarray(values)
    if angle:  # turned at a size that leaves no empty corner in the middle
        large = image.resize((round(size * 1.42), round(size * 1.42)), how).rotate(angle)
        edge = (large.width - size) // 2
        return np.asarray(large.crop((edge, edge, edge + size, edge + size)), np.float32)
    return np.asarray(image.resize((size, size), how), np.float32)


def _step(values: Plane, threshold: float, softness: float) -> Plane:
    """0 below the threshold, 1 above it, a ramp of width `softness` between."""
    ramp = (values - np.float32(threshold)) / np.float32(softness) + np.float32(0.5)
    return np.asarray(np.clip(ramp, 0, 1), np.float32)


def _blend(base: Plane, colour: npt.NDArray[np.float32], amount: Plane | npt.NDArray[np.bool_]) -> Plane:
    weight = np.asarray(amount, np.float32)[..., None]
    return (base + (colour - base) * weight).astype(np.float32, copy=False)
