"""An ensemble is exported as one graph, or as a folder where its members take different input."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cassava_leaf_disease.config.schema import AppConfig, OodScore, Tta
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.export.network import EnsembleNetwork
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.export.triton.repository import export_triton
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine
from cassava_leaf_disease.inference.engines.torch_engine import TorchEngine
from cassava_leaf_disease.inference.ensemble import load_found, read_ensemble
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.inference.ood import fit_arrays, score_outputs
from cassava_leaf_disease.inference.vote import Combination
from cassava_leaf_disease.modeling.checkpoint import describe_anew, load_checkpoint
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata, QualityLimits, Thresholds
from cassava_leaf_disease.training.build import describe_model

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]
WriteMember = Callable[..., Path]
NO_LIMITS = QualityLimits(
    min_sharpness=0,
    min_brightness=0,
    max_brightness=1,
    min_contrast=0,
    max_dark=1,
    max_bright=1,
    min_colors=0,
)


@pytest.fixture
def member(metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path) -> WriteMember:
    """Writes a checkpoint whose self-description has other values."""

    def write(file: str, /, **changes: object) -> Path:
        return write_random_checkpoint(tmp_path / "models" / f"{file}.ckpt", metadata.model_copy(update=changes))

    return write


def answers(path: Path, photo_bytes: bytes, tta: Tta = "none") -> list[float]:
    predictor = load_found(FoundModel(path, "explicit"), "cpu", tta=tta)
    return list(predictor.predict_bytes(photo_bytes, name="a").probabilities.values())


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
def test_members_of_one_preprocessing_become_one_graph_that_answers_as_they_do(
    combination: Combination, small_config: Config, member: WriteMember, photo_bytes: bytes, tmp_path: Path
) -> None:
    other = "test_efficientnet" if combination == "logits" else "test_resnet"
    paths = [
        member("a", temperature=2.0, metrics={"val/f1_macro": 0.6}, thresholds=Thresholds(min_confidence=0.7)),
        member("b", backbone=other, name="other", metrics={"val/f1_macro": 0.2}),
    ]
    both = write_ensemble(tmp_path / "models" / "both.json", paths, combination, "val_f1_macro").path

    result = export(small_config(f"infer.checkpoint_path={both}"))

    assert result.path == tmp_path / "models" / "both.onnx"
    assert (result.checkpoint, result.members, result.pictures) == (both, tuple(paths), 64)
    assert result.backbone == ("test_resnet, test_efficientnet" if combination == "logits" else "test_resnet")
    assert result.bytes_before == sum(path.stat().st_size for path in paths)
    expected = answers(both, photo_bytes)
    assert answers(result.path, photo_bytes) == pytest.approx(expected, abs=1e-5)
    assert answers(paths[0], photo_bytes) != pytest.approx(expected, abs=1e-2)
    engine = OnnxEngine(result.path, "cpu")
    described = engine.metadata
    assert (described.temperature, described.thresholds.min_confidence) == (1.0, 0.7)
    assert [each.name for each in described.members] == ["test_resnet", "other"]
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    whole, parts = engine.run(batch), [TorchEngine(path, "cpu").run(batch) for path in paths]
    assert np.exp(whole.logits).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    features, maps = ([getattr(part, name) for part in parts] for name in ("features", "maps"))
    assert whole.features == pytest.approx(np.concatenate(features, axis=1), abs=1e-4)
    assert whole.maps == pytest.approx(0.75 * maps[0] / 2 + 0.25 * maps[1], abs=1e-4)


def gated(path: Path, score: OodScore, seed: int) -> Path:
    """A checkpoint that gets a gate from noise."""
    loaded = load_checkpoint(path)
    batch = np.random.default_rng(seed).standard_normal((20, 3, 64, 64), np.float32)
    outputs = TorchEngine(path, "cpu").run(batch)
    arrays = fit_arrays(score, outputs, np.arange(20) % 5, 6)
    scores = score_outputs(score, arrays, outputs, 2)
    record = GateRecord(
        score=score,
        typical=float(np.median(scores)),
        limit=float(scores.max()) + 0.1 * seed,
        neighbors=2,
        max_refused=0.05,
        quality=NO_LIMITS.model_copy(update={"min_sharpness": float(seed)}),
        photos={"train": 20, "val": 20},
    )
    describe_anew(path, loaded, loaded.metadata.model_copy(update={"gate": record}), arrays)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_graph_carries_the_gates_of_its_members(
    precision: str, small_config: Config, member: WriteMember, photo_bytes: bytes, tmp_path: Path
) -> None:
    paths = [
        gated(member("a"), "mahalanobis", 1),
        member("b", temperature=2.0, backbone="test_efficientnet"),
        gated(member("c", temperature=3.0), "knn", 2),
    ]
    words = f"infer.checkpoint_path=[{paths[0]},{paths[1]},{paths[2]}]", f"export.precision={precision}"

    result = export(small_config(*words))

    served = export_triton(small_config(f"infer.checkpoint_path={result.path}"))
    assert served.max_difference < 1e-4
    assert 0 <= served.max_foreign_difference < 1e-3
    together = load_found(FoundModel(paths[0], "explicit", tuple(paths)), "cpu").predict_bytes(photo_bytes, name="a")
    alone = load_found(FoundModel(result.path, "explicit"), "cpu").predict_bytes(photo_bytes, name="a")
    assert result.refused is not None
    assert result.refused == pytest.approx(result.refused_before, abs=0.02)
    assert [check.name for check in alone.checks] == [check.name for check in together.checks]
    assert "foreign" in [check.name for check in alone.checks]
    for seen, expected in zip(alone.checks, together.checks, strict=True):
        assert seen.value == pytest.approx(expected.value, rel=0.02, abs=1e-3)
        assert (seen.at_least, seen.at_most) == (expected.at_least, expected.at_most)


def test_a_gate_that_needs_each_members_own_logits_takes_a_folder(
    small_config: Config, member: WriteMember, tmp_path: Path
) -> None:
    both = f"infer.checkpoint_path=[{gated(member('a'), 'energy', 1)},{member('b', temperature=2.0)}]"

    with pytest.raises(ConfigError, match=r"the gate of test_resnet .* judges by energy, .* type export\.output_path="):
        export(small_config(both))
    folder = export(small_config(both, "export.output_path=apart"))

    assert folder.refused == folder.refused_before is not None
    assert [file.refused is None for file in folder.files] == [False, True]


def test_float16_serves_ensembles_too_and_members_may_have_no_weight(
    small_config: Config, member: WriteMember, photo_bytes: bytes, tmp_path: Path
) -> None:
    paths = [member("a", temperature=2.0), member("b", temperature=0.5), member("c")]
    both = write_ensemble(tmp_path / "models" / "ensemble.json", paths, "probabilities", "equal").path
    described = read_ensemble(both)
    weighed = [
        file.model_copy(update={"weight": weight})
        for file, weight in zip(described.members, (1.0, 3.0, 0.0), strict=False)
    ]
    both.write_text(described.model_copy(update={"members": tuple(weighed)}).model_dump_json(), encoding="utf-8")

    result = export(small_config(f"infer.checkpoint_path={both.parent}", "export.precision=fp16"))

    assert result.path == both.parent / "ensemble.fp16.onnx"
    assert len(OnnxEngine(result.path, "cpu").metadata.members) == 3
    assert answers(result.path, photo_bytes, "flips") == pytest.approx(answers(both, photo_bytes, "flips"), abs=5e-3)


def test_members_of_other_sizes_become_a_folder_with_an_ensemble_of_its_own(
    small_config: Config, member: WriteMember, photo_bytes: bytes, tmp_path: Path
) -> None:
    paths = [member("a"), member("b", preprocessing=Preprocessing(image_size_px=96))]

    result = export(small_config(f"infer.checkpoint_path=[{paths[0]},{paths[1]}]"))

    folder = tmp_path / "models" / "ensemble-fp32"
    assert result.path == folder / "ensemble.json"
    assert [file.path.name for file in result.files] == ["0-test_resnet.onnx", "1-test_resnet.onnx"]
    assert result.bytes == sum(file.bytes for file in result.files)
    assert 0 <= result.max_difference <= max(file.max_difference for file in result.files)
    moved = folder.rename(tmp_path / "elsewhere")
    expected = answers(paths[0], photo_bytes), answers(paths[1], photo_bytes)
    assert answers(moved, photo_bytes) == pytest.approx(np.mean(expected, axis=0), abs=1e-5)


def test_where_an_ensemble_goes(small_config: Config, member: WriteMember, tmp_path: Path) -> None:
    alike = f"infer.checkpoint_path=[{member('a')},{member('b', temperature=2.0)}]"
    unlike = f"infer.checkpoint_path=[{member('a')},{member('c', preprocessing=Preprocessing(image_size_px=96))}]"
    (tmp_path / "taken").write_text("", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"one\.onnx: one file cannot hold .* type export\.output_path=FOLDER"):
        export(small_config(unlike, "export.output_path=one.onnx"))
    for name in ("taken", "a.pt"):
        with pytest.raises(ConfigError, match=r"another kind of file; expected a path that ends in \.onnx, or a"):
            export(small_config(alike, f"export.output_path={name}"))
    assert export(small_config(alike, "export.output_path=apart")).path == tmp_path / "apart" / "ensemble.json"
    assert export(small_config(alike)).path == tmp_path / "models" / "ensemble.onnx"
    with pytest.raises(ConfigError, match=r"0-test_resnet\.onnx: an exported model already"):
        export(small_config(f"infer.checkpoint_path={tmp_path / 'apart'}"))


def test_what_the_members_of_one_file_learned_is_not_forgotten(
    small_config: Config, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    write_synthetic_dataset(tmp_path / "photos", 60, 80, seed=3)
    words = f"paths.data_dir={tmp_path / 'photos'}", "data.synthetic.enabled=false", "data.split.strategy=kfold"
    paths = []
    for fold in (0, 1):
        config = small_config(*words, f"data.split.fold_index={fold}")
        data = LeafDataModule(config)
        data.divide()
        paths.append(write_random_checkpoint(tmp_path / f"{fold}.ckpt", describe_model(config, data)))
    result = export(small_config(*words, f"infer.checkpoint_path=[{paths[0]},{paths[1]}]"))
    asked = *words, f"infer.checkpoint_path={result.path}", "evaluate.bootstrap_samples=100"

    assert result.compared_on == "11 photos of the val part"
    assert result.accuracy == result.accuracy_before
    assert evaluate(small_config(*asked)).scores.photos == 9
    with pytest.raises(DataError, match=r"evaluate\.part=val: the models do not have the same val part"):
        evaluate(small_config(*asked, "evaluate.part=val"))


@pytest.mark.parametrize(("shapes", "shown"), [(((2, 2), (3, 3)), 2), (((2, 2), None), 1), (((2, 2), (2, 2)), 3)])
def test_an_ensemble_shows_what_all_its_members_show(shapes: tuple[tuple[int, int] | None, ...], shown: int) -> None:
    class Member(nn.Module):
        def __init__(self, places: tuple[int, int] | None) -> None:
            super().__init__()
            self.places = places

        def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            logits = images.mean((2, 3))
            return logits if self.places is None else (logits, logits, torch.ones(len(images), 3, *self.places))

    network = EnsembleNetwork([Member(places) for places in shapes], [1.0, 1.0], [1.0, 1.0], "probabilities")

    assert len(network(torch.ones(2, 3, 4, 4))) == shown
