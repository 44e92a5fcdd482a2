"""Whether the repository's graphs and vote answer as the local predictor does; computed here, without a server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.data.table import file_names
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.export.triton.model_configs import Plan
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.predictor import AnyPredictor, Prepared
from cassava_leaf_disease.inference.served import PIXELS
from cassava_leaf_disease.inference.served_vote import vote
from cassava_leaf_disease.inference.vote import combine_foreign

if TYPE_CHECKING:
    import onnx

_PICTURES: Final = 64
_DRAWN_SIDE_PX: Final = 400


@dataclass(frozen=True)
class Comparison:
    """The largest differences on so many `pictures`, which `origin` names: of any probability, and of `foreign`.

    The latter is how unlike the leaves of the training a photo is; 0 where no member has a gate.
    """

    origin: str
    pictures: int
    max_difference: float
    max_foreign_difference: float


def compare(predictor: AnyPredictor, plan: Plan, graphs: Sequence["onnx.ModelProto"], data_dir: Path) -> Comparison:
    """Up to 64 photos of `train_images` in `data_dir`, or as many drawn leaves, by both ways."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.cpus
    sessions = [
        onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for graph in graphs
    ]
    photos = islice(_photos(data_dir / "train_images"), _PICTURES)
    first = next(photos, None)
    origin = f"photos of {data_dir}" if first is not None else "drawn leaves"
    pictures = chain([first], photos) if first is not None else map(_drawn, range(_PICTURES))
    differences = np.array(
        [_differences(predictor, predictor.prepare(picture), plan, sessions) for picture in pictures]
    )  # (pictures, 2)
    largest = differences.max(axis=0).tolist()
    return Comparison(f"{len(differences)} {origin}", len(differences), *largest)


def _differences(
    predictor: AnyPredictor, prepared: Prepared, plan: Plan, sessions: Sequence[onnxruntime.InferenceSession]
) -> tuple[float, float]:
    outputs = []
    for member, session in zip(plan.description.members, sessions, strict=True):
        views = prepared[member.metadata.preprocessing]  # (V, S, S, 3)
        answers = session.run(None, {PIXELS: views if len(views) == 1 else views[None]})  # logits, features if any
        outputs.append(EngineOutputs(*answers))
    probabilities, foreign = vote(plan.vote_settings(), [member.gate for member in predictor.members], outputs)
    expected = predictor.ask_each([prepared])
    difference = float(np.abs(probabilities - predictor.combine(expected.probabilities)).max())
    if foreign is None:
        return difference, 0.0
    [expected_foreign] = combine_foreign(expected.foreign)
    return difference, abs(float(foreign[0]) - (expected_foreign or 0.0))


def _photos(folder: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Photos from all over a folder; those that cannot be used are passed over."""
    names = sorted(file_names(folder)) if folder.is_dir() else []
    for name in names[:: max(1, len(names) // _PICTURES)]:
        try:
            yield read_image(folder / name)
        except CassavaError:
            continue


def _drawn(seed: int) -> npt.NDArray[np.uint8]:
    return draw_leaf(seed, seed % NUM_CLASSES, _DRAWN_SIDE_PX)
