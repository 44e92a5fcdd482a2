"""A checkpoint's temperature, fitted on its own validation photos and kept in the file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.evaluation.calibrate import calibrate
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.export.triton.repository import export_triton
from cassava_leaf_disease.inference.aggregate import pooling_for
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import load_found, read_ensemble
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metadata import ConfidenceRule, ModelMetadata, Thresholds
from cassava_leaf_disease.training.build import describe_model
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.result import TrainResult

SmallConfig = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture
def run(small_config: SmallConfig) -> TrainResult:
    return train(small_config("train.epochs=1", "data.synthetic.val_size=60"))


@pytest.fixture
def asked(small_config: SmallConfig, run: TrainResult) -> SmallConfig:
    return lambda *more: small_config(f"infer.checkpoint_path={run.checkpoint}", "infer.device=cpu", *more)


@pytest.mark.draws
def test_the_file_keeps_a_temperature_that_lowers_the_log_loss(asked: SmallConfig, run: TrainResult) -> None:
    assert run.checkpoint is not None
    weights = load_checkpoint(run.checkpoint).network_state
    before = evaluate(asked()).scores

    result = calibrate(asked())

    kept = load_checkpoint(run.checkpoint)
    assert kept.metadata.temperature == result.temperature != 1.0
    assert all(np.array_equal(kept.network_state[name], tensor) for name, tensor in weights.items())
    assert result.validation.log_loss_after < result.validation.log_loss_before
    assert (result.validation.photos, result.test.photos if result.test else None) == (60, 20)
    after = evaluate(asked()).scores
    assert result.test is not None
    assert before.calibration_error == pytest.approx(result.test.calibration_error_before)
    assert after.calibration_error == pytest.approx(result.test.calibration_error_after)
    assert after.log_loss == pytest.approx(result.test.log_loss_after)
    assert after.confusion_matrix == before.confusion_matrix  # the ranking stays
    assert result.figure == run.run_dir / "figures" / "reliability.png"
    assert result.figure.read_bytes().startswith(b"\x89PNG")
    written = json.loads((run.run_dir / "calibration.json").read_text(encoding="utf-8"))
    assert written == result.model_dump(mode="json")


def test_what_is_calibrated_stays_as_it_is(asked: SmallConfig) -> None:
    first, second = calibrate(asked()), calibrate(asked())
    assert second.temperature_before == first.temperature
    assert second.temperature == pytest.approx(first.temperature, rel=1e-4)
    assert second.validation.calibration_error_before == pytest.approx(
        first.validation.calibration_error_after, abs=1e-6
    )


def test_few_photos_are_told(asked: SmallConfig, caplog: pytest.LogCaptureFixture) -> None:
    calibrate(asked())
    assert "the validation part has 60 photos: the temperature is mostly chance" in caplog.text


def test_other_files_are_refused(
    small_config: SmallConfig, asked: SmallConfig, run: TrainResult, exported_model: Path
) -> None:
    assert run.checkpoint is not None
    with pytest.raises(ConfigError, match=r"an exported model; .* export that again"):
        calibrate(small_config(f"infer.checkpoint_path={exported_model}"))
    with pytest.raises(ConfigError, match=r"several models; .* each in turn"):
        calibrate(small_config(f"infer.checkpoint_path=[{run.checkpoint},{run.checkpoint}]"))
    with pytest.raises(ConfigError, match=r"what a run resumes from"):
        calibrate(small_config(f"infer.checkpoint_path={run.checkpoint.with_name('last.ckpt')}"))


@pytest.fixture
def untrained(small_config: SmallConfig) -> ModelMetadata:
    """What a training on drawn leaves says of its model."""
    config = small_config()
    data = LeafDataModule(config)
    data.divide()
    rule = ConfidenceRule(target_accuracy=0.9, min_coverage=0.5)
    return describe_model(config, data).model_copy(update={"thresholds": Thresholds(rule=rule)})


def test_an_ensembles_file_keeps_what_makes_the_combined_answer_honest(
    small_config: SmallConfig, untrained: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    members = [
        write_random_checkpoint(
            tmp_path / "models" / f"{temperature}.ckpt", untrained.model_copy(update={"temperature": temperature})
        )
        for temperature in (1.0, 0.5)
    ]
    contents = [member.read_bytes() for member in members]
    path = write_ensemble(tmp_path / "models" / "ensemble.json", members, "probabilities", "equal").path
    words = (f"infer.checkpoint_path={path.parent}", "infer.device=cpu")
    before = evaluate(small_config(*words)).scores
    plain = load_found(FoundModel(path, "explicit"), "cpu")

    result = calibrate(small_config(*words))

    assert (result.checkpoint, result.temperature_before) == (path, 1.0)
    assert result.validation.log_loss_after < result.validation.log_loss_before
    kept = read_ensemble(path).calibration
    assert kept is not None
    assert (kept.temperature, kept.thresholds.rule) == (result.temperature, untrained.thresholds.rule)
    assert kept.thresholds.min_confidence == result.min_confidence
    assert [member.read_bytes() for member in members] == contents
    after = evaluate(small_config(*words)).scores
    assert result.test is not None
    assert after.log_loss == pytest.approx(result.test.log_loss_after)
    assert after.confusion_matrix == before.confusion_matrix
    together = load_found(FoundModel(path, "explicit"), "cpu")
    assert together.identity.version != plain.identity.version
    assert together.min_confidence == result.min_confidence
    assert pooling_for(together).prior == kept.class_prior != pooling_for(plain).prior

    exported = export(small_config(*words, "export.tolerance=1e-4"))  # one file says the same of itself
    (metadata,) = (member.metadata for member in load_found(FoundModel(exported.path, "explicit"), "cpu").members)
    assert metadata.temperature == pytest.approx(result.temperature, rel=1e-4)
    assert (metadata.class_prior, metadata.thresholds) == (kept.class_prior, kept.thresholds)
    served = export_triton(small_config(*words))
    assert served.max_difference < 1e-4


def test_members_of_several_splits_are_not_calibrated_together(
    small_config: SmallConfig, untrained: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    other = untrained.model_copy(update={"split": untrained.split.model_copy(update={"hash": "another"})})
    members = [write_random_checkpoint(tmp_path / f"{each.split.hash[:7]}.ckpt", each) for each in (untrained, other)]
    path = write_ensemble(tmp_path / "both.json", members, "probabilities", "equal").path

    with pytest.raises(
        ConfigError, match=r"both\.json: its members learned from several splits, .* each member in turn"
    ):
        calibrate(small_config(f"infer.checkpoint_path={path}"))


def test_the_test_part_may_be_missing(small_config: SmallConfig, tmp_path: Path) -> None:
    from cassava_leaf_disease.data.synthetic import write_synthetic_dataset

    write_synthetic_dataset(tmp_path / "leaves", 60, 64, 0)
    words = ("data.synthetic.enabled=false", f"paths.data_dir={tmp_path / 'leaves'}", "data.split.test_size=0")
    trained = train(small_config(*words, "data.split.val_size=0.4", "train.epochs=1"))
    result = calibrate(small_config(*words, f"infer.checkpoint_path={trained.checkpoint}"))
    assert result.test is None
    assert result.validation.photos == 24


def test_confidences_of_answers_follow(asked: SmallConfig, run: TrainResult, photo_bytes: bytes) -> None:
    assert run.checkpoint is not None
    found = FoundModel(run.checkpoint, "explicit")
    before = load_predictor(found, "cpu").predict_bytes(photo_bytes, name="leaf.jpg")
    calibrate(asked())
    after = load_predictor(found, "cpu").predict_bytes(photo_bytes, name="leaf.jpg")
    assert after.predicted_class_id == before.predicted_class_id
    assert after.confidence != before.confidence
