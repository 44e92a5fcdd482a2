"""`cassava export-tensorrt`: an exported ONNX file as a TensorRT engine for the GPU of this machine.

TensorRT 10 and later take the types of every layer from the ONNX graph ("strongly typed"): FP16 comes with an ONNX file
that was exported so. The equivalent of a build by hand:

    trtexec --onnx=best.onnx --stronglyTyped --saveEngine=best.plan --timingCacheFile=timing.cache --skipInference
            --minShapes=images:1x3x224x224 --optShapes=images:8x3x224x224 --maxShapes=images:32x3x224x224
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, TensorRtConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError, ExportError
from cassava_leaf_disease.export.pictures import comparison_pictures
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME, OnnxEngine
from cassava_leaf_disease.inference.engines.tensorrt import (
    EngineHeader,
    EngineKey,
    Gpu,
    TensorRtEngine,
    find_gpu,
    read_engine,
    write_engine,
)
from cassava_leaf_disease.inference.model_files import is_exported
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.modeling.gate_arrays import encode_arrays
from cassava_leaf_disease.paths import ENGINE_SUFFIX
from cassava_leaf_disease.storage.files import replacing
from cassava_leaf_disease.storage.s3_transfer import sha256_of

_BATCH: Final = 16

_log = logging.getLogger(__name__)


class TensorRtResult(BaseModel):
    """The engine, whether it was built now or fitted already, and how closely it follows the ONNX file.

    `max_difference` is the largest of any probability on the `pictures` compared, which `compared_on` names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    onnx: Path
    key: EngineKey
    built: bool
    bytes: int
    pictures: int
    compared_on: str
    max_difference: float
    tolerance: float
    seconds: float


@dataclass(frozen=True)
class Shapes:
    """The smallest, the usual and the largest input, `(N, 3, S, S)`."""

    smallest: tuple[int, int, int, int]
    usual: tuple[int, int, int, int]
    largest: tuple[int, int, int, int]


def export_tensorrt(config: AppConfig) -> TensorRtResult:
    """Builds the engine where none that fits lies at its place, and compares it with the ONNX file either way.

    Raises:
        CassavaError: No exported model, no GPU or no TensorRT, a graph that TensorRT cannot build, or probabilities
            that differ by more than `export.tensorrt.tolerance`.
    """
    started = time.perf_counter()
    settings = config.export.tensorrt
    found = find_model(config)
    _check_exported(found)
    gpu = find_gpu()
    import tensorrt

    onnx = OnnxEngine(found.path, "cpu")
    key = engine_key(found.path, gpu, tensorrt.__version__, settings)
    target = (settings.output_dir or found.path.parent) / f"{found.path.stem}-{key.file_stem}{ENGINE_SUFFIX}"
    built = not fits(target, key)
    pictures = comparison_pictures(config.paths.data_dir, onnx.metadata.preprocessing)
    expected = _probabilities(Predictor(onnx, found), pictures.images)
    if built:
        gate = None if onnx.gate_arrays is None else encode_arrays(onnx.gate_arrays)
        header = EngineHeader(key=key, metadata=onnx.metadata.model_dump_json(), gate=gate)
        shapes = engine_shapes(settings, onnx.metadata.preprocessing.image_size_px)
        cache = target.with_name(f"timing-{key.tensorrt}-{'_'.join(key.gpu.split())}.cache")
        plan = build_plan(tensorrt, found.path, shapes, settings.workspace_bytes, cache)
        with replacing(target) as file:
            file.write(write_engine(header, plan))
            file.flush()
            difference = _difference(Path(file.name), found, pictures.images, expected)
            _check(difference, settings.tolerance, target)
    else:
        difference = _difference(target, found, pictures.images, expected)
        _check(difference, settings.tolerance, target)
    return TensorRtResult(
        path=target,
        onnx=found.path,
        key=key,
        built=built,
        bytes=target.stat().st_size,
        pictures=len(pictures.images),
        compared_on=pictures.origin,
        max_difference=difference,
        tolerance=settings.tolerance,
        seconds=round(time.perf_counter() - started, 1),
    )


def engine_key(onnx: Path, gpu: Gpu, tensorrt_version: str, settings: TensorRtConfig) -> EngineKey:
    """What an engine from that file would fit."""
    return EngineKey(
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        tensorrt=tensorrt_version,
        onnx_sha256=sha256_of(onnx),
        min_batch=settings.min_batch,
        opt_batch=settings.opt_batch,
        max_batch=settings.max_batch,
    )


def fits(path: Path, key: EngineKey) -> bool:
    """Whether an engine with that key lies there."""
    if not path.is_file():
        return False
    try:
        return read_engine(path)[0].key == key
    except CheckpointError as error:
        _log.warning("built again: %s", error)
        return False


def engine_shapes(settings: TensorRtConfig, size_px: int) -> Shapes:
    """The profile's shapes."""
    batches = (settings.min_batch, settings.opt_batch, settings.max_batch)
    smallest, usual, largest = ((batch, 3, size_px, size_px) for batch in batches)
    return Shapes(smallest, usual, largest)


def build_plan(tensorrt: Any, onnx: Path, shapes: Shapes, workspace_bytes: int, cache: Path) -> bytes:  # noqa: ANN401
    """A serialised engine, by the module `tensorrt`; what it learned about the speed of layers is kept in `cache`.

    Raises:
        ExportError: TensorRT cannot read or build the graph.
    """
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    # TensorRT 11 always does so, and ignores the flag.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ExportError(f"{onnx}: TensorRT cannot read it ({reasons}); export it again, or use ONNX Runtime")
    options = builder.create_builder_config()
    options.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace_bytes)
    timing = options.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
    options.set_timing_cache(timing, ignore_mismatch=False)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, shapes.smallest, shapes.usual, shapes.largest)
    options.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, options)
    if plan is None:
        raise ExportError(f"{onnx}: TensorRT cannot build it, its log says why; use ONNX Runtime")
    with replacing(cache) as file:
        file.write(bytes(timing.serialize()))
    return bytes(plan)


def _check_exported(found: FoundModel) -> None:
    if not is_exported(found.path) or found.members:
        raise ConfigError(
            f"{found.path}: no exported model; type cassava export first, then "
            "cassava export-tensorrt infer.checkpoint_path=….onnx"
        )


def _difference(
    path: Path, found: FoundModel, images: npt.NDArray[np.uint8], expected: npt.NDArray[np.float64]
) -> float:
    answers = _probabilities(Predictor(TensorRtEngine(path, "cuda"), found), images)
    return float(np.abs(answers - expected).max())


def _probabilities(predictor: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """`(N, C)`; the first picture goes alone, so that batches of different sizes are tried."""
    batches = [images[:1], *(images[start : start + _BATCH] for start in range(1, len(images), _BATCH))]
    return np.concatenate([predictor.probabilities(batch) for batch in batches])


def _check(difference: float, tolerance: float, target: Path) -> None:
    if difference > tolerance:
        raise ExportError(
            f"{target}: its probabilities differ from the ONNX file's by up to {difference:.1e}; expected at most "
            f"export.tensorrt.tolerance={tolerance:g}"
        )
