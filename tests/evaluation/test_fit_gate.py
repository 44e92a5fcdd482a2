"""A checkpoint's gate, fitted on its own photos and kept in the file, in an exported one too."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation import gate_limits
from cassava_leaf_disease.evaluation.calibrate import calibrate
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.evaluation.fit_gate import fit_gate
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.modeling.checkpoint import describe_anew, load_checkpoint
from cassava_leaf_disease.training.fit import train

SmallConfig = Callable[..., AppConfig]


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn leaves as files, so that they count as photos."""
    folder = tmp_path_factory.mktemp("leaves") / "data"
    write_synthetic_dataset(folder, 120, 96, 0)
    return folder


@pytest.fixture(scope="module")
def words(leaves: Path) -> tuple[str, ...]:
    return (
        "data.synthetic.enabled=false",
        f"paths.data_dir={leaves}",
        "data.split.val_size=0.3",
        "data.split.test_size=0.2",
        "train.epochs=1",
        "gate.dimensions=8",
        "gate.neighbors=3",
        "gate.max_refused=0.05",
    )


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory, small_words: tuple[str, ...], words: tuple[str, ...]) -> Path:
    """A run without a gate; read only."""
    outputs_dir = tmp_path_factory.mktemp("trained")
    return train(load_config([*small_words, *words, f"paths.outputs_dir={outputs_dir}"])).run_dir


@pytest.fixture
def checkpoint(tmp_path: Path, trained_run: Path) -> Path:
    """Its best checkpoint, in a copy of its folder."""
    return Path(shutil.copytree(trained_run, tmp_path / "run")) / "checkpoints" / "best.ckpt"


@pytest.fixture
def asked(small_config: SmallConfig, words: tuple[str, ...], checkpoint: Path) -> SmallConfig:
    return lambda *more: small_config(*words, f"infer.checkpoint_path={checkpoint}", "infer.device=cpu", *more)


@pytest.fixture
def foreign_dir(tmp_path: Path) -> Path:
    """Noise and stripes: sharp and well lit, and nothing like a leaf."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(folder / f"noise_{index}.png")
    return folder


@pytest.mark.draws
def test_what_is_written_is_what_is_reported(asked: SmallConfig, checkpoint: Path, foreign_dir: Path) -> None:
    weights = load_checkpoint(checkpoint).network_state

    result = fit_gate(asked(f"gate.foreign_dir={foreign_dir}"))

    kept = load_checkpoint(checkpoint)
    assert kept.metadata.gate == result.gate
    assert kept.metadata.thresholds == result.thresholds
    assert kept.gate_arrays is not None
    assert sum(array.nbytes for array in kept.gate_arrays.values()) == result.arrays_bytes < 100_000
    assert all(np.array_equal(kept.network_state[name], tensor) for name, tensor in weights.items())
    assert result.gate.photos == {"train": 60, "val": 36}
    assert {part: each.photos for part, each in result.verdicts.items()} == {
        "train": 60,
        "val": 36,
        "test": 24,
        "foreign": 6,
    }
    assert all(sum(each.verdicts.values()) == pytest.approx(1) for each in result.verdicts.values())
    assert set(result.scores) == {"knn", "mahalanobis", "energy"}
    assert all(0 <= (score.auroc or 0) <= 1 for score in result.scores.values())
    assert result.scores["knn"].refused["val"] <= 0.06
    assert result.scores["mahalanobis"].auroc == 1
    assert [figure.name for figure in result.figures] == ["risk_coverage.png", "gate.png"]
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in result.figures)
    written = json.loads((checkpoint.parents[1] / "gate.json").read_text(encoding="utf-8"))
    assert written == result.model_dump(mode="json")


@pytest.mark.parametrize("score", ["knn", "mahalanobis", "energy"])
def test_an_exported_model_gives_the_same_verdicts(
    asked: SmallConfig, checkpoint: Path, leaves: Path, score: str
) -> None:
    fit_gate(asked(f"gate.score={score}"))
    exported = export(asked("export.tolerance=0.001")).path
    photos = [*sorted((leaves / "train_images").iterdir())[:2]]
    for photo in photos:
        first, second = (
            load_predictor(FoundModel(path, "explicit"), "cpu").predict_bytes(photo.read_bytes(), name=photo.name)
            for path in (checkpoint, exported)
        )
        assert second.verdict == first.verdict
        assert [check.name for check in second.checks] == [check.name for check in first.checks]
        assert [check.value for check in second.checks] == pytest.approx(
            [check.value for check in first.checks], abs=1e-2, rel=1e-2
        )


def test_pictures_that_show_nothing_are_poor_photos(asked: SmallConfig, checkpoint: Path, leaves: Path) -> None:
    fit_gate(asked())
    predictor = load_predictor(FoundModel(checkpoint, "explicit"), "cpu")
    black = predictor.predict_image(np.zeros((90, 120, 3), np.uint8))
    assert black.verdict == "poor_photo"
    assert black.reasons[0].startswith("too dark: brightness 0%, expected at least")
    leaf = Image.open(next((leaves / "train_images").iterdir())).convert("RGB")
    tiny = leaf.resize((6, 6)).resize((300, 300))
    blurred = predictor.predict_image(np.asarray(tiny))
    assert blurred.verdict == "poor_photo"
    assert any(reason.startswith("blurred, or too small") for reason in blurred.reasons)


def test_foreign_subjects_are_told(asked: SmallConfig, checkpoint: Path, foreign_dir: Path) -> None:
    fit_gate(asked("gate.score=mahalanobis"))
    predictor = load_predictor(FoundModel(checkpoint, "explicit"), "cpu")
    answer = predictor.predict_bytes((foreign_dir / "noise_0.png").read_bytes(), name="noise")
    assert answer.verdict == "not_cassava"
    assert answer.reasons[0].startswith("not like the cassava leaves of the training")
    [foreign] = [check for check in answer.checks if check.name == "foreign"]
    assert foreign.value > 1
    assert foreign.at_most == 1
    assert not foreign.passed


def test_labelled_leaves_from_elsewhere_are_leaves(
    asked: SmallConfig, checkpoint: Path, foreign_dir: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in foreign_dir.iterdir())
    table = tmp_path / "seen.csv"
    table.write_text("\n".join(["image_id,seen", *(f"{name},spots" for name in names[1:]), f"{names[0]},other"]))
    learned = (
        *(f"data.extra.csv_path={table}", f"data.extra.images_dir={foreign_dir}", "data.extra.label_column=seen"),
        "data.extra.class_map={spots:1,other:null}",
    )

    before = fit_gate(asked(f"gate.foreign_dir={foreign_dir}"))
    after = fit_gate(asked(f"gate.foreign_dir={foreign_dir}", *learned))

    assert before.verdicts["foreign"].verdicts["not_cassava"] == 1
    assert after.verdicts["foreign"].verdicts["not_cassava"] == 0
    assert after.verdicts["extra"].photos == len(names)
    assert after.verdicts["extra"].accuracy is not None
    assert after.gate.photos == {"train": 60 + len(names), "val": 36}
    kept = load_checkpoint(checkpoint).gate_arrays
    assert kept is not None
    assert len(kept["centers"]) == 5 + 2  # each of their classes is a group of its own


def test_leaves_with_another_trouble_are_told_by_answers_that_are_as_unsure(
    asked: SmallConfig, checkpoint: Path, foreign_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, *names = sorted(path.name for path in foreign_dir.iterdir())
    table = tmp_path / "seen.csv"
    table.write_text("\n".join(["image_id,seen", f"{ours},spots", *(f"{name},other" for name in names)]))
    learned = (
        *(f"data.extra.csv_path={table}", f"data.extra.images_dir={foreign_dir}", "data.extra.label_column=seen"),
        *("data.extra.class_map={spots:1,other:null}", "gate.other_trouble=0.5", "gate.max_refused=0.1"),
    )
    assert fit_gate(asked(*learned)).thresholds.other_trouble is None  # too few of them

    monkeypatch.setattr(gate_limits, "ENOUGH_OTHERS", len(names))
    fitted = fit_gate(asked(*learned)).thresholds.other_trouble
    assert fitted is not None
    predictor = load_predictor(FoundModel(checkpoint, "explicit"), "cpu")
    assert predictor.thresholds.other_trouble == fitted
    answers = [predictor.predict_bytes((foreign_dir / name).read_bytes(), name=name) for name in names]
    assert fitted.below == pytest.approx(np.median([answer.confidence for answer in answers]), abs=1e-5)
    limits = {check.at_most for answer in answers for check in answer.checks if check.name == "foreign"}
    assert limits == {1.0, fitted.within}

    calibrate(asked())
    assert load_checkpoint(checkpoint).metadata.thresholds.other_trouble == fitted
    exported = export(asked())
    assert load_predictor(FoundModel(exported.path, "explicit"), "cpu").thresholds.other_trouble == fitted


def test_a_gate_that_does_not_see_what_the_network_learned_is_told(
    asked: SmallConfig, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoint.parents[1] / "metrics.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(result | {"photos": result["photos"] | {"extra": 7}}), encoding="utf-8")

    fit_gate(asked())

    assert "its training learned 7 extra photos too; type its data.extra.*" in caplog.text

    caplog.clear()
    path.unlink()  # the checkpoint knows by itself
    loaded = load_checkpoint(checkpoint)
    describe_anew(checkpoint, loaded, loaded.metadata.model_copy(update={"extra_photos": 8}), loaded.gate_arrays)
    fit_gate(asked())
    assert "its training learned 8 extra photos too" in caplog.text
    assert load_checkpoint(checkpoint).metadata.extra_photos == 8


def test_evaluation_tells_the_verdict_of_each_photo(asked: SmallConfig) -> None:
    result = fit_gate(asked())
    table = (evaluate(asked()).output_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()
    head, *rows = [line.split(",") for line in table]
    assert head[-2:] == ["verdict", "foreign"]
    verdicts = [row[-2] for row in rows]
    assert {name: verdicts.count(name) / len(rows) for name in set(verdicts)} == pytest.approx(
        {name: share for name, share in result.verdicts["test"].verdicts.items() if share}
    )
    assert all(float(row[-1]) for row in rows)


def test_a_new_temperature_moves_the_confidence_along(asked: SmallConfig, checkpoint: Path) -> None:
    result = fit_gate(asked())
    arrays = load_checkpoint(checkpoint).gate_arrays
    calibrated = calibrate(asked())
    kept = load_checkpoint(checkpoint)
    assert kept.metadata.thresholds.rule == result.thresholds.rule
    assert kept.metadata.thresholds.min_confidence == calibrated.min_confidence
    assert kept.metadata.gate == result.gate
    assert arrays is not None
    assert kept.gate_arrays is not None
    assert all(np.array_equal(kept.gate_arrays[name], array) for name, array in arrays.items())
    fitted_again = fit_gate(asked())
    assert fitted_again.thresholds.min_confidence == pytest.approx(calibrated.min_confidence, abs=1e-6)


def test_few_reference_photos_are_spread_over_the_training_part(asked: SmallConfig) -> None:
    assert fit_gate(asked("gate.reference_photos=20")).gate.photos["train"] == 20


def test_few_photos_are_told(asked: SmallConfig, caplog: pytest.LogCaptureFixture) -> None:
    fit_gate(asked())
    assert "the validation part has 36 photos: the gate's limits are mostly chance" in caplog.text


def test_training_fits_a_gate_where_photos_are_enough(
    small_config: SmallConfig, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cassava_leaf_disease.training.finish.ENOUGH_PHOTOS", 30)
    trained = train(small_config(*words))
    assert trained.checkpoint is not None
    assert load_checkpoint(trained.checkpoint).metadata.gate is not None
    assert (trained.run_dir / "gate.json").is_file()
    without = train(small_config(*words, "train.fit_gate=false"))
    assert without.checkpoint is not None
    assert load_checkpoint(without.checkpoint).metadata.gate is None


def test_a_gate_of_drawn_leaves_must_be_asked_for(small_config: SmallConfig) -> None:
    drawn = train(small_config("train.epochs=1", "data.synthetic.val_size=100"))
    assert drawn.checkpoint is not None
    assert load_checkpoint(drawn.checkpoint).metadata.gate is None
    asked = small_config("data.synthetic.val_size=100", f"infer.checkpoint_path={drawn.checkpoint}")
    assert fit_gate(asked).gate.photos == {"train": 40, "val": 100}


def test_a_folder_without_photos_is_an_error(asked: SmallConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gate\.foreign_dir=.*nowhere: no such folder"):
        fit_gate(asked(f"gate.foreign_dir={tmp_path / 'nowhere'}"))


def test_exported_models_are_refused(small_config: SmallConfig, exported_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"an exported model"):
        fit_gate(small_config(f"infer.checkpoint_path={exported_model}"))
