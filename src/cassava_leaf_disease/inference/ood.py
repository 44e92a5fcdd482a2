"""How far a photo lies from the leaves that a network learned, by three scores; the larger, the stranger.

`energy` is minus the log of the sum of exponentials of the logits (Liu et al., 2020, "Energy-based
Out-of-distribution Detection"). The other two are distances among penultimate features `(N, D)`, each divided by its
length (Sun et al., 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors"; Mueller and Hein, 2025,
"Mahalanobis++"): `knn` to the k-th nearest training leaf, `mahalanobis` to the nearest class mean, under one
covariance for all classes (Lee et al., 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples").

A file keeps the main components of those features only: `mean` `(D,)` and the orthonormal `components` `(k, D)`. What
a photo has beside them counts as one number, its distance from their plane. For `knn` the file also keeps the leaves
in that plane, `bank` `(N, k)`. For `mahalanobis` it keeps `whitening` `(k, k)`, after which leaves of one class have
variance 1 in each direction, the classes' means `centers` `(C, k)` in those terms, and `residual_weight` `(1,)`, which
does the same for the distance from the plane.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import OodScore
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.modeling.gate_arrays import GateArrays

FloatArray = npt.NDArray[np.float64]

NEEDS_FEATURES: Final = frozenset[OodScore]({"knn", "mahalanobis"})
_SMALLEST: Final = 1e-12  # length by which features are divided
_LEAST_VARIANCE: Final = 1e-2  # of a direction, as a fraction of the mean over all: no direction decides alone


def fit_arrays(
    score: OodScore, outputs: EngineOutputs, labels: npt.NDArray[np.int64], dimensions: int
) -> dict[str, npt.NDArray[np.float16]]:
    """The arrays of a score, as a file keeps them, from what the network says of training leaves of classes `(N,)`.

    At most `dimensions` components, fewer where there are fewer photos or features. `energy` has none.

    Raises:
        ValueError: As `score_outputs`.
    """
    if score == "energy":
        return {}
    features = _features_of(score, outputs)
    unit = _unit(features)
    mean = unit.mean(axis=0)
    components = np.linalg.svd(unit - mean, full_matrices=False)[2][:dimensions]  # (k, D)
    arrays = {"mean": mean, "components": components}
    coordinates, beside = _place(features, arrays)
    if score == "knn":
        arrays["bank"] = coordinates
    else:
        arrays |= _fit_centers(coordinates, beside, labels, unit.shape[1])
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def score_outputs(score: OodScore, arrays: GateArrays, outputs: EngineOutputs, neighbors: int) -> FloatArray:
    """The score of N photos, `(N,)`.

    Raises:
        ValueError: It needs the network's features, and there are none, or not as many as when it was fitted.
    """
    if score == "energy":
        return energy(outputs.logits.astype(np.float64))
    features = _features_of(score, outputs)
    plain = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    coordinates, beside = _place(features, plain)
    if score == "knn":
        return np.sqrt(_nearest(coordinates, plain["bank"], neighbors) + beside)
    whitened = coordinates @ plain["whitening"]
    return np.sqrt(_nearest(whitened, plain["centers"], 1) + beside * plain["residual_weight"] ** 2)


def check_arrays(score: OodScore, arrays: GateArrays) -> None:
    """Refuses arrays that no score can be made of.

    Raises:
        ValueError: One is missing, or their shapes do not fit together.
    """
    if score == "energy":
        return
    shapes = {name: array.shape for name, array in arrays.items()}
    kept, features = shapes.get("components", ()) if len(shapes.get("components", ())) == 2 else (0, 0)
    points = shapes.pop("bank" if score == "knn" else "centers", ())
    expected = {"mean": (features,), "components": (kept, features)}
    if score == "mahalanobis":
        expected |= {"whitening": (kept, kept), "residual_weight": (1,)}
    if not kept or shapes != expected or len(points) != 2 or not points[0] or points[1] != kept:
        msg = f"arrays {shapes} and points {points} for the score {score}"
        raise ValueError(msg)


def energy(logits: FloatArray) -> FloatArray:
    """Minus the log of the sum of exponentials of logits `(N, C)`, `(N,)`."""
    largest = logits.max(axis=1)
    total: FloatArray = -(largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)))
    return total


def _features_of(score: OodScore, outputs: EngineOutputs) -> npt.NDArray[np.float32]:
    if outputs.features is None:
        msg = f"the score {score} needs the network's features"
        raise ValueError(msg)
    return outputs.features


def _fit_centers(
    coordinates: FloatArray, beside: FloatArray, labels: npt.NDArray[np.int64], features: int
) -> dict[str, FloatArray]:
    classes, places = np.unique(labels, return_inverse=True)
    means = np.stack([coordinates[labels == label].mean(axis=0) for label in classes])  # (C, k)
    within = coordinates - means[places]
    variances, directions = np.linalg.eigh(within.T @ within / len(within))
    floor = max(_LEAST_VARIANCE * float(variances.mean()), _SMALLEST)
    whitening = directions / np.sqrt(np.maximum(variances, floor))  # (k, k)
    each_beside = float(beside.mean()) / max(features - coordinates.shape[1], 1)
    return {
        "whitening": whitening,
        "centers": means @ whitening,
        "residual_weight": np.array([1 / np.sqrt(max(each_beside, floor))]),
    }


def _place(features: npt.NDArray[np.floating[Any]], arrays: GateArrays) -> tuple[FloatArray, FloatArray]:
    """Where photos lie in the plane of the components, `(N, k)`, and their squared distance from it, `(N,)`."""
    centred = _unit(features) - arrays["mean"]
    coordinates: FloatArray = centred @ arrays["components"].T
    return coordinates, np.maximum(_squares(centred) - _squares(coordinates), 0)


def _unit(features: npt.NDArray[np.floating[Any]]) -> FloatArray:
    plain = np.asarray(features, np.float64)
    scaled: FloatArray = plain / np.maximum(np.linalg.norm(plain, axis=1, keepdims=True), _SMALLEST)
    return scaled


def _squares(vectors: FloatArray) -> FloatArray:
    squares: FloatArray = np.einsum("nd,nd->n", vectors, vectors)
    return squares


def _nearest(points: FloatArray, bank: FloatArray, neighbors: int) -> FloatArray:
    """The squared distance of points `(N, k)` to the n-th nearest of a bank `(M, k)`, or to its farthest."""
    distances = _squares(points)[:, None] + _squares(bank)[None] - 2 * points @ bank.T  # (N, M)
    rank = min(neighbors, len(bank)) - 1
    nearest: FloatArray = np.maximum(np.partition(distances, rank, axis=1)[:, rank], 0)
    return nearest
