"""Exported in int8: what is put into integers and what is not, from photos, and what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import DataError, ExportError
from cassava_leaf_disease.export.comparison import Comparison, objection
from cassava_leaf_disease.export.integer.build import logits_of, to_int8
from cassava_leaf_disease.export.integer.graph import (
    MAX_WEIGHT,
    Statistics,
    convolutions,
    mean_error,
    quantize,
    quantize_weight,
    tensors_to_observe,
)
from cassava_leaf_disease.export.integer.ranges import Observed, Range, best_range, observe
from cassava_leaf_disease.export.integer.search import choose
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.export.pictures import Pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]
SPEC = Preprocessing(image_size_px=64, crop_ratio=0.875)
LOOSE = ("export.precision=int8", "export.int8.min_agreement=0.5", "export.int8.max_accuracy_loss=0.5")


@pytest.fixture
def trained(small_config: Config, write_random_checkpoint: WriteCheckpoint, tmp_path: Path) -> Path:
    """A checkpoint as a training on drawn leaves leaves it, with random weights."""
    config = small_config()
    data = LeafDataModule(config)
    data.divide()
    return write_random_checkpoint(tmp_path / "trained.ckpt", describe_model(config, data))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def graph(exported_model: Path) -> onnx.ModelProto:
    return onnx.load(exported_model)


@pytest.fixture(scope="module")
def statistics(graph: onnx.ModelProto, images: np.ndarray) -> dict[str, Statistics]:
    observed = observe(graph, tensors_to_observe(graph), [normalize(images, SPEC)], threads=1)
    return {name: Statistics(best_range(each), each.channel_means) for name, each in observed.items()}


def test_the_command_calibrates_on_the_training_part_and_measures_on_the_validation_part(
    small_config: Config, trained: Path, tmp_path: Path
) -> None:
    result = export(small_config(f"infer.checkpoint_path={trained}", *LOOSE, "export.int8.calibration_photos=12"))

    assert result.path == tmp_path / "trained.int8.onnx"
    assert (result.precision, result.tolerance) == ("int8", None)
    assert result.compared_on == "20 drawn leaves of the val part"
    assert result.agreement >= 0.5
    assert result.bytes < 0.6 * result.bytes_before
    quantization = result.quantization
    assert quantization is not None
    assert quantization.calibrated_on == "12 drawn leaves of the train part"
    assert len(quantization.in_float) < quantization.convolutions
    assert 0 < quantization.noise <= 0.005
    assert OnnxEngine(result.path, "cpu").metadata.precision == "int8"


def test_the_runtime_calculates_the_chosen_convolutions_in_integers_and_no_other_layer(
    graph: onnx.ModelProto, statistics: dict[str, Statistics], images: np.ndarray, tmp_path: Path
) -> None:
    names = [node.name for node in convolutions(graph)]
    chosen = set(names), set(names[1::2]), set(names[::2])
    models = [quantize(graph, statistics, each) for each in chosen]

    for model, each in zip(models, chosen, strict=True):
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert kinds.count("QLinearConv") == len(each)
        assert sum(kind in {"Conv", "FusedConv"} for kind in kinds) == len(names) - len(each)
        assert (kinds.count("Gemm"), kinds.count("QGemm")) == (2, 0)
    answers = [logits_of(model, images, SPEC) for model in (graph, *models)]
    spread = np.abs(answers[0]).max()
    assert all(0 < np.abs(answer - answers[0]).max() < 0.2 * spread for answer in answers[1:])
    weights = [each for each in models[0].graph.initializer if each.name.endswith("weight_quantized")]
    assert max(int(np.abs(numpy_helper.to_array(weight)).max()) for weight in weights) == MAX_WEIGHT


def test_layers_stay_in_float_until_noise_and_answers_are_good_enough(
    graph: onnx.ModelProto, statistics: dict[str, Statistics], images: np.ndarray
) -> None:
    def run(model: onnx.ModelProto, first: int | None) -> np.ndarray:
        return logits_of(model, images[:8][:first], SPEC)

    free = choose(graph, statistics, run, 1.0, lambda _: True)
    tight = choose(graph, statistics, run, free.noise / 2, lambda _: True)
    asked: list[onnx.ModelProto] = []

    def third(model: onnx.ModelProto) -> bool:
        asked.append(model)
        return len(asked) == 3

    refused = choose(graph, statistics, run, 1.0, third)

    assert free.in_float == ()
    assert tight.in_float
    assert tight.noise <= free.noise / 2
    assert (len(refused.in_float), len(asked)) == (2, 3)
    assert refused.in_float[0] == tight.in_float[0]
    assert choose(graph, statistics, run, 1e-12, lambda _: True).noise == 0


def test_the_range_leaves_rare_extremes_out_and_zero_in() -> None:
    values = np.random.default_rng(0).standard_normal((4, 3, 20, 20)).astype(np.float32)
    values[:, 1] += 2
    observed = Observed()
    observed.add(values, np.random.default_rng(0))
    observed.high = 40.0

    found = best_range(observed)

    assert found.low < 0 < found.high < 20
    assert observed.channel_means == pytest.approx([0, 2, 0], abs=0.1)
    assert Range(0.0, 2.55).zero_point == 0
    assert Range(-1.0, 1.55).zero_point == 100
    assert Range(0.0, 0.0).scale > 0


def test_weights_are_rounded_channel_by_channel_and_the_mean_error_is_known() -> None:
    size = np.array([1, 10, 100, 0])
    weight = np.random.default_rng(0).standard_normal((4, 2, 3, 3)) * size.reshape(4, 1, 1, 1)
    numbers, scales = quantize_weight(weight)

    assert np.abs(numbers).max(axis=(1, 2, 3)).tolist() == [MAX_WEIGHT, MAX_WEIGHT, MAX_WEIGHT, 0]
    errors = np.abs(numbers * scales.reshape(4, 1, 1, 1) - weight).mean(axis=(1, 2, 3))
    assert (errors <= 0.02 * size).all()
    off = np.array([[[[0.1, 0.2]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[0.0, 0.0]]]])  # (O, I / groups, 1, 2)
    assert mean_error(off, np.array([1.0, 2.0])) == pytest.approx([2.3, 2.0])
    assert mean_error(off, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx([2.3, 6.0])  # in two groups


def test_without_any_convolution_in_integers_there_is_no_such_model(graph: onnx.ModelProto, images: np.ndarray) -> None:
    with pytest.raises(ExportError, match=r"no convolution can be in integers .* on noise; type export"):
        to_int8(graph, Pictures(images, "noise"), SPEC, 1.0, lambda _: False)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, None),
        ({"agreement": 0.9}, r"90.0% of its answers about 9 photos are the checkpoint's; .*min_agreement=0.97"),
        ({"accuracy": 0.79}, r"accuracy on 9 photos is 0.790, the checkpoint's 0.800; .*max_accuracy_loss=0.005"),
        ({"accuracy": 0.81}, None),
        ({"accuracy": None, "accuracy_before": None}, None),
    ],
)
def test_integers_are_judged_by_answers(
    changes: dict[str, float | None], wrong: str | None, small_config: Config
) -> None:
    good = {"pictures": 9, "compared_on": "9 photos", "max_difference": 0.3, "mean_difference": 0.01}
    rates = {"agreement": 0.98, "accuracy_before": 0.8, "accuracy": 0.8}
    found = Comparison.model_validate(good | rates | changes)

    seen = objection(found, small_config("export.precision=int8").export)

    assert (seen is None) == (wrong is None)
    if wrong is not None:
        with pytest.raises(ExportError, match=wrong):
            raise ExportError(seen)


def test_networks_without_convolutions_stay_in_float(
    small_config: Config, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    changes = {"backbone": "test_vit", "preprocessing": Preprocessing(image_size_px=96)}
    path = write_random_checkpoint(tmp_path / "vit.ckpt", metadata.model_copy(update=changes))

    with pytest.raises(ExportError, match=r"% of the weights belong to convolutions, .* type export\.precision=fp16_w"):
        export(small_config(f"infer.checkpoint_path={path}", *LOOSE, "export.int8.calibration_photos=12"))


def test_photos_are_needed_and_other_ones_are_told(
    small_config: Config, random_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = f"infer.checkpoint_path={random_checkpoint}", "export.output_path=a.onnx", *LOOSE
    folder = tmp_path / "photos"
    drawn = "data.synthetic.enabled=false", f"paths.data_dir={folder}"

    with pytest.raises(DataError, match=r"no photos in .*integer model is calibrated on photos; type paths\.data_dir"):
        export(small_config(*words, *drawn))
    write_synthetic_dataset(folder, 12, 80, seed=1)
    with caplog.at_level(logging.WARNING):
        result = export(small_config(*words, *drawn))

    assert (result.compared_on, result.accuracy) == (f"6 photos of {folder}", None)
    assert "calibrated on photos that it was not trained with, and compared without labels" in caplog.text
