"""Runs an engine that `cassava export-tensorrt` built, on the GPU that it was built for.

The file is TensorRT's own with a header before it: a mark, the length of a JSON text (4 bytes, little-endian) and that
text, which says what the engine fits, and carries the model's self-description and its gate. PyTorch lends memory and
streams.
"""

import importlib.util
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cassava_leaf_disease.errors import CheckpointError, DeviceError
from cassava_leaf_disease.inference.engines.base import Device, EngineOutputs, Float32Array
from cassava_leaf_disease.inference.engines.onnx_engine import FEATURES, INPUT_NAME, LOGITS, MAPS
from cassava_leaf_disease.modeling.gate_arrays import GateArrays, decode_arrays
from cassava_leaf_disease.modeling.metadata import ModelMetadata, parse_metadata

_MARK: Final = b"CASSAVA-TRT\n"
_BUILD_IT: Final = "type cassava export-tensorrt infer.checkpoint_path=… of its ONNX file on this machine"


class EngineKey(BaseModel):
    """What an engine fits: one kind of GPU, one TensorRT, one ONNX file, batches of `min_batch` to `max_batch`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    onnx_sha256: str
    min_batch: int = Field(ge=1)
    opt_batch: int = Field(ge=1)
    max_batch: int = Field(ge=1)

    @property
    def file_stem(self) -> str:
        """What tells its file from those of other keys."""
        gpu = "_".join(self.gpu.split())
        capability = "".join(map(str, self.compute_capability))
        batches = f"{self.min_batch}-{self.opt_batch}-{self.max_batch}"
        return f"{gpu}-sm{capability}-trt{self.tensorrt}-b{batches}-{self.onnx_sha256[:12]}"


class EngineHeader(BaseModel):
    """What stands before the engine in its file; `gate` as in an ONNX file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: EngineKey
    metadata: str
    gate: str | None


@dataclass(frozen=True)
class Gpu:
    """The GPU that PyTorch uses."""

    name: str
    compute_capability: tuple[int, int]
    device: str = "cuda"

    def stream(self) -> int:
        """The current stream's handle."""
        import torch

        return int(torch.cuda.current_stream().cuda_stream)

    def synchronize(self) -> None:
        """Waits for all work on that stream."""
        import torch

        torch.cuda.current_stream().synchronize()


def find_gpu() -> Gpu:
    """The GPU of this machine.

    Raises:
        DeviceError: There is none, or TensorRT or PyTorch is not installed.
    """
    for library in ("tensorrt", "torch"):
        if importlib.util.find_spec(library) is None:
            raise DeviceError(
                f"TensorRT engines: {library} is not installed; type pip install {library} on a machine with an NVIDIA "
                "GPU, or use the ONNX file"
            )
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("TensorRT engines: no CUDA GPU on this machine; use the ONNX file")
    return Gpu(torch.cuda.get_device_name(), torch.cuda.get_device_capability())


def write_engine(header: EngineHeader, plan: bytes) -> bytes:
    """The content of an engine file."""
    text = header.model_dump_json().encode()
    return _MARK + struct.pack("<I", len(text)) + text + plan


def read_engine(path: Path) -> tuple[EngineHeader, bytes]:
    """Header and engine of a file.

    Raises:
        CheckpointError: It is missing, or no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); {_BUILD_IT}") from None
    start = len(_MARK) + 4
    if not content.startswith(_MARK) or len(content) < start:
        raise CheckpointError(f"{path}: no engine of ours; {_BUILD_IT}")
    (length,) = struct.unpack("<I", content[len(_MARK) : start])
    try:
        header = EngineHeader.model_validate_json(content[start : start + length])
    except ValidationError:
        raise CheckpointError(f"{path}: its header is damaged, or of another version; {_BUILD_IT}") from None
    return header, content[start + length :]


def misfit(key: EngineKey, gpu: Gpu, tensorrt_version: str) -> str | None:
    """Why an engine does not run here; None where it does."""
    if (key.gpu, key.compute_capability) != (gpu.name, gpu.compute_capability):
        return f"built for {key.gpu}, and this machine has {gpu.name}"
    if key.tensorrt != tensorrt_version:
        return f"built by TensorRT {key.tensorrt}, and this is {tensorrt_version}"
    return None


class TensorRtEngine:
    """An engine file on its GPU; threads take turns. Batches larger than it was built for run in parts."""

    def __init__(self, path: Path, device: Device) -> None:
        if device == "cpu":
            raise DeviceError(f"{path} runs on a GPU alone; type infer.device=auto, or use the ONNX file")
        self._gpu = find_gpu()
        import tensorrt

        header, plan = read_engine(path)
        why = misfit(header.key, self._gpu, tensorrt.__version__)
        if why is not None:
            raise CheckpointError(f"{path}: {why}; {_BUILD_IT}")
        self._path = path
        self._key = header.key
        self._metadata = parse_metadata(header.metadata, str(path))
        self._gate_arrays = None if header.gate is None else decode_arrays(header.gate, str(path))
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))  # has to outlive its engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise CheckpointError(f"{path}: TensorRT cannot load it, its log says why; {_BUILD_IT}")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._types = {name: np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        self._outputs = [name for name in (LOGITS, FEATURES, MAPS) if name in names]
        self._lock = threading.Lock()

    @property
    def metadata(self) -> ModelMetadata:
        """The self-description of the ONNX file that it was built from."""
        return self._metadata

    @property
    def gate_arrays(self) -> GateArrays | None:
        """What that file's gate is made of; None where it has none."""
        return self._gate_arrays

    @property
    def runtime(self) -> str:
        """TensorRT, on a GPU always."""
        return "tensorrt/cuda"

    def run(self, batch: Float32Array) -> EngineOutputs:
        """The outputs for photos `(N, 3, S, S)` float32, normalised."""
        parts = [batch[start : start + self._key.max_batch] for start in range(0, len(batch), self._key.max_batch)]
        with self._lock:
            answers = [self._run(part) for part in parts]
        joined = {name: np.concatenate([answer[name] for answer in answers]) for name in self._outputs}
        return EngineOutputs(joined[LOGITS], joined.get(FEATURES), joined.get(MAPS))

    def _run(self, batch: Float32Array) -> Mapping[str, npt.NDArray[np.float32]]:
        import torch

        missing = self._key.min_batch - len(batch)
        if missing > 0:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
        images = torch.from_numpy(np.ascontiguousarray(batch, self._types[INPUT_NAME])).to(self._gpu.device)
        buffers: dict[str, Any] = {INPUT_NAME: images}
        self._context.set_input_shape(INPUT_NAME, tuple(images.shape))
        for name in self._outputs:
            kind = torch.from_numpy(np.empty(0, self._types[name])).dtype
            shape = tuple(self._context.get_tensor_shape(name))
            buffers[name] = torch.empty(shape, dtype=kind, device=self._gpu.device)
        for name, buffer in buffers.items():
            self._context.set_tensor_address(name, buffer.data_ptr())
        if not self._context.execute_async_v3(self._gpu.stream()):
            raise CheckpointError(f"{self._path}: fails when it is run, TensorRT's log says why; {_BUILD_IT}")
        self._gpu.synchronize()
        wanted = len(batch) - max(missing, 0)
        return {name: buffers[name][:wanted].float().cpu().numpy() for name in self._outputs}
