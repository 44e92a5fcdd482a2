"""Photos in, answers out: the one way from pixels to a `Prediction`."""

import importlib.util
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.domain import ModelIdentity, Prediction, probabilities_by_name, rank_classes
from cassava_leaf_disease.errors import CheckpointError, MissingDependencyError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.preprocess import normalize, to_network_size
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Device, Engine

UInt8Image = npt.NDArray[np.uint8]


class Predictor:
    """A loaded model: decodes, prepares, runs, ranks. All it needs to know comes from the model file."""

    def __init__(self, engine: Engine, found: FoundModel, limits: DecodeLimits | None = None) -> None:
        self.metadata = engine.metadata
        self._engine = engine
        self._limits = limits or DecodeLimits()
        self._identity = ModelIdentity(
            name=engine.metadata.name, version=engine.metadata.version, source=found.source, path=str(found.path)
        )

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Class probabilities `(N, C)` for images at the network's size, `(N, S, S, 3)` uint8.

        Raises:
            CheckpointError: The network answers with NaN or infinity, as one whose training diverged does.
        """
        logits = self._engine.logits(normalize(images, self.metadata.preprocessing)).astype(np.float64)
        if not np.isfinite(logits).all():
            raise CheckpointError(
                f"{self._identity.path}: its network gives no finite answer, so its training has diverged; "
                "type infer.checkpoint_path=… of another run"
            )
        return softmax(logits / self.metadata.temperature)

    def predict_bytes(self, data: bytes, *, name: str, top_k: int = 5) -> Prediction:
        """The answer about one JPEG or PNG file.

        Raises:
            ImageError: The bytes cannot be used as a photo.
            CheckpointError: As `probabilities`.
        """
        return self.predict_image(decode_image(data, self._limits, name=name), name=name, top_k=top_k)

    def predict_image(self, image: UInt8Image, *, name: str | None = None, top_k: int = 5) -> Prediction:
        """The answer about one decoded photo, `(H, W, 3)` uint8 RGB of any size."""
        sized = to_network_size(image, self.metadata.preprocessing)
        return self.answer(self.probabilities(sized[np.newaxis])[0].tolist(), top_k=top_k, name=name)

    def answer(self, probabilities: Sequence[float], *, top_k: int, name: str | None = None) -> Prediction:
        """The `Prediction` for class probabilities `(C,)` that sum to 1."""
        names = self.metadata.class_names
        ranking = rank_classes(probabilities, names, top_k)
        best = ranking[0]
        confident = best.prob >= self.metadata.thresholds.min_confidence
        return Prediction(
            predicted_class_id=best.class_id,
            class_name=best.class_name,
            confidence=best.prob,
            probabilities=dict(probabilities_by_name(probabilities, names)),
            top_k=ranking,
            verdict="diagnosis" if confident else "uncertain",
            model=self._identity,
            image=name,
        )


def check_device(device: Device) -> None:
    """Refuses a device that is not there, before any other work.

    Raises:
        DeviceError: `cuda` was asked for on a machine without it.
        MissingDependencyError: `cuda` needs PyTorch and it is not installed.
    """
    if device == "cuda":
        _require_torch("device=cuda")
        from cassava_leaf_disease.inference.engines.torch_engine import resolve_device

        resolve_device(device)


def load_predictor(found: FoundModel, device: Device, limits: DecodeLimits | None = None) -> Predictor:
    """Loads the engine that fits the model file.

    Raises:
        CheckpointError: The file is damaged or foreign.
        DeviceError: The device is not there.
        MissingDependencyError: A checkpoint needs PyTorch and it is not installed.
    """
    _require_torch(found.path.name)
    from cassava_leaf_disease.inference.engines.torch_engine import TorchEngine

    return Predictor(TorchEngine(found.path, device), found, limits)


def _require_torch(what: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(f"PyTorch, which {what} needs,", "train")


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities `(N, C)` that sum to 1 along the classes."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return total
