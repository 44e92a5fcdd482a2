"""Runs an exported model with ONNX Runtime; no PyTorch."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import CheckpointError, DeviceError, first_line
from cassava_leaf_disease.inference.engines.base import Device, EngineOutputs, Float32Array
from cassava_leaf_disease.modeling.gate_arrays import GATE_KEY, GateArrays, decode_arrays
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata, parse_metadata

INPUT_NAME: Final = "images"  # (N, 3, S, S) float32, normalised
LOGITS: Final = "logits"  # (N, C) float32
FEATURES: Final = "features"  # (N, D) float32, optional
MAPS: Final = "maps"  # (N, C, h, w) float32, optional

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_ERRORS_ONLY: Final = 3  # of ONNX Runtime's own log levels
_MEND: Final = "use a file that `cassava export` wrote"

# What ONNX Runtime raises for damaged files, found by changing some bytes of good ones 1,500 times, and its like.
_DAMAGE: Final = (
    *(ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf),
    *(ort_errors.EPFail, ort_errors.NoModel, ort_errors.NotImplemented, ort_errors.RuntimeException),
    *(ValueError, RuntimeError, TypeError, MemoryError),
)


class OnnxEngine:
    """An ONNX file on the CPU or a CUDA GPU; sizes and classes come from the file itself.

    Several threads may ask one engine at the same time. `threads` work on one batch (None: one a processor); with 1
    it is the asking thread itself.
    """

    def __init__(self, path: Path, device: Device, threads: int | None = None) -> None:
        self._path = path
        providers = resolve_providers(device)
        content = _read(path)
        try:
            # From bytes, so that a file can name no other files on this machine as its weights.
            self._session = onnxruntime.InferenceSession(
                content, _session_options(threads), providers=providers, enable_fallback=0
            )
            entries = self._session.get_modelmeta().custom_metadata_map
        except _DAMAGE as error:
            raise CheckpointError(
                f"{path}: cannot be read as an ONNX model ({_reason(error)}); it is damaged, or of a newer ONNX "
                "version; copy or export it again"
            ) from None
        if METADATA_KEY not in entries:
            raise CheckpointError(f"{path}: not a CassavaVision model (no self-description in it); {_MEND}")
        if device == "cuda" and _CUDA not in self._session.get_providers():
            raise DeviceError(f"infer.device=cuda: ONNX Runtime finds no usable CUDA GPU or libraries; {_CPU_INSTEAD}")
        self._metadata = parse_metadata(entries[METADATA_KEY], str(path))
        self._gate_arrays = decode_arrays(entries[GATE_KEY], str(path)) if GATE_KEY in entries else None
        self._check_shapes()
        self._outputs = [argument.name for argument in self._session.get_outputs()]

    @property
    def metadata(self) -> ModelMetadata:
        """The file's self-description."""
        return self._metadata

    @property
    def gate_arrays(self) -> GateArrays | None:
        """What the file's gate is made of."""
        return self._gate_arrays

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the file's graph gives, in its order."""
        return tuple(self._outputs)

    @property
    def runtime(self) -> str:
        """ONNX Runtime, on the CPU or a GPU."""
        return f"onnxruntime/{'cuda' if _CUDA in self._session.get_providers() else 'cpu'}"

    def run(self, batch: Float32Array) -> EngineOutputs:
        """The outputs for photos `(N, 3, S, S)` float32, normalised."""
        try:
            answers = self._session.run(self._outputs, {INPUT_NAME: batch})
        except _DAMAGE as error:
            raise CheckpointError(f"{self._path}: fails when it is run ({_reason(error)}); export it again") from None
        named = dict(zip(self._outputs, answers, strict=True))
        return EngineOutputs(named[LOGITS], named.get(FEATURES), named.get(MAPS))

    def _check_shapes(self) -> None:
        size_px, classes = self._metadata.preprocessing.image_size_px, len(self._metadata.class_names)
        outputs = _signature(self._session.get_outputs())
        seen = _signature(self._session.get_inputs()), {name: outputs[name] for name in outputs if name == LOGITS}
        wanted = {INPUT_NAME: [3, size_px, size_px]}, {LOGITS: [classes]}
        if seen != wanted:
            raise CheckpointError(
                f"{self._path}: its graph takes and gives {seen[0]} and {seen[1]} for each photo, "
                f"its self-description says {wanted[0]} and {wanted[1]}; {_MEND}"
            )


def resolve_providers(device: Device) -> list[str]:
    """The execution providers to ask ONNX Runtime for.

    Raises:
        DeviceError: `cuda` was asked for and this ONNX Runtime cannot use one.
    """
    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise DeviceError(
            f"infer.device=cuda: this ONNX Runtime has no CUDA provider; {_CPU_INSTEAD}, or "
            "pip install onnxruntime-gpu in place of onnxruntime"
        )
    return [_CUDA, _CPU] if has_cuda and device != "cpu" else [_CPU]


_CPU_INSTEAD: Final = "type infer.device=cpu or infer.device=auto"


def _session_options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = (
        threads or available_cpus()
    )  # its own count knows no cpusets, and pins threads in vain
    options.log_severity_level = _ERRORS_ONLY
    return options


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; expected a file; {_MEND}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; write one with `cassava export`") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _signature(arguments: Sequence[Any]) -> dict[str, list[int | str]]:
    """Name to shape, without the batch."""
    return {argument.name: list(argument.shape[1:]) for argument in arguments}


def _reason(error: Exception) -> str:
    """ONNX Runtime's message in one line, without its own error numbers."""
    text = first_line(error).rpartition(" : ")[2].rstrip(".")
    return textwrap.shorten(text, 200, placeholder=" …") or type(error).__name__
