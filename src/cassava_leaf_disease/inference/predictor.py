"""Photos in, answers out: the one way from pixels to a `Prediction`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from cassava_leaf_disease.config.schema import Tta
from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.imaging.quality import PhotoQuality, measure_quality
from cassava_leaf_disease.inference.answer import to_prediction
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Device, Engine, EngineOutputs
from cassava_leaf_disease.inference.gate import open_gate
from cassava_leaf_disease.inference.model_files import is_exported, require_torch
from cassava_leaf_disease.inference.stages import Watch, unwatched
from cassava_leaf_disease.inference.views import VIEWS, UInt8Image, views_of
from cassava_leaf_disease.inference.vote import combine_foreign, softmax
from cassava_leaf_disease.modeling.metadata import ModelMetadata, QualityLimits, Thresholds
from cassava_leaf_disease.paths import ENGINE_SUFFIX


@dataclass(frozen=True)
class Prepared:
    """One photo as each network wants it, `(V, S, S, 3)` for V views, and its quality where a gate wants to know."""

    views: Mapping[Preprocessing, UInt8Image]
    quality: PhotoQuality | None = None

    def __getitem__(self, spec: Preprocessing) -> UInt8Image:
        return self.views[spec]


@dataclass(frozen=True)
class Answers:
    """What each of M models says of N photos: class probabilities `(M, N, C)`, and how foreign they are `(M, N)`.

    See `Gate.foreign` for the latter; NaN where a model has no gate.
    """

    probabilities: npt.NDArray[np.float64]
    foreign: npt.NDArray[np.float64]


class AnyPredictor(ABC):
    """What answers about photos, be it one model or several as one: decodes, prepares, runs, ranks.

    All it needs to know comes from the model files. `views` names what is looked at of each photo, `looks`
    says how to cut it out. `watch` may be set by who wants to know how long each stage takes.
    """

    def __init__(
        self,
        identity: ModelIdentity,
        thresholds: Thresholds,
        tta: Tta,
        limits: DecodeLimits | None = None,
        quality_limits: QualityLimits | None = None,
    ) -> None:
        self.identity = identity
        self.looks = VIEWS[tta]
        self.views = tuple(view.name for view in self.looks)
        self.thresholds = thresholds
        self._limits = limits or DecodeLimits()
        self.quality_limits = quality_limits
        self.watch: Watch = unwatched

    @property
    @abstractmethod
    def members(self) -> "tuple[Predictor, ...]":
        """The models whose answers it combines; of one model itself."""

    @property
    def shares(self) -> tuple[float, ...]:
        """How much each member counts; they sum to 1."""
        return (1.0,)

    @property
    @abstractmethod
    def temperature(self) -> float:
        """What the logits of its answer, a single network's or the combined one's, are divided by."""

    @property
    def class_prior(self) -> tuple[float, ...] | None:
        """What several models answer on average, where their combined answer was calibrated."""
        return None

    @property
    def min_confidence(self) -> float:
        """The probability from which an answer is a diagnosis."""
        return self.thresholds.min_confidence

    @property
    def described(self) -> tuple[ModelMetadata, ...]:
        """What every trained network says of itself, those of an ensemble in one file too."""
        files = (member.metadata for member in self.members)
        return tuple(each for metadata in files for each in metadata.members or (metadata,))

    @property
    def photo_side_px(self) -> int | None:
        """The shorter side to which all members resize a photo at first; None where they differ."""
        sides = {member.metadata.preprocessing.resize_side_px for member in self.members}
        return sides.pop() if len(sides) == 1 else None

    @property
    def source_side_px(self) -> int | None:
        """The same for photos that a gate judges, too: None where it does, since it wants them as they were taken."""
        return self.photo_side_px if self.quality_limits is None else None

    def prepare(self, image: UInt8Image) -> Prepared:
        """The views of a decoded photo, `(H, W, 3)` uint8 RGB of any size; several threads may call it at once.

        Raises:
            ImageError: The photo is a strip that cannot be resized.
        """
        quality = None
        if self.quality_limits is not None:
            with self.watch("gate"):
                quality = measure_quality(image)
        with self.watch("preprocess"):
            return Prepared(self.views_by_network(image), quality)

    @abstractmethod
    def views_by_network(self, image: UInt8Image) -> Mapping[Preprocessing, UInt8Image]:
        """The views `(V, S, S, 3)` of a decoded photo, as each member wants them."""

    @abstractmethod
    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` from those of each member, `(M, N, C)`."""

    def predict_each(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Every member's class probabilities `(M, N, C)` of prepared photos: the mean over the views of each.

        Raises:
            CheckpointError: A network answers with NaN or infinity, as one whose training diverged does.
        """
        return self.ask_each(photos).probabilities

    def ask_each(self, photos: Sequence[Prepared]) -> Answers:
        """Every member's answers about prepared photos: the means over the views of each.

        Raises:
            CheckpointError: As `predict_each`.
        """
        probabilities, foreign = zip(*(member.mean_over_views(photos) for member in self.members), strict=True)
        return Answers(np.stack(probabilities), np.stack(foreign))

    def predict(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` of prepared photos.

        Raises:
            CheckpointError: As `predict_each`.
        """
        return self.combine(self.predict_each(photos))

    def predict_all(
        self, photos: Sequence[Prepared], *, names: Sequence[str] | None = None, top_k: int = 5
    ) -> list[Prediction]:
        """The answers about prepared photos, `names` their names.

        Raises:
            CheckpointError: As `predict_each`.
        """
        answers = self.ask_each(photos)
        rows = self.combine(answers.probabilities).tolist()
        return [
            self.answer(row, top_k=top_k, name=name, quality=photo.quality, foreign=foreign)
            for row, name, photo, foreign in zip(
                rows, names or repeat(None, len(photos)), photos, combine_foreign(answers.foreign), strict=True
            )
        ]

    def predict_bytes(self, data: bytes, *, name: str, top_k: int = 5) -> Prediction:
        """The answer about one JPEG or PNG file.

        Raises:
            ImageError: The bytes cannot be used as a photo.
            CheckpointError: As `predict`.
        """
        return self.predict_image(self.decode(data, name=name), name=name, top_k=top_k)

    def decode(self, data: bytes, *, name: str) -> UInt8Image:
        """The pixels of one JPEG or PNG file, `(H, W, 3)` uint8 RGB.

        Raises:
            ImageError: The bytes cannot be used as a photo.
        """
        with self.watch("decode"):
            return decode_image(data, self._limits, name=name)

    def predict_image(self, image: UInt8Image, *, name: str | None = None, top_k: int = 5) -> Prediction:
        """The answer about one decoded photo, `(H, W, 3)` uint8 RGB of any size."""
        return self.predict_all([self.prepare(image)], names=None if name is None else [name], top_k=top_k)[0]

    def answer(
        self,
        probabilities: Sequence[float],
        *,
        top_k: int,
        name: str | None = None,
        quality: PhotoQuality | None = None,
        foreign: float | None = None,
    ) -> Prediction:
        """The `Prediction` for class probabilities `(C,)` that sum to 1; what is None was not looked at."""
        return to_prediction(
            probabilities,
            self.identity,
            self.thresholds,
            self.quality_limits,
            self.views,
            top_k=top_k,
            name=name,
            quality=quality,
            foreign=foreign,
        )


class Predictor(AnyPredictor):
    """One loaded model file."""

    def __init__(
        self, engine: Engine, found: FoundModel, limits: DecodeLimits | None = None, tta: Tta = "none"
    ) -> None:
        described = engine.metadata
        identity = ModelIdentity(
            name=described.name, version=described.version, source=found.source, path=str(found.path)
        )
        self.gate = open_gate(described, engine.gate_arrays, str(found.path))
        self.gate_arrays = engine.gate_arrays
        quality_limits = None if self.gate is None else self.gate.quality
        super().__init__(identity, described.thresholds, tta, limits, quality_limits)
        self.metadata = described
        self.engine = engine
        self._tta: Tta = tta

    @property
    @override
    def members(self) -> "tuple[Predictor, ...]":
        return (self,)

    @property
    @override
    def temperature(self) -> float:
        return self.metadata.temperature

    @override
    def views_by_network(self, image: UInt8Image) -> Mapping[Preprocessing, UInt8Image]:
        spec = self.metadata.preprocessing
        return {spec: views_of(image, spec, self._tta)}

    @override
    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        [alone] = answers
        return np.asarray(alone)

    def mean_over_views(self, photos: Sequence[Prepared]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Class probabilities `(N, C)`, and how foreign the photos are, `(N,)`, NaN without a gate.

        Raises:
            CheckpointError: As `probabilities`.
        """
        spec = self.metadata.preprocessing
        probabilities, foreign = np.zeros((len(photos), len(CLASS_NAMES))), np.zeros(len(photos))
        for view in range(len(self.views)):  # one after another: a batch stays as large as the caller made it
            outputs = self.outputs(np.stack([photo[spec][view] for photo in photos]))
            probabilities += self._soften(outputs) / len(self.views)
            with self.watch("gate"):
                foreign += (np.nan if self.gate is None else self.gate.foreign(outputs)) / len(self.views)
        return probabilities, foreign

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` for images at the network's size, `(N, S, S, 3)` uint8.

        Raises:
            CheckpointError: The network answers with NaN or infinity, as one whose training diverged does.
        """
        return self._soften(self.outputs(images))

    def _soften(self, outputs: EngineOutputs) -> npt.NDArray[np.float64]:
        return softmax(outputs.logits.astype(np.float64) / self.metadata.temperature)

    def outputs(self, images: npt.NDArray[np.uint8]) -> EngineOutputs:
        """What the network says of images at its size, `(N, S, S, 3)` uint8.

        Raises:
            CheckpointError: As `probabilities`.
        """
        with self.watch("preprocess"):
            batch = normalize(images, self.metadata.preprocessing)
        with self.watch("network"):
            outputs = self.engine.run(batch)
        if not np.isfinite(outputs.logits).all():
            raise CheckpointError(
                f"{self.identity.path}: its network gives no finite answer, so its training has diverged; "
                "type infer.checkpoint_path=… of another run"
            )
        return outputs


def load_predictor(
    found: FoundModel,
    device: Device,
    limits: DecodeLimits | None = None,
    tta: Tta = "none",
    *,
    threads: int | None = None,
) -> Predictor:
    """Loads the engine that fits the model file.

    That is ONNX Runtime for an exported one, TensorRT for an engine built of it, PyTorch for a checkpoint.

    `threads` work on one photo with ONNX Runtime (None: one a processor); PyTorch has its own, process-wide number.

    Raises:
        CheckpointError: The file is damaged or foreign.
        DeviceError: The device is not there.
        MissingDependencyError: A checkpoint needs PyTorch and it is not installed.
    """
    keep_freed_memory()  # the way from bytes to a verdict at 448 px takes a tenth less time
    if is_exported(found.path):
        from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine

        return Predictor(OnnxEngine(found.path, device, threads), found, limits, tta)
    if found.path.suffix.lower() == ENGINE_SUFFIX:
        from cassava_leaf_disease.inference.engines.tensorrt import TensorRtEngine

        return Predictor(TensorRtEngine(found.path, device), found, limits, tta)
    require_torch(found.path.name)
    from cassava_leaf_disease.inference.engines.torch_engine import TorchEngine

    return Predictor(TorchEngine(found.path, device), found, limits, tta)
