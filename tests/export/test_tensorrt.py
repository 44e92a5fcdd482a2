"""TensorRT engines without TensorRT: keys, caches, profiles, refusals; the library itself and the GPU are stand-ins.

The stand-in's engine is the ONNX file, run by ONNX Runtime on the memory whose addresses it was given.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import CheckpointError, ConfigError, DeviceError, ExportError
from cassava_leaf_disease.export.tensorrt import TensorRtResult, export_tensorrt
from cassava_leaf_disease.imaging.preprocess import to_network_size
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines import tensorrt as engine_module
from cassava_leaf_disease.inference.engines.tensorrt import (
    EngineHeader,
    EngineKey,
    Gpu,
    TensorRtEngine,
    find_gpu,
    misfit,
    read_engine,
    write_engine,
)
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata

Config = Callable[..., AppConfig]
KINDS = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}


class FakeGpu(Gpu):
    """The CPU's memory in place of a GPU's."""

    def stream(self) -> int:
        return 7

    def synchronize(self) -> None:
        """Nothing to wait for."""


class FakeLibrary(ModuleType):
    """In place of the module `tensorrt`, as far as we call it."""

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.__version__ = "11.4.0.106"
        self.builds: list[dict[str, Any]] = []
        self.fails_to: set[str] = set()
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda *_: None})
        self.Builder = lambda _logger: FakeBuilder(self)
        self.OnnxParser = lambda network, _logger: FakeParser(self, network)
        self.Runtime = lambda _logger: FakeRuntime(self)

    def nptype(self, kind: str) -> type[np.generic]:
        return np.float32 if kind == "FLOAT" else np.float16


class FakeBuilder:
    def __init__(self, library: FakeLibrary) -> None:
        self.library = library

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(flags=flags, content=b"")

    def create_builder_config(self) -> "FakeOptions":
        return FakeOptions()

    def create_optimization_profile(self) -> SimpleNamespace:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *sizes: shapes.update({name: sizes}))

    def build_serialized_network(self, network: SimpleNamespace, options: "FakeOptions") -> bytes | None:
        if "build" in self.library.fails_to:
            return None
        shapes = options.profiles[0].shapes
        self.library.builds.append(
            {"flags": network.flags, "shapes": shapes, "timing": options.timing, **options.pools}
        )
        return bytes(network.content)


class FakeOptions:
    def __init__(self) -> None:
        self.pools: dict[str, int] = {}
        self.profiles: list[SimpleNamespace] = []
        self.timing = b""

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def create_timing_cache(self, content: bytes) -> SimpleNamespace:
        return SimpleNamespace(content=content, serialize=lambda: content + b"timed;")

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.timing = cache.content

    def add_optimization_profile(self, profile: SimpleNamespace) -> None:
        self.profiles.append(profile)


class FakeParser:
    num_errors = 2

    def __init__(self, library: FakeLibrary, network: SimpleNamespace) -> None:
        self.library, self.network = library, network

    def parse(self, content: bytes) -> bool:
        self.network.content = content
        return "parse" not in self.library.fails_to

    def get_error(self, index: int) -> str:
        return f"error {index}"


class FakeRuntime:
    def __init__(self, library: FakeLibrary) -> None:
        self.library = library

    def deserialize_cuda_engine(self, plan: bytes) -> "FakeEngine | None":
        return None if "load" in self.library.fails_to else FakeEngine(self.library, plan)


class FakeEngine:
    def __init__(self, library: FakeLibrary, plan: bytes) -> None:
        self.library = library
        self.session = onnxruntime.InferenceSession(plan)
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index].name)

    def get_tensor_dtype(self, name: str) -> str:
        return next(KINDS[each.type] for each in self.tensors if each.name == name)

    def create_execution_context(self) -> "FakeContext":
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        smallest, _, largest = self.engine.library.builds[-1]["shapes"][name]
        assert smallest[0] <= shape[0] <= largest[0]
        self.shape = shape

    def get_tensor_shape(self, name: str) -> list[int]:
        tensor = next(each for each in self.engine.tensors if each.name == name)
        return [self.shape[0], *tensor.shape[1:]]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        [given] = self.engine.session.get_inputs()
        kind = np.dtype(np.float32 if given.type == "tensor(float)" else np.float16)
        size = int(np.prod(self.shape)) * kind.itemsize
        images = np.frombuffer(ctypes.string_at(self.addresses[given.name], size), kind).reshape(self.shape)
        names = [output.name for output in self.engine.session.get_outputs()]
        off = 3 if "agree" in self.engine.library.fails_to else 0
        for name, right in zip(names, self.engine.session.run(names, {given.name: images}), strict=True):
            answer = right + np.linspace(0, off, right.size).reshape(right.shape).astype(right.dtype)
            ctypes.memmove(self.addresses[name], answer.tobytes(), answer.nbytes)
        return "run" not in self.engine.library.fails_to


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    """TensorRT and a GPU, pretended."""
    fake = FakeLibrary()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    gpu = FakeGpu("NVIDIA H100 80GB HBM3", (9, 0), "cpu")
    monkeypatch.setattr(engine_module, "find_gpu", lambda: gpu)
    monkeypatch.setattr("cassava_leaf_disease.export.tensorrt.find_gpu", lambda: gpu)
    return fake


@pytest.fixture
def built(
    library: FakeLibrary, small_config: Config, served_models: tuple[Path, Path], few_photos: Path, tmp_path: Path
) -> Callable[..., TensorRtResult]:
    """Builds an engine of the model with a gate, into the test's own folder."""
    usual = f"infer.checkpoint_path={served_models[1]}", f"paths.data_dir={few_photos}"

    def build(*overrides: str) -> TensorRtResult:
        return export_tensorrt(small_config(*usual, f"export.tensorrt.output_dir={tmp_path}", *overrides))

    return build


def test_engine_answers_as_its_onnx_file_and_judges_with_its_gate(
    built: Callable[..., TensorRtResult], served_models: tuple[Path, Path]
) -> None:
    result = built("export.tensorrt.min_batch=2", "export.tensorrt.opt_batch=2", "export.tensorrt.max_batch=3")
    assert result.built
    assert result.max_difference <= 1e-5
    assert result.compared_on.startswith("2 photos of ")
    engine = load_predictor(FoundModel(result.path, "explicit"), "auto")
    file = load_predictor(FoundModel(served_models[1], "explicit"), "cpu")
    assert engine.metadata == file.metadata
    spec = file.metadata.preprocessing
    leaves = np.stack([to_network_size(draw_leaf(seed, 1, 120), spec) for seed in range(7)])
    for given in (leaves[:1], leaves):  # fewer than the engine takes, and more
        np.testing.assert_allclose(engine.outputs(given).logits, file.outputs(given).logits, atol=1e-5)
    here, there = (each.predict_image(draw_leaf(3, 2, 150)) for each in (engine, file))
    assert here.verdict == there.verdict
    assert [check.name for check in here.checks] == [check.name for check in there.checks]


def test_engine_is_built_once_for_a_gpu_a_tensorrt_and_a_file(
    built: Callable[..., TensorRtResult], library: FakeLibrary, tmp_path: Path
) -> None:
    first = built()
    assert first.path.name.startswith("larger-NVIDIA_H100_80GB_HBM3-sm90-trt11.4.0.106-b1-8-32-")
    assert first.path.suffix == ".engine"
    assert not built().built
    assert built("export.tensorrt.max_batch=16").built
    library.__version__ = "11.5.0"
    newer = built()
    assert newer.built
    assert newer.path != first.path
    first.path.write_bytes(b"CASSAVA-TRT\n")
    library.__version__ = "11.4.0.106"
    assert built().built
    assert len(library.builds) == 4


def test_build_is_strongly_typed_with_a_profile_and_a_timing_cache(
    built: Callable[..., TensorRtResult], library: FakeLibrary, tmp_path: Path
) -> None:
    built("export.tensorrt.workspace_bytes=1000000")
    built("export.tensorrt.max_batch=64")
    first, second = library.builds
    assert first["flags"] == 1 << 1
    assert first["workspace"] == 1_000_000
    assert first["shapes"] == {"images": ((1, 3, 96, 96), (8, 3, 96, 96), (32, 3, 96, 96))}
    assert second["shapes"]["images"][2] == (64, 3, 96, 96)
    assert (first["timing"], second["timing"]) == (b"", b"timed;")
    cache = tmp_path / "timing-11.4.0.106-NVIDIA_H100_80GB_HBM3.cache"
    assert cache.read_bytes() == b"timed;timed;"


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        ("parse", r"TensorRT cannot read it \(error 0; error 1\)"),
        ("build", "TensorRT cannot build it, its log says why"),
        ("agree", r"its probabilities differ from the ONNX file's by up to .* export.tensorrt.tolerance=0.005"),
    ],
)
def test_engine_that_does_not_come_out_right_is_not_written(
    step: str, seen: str, built: Callable[..., TensorRtResult], library: FakeLibrary, tmp_path: Path
) -> None:
    library.fails_to.add(step)
    with pytest.raises(ExportError, match=seen):
        built()
    assert not list(tmp_path.glob("*.engine"))


@pytest.mark.parametrize(
    ("step", "seen"), [("load", "TensorRT cannot load it"), ("run", "fails when it is run, TensorRT's log says why")]
)
def test_engine_that_fails_is_told(
    step: str, seen: str, built: Callable[..., TensorRtResult], library: FakeLibrary
) -> None:
    path = built().path
    library.fails_to.add(step)
    with pytest.raises(CheckpointError, match=seen):
        TensorRtEngine(path, "auto").run(np.zeros((1, 3, 96, 96), np.float32))


def test_half_precision_comes_with_the_file(
    library: FakeLibrary, small_config: Config, exported_model: Path, few_photos: Path, tmp_path: Path
) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(exported_model))
    (tmp_path / "half.onnx").write_bytes(half.SerializeToString())
    key = EngineKey(
        gpu="NVIDIA H100 80GB HBM3",
        compute_capability=(9, 0),
        tensorrt="11.4.0.106",
        onnx_sha256="0" * 64,
        min_batch=1,
        opt_batch=1,
        max_batch=8,
    )
    library.builds.append({"shapes": {"images": ((1,), (1,), (8,))}})
    entries = {entry.key: entry.value for entry in half.metadata_props}
    header = EngineHeader(key=key, metadata=entries["cassava_metadata"], gate=None)
    path = tmp_path / "half.engine"
    path.write_bytes(write_engine(header, half.SerializeToString()))
    engine = TensorRtEngine(path, "cuda")
    assert engine.gate_arrays is None
    leaf = to_network_size(draw_leaf(1, 1, 100), engine.metadata.preprocessing)[None]
    answer = Predictor(engine, FoundModel(path, "explicit")).outputs(leaf)
    expected = load_predictor(FoundModel(exported_model, "explicit"), "cpu")
    assert answer.logits.dtype == np.float32
    np.testing.assert_allclose(answer.logits, expected.outputs(leaf).logits, atol=0.1)


def test_engine_of_another_machine_is_refused(built: Callable[..., TensorRtResult], library: FakeLibrary) -> None:
    path = built().path
    key = read_engine(path)[0].key
    assert misfit(key, Gpu("Tesla T4", (7, 5)), key.tensorrt) == (
        "built for NVIDIA H100 80GB HBM3, and this machine has Tesla T4"
    )
    library.__version__ = "10.9"
    with pytest.raises(CheckpointError, match=r"built by TensorRT 11.4.0.106, and this is 10.9; type cassava export-"):
        TensorRtEngine(path, "auto")
    with pytest.raises(DeviceError, match="runs on a GPU alone"):
        TensorRtEngine(path, "cpu")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (None, "cannot be read"),
        (b"plan", "no engine of ours"),
        (b"CASSAVA-TRT\n", "no engine of ours"),
        (b"CASSAVA-TRT\n\x05\0\0\0nojso", "its header is damaged"),
    ],
)
def test_other_files_are_no_engines(content: bytes | None, seen: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.engine").write_bytes(content)
    with pytest.raises(CheckpointError, match=seen):
        read_engine(tmp_path / "a.engine")


def test_machine_without_tensorrt_or_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, exported_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(DeviceError, match="tensorrt is not installed; type pip install tensorrt"):
            find_gpu()
        assert cli.main(["export-tensorrt", f"infer.checkpoint_path={exported_model}"]) == 2
        assert "tensorrt is not installed" in capfd.readouterr().err
        assert fire_cli.main(["export_tensorrt", "--ckpt", str(exported_model), "--max-batch", "64"]) == 2
        capfd.readouterr()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA GPU on this machine; use the ONNX file"):
        find_gpu()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 5))
    monkeypatch.setattr("torch.cuda.current_stream", lambda: SimpleNamespace(cuda_stream=3, synchronize=lambda: None))
    gpu = find_gpu()
    assert (gpu, gpu.stream()) == (Gpu("Tesla T4", (7, 5)), 3)
    gpu.synchronize()


def test_only_exported_models_become_engines(
    small_config: Config, random_checkpoint: Path, library: FakeLibrary
) -> None:
    with pytest.raises(ConfigError, match="no exported model; type cassava export first"):
        export_tensorrt(small_config(f"infer.checkpoint_path={random_checkpoint}"))


def test_batches_of_a_profile_rise(small_config: Config) -> None:
    with pytest.raises(ConfigError, match="expected rising numbers, for example 1, 8 and 32"):
        small_config("export.tensorrt.opt_batch=64")


def test_self_description_survives(built: Callable[..., TensorRtResult], metadata: ModelMetadata) -> None:
    header, _ = read_engine(built().path)
    assert ModelMetadata.model_validate_json(header.metadata).name == "larger"
    assert header.gate is not None
