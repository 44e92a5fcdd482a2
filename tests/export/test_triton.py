"""A model repository for Triton: its files say what Triton reads, its models in Python do what the package does."""

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.errors import ConfigError, ExportError
from cassava_leaf_disease.export.triton import vendor
from cassava_leaf_disease.export.triton.graph import take_pixels
from cassava_leaf_disease.export.triton.pbtxt import Word, to_pbtxt
from cassava_leaf_disease.export.triton.repository import TritonResult, export_triton
from cassava_leaf_disease.imaging.decode import decode_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.imaging.quality import measure_quality
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.inference.served import ServedModel
from cassava_leaf_disease.inference.views import views_of
from cassava_leaf_disease.modeling.metadata import ModelMetadata

Config = Callable[..., AppConfig]
BACKEND = "cassava_leaf_disease.export.triton.backend"


@pytest.fixture
def exported(
    small_config: Config, exported_model: Path, few_photos: Path, tmp_path: Path
) -> Callable[..., TritonResult]:
    """Exports the small model to `served`."""
    usual = f"infer.checkpoint_path={exported_model}", f"paths.data_dir={few_photos}"

    def export(*overrides: str) -> TritonResult:
        return export_triton(small_config(*usual, f"export.triton.output_dir={tmp_path / 'served'}", *overrides))

    return export


def read_configs(repository: Path) -> dict[str, Any]:
    """Every `config.pbtxt`, parsed by Triton's own definition."""
    paths = sorted(repository.glob("models/*/config.pbtxt"))
    return {
        path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        for path in paths
    }


def test_repository_holds_a_model_for_each_step_and_tells_what_answers(
    triton_repository: Path, served_models: tuple[Path, Path]
) -> None:
    configs = read_configs(triton_repository)
    assert set(configs) == {"cassava", "member_0", "member_1", "preprocess", "vote"}
    assert all(config.name == folder for folder, config in configs.items())
    assert all((triton_repository / "models" / name / "1").is_dir() for name in configs)
    steps = [step.model_name for step in configs["cassava"].ensemble_scheduling.step]
    assert steps == ["preprocess", "member_0", "member_1", "vote"]
    description = ServedModel.model_validate_json(configs["cassava"].parameters["cassava_description"].string_value)
    assert description == ServedModel.model_validate_json((triton_repository / "cassava.json").read_bytes())
    assert description.name == "1 x test_resnet + 1 x larger"
    assert [member.metadata.preprocessing.image_size_px for member in description.members] == [64, 96]
    assert [(output.name, list(output.dims)) for output in configs["preprocess"].output] == [
        *(("pixels_0", [64, 64, 3]), ("pixels_1", [96, 96, 3]), ("QUALITY", [6]))
    ]
    outputs = {name: [output.name for output in config.output] for name, config in configs.items()}
    assert outputs["member_0"] == ["logits"]
    assert outputs["member_1"] == ["logits", "features"]
    assert outputs["cassava"] == ["PROBABILITIES", "MODEL", "FOREIGN", "QUALITY"]
    assert configs["preprocess"].instance_group[0].count == 2
    assert configs["preprocess"].dynamic_batching.default_queue_policy.max_queue_size == 256
    assert configs["member_0"].backend == "python"
    assert configs["member_0"].model_warmup[0].inputs["pixels"].zero_data


def test_repository_needs_nothing_of_ours_that_is_not_inside(triton_repository: Path) -> None:
    for model in ("preprocess", "member_0", "vote"):
        library = triton_repository / "models" / model / "1" / "lib"
        sources = {path.name: path.read_text(encoding="utf-8") for path in library.rglob("*.py")}
        wanted = vendor.libraries(sources) - set(sys.stdlib_module_names)
        assert wanted <= {"numpy", "PIL", "pydantic", "pydantic_core", "onnxruntime", "triton_python_backend_utils"}
        code = "import sys; sys.modules['triton_python_backend_utils'] = sys; import model; print(model.__file__)"
        folder = library.parent
        said = subprocess.run(
            [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"],
            env={name: value for name, value in os.environ.items() if not name.startswith("COV")},  # copies of ours
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.strip() == str(folder / "model.py")


@pytest.mark.parametrize(
    ("overrides", "backend", "groups"),
    [
        (["export.triton.backend=onnxruntime"], "onnxruntime", [(model_config_pb2.ModelInstanceGroup.KIND_CPU, [])]),
        (["export.triton.target=gpu"], "onnxruntime", [(model_config_pb2.ModelInstanceGroup.KIND_GPU, [0])]),
        (
            ["export.triton.target=multi_gpu", "export.triton.backend=tensorrt"],
            "tensorrt",
            [(model_config_pb2.ModelInstanceGroup.KIND_GPU, [])],
        ),
    ],
)
def test_one_choice_places_the_networks(
    exported: Callable[..., TritonResult], overrides: list[str], backend: str, groups: list[tuple[int, list[int]]]
) -> None:
    result = exported(*overrides)
    config = read_configs(result.path)["member_0"]
    assert config.backend == result.backend == backend
    assert [(group.kind, list(group.gpus)) for group in config.instance_group] == groups
    in_models = (result.path / "models" / "member_0" / "1" / "model.onnx").is_file()
    assert in_models == (backend != "tensorrt")
    assert not (result.path / "models" / "member_0" / "1" / "model.py").exists()


def test_tensorrt_engines_are_built_where_they_will_run(exported: Callable[..., TritonResult]) -> None:
    result = exported("export.triton.target=gpu", "export.triton.backend=tensorrt", "export.triton.max_batch_size=8")
    script = (result.path / "build_engines.sh").read_text(encoding="utf-8")
    assert result.build == f"sh {result.path / 'build_engines.sh'}"
    assert "--onnx=onnx/member_0.onnx --saveEngine=models/member_0/1/model.plan --stronglyTyped" in script
    assert "--minShapes=pixels:1x64x64x3 --optShapes=pixels:4x64x64x3 --maxShapes=pixels:8x64x64x3" in script
    assert (result.path / "onnx" / "member_0.onnx").is_file()


def test_dali_decodes_what_was_checked_before(exported: Callable[..., TritonResult]) -> None:
    result = exported("export.triton.target=gpu", "export.triton.preprocess=dali")
    configs = read_configs(result.path)
    steps = configs["cassava"].ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["check", "preprocess", "member_0", "vote"]
    assert dict(steps[0].output_map) == dict(steps[1].input_map) == {"ENCODED": "ENCODED"}
    assert configs["preprocess"].backend == "dali"
    assert configs["preprocess"].input[0].allow_ragged_batch
    pipeline = (result.path / "models" / "preprocess" / "1" / "dali.py").read_text(encoding="utf-8")
    compile(pipeline, "dali.py", "exec")
    assert "resize_shorter=73" in pipeline
    assert "crop=(64, 64)" in pipeline


@pytest.mark.parametrize(
    ("overrides", "seen"),
    [
        (["export.triton.backend=tensorrt"], "TensorRT runs on GPUs alone"),
        (["export.triton.preprocess=dali"], "DALI would decode on a GPU"),
        (["export.triton.target=gpu", "export.triton.backend=python"], "members in Python run on the CPU"),
        (
            ["export.triton.target=gpu", "export.triton.preprocess=dali", "infer.tta=flips"],
            "DALI's pipeline shows a photo once",
        ),
    ],
)
def test_choices_that_do_not_fit_together_are_refused(small_config: Config, overrides: list[str], seen: str) -> None:
    with pytest.raises(ConfigError, match=seen):
        small_config(*overrides)


def test_checkpoint_is_exported_with_the_views_of_each_photo(
    small_config: Config, random_checkpoint: Path, tmp_path: Path
) -> None:
    result = export_triton(small_config(f"infer.checkpoint_path={random_checkpoint}", "infer.tta=flips"))
    assert result.path == tmp_path / "outputs" / "triton"
    assert result.views == ("identity", "hflip", "vflip", "rot180")
    assert result.compared_on == "64 drawn leaves"
    assert result.max_difference <= 1e-5
    config = read_configs(result.path)["member_0"]
    assert list(config.input[0].dims) == [4, 64, 64, 3]
    assert list(config.output[0].dims) == [4, 5]


def test_repository_is_compared_on_photos_where_there_are_some(
    exported: Callable[..., TritonResult], few_photos: Path
) -> None:
    result = exported()
    assert result.compared_on == f"2 photos of {few_photos}"
    assert result.pictures == 2
    assert result.max_difference <= 1e-5


def test_repository_that_answers_otherwise_is_not_written(
    exported: Callable[..., TritonResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cassava_leaf_disease.export.triton.graph.scale_and_shift", lambda _: (np.float32(1), np.float32(0))
    )
    with pytest.raises(ExportError, match=r"was not written: its probabilities differ .* expected at most"):
        exported()
    assert not (tmp_path / "served").exists()
    assert not list(tmp_path.glob(".served*"))


def test_only_a_repository_of_ours_is_replaced(exported: Callable[..., TritonResult], tmp_path: Path) -> None:
    assert exported().path == exported().path
    assert [path.name for path in tmp_path.iterdir()] == ["served"]
    (tmp_path / "served" / "cassava.json").unlink()
    with pytest.raises(ConfigError, match="something else stands there"):
        exported()


def test_both_doors_know_the_command(
    exported_model: Path, few_photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = f"paths.data_dir={few_photos}"
    words = [f"infer.checkpoint_path={exported_model}", f"export.triton.output_dir={tmp_path / 'a'}"]
    assert cli.main(["export", "triton", data, *words]) == 0
    assert json.loads(capfd.readouterr().out)["serve"] == f"tritonserver --model-repository={tmp_path / 'a' / 'models'}"
    assert fire_cli.main(["export-triton", "--output", str(tmp_path / "b"), "--ckpt", str(exported_model), data]) == 0
    assert (tmp_path / "b" / "models" / "cassava" / "config.pbtxt").is_file()


def test_text_format_is_what_protobuf_reads() -> None:
    text = to_pbtxt({"name": 'a "quoted" ärger\n', "dims": [1, -1], "kind": Word("KIND_CPU"), "flag": True, "none": []})
    assert text == 'name: "a \\"quoted\\" ärger\\n"\ndims: [1, -1]\nkind: KIND_CPU\nflag: true\nnone: []\n'


@pytest.mark.parametrize("network_type", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
def test_graph_of_pixels_answers_as_the_network(
    exported_model: Path, metadata: ModelMetadata, network_type: int, tmp_path: Path
) -> None:
    spec = metadata.preprocessing
    images = np.stack([views_of(draw_leaf(seed, seed, 100), spec, "rotations") for seed in range(3)])  # (N, V, S, S, 3)
    expected = load_found(FoundModel(exported_model, "explicit"), "cpu")
    assert isinstance(expected, Predictor)
    logits = expected.outputs(images.reshape(-1, *images.shape[2:])).logits.reshape(3, 4, 5)
    model = onnx.load(exported_model)
    if network_type == onnx.TensorProto.FLOAT16:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model)
    take_pixels(model, spec, 4)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    [answer] = session.run(["logits"], {"pixels": images})
    np.testing.assert_allclose(answer, logits, atol=1e-4 if network_type == onnx.TensorProto.FLOAT else 0.2)


# The models in Python, run here with a stand-in for what Triton's Python backend gives them.


@dataclass
class FakeTensor:
    name: str
    values: npt.NDArray[Any]

    def as_numpy(self) -> npt.NDArray[Any]:
        return self.values


@dataclass
class FakeError:
    INVALID_ARG = 3
    INTERNAL = 1
    text: str
    code: int


@dataclass
class FakeResponse:
    output_tensors: list[FakeTensor] = field(default_factory=list)
    error: FakeError | None = None

    def named(self) -> dict[str, npt.NDArray[Any]]:
        assert self.error is None, self.error
        return {tensor.name: tensor.values for tensor in self.output_tensors}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a model in Python."""
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = FakeTensor, FakeResponse, FakeError  # type: ignore[attr-defined]
    utils.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    yield lambda kind: importlib.import_module(f"{BACKEND}.{kind}")
    for name in [name for name in sys.modules if name.startswith(f"{BACKEND}.")]:
        del sys.modules[name]


@pytest.fixture
def started(backend: Callable[[str], ModuleType], triton_repository: Path) -> Callable[..., Any]:
    """A model of the repository, initialised as Triton does it."""
    configs = read_configs(triton_repository)

    def start(kind: str, model: str, changes: Mapping[str, str] | None = None) -> Any:
        parameters = {key: {"string_value": value.string_value} for key, value in configs[model].parameters.items()}
        for key, value in (changes or {}).items():
            parameters[key] = {"string_value": value}
        made = backend(kind).TritonPythonModel()
        folder = str(triton_repository / "models" / model)
        made.initialize(
            {
                "model_config": json.dumps({"parameters": parameters}),
                "model_repository": folder,
                "model_version": "1",
            }
        )
        return made

    return start


def files(*contents: bytes) -> dict[str, FakeTensor]:
    return {"IMAGE": FakeTensor("IMAGE", np.array([[content] for content in contents], np.object_))}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_steps_in_python_answer_together_as_the_local_predictor(
    started: Callable[..., Any], triton_repository: Path, served_models: tuple[Path, Path], photo_bytes: bytes
) -> None:
    local = load_found(FoundModel(served_models[0], "explicit", served_models), "cpu")
    here = local.predict_bytes(photo_bytes, name="a")
    expected = list(here.probabilities.values())
    requests = [files(photo_bytes), files(photo_bytes, photo_bytes)]
    pixels = [response.named() for response in started("preprocess", "preprocess").execute(requests)]
    assert [each["pixels_1"].shape for each in pixels] == [(1, 96, 96, 3), (2, 96, 96, 3)]
    answers = [
        [
            response.named()
            for response in started("member", f"member_{index}").execute(
                [{"pixels": FakeTensor("pixels", each[f"pixels_{index}"])} for each in pixels]
            )
        ]
        for index in range(2)
    ]
    votes = started("vote", "vote").execute(
        [
            {
                "logits_0": FakeTensor("logits", answers[0][request]["logits"]),
                "logits_1": FakeTensor("logits", answers[1][request]["logits"]),
                "features_1": FakeTensor("features", answers[1][request]["features"]),
            }
            for request in range(2)
        ]
    )
    probabilities = np.concatenate([vote.named()["PROBABILITIES"] for vote in votes])
    np.testing.assert_allclose(probabilities, [expected] * 3, atol=1e-6)
    [foreign] = [check.value for check in here.checks if check.name == "foreign"]
    np.testing.assert_allclose(np.concatenate([vote.named()["FOREIGN"] for vote in votes]), [[foreign]] * 3, atol=1e-4)
    quality = measure_quality(decode_image(photo_bytes))
    assert pixels[1]["QUALITY"].tolist() == [list(astuple(quality))] * 2
    description = ServedModel.model_validate_json((triton_repository / "cassava.json").read_bytes())
    assert {value for vote in votes for value in vote.named()["MODEL"].ravel()} == {description.digest.encode()}


def test_bad_photo_is_told_by_kind_and_leaves_other_requests_alone(
    started: Callable[..., Any], photo_bytes: bytes
) -> None:
    model = started("preprocess", "preprocess")
    strip = saved(Image.new("RGB", (400, 2)), "JPEG")
    bad = [b"", b"GIF89a", photo_bytes[:900], strip]
    *failed, good = model.execute([*map(files, bad), files(photo_bytes)])
    kinds = [response.error.text.partition(":")[0] for response in failed]
    assert kinds == ["CorruptImageError", "UnsupportedImageError", "CorruptImageError", "TooManyPixelsError"]
    assert {response.error.code for response in failed} == {FakeError.INVALID_ARG}
    assert good.error is None
    [together] = model.execute([files(photo_bytes, b"")])
    assert together.error.text.startswith("CorruptImageError: photo 2 of 2: empty")


def test_network_that_gives_no_number_is_an_error(started: Callable[..., Any]) -> None:
    nothing = FakeTensor("a", np.full((1, 5), np.nan, np.float32))
    [answer] = started("vote", "vote").execute([{"logits_0": nothing, "logits_1": nothing, "features_1": nothing}])
    assert answer.error.code == FakeError.INTERNAL
    assert answer.error.text.startswith("CheckpointError: the served model: a network gives no finite answer")


def test_check_before_dali_hands_over_what_every_decoder_reads_alike(
    started: Callable[..., Any], photo_bytes: bytes
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(photo_bytes)) as photo:
        turned = saved(photo, "JPEG", exif=exif)
    model = started("check", "preprocess")
    checked = [response.named() for response in model.execute([files(photo_bytes), files(turned)])]
    assert checked[0]["QUALITY"].tolist() == [list(astuple(measure_quality(decode_image(photo_bytes))))]
    coded = [each["ENCODED"].tobytes() for each in checked]
    assert coded[0].startswith(b"\xff\xd8\xff")
    assert coded[1].startswith(b"\x89PNG")
    for given, checked in zip((photo_bytes, turned), coded, strict=True):
        np.testing.assert_array_equal(decode_image(checked), decode_image(given))
    strip = Image.new("RGB", (400, 2))
    bad = [b"", saved(strip, "JPEG"), saved(strip, "PNG"), photo_bytes[:900]]
    errors = [response.error.text for response in model.execute(list(map(files, bad)))]
    assert [text.partition(":")[0] for text in errors] == [
        *("CorruptImageError", "TooManyPixelsError", "TooManyPixelsError", "CorruptImageError")
    ]


def test_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no module cassava_leaf_disease"):
        vendor.needed_files("cassava_leaf_disease.nowhere")


def test_preprocessing_of_the_repository_is_ours(started: Callable[..., Any], photo_bytes: bytes) -> None:
    [answer] = started("preprocess", "preprocess").execute([files(photo_bytes)])
    spec = Preprocessing(image_size_px=64, crop_ratio=0.875)
    expected = views_of(decode_image(photo_bytes), spec, "none")
    np.testing.assert_array_equal(answer.named()["pixels_0"], expected)
