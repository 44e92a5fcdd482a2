"""What values each tensor of a graph takes on photos, and the range that eight bits are best spent on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

FloatArray = npt.NDArray[np.float32]

LEVELS: Final = 255
_VALUES_OF_A_PHOTO: Final = 2_000  # of each tensor that are kept
_SHRINKING: Final = tuple(np.linspace(1.0, 0.2, 33).tolist())


@dataclass
class Observed:
    """The values of one tensor: the extremes of all, a sample, and the mean of each channel `(C,)`."""

    low: float = 0.0  # zero is always in, since padding needs it
    high: float = 0.0
    sample: list[FloatArray] = field(default_factory=list)
    sums: FloatArray | None = None
    photos: int = 0

    def add(self, values: FloatArray, generator: np.random.Generator) -> None:
        """Takes the values of N photos into account, `(N, C, H, W)`."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        flat = values.reshape(-1)
        places = generator.integers(0, flat.size, _VALUES_OF_A_PHOTO * len(values))
        self.sample.append(flat[places])
        sums = values.mean(axis=tuple(range(2, values.ndim)), dtype=np.float64).sum(axis=0)
        self.sums = sums if self.sums is None else self.sums + sums
        self.photos += len(values)

    @property
    def channel_means(self) -> npt.NDArray[np.float64]:
        """The mean value of each channel."""
        assert self.sums is not None  # noqa: S101  something was added
        return np.asarray(self.sums / self.photos)


@dataclass(frozen=True)
class Range:
    """The values that 0 to 255 stand for."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """The step from one number to the next."""
        return max(self.high - self.low, 1e-8) / LEVELS

    @property
    def zero_point(self) -> int:
        """The number that stands for zero."""
        return int(np.clip(round(-self.low / self.scale), 0, LEVELS))


def observe(
    model: "onnx.ModelProto", tensors: Sequence[str], batches: Iterable[FloatArray], threads: int
) -> dict[str, Observed]:
    """Runs the graph on normalised photos `(N, 3, S, S)` and looks at some of its tensors."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = [each.name for each in model.graph.input]
    named = [name for name in tensors if name not in inputs]
    outputs = {each.name for each in model.graph.output}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in named if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    observed = {name: Observed() for name in tensors}
    generator = np.random.default_rng(0)
    for batch in batches:
        values = dict(zip(named, session.run(named, {inputs[0]: batch}), strict=True)) | {inputs[0]: batch}
        for name in tensors:
            observed[name].add(values[name], generator)
    return observed


def best_range(observed: Observed) -> Range:
    """The range whose 256 numbers stand for the sample with little squared error; rare extremes are cut off.

    The best upper end is looked for first, then the best lower one.
    """
    sample = np.concatenate(observed.sample)

    def best(ranges: list[Range]) -> Range:
        return min(ranges, key=lambda each: _squared_error(sample, each))

    above = best([Range(observed.low, observed.high * shrink) for shrink in _SHRINKING])
    return best([Range(observed.low * shrink, above.high) for shrink in _SHRINKING]) if observed.low < 0 else above


def _squared_error(values: FloatArray, by: Range) -> float:
    scale, zero = np.float32(by.scale), by.zero_point
    numbers = np.clip(np.rint(values / scale) + zero, 0, LEVELS)
    return float(np.square((numbers - zero) * scale - values).mean())
