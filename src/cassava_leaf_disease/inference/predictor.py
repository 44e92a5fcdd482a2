"""Photos in, answers out: the one way from pixels to a `Prediction`."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from cassava_leaf_disease.config.schema import Tta
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction, probabilities_by_name, rank_classes
from cassava_leaf_disease.errors import CheckpointError, MissingDependencyError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Device, Engine, EngineOutputs
from cassava_leaf_disease.inference.views import VIEWS, UInt8Image, views_of
from cassava_leaf_disease.modeling.metadata import Thresholds
from cassava_leaf_disease.paths import ENSEMBLE_FILE

Prepared = Mapping[Preprocessing, UInt8Image]  # one photo as each network wants it: (V, S, S, 3), V views


class AnyPredictor(ABC):
    """What answers about photos, be it one model or several as one: decodes, prepares, runs, ranks.

    All it needs to know comes from the model files. `views` names what is looked at of each photo, `looks`
    says how to cut it out.
    """

    def __init__(
        self, identity: ModelIdentity, thresholds: Thresholds, tta: Tta, limits: DecodeLimits | None = None
    ) -> None:
        self.identity = identity
        self.looks = VIEWS[tta]
        self.views = tuple(view.name for view in self.looks)
        self._thresholds = thresholds
        self._limits = limits or DecodeLimits()

    @property
    @abstractmethod
    def members(self) -> "tuple[Predictor, ...]":
        """The models whose answers it combines; of one model itself."""

    @property
    def shares(self) -> tuple[float, ...]:
        """How much each member counts; they sum to 1."""
        return (1.0,)

    @property
    def min_confidence(self) -> float:
        """The probability from which an answer is a diagnosis."""
        return self._thresholds.min_confidence

    @property
    def photo_side_px(self) -> int | None:
        """The shorter side to which all members resize a photo at first; None where they differ."""
        sides = {member.metadata.preprocessing.resize_side_px for member in self.members}
        return sides.pop() if len(sides) == 1 else None

    @abstractmethod
    def prepare(self, image: UInt8Image) -> Prepared:
        """The views of a decoded photo, `(H, W, 3)` uint8 RGB of any size; several threads may call it at once.

        Raises:
            ImageError: The photo is a strip that cannot be resized.
        """

    @abstractmethod
    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` from those of each member, `(M, N, C)`."""

    def predict_each(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Every member's class probabilities `(M, N, C)` of prepared photos: the mean over the views of each.

        Raises:
            CheckpointError: A network answers with NaN or infinity, as one whose training diverged does.
        """
        return np.stack([member.mean_over_views(photos) for member in self.members])

    def predict(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` of prepared photos.

        Raises:
            CheckpointError: As `predict_each`.
        """
        return self.combine(self.predict_each(photos))

    def predict_bytes(self, data: bytes, *, name: str, top_k: int = 5) -> Prediction:
        """The answer about one JPEG or PNG file.

        Raises:
            ImageError: The bytes cannot be used as a photo.
            CheckpointError: As `predict`.
        """
        return self.predict_image(decode_image(data, self._limits, name=name), name=name, top_k=top_k)

    def predict_image(self, image: UInt8Image, *, name: str | None = None, top_k: int = 5) -> Prediction:
        """The answer about one decoded photo, `(H, W, 3)` uint8 RGB of any size."""
        return self.answer(self.predict([self.prepare(image)])[0].tolist(), top_k=top_k, name=name)

    def answer(self, probabilities: Sequence[float], *, top_k: int, name: str | None = None) -> Prediction:
        """The `Prediction` for class probabilities `(C,)` that sum to 1."""
        ranking = rank_classes(probabilities, CLASS_NAMES, top_k)
        best = ranking[0]
        confident = best.prob >= self._thresholds.min_confidence
        return Prediction(
            predicted_class_id=best.class_id,
            class_name=best.class_name,
            confidence=best.prob,
            probabilities=dict(probabilities_by_name(probabilities, CLASS_NAMES)),
            top_k=ranking,
            verdict="diagnosis" if confident else "uncertain",
            model=self.identity,
            image=name,
            views=self.views if len(self.views) > 1 else (),
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
        super().__init__(identity, described.thresholds, tta, limits)
        self.metadata = described
        self._engine = engine
        self._tta: Tta = tta

    @property
    @override
    def members(self) -> "tuple[Predictor, ...]":
        return (self,)

    @override
    def prepare(self, image: UInt8Image) -> Prepared:
        spec = self.metadata.preprocessing
        return {spec: views_of(image, spec, self._tta)}

    @override
    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        [alone] = answers
        return np.asarray(alone)

    def mean_over_views(self, photos: Sequence[Prepared]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)`.

        Raises:
            CheckpointError: As `probabilities`.
        """
        spec = self.metadata.preprocessing
        views = range(len(self.views))  # one after another: a batch stays as large as the caller made it
        answers = [self.probabilities(np.stack([photo[spec][view] for photo in photos])) for view in views]
        mean: npt.NDArray[np.float64] = np.mean(answers, axis=0)
        return mean

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` for images at the network's size, `(N, S, S, 3)` uint8.

        Raises:
            CheckpointError: The network answers with NaN or infinity, as one whose training diverged does.
        """
        return softmax(self.outputs(images).logits.astype(np.float64) / self.metadata.temperature)

    def outputs(self, images: npt.NDArray[np.uint8]) -> EngineOutputs:
        """What the network says of images at its size, `(N, S, S, 3)` uint8.

        Raises:
            CheckpointError: As `probabilities`.
        """
        outputs = self._engine.run(normalize(images, self.metadata.preprocessing))
        if not np.isfinite(outputs.logits).all():
            raise CheckpointError(
                f"{self.identity.path}: its network gives no finite answer, so its training has diverged; "
                "type infer.checkpoint_path=… of another run"
            )
        return outputs


def check_device(device: Device, model: Path | Sequence[Path] | None = None) -> None:
    """Refuses a device that is not there, before any other work.

    `model` is the file that was asked for, or several; exported ones need ONNX Runtime's CUDA, others PyTorch's.

    Raises:
        DeviceError: `cuda` was asked for on a machine without it.
        MissingDependencyError: `cuda` needs PyTorch and it is not installed.
    """
    files = [model] if isinstance(model, Path) else list(model or ())
    if device != "cuda" or any(map(is_ensemble, files)):  # loading its members will tell
        return
    if files and all(map(is_exported, files)):
        from cassava_leaf_disease.inference.engines.onnx_engine import resolve_providers

        resolve_providers(device)
    else:
        require_torch("device=cuda")
        from cassava_leaf_disease.inference.engines.torch_engine import resolve_device

        resolve_device(device)


def load_predictor(
    found: FoundModel, device: Device, limits: DecodeLimits | None = None, tta: Tta = "none"
) -> Predictor:
    """Loads the engine that fits the model file: ONNX Runtime for an exported one, PyTorch for a checkpoint.

    Raises:
        CheckpointError: The file is damaged or foreign.
        DeviceError: The device is not there.
        MissingDependencyError: A checkpoint needs PyTorch and it is not installed.
    """
    if is_exported(found.path):
        from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine

        return Predictor(OnnxEngine(found.path, device), found, limits, tta)
    require_torch(found.path.name)
    from cassava_leaf_disease.inference.engines.torch_engine import TorchEngine

    return Predictor(TorchEngine(found.path, device), found, limits, tta)


def is_ensemble(path: Path) -> bool:
    """Whether a path is an ensemble's file, or a folder that holds one, by its name."""
    return path.suffix.lower() == ".json" or (path / ENSEMBLE_FILE).is_file()


def is_exported(path: Path) -> bool:
    """Whether a model file is one that `cassava export` writes, by its name."""
    return path.suffix.lower() == ".onnx"


def require_torch(what: str) -> None:
    """Fails where PyTorch is not installed; `what` is what needs it.

    Raises:
        MissingDependencyError: It is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(f"PyTorch, which {what} needs,", "train")


def softmax(logits: npt.NDArray[np.float64], axis: int = 1) -> npt.NDArray[np.float64]:
    """Probabilities that sum to 1 along the classes, which lie along `axis`."""
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    total: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=axis, keepdims=True)
    return total
