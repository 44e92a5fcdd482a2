"""Test-time augmentation: the named views of one photo that a network is asked about; the answer is their mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import Tta
from cassava_leaf_disease.imaging.preprocess import Preprocessing, resize_shorter_side

UInt8Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """A square of the resized photo, mirrored left to right if asked, then turned counter-clockwise.

    `place` is where the square lies along each side: in the middle, or against the upper left or lower right
    corner, which for a photo of the network's height means its left or right end.
    """

    name: str
    place: Literal["center", "start", "end"] = "center"
    mirrored: bool = False
    quarter_turns: int = 0

    def of(self, resized: UInt8Image, size_px: int) -> UInt8Image:
        """The view `(S, S, 3)` of a photo `(H, W, 3)` whose sides are at least S."""
        square = _cut(resized, size_px, self.place)
        if self.mirrored:
            square = square[:, ::-1]
        return np.ascontiguousarray(np.rot90(square, self.quarter_turns))


_IDENTITY: Final = View("identity")
_HFLIP: Final = View("hflip", mirrored=True)
_VFLIP: Final = View("vflip", mirrored=True, quarter_turns=2)
_ROT90: Final = View("rot90", quarter_turns=1)
_ROT180: Final = View("rot180", quarter_turns=2)
_ROT270: Final = View("rot270", quarter_turns=3)
_TRANSPOSE: Final = View("transpose", mirrored=True, quarter_turns=1)
_TRANSVERSE: Final = View("transverse", mirrored=True, quarter_turns=3)
_START: Final = View("start", place="start")
_END: Final = View("end", place="end")

# All but the crops are groups: a photo and any view of it get the same answer.
VIEWS: Final[Mapping[Tta, tuple[View, ...]]] = {
    "none": (_IDENTITY,),
    "flips": (_IDENTITY, _HFLIP, _VFLIP, _ROT180),
    "rotations": (_IDENTITY, _ROT90, _ROT180, _ROT270),
    "dihedral": (_IDENTITY, _HFLIP, _VFLIP, _ROT180, _ROT90, _ROT270, _TRANSPOSE, _TRANSVERSE),
    "crops": (_START, _IDENTITY, _END),
    "crops_hflip": (
        *(_START, _IDENTITY, _END),
        *(View("start_hflip", "start", mirrored=True), _HFLIP, View("end_hflip", "end", mirrored=True)),
    ),
}


def views_of(image: UInt8Image, spec: Preprocessing, tta: Tta) -> UInt8Image:
    """The views `(V, S, S, 3)` of a photo `(H, W, 3)` uint8 of any size, in the order of `VIEWS[tta]`.

    The view `identity` is what `to_network_size` gives.

    Raises:
        ImageTooLargeError: As `resize_shorter_side`.
    """
    resized = resize_shorter_side(image, spec.resize_side_px)
    return np.stack([view.of(resized, spec.image_size_px) for view in VIEWS[tta]])


def _cut(image: UInt8Image, size_px: int, place: Literal["center", "start", "end"]) -> UInt8Image:
    """As `center_crop` cuts, or at one end of both sides."""
    margins = (image.shape[0] - size_px, image.shape[1] - size_px)
    top, left = (0 if place == "start" else margin if place == "end" else margin // 2 for margin in margins)
    return image[top : top + size_px, left : left + size_px]
