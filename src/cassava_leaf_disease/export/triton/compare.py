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
from cassava_leaf_disease.inference.predictor import AnyPredictor, Prepared
from cassava_leaf_disease.inference.served import LOGITS, PIXELS
from cassava_leaf_disease.inference.vote import combine_answers, mean_over_views

if TYPE_CHECKING:
    import onnx

_PICTURES: Final = 64
_DRAWN_SIDE_PX: Final = 400


@dataclass(frozen=True)
class Comparison:
    """The largest difference of any probability on so many `pictures`, which `origin` names."""

    origin: str
    pictures: int
    max_difference: float


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
    differences = [_difference(predictor, predictor.prepare(picture), plan, sessions) for picture in pictures]
    return Comparison(f"{len(differences)} {origin}", len(differences), max(differences))


def _difference(
    predictor: AnyPredictor, prepared: Prepared, plan: Plan, sessions: Sequence[onnxruntime.InferenceSession]
) -> float:
    members = plan.description.members
    answers = []
    for member, session in zip(members, sessions, strict=True):
        views = prepared[member.metadata.preprocessing]  # (V, S, S, 3)
        [logits] = session.run([LOGITS], {PIXELS: views if len(views) == 1 else views[None]})
        answers.append(mean_over_views(logits.reshape(1, len(views), -1), member.metadata.temperature))
    weights = [member.weight for member in members]
    ours = combine_answers(np.stack(answers), weights, plan.description.combine)
    return float(np.abs(ours - predictor.predict([prepared])).max())


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
