"""An exported file answers without PyTorch; a damaged or foreign one is one clear line."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import CassavaError, CheckpointError, DeviceError
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine, resolve_providers
from cassava_leaf_disease.inference.infer import infer
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata

Config = Callable[..., AppConfig]
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def photo(tmp_path: Path, photo_bytes: bytes) -> Path:
    path = tmp_path / "leaf (1).jpg"
    path.write_bytes(photo_bytes)
    return path


@pytest.fixture
def changed(exported_model: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Writes the exported model with something else in it."""

    def write(change: Change) -> Path:
        model = onnx.load(exported_model)
        change(model)
        path = tmp_path / "changed.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def described(text: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]
        model.metadata_props.add(key=METADATA_KEY, value=text)

    return change


def test_answers_are_those_of_the_checkpoint_for_any_batch(
    exported_model: Path, predictor: Predictor, metadata: ModelMetadata
) -> None:
    exported = load_predictor(FoundModel(exported_model, "explicit"), "cpu")
    images = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)

    assert exported.metadata == metadata
    for count in (1, 2, 9):
        answers = exported.probabilities(images[:count])
        assert answers.shape == (count, 5)
        assert answers == pytest.approx(predictor.probabilities(images[:count]), abs=1e-5)


def test_a_photo_gets_an_answer_that_names_the_file(small_config: Config, exported_model: Path, photo: Path) -> None:
    answer = infer(small_config(f"infer.checkpoint_path={exported_model}", f"infer.image_path={photo}"))

    assert isinstance(answer, Prediction)
    assert answer.model.path == str(exported_model)
    assert (answer.model.name, answer.image) == ("test_resnet", str(photo))


def test_the_name_may_end_in_capitals(exported_model: Path, tmp_path: Path, photo_bytes: bytes) -> None:
    path = tmp_path / "BEST.ONNX"
    path.write_bytes(exported_model.read_bytes())

    assert load_predictor(FoundModel(path, "explicit"), "auto").predict_bytes(photo_bytes, name="a").confidence > 0.2


def test_the_whole_command_loads_no_pytorch(exported_model: Path, photo: Path) -> None:
    words = ["infer", f"infer.checkpoint_path={exported_model}", f"infer.image_path={photo}"]
    script = (
        "import sys; from cassava_leaf_disease.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'timm', 'lightning', 'onnx', 'onnxscript', 'sklearn', 'boto3', 'dvc', 'mlflow'}; "
        "print(code, sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)

    assert run.stderr == "0 []\n"
    assert Prediction.model_validate_json(run.stdout).model.path == str(exported_model)


def test_threads_may_share_an_engine(exported_model: Path) -> None:
    engine = OnnxEngine(exported_model, "cpu")
    batches = [np.random.default_rng(seed).standard_normal((2, 3, 64, 64), np.float32) for seed in range(16)]
    alone = [engine.run(batch).logits for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        together = [outputs.logits for outputs in pool.map(engine.run, batches)]

    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read as an ONNX model \(No graph was found in the protobuf\)"),
        (b"hello", r"cannot be read as an ONNX model \(.*protobuf parsing failed\); it is damaged"),
        (b"PK\x03\x04 a checkpoint under another name", r"cannot be read as an ONNX model"),
    ],
    ids=["empty", "text", "checkpoint"],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "best.onnx"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=rf"best\.onnx: {message}") as told:
        OnnxEngine(path, "cpu")
    assert "\n" not in str(told.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()

    with pytest.raises(CheckpointError, match=r"gone\.onnx: no such file; write one with `cassava export`"):
        OnnxEngine(tmp_path / "gone.onnx", "cpu")
    with pytest.raises(CheckpointError, match=r"folder\.onnx: a folder; expected a file"):
        OnnxEngine(tmp_path / "folder.onnx", "cpu")


def test_a_file_that_may_not_be_read_is_told(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # the tests may run as root, whom no mode bits stop
    with pytest.raises(CheckpointError, match=r"best\.onnx: cannot be read \(Permission denied\)"):
        OnnxEngine(exported_model, "cpu")


def test_a_model_of_somebody_else_is_refused(changed: Callable[[Change], Path]) -> None:
    path = changed(lambda model: model.ClearField("metadata_props"))

    with pytest.raises(
        CheckpointError, match=r"changed\.onnx: not a CassavaVision model \(no self-description in it\)"
    ):
        OnnxEngine(path, "cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{half", "is no JSON"), ('{"format_version": 99}', "format version 99"), ('{"format_version": 1}', "is wrong")],
)
def test_a_wrong_self_description_is_refused(text: str, message: str, changed: Callable[[Change], Path]) -> None:
    with pytest.raises(CheckpointError, match=rf"changed\.onnx: its self-description.*{message}"):
        OnnxEngine(changed(described(text)), "cpu")


def test_a_self_description_of_another_network_is_refused(
    changed: Callable[[Change], Path], metadata: ModelMetadata
) -> None:
    larger = metadata.model_copy(update={"preprocessing": Preprocessing(image_size_px=96)})

    with pytest.raises(CheckpointError, match=r"takes and gives .*\[3, 64, 64\].*says .*\[3, 96, 96\]"):
        OnnxEngine(changed(described(larger.model_dump_json())), "cpu")


def test_a_graph_that_fails_when_it_runs_is_told(changed: Callable[[Change], Path]) -> None:
    def reshape_wrongly(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        node = next(node for node in model.graph.node if output in node.output)
        node.output[list(node.output).index(output)] = "before"
        shape = onnx.numpy_helper.from_array(np.array([7, 5], np.int64), "shape")
        model.graph.initializer.append(shape)
        model.graph.node.append(onnx.helper.make_node("Reshape", ["before", "shape"], [output]))

    engine = OnnxEngine(changed(reshape_wrongly), "cpu")

    with pytest.raises(CheckpointError, match=r"changed\.onnx: fails when it is run \(.*\); export it again") as told:
        engine.run(np.zeros((1, 3, 64, 64), np.float32))
    assert "\n" not in str(told.value)


def test_weights_outside_the_file_are_never_read(changed: Callable[[Change], Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(10_000_000))

    def point_outside(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", secret.name), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    with pytest.raises(CheckpointError, match=r"changed\.onnx: cannot be read as an ONNX model"):
        OnnxEngine(changed(point_outside), "cpu")


def test_changed_bytes_never_give_anything_but_a_clear_line(exported_model: Path, tmp_path: Path) -> None:
    content = exported_model.read_bytes()
    names = [content.index(mark) for mark in (b"images", b"logits", METADATA_KEY.encode(), b"Conv")]
    rng = np.random.default_rng(0)
    told = []
    for _ in range(80):
        damaged = bytearray(content)
        for place, byte in zip(rng.choice(names, 3) + rng.integers(-60, 60, 3), rng.integers(0, 256, 3), strict=True):
            damaged[max(0, place)] = byte
        path = tmp_path / "damaged.onnx"
        path.write_bytes(damaged)
        try:
            OnnxEngine(path, "cpu").run(np.zeros((1, 3, 64, 64), np.float32))
        except CassavaError as error:
            told.append(str(error))

    assert len(told) > 40
    assert not any("\n" in line for line in told)


def test_cuda_without_its_provider_is_refused_before_anything_is_read(small_config: Config) -> None:
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()

    with pytest.raises(
        DeviceError, match=r"infer\.device=cuda: this ONNX Runtime has no CUDA provider; type infer\.dev"
    ):
        infer(small_config("infer.device=cuda", "infer.image_path=gone.jpg", "infer.checkpoint_path=gone.onnx"))
    with pytest.raises(DeviceError):
        check_device("cuda", Path("best.onnx"))
    check_device("auto", Path("best.onnx"))


def test_the_device_chooses_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [resolve_providers(device) for device in ("auto", "cpu")] == [["CPUExecutionProvider"]] * 2

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", *both])

    assert resolve_providers("auto") == resolve_providers("cuda") == both
    assert resolve_providers("cpu") == ["CPUExecutionProvider"]


def test_a_gpu_that_onnx_runtime_cannot_use_is_refused(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel for GPUs on a machine without one: ONNX Runtime itself would go on with the CPU."""
    real = onnxruntime.InferenceSession

    def fall_back(*arguments: Any, providers: list[str], **options: Any) -> Any:
        return real(*arguments, providers=providers[1:], **options)

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)

    with pytest.raises(DeviceError, match="finds no usable CUDA GPU or libraries; type infer"):
        OnnxEngine(exported_model, "cuda")
    assert OnnxEngine(exported_model, "auto").run(np.zeros((1, 3, 64, 64), np.float32)).logits.shape == (1, 5)


def test_onnx_runtime_tells_nobody_about_its_use() -> None:
    script = "import os, cassava_leaf_disease.inference.engines.onnx_engine; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    run = subprocess.run([sys.executable, "-c", script], env=plain, capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
