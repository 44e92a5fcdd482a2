"""Whether two photos show the same scene, by points that lie alike in both."""

from typing import Final

import numpy as np
import numpy.typing as npt

SIDE_PX: Final = 320  # the longer side that is looked at
MAX_POINTS: Final = 400
LARGEST_RATIO: Final = 0.8  # of the best match's distance to the second best (Lowe, 2004)
REACH_PX: Final = 4.0  # how far a point may lie from where the map puts it
LARGEST_SCALE: Final = 2.5

_Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float32]


def agreeing_points(first: _Pixels, second: _Pixels) -> int:
    """How many SIFT points (Lowe, 2004) of two photos, (H, W, 3) uint8, lie alike under one affine map.

    The map may turn, shift, shear and scale, but not mirror or crush. Fifty milliseconds of one core a pair.
    """
    import cv2

    (places, descriptors), (other_places, other_descriptors) = _points(first), _points(second)
    if min(len(places), len(other_places)) < 2:
        return 0
    matches = cv2.BFMatcher().knnMatch(descriptors, other_descriptors, k=2)
    clear = [best for best, next_best in matches if best.distance < LARGEST_RATIO * next_best.distance]
    if len(clear) < 3:
        return 0
    source = places[[match.queryIdx for match in clear]]
    target = other_places[[match.trainIdx for match in clear]]
    affine, inside = cv2.estimateAffine2D(source, target, ransacReprojThreshold=REACH_PX)
    return int(inside.sum()) if affine is not None and _is_plausible(np.asarray(affine[:, :2], np.float64)) else 0


def _points(image: _Pixels) -> tuple[_Floats, _Floats]:
    """Places (K, 2) and descriptors (K, 128) in RootSIFT's scale (Arandjelovic and Zisserman, 2012)."""
    import cv2

    scale = min(1, SIDE_PX / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    grey = cv2.cvtColor(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT.create(MAX_POINTS).detectAndCompute(grey, None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    if not len(places):
        return places, np.empty((0, 128), np.float32)
    return places, np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))


def _is_plausible(linear: npt.NDArray[np.float64]) -> bool:
    if not np.isfinite(linear).all():  # points on one line give no map
        return False
    largest, smallest = np.linalg.svd(linear, compute_uv=False)
    return bool(np.linalg.det(linear) > 0 and largest < LARGEST_SCALE and smallest > 1 / LARGEST_SCALE)
