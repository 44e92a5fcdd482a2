"""`cassava benchmark`: the figures add up, every kind of model is measured, and what cannot be is said."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.benchmark import run as workflow
from cassava_leaf_disease.benchmark.run import benchmark
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import CheckpointError, ConfigError, DataError, DeviceError

Measuring = Callable[..., AppConfig]


@pytest.fixture
def measuring(root_in_tmp_path: None, exported_model: Path) -> Measuring:
    """The configuration of a short run with the small network on drawn leaves; takes further overrides."""
    words = (
        f"infer.checkpoint_path={exported_model}",
        *("data.synthetic.enabled=true", "benchmark.drawn_side_px=72", "benchmark.photos=3"),
        *("benchmark.rounds=2", "benchmark.warmup=1", "benchmark.batch_sizes=[1,2]", "benchmark.threads=1"),
        "benchmark.clock=cpu",  # other processes on the machine do not count
    )
    return lambda *more: load_config([*words, *more])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six drawn leaves and a file that is none, in two folders."""
    write_synthetic_dataset(tmp_path / "drawn", 6, 64, 5)
    (tmp_path / "drawn" / "train_images" / "a broken.jpg").write_bytes(b"no photo")
    return tmp_path / "drawn"


def test_figures_of_a_model_add_up(measuring: Measuring, exported_model: Path) -> None:
    result = benchmark(measuring())

    [model] = result.models
    assert model.model.path == str(exported_model)
    assert (model.runtimes, model.threads, model.image_sizes_px) == (("onnxruntime/cpu",), 1, (64,))
    assert model.file_bytes == exported_model.stat().st_size
    assert (model.bytes_to_verdict.calls, model.network.calls, len(model.round_p50_ms)) == (6, 6, 2)
    assert model.bytes_to_verdict.p95_ms is None  # of six calls it would say nothing
    assert [each.stage for each in model.stages] == ["decode", "preprocess", "gate", "network", "rest"]
    assert sum(each.share for each in model.stages) == pytest.approx(1)
    assert all(each.p50_ms >= 0 for each in model.stages)
    assert 0 < model.network.p50_ms < model.bytes_to_verdict.p50_ms
    assert model.ratio_to_network > 1
    assert [(each.batch_size, each.calls) for each in model.batches] == [(1, 2), (2, 2)]
    assert all(each.network_photos_per_second > each.photos_per_second > 0 for each in model.batches)
    assert model.against_first is None
    assert (result.ended_by, result.clock) == ("rounds", "cpu")
    photos = result.photos
    assert (photos.origin, photos.folder, photos.count, photos.passed_over) == ("drawn", None, 3, 0)
    assert (photos.width_px, photos.height_px) == (96, 72)


def test_models_are_compared_with_the_first(
    measuring: Measuring, random_checkpoint: Path, exported_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()

    result = benchmark(measuring(f"benchmark.compare=[{random_checkpoint},{exported_model}]"))

    first, second, third = result.models
    assert first.against_first is None
    assert (second.runtimes, second.threads) == (("torch/cpu",), 1)
    for model in (second, third):
        assert model.against_first is not None
        assert (model.against_first.same_class, model.against_first.same_verdict) == (1, 1)
        assert model.against_first.max_difference < 1e-4
        assert model.against_first.photos == 3
        assert model.against_first.time_ratio > 0
    assert "torch" in result.machine.versions
    assert torch.get_num_threads() == before
    assert "100% of 3 answers name the same class" in caplog.text


def test_several_models_that_answer_as_one_are_one(
    measuring: Measuring, random_checkpoint: Path, exported_model: Path
) -> None:
    both = f"infer.checkpoint_path=[{random_checkpoint},{exported_model}]"

    [model] = benchmark(measuring(both, "infer.tta=flips", "benchmark.rounds=1", "benchmark.threads=auto")).models

    assert model.runtimes == ("torch/cpu", "onnxruntime/cpu")
    assert model.threads == torch.get_num_threads()
    assert len(model.views) == 4
    assert len(model.model.members) == 2
    assert model.file_bytes == random_checkpoint.stat().st_size + exported_model.stat().st_size


def test_photos_are_those_of_the_folder_and_bad_ones_are_counted(
    measuring: Measuring, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = benchmark(measuring(f"benchmark.images_dir={folder}", "benchmark.photos=50", "benchmark.rounds=1"))

    assert (result.photos.origin, result.photos.folder) == ("images_dir", str(folder))
    assert (result.photos.count, result.photos.passed_over, result.photos.width_px) == (6, 1, 64)
    assert "1 of 7 photos cannot be used and are left out; the first: " in caplog.text


def test_data_set_is_measured_where_no_folder_is_named(measuring: Measuring, folder: Path) -> None:
    here = ("data.synthetic.enabled=false", f"paths.data_dir={folder}", "benchmark.rounds=1")

    photos = benchmark(measuring(*here)).photos

    assert (photos.origin, photos.folder, photos.count) == ("data_dir", str(folder / "train_images"), 3)


def test_drawn_leaves_that_nobody_asked_for_are_told(measuring: Measuring, caplog: pytest.LogCaptureFixture) -> None:
    photos = benchmark(measuring("data.synthetic.enabled=false", "benchmark.rounds=1")).photos

    assert photos.origin == "drawn"
    assert "drawn leaves are measured" in caplog.text
    assert "type benchmark.images_dir=FOLDER" in caplog.text


def test_time_that_is_over_ends_the_run_and_each_kind_is_measured_once(
    measuring: Measuring, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    result = benchmark(measuring("benchmark.seconds=1e-9", "benchmark.rounds=1000"))

    [model] = result.models
    assert result.ended_by == "time"
    assert model.bytes_to_verdict.calls == 1
    assert [each.calls for each in model.batches] == [1, 1]
    assert "benchmark.seconds gives more" in caplog.text


def test_without_batches_all_of_the_time_is_for_single_photos(measuring: Measuring) -> None:
    [model] = benchmark(measuring("benchmark.batch_sizes=[]", "benchmark.warmup=0", "benchmark.rounds=7")).models

    assert model.batches == ()
    assert model.bytes_to_verdict.p95_ms is not None
    assert model.bytes_to_verdict.p95_ms >= model.bytes_to_verdict.p50_ms


def test_busy_machine_is_told_unless_processor_time_counts(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workflow, "load_average", lambda: 1000.0)

    benchmark(measuring("benchmark.rounds=1"))
    assert "1000.0 processes" not in caplog.text

    assert benchmark(measuring("benchmark.clock=wall", "benchmark.rounds=1")).machine.load == 1000
    assert "1000.0 processes ran here in the last minute" in caplog.text


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["benchmark.images_dir=nowhere"], DataError, r"benchmark.images_dir=.*nowhere: no such folder"),
        (["benchmark.images_dir=."], DataError, r"no photos; expected files that end in"),
        (["benchmark.compare=[none.onnx]"], ConfigError, r"benchmark.compare=.*none.onnx: no such file"),
        (["infer.engine=triton", "infer.checkpoint_path=null"], ConfigError, r"loads the model itself"),
        (["infer.checkpoint_path=bad.onnx"], CheckpointError, r"bad.onnx: cannot be read as an ONNX model"),
    ],
)
def test_what_cannot_be_measured_is_told(
    words: Sequence[str], error: type[Exception], message: str, measuring: Measuring, tmp_path: Path
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")

    with pytest.raises(error, match=message):
        benchmark(measuring(*words))


def test_folder_without_a_usable_photo_is_told(measuring: Measuring, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"GIF89a")
    Image.new("RGB", (600, 2)).save(tmp_path / "bad" / "strip.png")

    with pytest.raises(DataError, match="none of the 2 photos tried can be used; the first: "):
        benchmark(measuring("benchmark.images_dir=bad"))


def test_gpu_that_is_not_there_is_told_before_anything_is_loaded(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, random_checkpoint: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError, match="no CUDA GPU"):
        benchmark(measuring("infer.device=cuda", f"infer.checkpoint_path={random_checkpoint}"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("benchmark.batch_sizes=[0]", "a list of whole numbers from 1 to 1024 such as [1,8]"),
        ("benchmark.batch_sizes=8", "a list of whole numbers from 1 to 1024 such as [1,8]"),
        ("benchmark.threads=none", "expected auto or a whole number from 1 to 256"),
        ("benchmark.clock=sun", "expected wall or cpu"),
        ("benchmark.seconds=0", "expected a number above 0 and ≤ 3600"),
    ],
)
def test_wrong_values_are_one_line(word: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", word]) == 2

    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {word}: ")
    assert message in err


def test_both_doors_write_one_document(exported_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = ["benchmark.drawn_side_px=72", "benchmark.photos=2", "benchmark.rounds=1"]
    flags = ["--ckpt", str(exported_model), "--batch_sizes", "[2]", "--threads", "1", "--clock", "cpu"]

    assert fire_cli.main(["benchmark", *flags, *small]) == 0

    out, err = capfd.readouterr()
    answer: dict[str, Any] = json.loads(out)
    assert [each["batch_size"] for each in answer["models"][0]["batches"]] == [2]
    assert answer["clock"] == "cpu"
    assert "where the time goes" in err


def test_packaged_model_is_measured_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from cassava_leaf_disease.cli import main; code = main(['benchmark', 'benchmark.photos=1', "
        "'benchmark.rounds=1', 'benchmark.warmup=0', 'benchmark.batch_sizes=[]']); "
        "assert not {'torch', 'pandas', 'lightning'} & sys.modules.keys(); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    [model] = json.loads(run.stdout)["models"]
    assert model["model"]["source"] == "package"
    assert next(each for each in model["stages"] if each["stage"] == "gate")["p50_ms"] > 0
