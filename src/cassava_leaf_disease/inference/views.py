"""Test-time augmentation: the named views of one photo that a network is asked about; the answer is their mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.imaging.preprocess import Preprocessing, resize_shorter_side

if TYPE_CHECKING:  # Triton's server takes this file along, and no configuration
    from cassava_leaf_disease.config.schema import Tta

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
        rows, columns = self.span(resized.shape[:2], size_px)
        square = resized[rows, columns]
        if self.mirrored:
            square = square[:, ::-1]
        return np.ascontiguousarray(np.rot90(square, self.quarter_turns))

    def span(self, shape: tuple[int, ...], size_px: int) -> tuple[slice, slice]:
        """The rows and columns of a photo of `shape` (height, width) that the view shows, as `center_crop` cuts."""
        margins = (side - size_px for side in shape)
        places = {"start": lambda _: 0, "center": lambda margin: margin // 2, "end": lambda margin: margin}
        top, left = map(places[self.place], margins)
        return slice(top, top + size_px), slice(left, left + size_px)

    def undone(self, square: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What was found at the places `(S, S)` of the view, at those of the photo's square that it shows."""
        upright = np.rot90(square, -self.quarter_turns)
        return upright[:, ::-1] if self.mirrored else upright


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
VIEWS: Final[Mapping["Tta", tuple[View, ...]]] = {
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


def views_of(image: UInt8Image, spec: Preprocessing, tta: "Tta") -> UInt8Image:
    """The views `(V, S, S, 3)` of a photo `(H, W, 3)` uint8 of any size, in the order of `VIEWS[tta]`.

    The view `identity` is what `to_network_size` gives.

    Raises:
        ImageTooLargeError: As `resize_shorter_side`.
    """
    resized = resize_shorter_side(image, spec.resize_side_px)
    return np.stack([view.of(resized, spec.image_size_px) for view in VIEWS[tta]])
