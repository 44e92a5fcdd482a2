"""An exported file answers as its checkpoint does, or it is not written."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import CheckpointError, ConfigError, ExportError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.export.onnx import OPSET, ExportResult, export, to_onnx
from cassava_leaf_disease.export.pictures import MAX_PICTURES, comparison_pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata, parse_metadata

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture
def checkpoint(random_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(random_checkpoint, tmp_path / "best.ckpt"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_synthetic_dataset(folder, 10, 80, seed=1)
    return folder


def test_the_file_lands_beside_the_checkpoint_and_answers_alike(
    small_config: Config, checkpoint: Path, photos: Path, photo_bytes: bytes, tmp_path: Path
) -> None:
    result = export(small_config(f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={photos}"))

    assert result.path == tmp_path / "best.onnx"
    assert result.bytes == result.path.stat().st_size
    assert (result.checkpoint, result.source, result.backbone) == (checkpoint, "explicit", "test_resnet")
    assert (result.pictures, result.compared_on) == (10, f"10 photos of {photos}")
    assert (result.opset, result.agreement) == (OPSET, 1.0)
    assert (result.precision, result.accuracy) == ("fp32", None)
    assert 0 <= result.mean_difference <= result.max_difference <= 1e-4 == result.tolerance
    assert ExportResult.model_validate_json(result.model_dump_json()) == result
    answers = [
        load_predictor(FoundModel(path, "explicit"), "cpu").predict_bytes(photo_bytes, name="a").probabilities
        for path in (checkpoint, result.path)
    ]
    assert answers[1] == pytest.approx(answers[0], abs=1e-5)
    assert max(answers[0].values()) - min(answers[0].values()) > 0.01  # so that being equal means something
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "best.onnx", "outputs", "photos"]


def test_the_file_is_sound_onnx_with_its_weights_inside_and_no_paths_of_this_machine(
    exported_model: Path, metadata: ModelMetadata
) -> None:
    content = exported_model.read_bytes()
    model = onnx.load_from_string(content)

    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert parse_metadata(properties[METADATA_KEY], "it") == metadata
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not any(node.metadata_props for node in model.graph.node)
    for folder in {str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[2]), str(Path.home())} - {"/"}:
        assert folder.encode() not in content


def test_a_vision_transformer_is_exported_at_its_own_size(
    small_config: Config, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    described = metadata.model_copy(
        update={"name": "test_vit", "backbone": "test_vit", "preprocessing": Preprocessing(image_size_px=96)}
    )
    path = write_random_checkpoint(tmp_path / "vit.ckpt", described)

    result = export(small_config(f"infer.checkpoint_path={path}", "export.output_path=models/leaf model.onnx"))

    assert result.path == tmp_path / "models" / "leaf model.onnx"
    assert (result.agreement, result.backbone) == (1.0, "test_vit")


def test_without_photos_drawn_leaves_are_compared_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pictures = comparison_pictures(tmp_path / "nowhere", Preprocessing(image_size_px=64))

    assert (pictures.images.shape, pictures.origin) == ((MAX_PICTURES, 64, 64, 3), "64 drawn leaves")
    assert (
        f"no photos in {tmp_path / 'nowhere' / 'train_images'}: the comparison is made on drawn leaves" in caplog.text
    )


def test_a_file_that_answers_otherwise_is_not_written_and_the_old_one_stays(
    small_config: Config, checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "best.onnx").write_bytes(b"the old one")

    with pytest.raises(
        ExportError, match=r"best\.onnx was not written: its probabilities differ .* by up to .*e-"
    ) as told:
        export(
            small_config(f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={photos}", "export.tolerance=1e-15")
        )

    assert str(told.value).endswith("100% of the answers agree; expected at most export.tolerance=1e-15")
    assert (tmp_path / "best.onnx").read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "best.onnx", "outputs", "photos"]


class Growing(nn.Module):
    """A network whose answer depends on a loop that no graph can hold."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        while images.sum() > 0:
            images = images - 1
        return images.mean((1, 2, 3), keepdim=True)


def test_a_network_that_onnx_cannot_express_is_one_line(metadata: ModelMetadata) -> None:
    with pytest.raises(
        ExportError, match=r"test_resnet at 64 px cannot be exported to ONNX \(.*\); train another"
    ) as told:
        to_onnx(Growing(), metadata)

    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("output", "seen"),
    [("best.pt", "another kind of file"), ("folder", "another kind of file"), ("folder.onnx", "a folder")],
)
def test_a_place_that_no_model_can_have_is_refused(
    output: str, seen: str, small_config: Config, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()

    with pytest.raises(
        ConfigError, match=rf"export\.output_path=.*{output}: {seen}; expected a path that ends in \.onnx"
    ):
        export(small_config(f"infer.checkpoint_path={checkpoint}", f"export.output_path={output}"))


def test_an_exported_file_is_not_exported_again(small_config: Config, exported_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"best\.onnx: an exported model already; type infer\.checkpoint_path="):
        export(small_config(f"infer.checkpoint_path={exported_model}"))


@pytest.mark.usefixtures("no_packaged_model")
def test_no_checkpoint_is_told(small_config: Config) -> None:
    with pytest.raises(CheckpointError, match="no model to answer with"):
        export(small_config())


def test_a_missing_exporter_names_the_extra(checkpoint: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "onnxscript.py").write_text("raise ModuleNotFoundError('gone', name='onnxscript')")
    command = [sys.executable, "-m", "cassava_leaf_disease", "export", f"infer.checkpoint_path={checkpoint}"]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(hidden)}
    )

    assert run.returncode == 2
    assert "error: onnxscript is not installed; type: pip install 'cassava-leaf-disease[export]'" in run.stderr
    assert not (tmp_path / "best.onnx").exists()


@pytest.mark.slow
def test_the_command_prints_one_json_document_and_nothing_else(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    words = [f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={photos}", "export.output_path=out.onnx"]
    run = subprocess.run(
        [sys.executable, "-m", "cassava_leaf_disease", "export", *words], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["path"] == str(tmp_path / "out.onnx")
    assert [line for line in run.stderr.splitlines() if not line.startswith("INFO ")] == []


def test_evaluate_measures_an_exported_file_as_its_checkpoint(
    small_config: Config, random_checkpoint: Path, exported_model: Path, photos: Path, tmp_path: Path
) -> None:
    table = f"evaluate.csv_path={photos / 'train.csv'}"
    scores = [
        evaluate(small_config(f"infer.checkpoint_path={path}", table, f"evaluate.output_dir={tmp_path / path.suffix}"))
        for path in (random_checkpoint, exported_model)
    ]

    assert scores[1].checkpoint == exported_model
    expected, told = (score.scores.model_dump() for score in scores)
    for name in ("calibration_error", "log_loss"):
        assert told.pop(name) == pytest.approx(expected.pop(name), abs=1e-4)
    assert told == expected


def test_pictures_come_from_all_over_the_photos_and_bad_ones_are_passed_over(photos: Path, tmp_path: Path) -> None:
    spec = Preprocessing(image_size_px=32)
    images = photos / "train_images"
    for index in range(200):
        Image.new("RGB", (40, 40), (index, 0, 0)).save(images / f"x{index:03}.png")
    for name in ("a.txt", "x003.png"):
        (images / name).write_bytes(b"no photo")

    pictures = comparison_pictures(photos, spec)

    assert pictures.images.shape == (MAX_PICTURES, 32, 32, 3)
    assert pictures.images.dtype == np.uint8
    reds = {int(image[0, 0, 0]) for image in pictures.images[10:]}
    assert len(reds) > 50
    assert max(reds) - min(reds) > 150
    for path in images.iterdir():
        path.write_bytes(b"no photo")
    assert comparison_pictures(photos, spec).origin == "64 drawn leaves"


def test_real_photos_are_answered_alike(shared_data: Path, small_config: Config, checkpoint: Path) -> None:
    result = export(small_config(f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={shared_data / 'cassava'}"))

    assert (result.pictures, result.agreement) == (64, 1.0)
    assert result.max_difference < 1e-5
