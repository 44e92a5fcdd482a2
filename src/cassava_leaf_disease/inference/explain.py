"""Where in a photo a model sees what it answers: its class maps, laid over the photo."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cassava_leaf_disease.errors import NoClassMapsError
from cassava_leaf_disease.imaging.preprocess import resize_shorter_side, resized_shape
from cassava_leaf_disease.inference.engines.base import Float32Array
from cassava_leaf_disease.inference.predictor import AnyPredictor, Predictor
from cassava_leaf_disease.inference.views import UInt8Image, View
from cassava_leaf_disease.inference.vote import softmax
from cassava_leaf_disease.storage.files import replacing

Shape = tuple[int, int]  # height and width in pixels
BoolArray = npt.NDArray[np.bool_]

OVERLAY_SIDE_PX: Final = 768  # the shorter side to which a larger photo is reduced before it is written
HEATMAP_SUFFIX: Final = ".heatmap.png"

# Eleven colours of matplotlib's `plasma` (van der Walt and Smith, 2015, CC0): lightness rises evenly, also to
# colour-blind eyes, and none is the green of a leaf.
_PLASMA: Final = (
    *((13, 8, 135), (65, 4, 157), (106, 0, 168), (143, 13, 164), (177, 42, 144), (204, 71, 120)),
    *((225, 100, 98), (242, 132, 75), (252, 166, 54), (252, 206, 37), (240, 249, 33)),
)
_COLOUR_LOSS: Final = 0.9  # of the photo below, so that no green and yellow of leaves is taken for heat
_OPAQUE: Final = 0.55  # how much of the photo the hottest places cover
_UNSEEN: Final = 0.35  # brightness of what the network was not shown


def class_map(predictor: AnyPredictor, image: UInt8Image, class_id: int | None = None) -> Float32Array:
    """How much each place of a photo `(H, W, 3)` looks like a class: `(H, W)` float32 in [0, 1].

    The value is the probability that the model would give the class if the whole photo looked to it as the place
    does: class activation maps (Zhou et al., 2016) through the softmax that makes answers of logits. So 0.9 means
    the same in every photo, and no photo has a hot place because one had to be the hottest. Without `class_id` it
    is the predicted class. Over several views the map is their mean, over an ensemble's members the mean by their
    shares. What no view shows of the photo is 0; `seen_part` tells which part that is.

    Raises:
        NoClassMapsError: A model file has no maps.
        CheckpointError: A network answers with NaN.
        ImageError: The photo is a strip.
    """
    return _class_map(predictor, image, (image.shape[0], image.shape[1]), class_id)


def seen_part(predictor: AnyPredictor, shape: Shape) -> BoolArray:
    """Which pixels `(H, W)` of a photo of `shape` all members are shown; the centre crop leaves out the others."""
    seen = np.ones(shape, np.bool_)
    for member in predictor.members:
        spec = member.metadata.preprocessing
        resized = resized_shape(*shape, spec.resize_side_px)
        covered = np.zeros(resized, np.float32)
        for view in predictor.looks:
            covered[view.span(resized, spec.image_size_px)] = 1
        seen &= _resize(covered, shape) > 0.5
    return seen


def overlay(image: UInt8Image, heat: Float32Array, seen: BoolArray | None = None) -> UInt8Image:
    """A photo `(H, W, 3)` under its heat `(H, W)` in [0, 1]: `(H, W, 3)` uint8.

    The photo loses most of its colour; heat goes from clear over blue and red to bright yellow. What is not `seen`
    `(H, W)` is dark.
    """
    photo = Image.fromarray(image)
    muted = Image.blend(photo, photo.convert("L").convert("RGB"), _COLOUR_LOSS)
    levels = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    colours, covering = _colour_table()
    covered = Image.composite(Image.fromarray(colours[levels]), muted, Image.fromarray(covering[levels]))
    if seen is not None:
        dark = muted.point(lambda value: value * _UNSEEN)
        covered = Image.composite(covered, dark, Image.fromarray(seen.astype(np.uint8) * 255))
    return np.array(covered)


def draw_heatmap(predictor: AnyPredictor, image: UInt8Image, class_id: int | None = None) -> Image.Image:
    """The overlay of a photo, large photos reduced.

    Raises:
        CheckpointError: As `class_map`.
    """
    shown = resize_shorter_side(image, OVERLAY_SIDE_PX, enlarge=False)
    shape = (shown.shape[0], shown.shape[1])
    return Image.fromarray(overlay(shown, _class_map(predictor, image, shape, class_id), seen_part(predictor, shape)))


def write_heatmap(predictor: AnyPredictor, image: UInt8Image, class_id: int, path: Path) -> None:
    """Writes the overlay of a photo as PNG, large photos reduced.

    Raises:
        CheckpointError: As `class_map`.
    """
    picture = draw_heatmap(predictor, image, class_id)
    with replacing(path) as file:
        picture.save(file, "PNG")


def heatmap_paths(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Where the overlays of photos go: `leaf.jpg` to `leaf.heatmap.png`; of several leaves the second to `leaf-2…`."""
    given: dict[str, int] = {}
    paths = []
    for photo in photos:
        count = given[photo.stem] = given.get(photo.stem, 0) + 1
        paths.append(folder / f"{photo.stem}{f'-{count}' if count > 1 else ''}{HEATMAP_SUFFIX}")
    return paths


def place_probabilities(predictor: Predictor, images: npt.NDArray[np.uint8]) -> Float32Array:
    """Class probabilities at each place, `(N, C, h, w)`, of images at the network's size, `(N, S, S, 3)`.

    Raises:
        NoClassMapsError: The model file has no maps.
    """
    maps = predictor.outputs(images).maps
    if maps is None:
        raise NoClassMapsError(
            f"{predictor.identity.path}: this model file gives no class maps, so there is nothing to explain an answer "
            "with; export its checkpoint again, or type infer.explain=false"
        )
    return softmax(maps.astype(np.float64) / predictor.metadata.temperature).astype(np.float32)


def _class_map(predictor: AnyPredictor, image: UInt8Image, shape: Shape, class_id: int | None) -> Float32Array:
    """As `class_map`, at the size `shape`."""
    prepared = predictor.prepare(image)
    if class_id is None:
        class_id = int(predictor.predict([prepared])[0].argmax())
    heat = np.zeros(shape, np.float32)
    for member, share in zip(predictor.members, predictor.shares, strict=True):
        spec = member.metadata.preprocessing
        squares = [
            _resize(place_probabilities(member, view[None])[0, class_id], (spec.image_size_px, spec.image_size_px))
            for view in prepared[spec]
        ]
        resized = resized_shape(image.shape[0], image.shape[1], spec.resize_side_px)
        heat += np.float32(share) * _mean_in_photo(squares, predictor.looks, resized, shape)
    return np.clip(heat, 0, 1)


def _mean_in_photo(
    squares: Sequence[Float32Array], views: Sequence[View], resized: Shape, shape: Shape
) -> Float32Array:
    """What was found in the views `(S, S)` of a photo of size `resized`, brought back to it, and to its own `shape`."""
    total, count = np.zeros(resized, np.float32), np.zeros(resized, np.float32)
    for square, view in zip(squares, views, strict=True):
        span = view.span(resized, square.shape[0])
        total[span] += view.undone(square)
        count[span] += 1
    total, count = _resize(total, shape), _resize(count, shape)
    # Along the edge of what was shown the filter mixes in nothing: dividing by what it mixed takes that out again.
    return np.divide(total, count, out=np.zeros(shape, np.float32), where=count > 0.5)


def _resize(values: Float32Array, shape: Shape) -> Float32Array:
    """`(h, w)` to `shape`, bilinear."""
    height, width = shape
    return np.array(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


@cache
def _colour_table() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """For 256 levels of heat the colours `(256, 3)` and how much of the photo they cover, 0 to 255."""
    levels = np.linspace(0, 1, 256)
    anchors = np.array(_PLASMA, np.float64)
    places = np.linspace(0, 1, len(anchors))
    channels = [np.interp(levels, places, anchors[:, channel]) for channel in range(3)]
    covering = _OPAQUE * np.minimum(levels / 0.5, 1)  # no veil over the cold, no photo lost under the hot
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8), np.rint(covering * 255).astype(np.uint8)
