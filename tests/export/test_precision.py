"""Exported in float16, or with weights in it: fewer bytes, the same answers, the same doors."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ExportError
from cassava_leaf_disease.export.half import depthwise_convolutions, to_half, to_half_weights
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


def test_float16_has_its_limits(small_config: Config, checkpoint: Path, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "photos", 6, 80, seed=1)
    words = f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={tmp_path / 'photos'}"

    with pytest.raises(ExportError, match=r"best\.fp16\.onnx was not written: .*export\.tolerance=1e-07"):
        export(small_config(*words, "export.precision=fp16", "export.tolerance=1e-7"))

    assert not list(tmp_path.glob("*.onnx"))
