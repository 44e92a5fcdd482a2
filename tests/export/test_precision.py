"""Exported in float16, or with weights in it: fewer bytes, the same answers, the same doors."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ExportError
from cassava_leaf_disease.export.half import depthwise_convolutions, to_half
from cassava_leaf_disease.export.integer.ranges import observe
from cassava_leaf_disease.export.light import tensors_to_average, to_half_weights, to_int8_weights
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.inference.engines.onnx_engine import FEATURES, LOGITS, MAPS, OnnxEngine
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture
def checkpoint(random_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(random_checkpoint, tmp_path / "best.ckpt"))


@pytest.fixture
def trained(small_config: Config, write_random_checkpoint: WriteCheckpoint, tmp_path: Path) -> Path:
    """A checkpoint as a training on drawn leaves leaves it, with random weights."""
    config = small_config()
    data = LeafDataModule(config)
    data.divide()
    return write_random_checkpoint(tmp_path / "trained.ckpt", describe_model(config, data))


def to_quarter_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Corrected by what noise looks like on average."""
    batch = np.random.default_rng(1).standard_normal((8, 3, 64, 64), np.float32)
    seen = observe(model, tensors_to_average(model), [batch], threads=1)
    return to_int8_weights(model, {name: each.channel_means for name, each in seen.items()})


@pytest.mark.parametrize("convert", [to_half, to_half_weights])
def test_float16_halves_the_file_and_keeps_answers_inputs_and_outputs(
    convert: Callable[[onnx.ModelProto], onnx.ModelProto], exported_model: Path, metadata: ModelMetadata, tmp_path: Path
) -> None:
    model = onnx.load(exported_model)
    half = convert(model)
    path = tmp_path / "half.onnx"
    path.write_bytes(half.SerializeToString())

    onnx.checker.check_model(half, full_check=True)
    assert [value.type for value in (*half.graph.input, *half.graph.output)] == [
        value.type for value in (*model.graph.input, *model.graph.output)
    ]
    types = Counter(weight.data_type for weight in half.graph.initializer if np.prod(weight.dims) > 100)
    assert types[TensorProto.FLOAT] == 0 < types[TensorProto.FLOAT16]
    assert path.stat().st_size < 0.6 * exported_model.stat().st_size
    engines = OnnxEngine(exported_model, "cpu"), OnnxEngine(path, "cpu")
    assert engines[1].metadata == metadata
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    whole, light = (engine.run(batch) for engine in engines)
    for name in (LOGITS, FEATURES, MAPS):
        seen, expected = getattr(light, name), getattr(whole, name)
        assert seen.dtype == np.float32
        assert 0 < np.abs(seen - expected).max() < 0.01 * np.abs(expected).max()


@pytest.fixture
def depthwise_model() -> onnx.ModelProto:
    """A depthwise convolution with weights of very different size, between two that see all channels."""
    draw = np.random.default_rng(0)
    shapes = {"stem": (8, 3, 1, 1), "depthwise": (8, 1, 3, 3), "head": (5, 8, 1, 1)}
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, draw.normal(0, 30 if name == "depthwise" else 1, shape))
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["a"], "stem_conv"),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], "depthwise_conv", group=8),
        helper.make_node("Conv", ["b", "head"], ["maps"], "head_conv"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", 5, 6, 6])
    graph = helper.make_graph(nodes, "g", [images], [maps], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_depthwise_convolutions_can_stay_in_float32(depthwise_model: onnx.ModelProto) -> None:
    assert depthwise_convolutions(depthwise_model) == {"depthwise_conv"}
    half = to_half(depthwise_model, {"depthwise_conv"})

    onnx.checker.check_model(half, full_check=True)
    kinds = {weight.name: weight.data_type for weight in half.graph.initializer}
    assert kinds == {
        "stem_half": TensorProto.FLOAT16,
        "depthwise": TensorProto.FLOAT,
        "head_half": TensorProto.FLOAT16,
    }


def test_light_weights_are_those_that_are_many(depthwise_model: onnx.ModelProto) -> None:
    light = to_half_weights(depthwise_model)

    onnx.checker.check_model(light, full_check=True)
    kinds = {weight.name: weight.data_type for weight in light.graph.initializer}
    assert kinds["depthwise"] == TensorProto.FLOAT
    assert kinds["stem_half"] == kinds["head_half"] == TensorProto.FLOAT16


def test_weights_in_int8_quarter_the_file_and_the_runtime_makes_them_floats_when_it_loads_it(
    exported_model: Path, metadata: ModelMetadata, tmp_path: Path
) -> None:
    model = onnx.load(exported_model)
    light = to_quarter_weights(model)
    path = tmp_path / "light.onnx"
    path.write_bytes(light.SerializeToString())

    onnx.checker.check_model(light, full_check=True)
    assert path.stat().st_size < 0.35 * exported_model.stat().st_size
    engines = OnnxEngine(exported_model, "cpu"), OnnxEngine(path, "cpu")
    assert engines[1].metadata == metadata
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    whole, quarter = (engine.run(batch) for engine in engines)
    for name in (LOGITS, FEATURES, MAPS):
        seen, expected = getattr(quarter, name), getattr(whole, name)
        assert 0 < np.abs(seen - expected).max() < 0.05 * np.abs(expected).max()
    kinds = [node.op_type for node in optimized(light, tmp_path).graph.node]
    assert sorted(kinds) == sorted(node.op_type for node in optimized(model, tmp_path).graph.node)


def optimized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of a graph when it loads it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def layers(weights: Mapping[str, npt.NDArray[Any]], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A graph from `images` (N, 200, 1, 1) to `logits`."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 200, 1, 1])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "c"])
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", [images], [logits], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_every_kind_of_layer_is_put_into_int8_along_its_output_channels() -> None:
    draw = np.random.default_rng(0)
    shapes = {"conv": (100, 200, 1, 1), "gemm": (120, 100), "plain": (120, 100), "product": (100, 110), "few": (110, 5)}
    scales = {"conv": (100, 1, 1, 1), "gemm": (120, 1), "plain": (1, 100), "product": (1, 110)}
    weights = {
        name: (draw.normal(size=shape) * draw.uniform(0.1, 3, scales.get(name, 1))).astype(np.float32)
        for name, shape in shapes.items()
    }
    flat = {"flat": np.array([0, -1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["images", "conv"], ["a"], "conv"),
        helper.make_node("Reshape", ["a", "flat"], ["b"], "flatten"),
        helper.make_node("Gemm", ["b", "gemm"], ["c"], "gemm", transB=1),
        helper.make_node("Gemm", ["c", "plain"], ["d"], "plain"),
        helper.make_node("MatMul", ["d", "product"], ["e"], "product"),
        helper.make_node("MatMul", ["e", "few"], ["logits"], "few"),
    ]
    model = layers(weights | flat, nodes)
    assert tensors_to_average(model) == ["images"]

    light = to_int8_weights(model, {"images": np.zeros(200)})

    onnx.checker.check_model(light, full_check=True)
    made = {each.name: numpy_helper.to_array(each) for each in light.graph.initializer}
    assert {name: made[f"{name}_scale"].shape for name in scales} == scales
    assert made["few_half"].dtype == np.float16
    for name in scales:
        assert made[f"{name}_int8"].dtype == np.int8
        again = made[f"{name}_int8"].astype(np.float32) * made[f"{name}_scale"]
        assert np.abs(again - weights[name]).max() < 0.02 * np.abs(weights[name]).max()


def test_the_bias_takes_out_what_rounding_adds_on_average() -> None:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(100, 200, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "weight", "bias"], ["a"], "conv"),
        helper.make_node("Flatten", ["a"], ["logits"], "flatten"),
    ]
    model = layers({"weight": weight, "bias": draw.normal(size=100).astype(np.float32)}, nodes)
    images = draw.uniform(0, 6, (64, 200, 1, 1)).astype(np.float32)

    def off(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        light = to_int8_weights(model, {"images": means})
        run = [
            onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"images": images})[0]
            for each in (light, model)
        ]
        return np.asarray(run[0] - run[1])

    plain, corrected = off(np.zeros(200)), off(images.mean(axis=(0, 2, 3), dtype=np.float64))
    assert np.abs(corrected.mean(axis=0)).max() < 1e-3 < np.abs(plain.mean(axis=0)).max()
    assert np.square(corrected).mean() < 0.6 * np.square(plain).mean()


def test_an_ensemble_is_combined_in_float32() -> None:
    nodes = [
        helper.make_node("Add", ["images", "weight"], ["sum"], "add"),
        helper.make_node("LogSoftmax", ["sum"], ["logarithms"], "log"),
        helper.make_node("Mul", ["logarithms", "weight"], ["logits"], "mul"),
        helper.make_node("Relu", ["sum"], ["features"], "relu"),
        helper.make_node("Neg", ["features"], ["maps"], "neg"),
    ]
    vectors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("images", LOGITS, FEATURES, MAPS)
    ]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2], [1 / 3, 1000.0])
    graph = helper.make_graph(nodes, "g", vectors[:1], vectors[1:], [weight])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))

    onnx.checker.check_model(half, full_check=True)
    made = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*made.value_info, *made.output)}
    assert types["sum"] == types["features_half"] == types["maps_half"] == TensorProto.FLOAT16
    assert types["logarithms"] == types["logits"] == types["features"] == TensorProto.FLOAT
    assert {weight.name: weight.data_type for weight in half.graph.initializer} == {
        "weight": TensorProto.FLOAT,
        "weight_half": TensorProto.FLOAT16,
    }


@pytest.mark.parametrize("precision", ["fp16", "fp16_weights"])
def test_the_command_names_the_file_by_its_precision_and_tells_its_accuracy(
    precision: str, small_config: Config, trained: Path, tmp_path: Path
) -> None:
    result = export(small_config(f"infer.checkpoint_path={trained}", f"export.precision={precision}"))

    assert result.path == trained.with_suffix(f".{precision}.onnx")
    assert result.precision == precision
    assert (result.pictures, result.compared_on) == (20, "20 drawn leaves of the val part")
    assert result.tolerance == 5e-3
    assert 0 < result.max_difference < 5e-3
    assert result.bytes < 0.6 * result.bytes_before
    assert result.accuracy == pytest.approx(result.accuracy_before, abs=0.051)


def test_weights_in_int8_are_calibrated_and_held_to_the_limits_of_integers(
    small_config: Config, trained: Path, tmp_path: Path
) -> None:
    words = f"infer.checkpoint_path={trained}", "export.precision=int8_weights"

    result = export(small_config(*words, "export.int8.min_agreement=0.9", "export.int8.max_accuracy_loss=0.1"))

    assert result.path == trained.with_suffix(".int8_weights.onnx")
    assert result.compared_on == "20 drawn leaves of the val part"
    assert result.tolerance == 5e-2
    assert 0 < result.max_difference < 5e-2
    assert result.bytes < 0.4 * result.bytes_before
    with pytest.raises(ExportError, match=r"export\.tolerance=1e-07"):
        export(small_config(*words, "export.tolerance=1e-7"))


def test_float16_has_its_limits(small_config: Config, checkpoint: Path, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "photos", 6, 80, seed=1)
    words = f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={tmp_path / 'photos'}"

    with pytest.raises(ExportError, match=r"best\.fp16\.onnx was not written: .*export\.tolerance=1e-07"):
        export(small_config(*words, "export.precision=fp16", "export.tolerance=1e-7"))

    assert not list(tmp_path.glob("*.onnx"))
