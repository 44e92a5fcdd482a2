"""A training run: what it leaves behind, what it repeats, what it refuses."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ConfigError, DataError, DeviceError, DivergedError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.paths import checkpoints_dir
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.run_folder import locked

SmallConfig = Callable[..., AppConfig]


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.draws
def test_run_folder_holds_everything_the_contract_names(small_config: SmallConfig, tmp_path: Path) -> None:
    result = train(small_config())

    assert result.run_dir == tmp_path / "outputs" / "runs" / "version_0"
    names = {path.relative_to(result.run_dir).as_posix() for path in result.run_dir.rglob("*") if path.is_file()}
    assert names - {".lock"} == {
        "config.yaml",
        "split.csv",
        "metrics.csv",
        "metrics.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/classes.png",
        "figures/confusion.png",
        "figures/learning.png",
    }
    rows = rows_of(result.run_dir)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    stages = [f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "acc", "f1_macro")]
    assert list(rows[0]) == ["epoch", "lr", *stages]
    assert all(float(row[name]) >= 0 for row in rows for name in stages)


def test_metrics_file_is_the_result_and_agrees_with_its_own_confusion_matrix(small_config: SmallConfig) -> None:
    result = train(small_config())

    written = json.loads((result.run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert written == result.model_dump(mode="json")
    assert set(written["metrics"]) == {
        f"{stage}/{name}" for stage in ("val", "test") for name in ("loss", "acc", "f1_macro")
    }
    matrix = result.confusion_matrix
    assert matrix is not None
    assert sum(map(sum, matrix)) == result.photos["test"] == 20
    assert result.metrics["test/acc"] == pytest.approx(sum(matrix[k][k] for k in range(5)) / 20, abs=1e-6)
    low, high = result.intervals["test/accuracy"]
    assert low <= result.metrics["test/acc"] <= high


def test_best_checkpoint_describes_itself_and_holds_no_code(small_config: SmallConfig) -> None:
    result = train(small_config("augment.crop_ratio=0.9"))

    assert result.checkpoint is not None
    assert set(torch.load(result.checkpoint, weights_only=True)) == {"cassava_metadata", "state_dict"}
    metadata = load_checkpoint(result.checkpoint).metadata
    assert metadata.backbone == "test_resnet"
    assert metadata.preprocessing.image_size_px == 64
    assert metadata.preprocessing.crop_ratio == 0.9
    assert metadata.epoch == result.best_epoch
    assert metadata.metrics["val/f1_macro"] == result.metrics["val/f1_macro"]
    assert metadata.split.strategy == "synthetic"
    assert metadata.split.hash == result.split_hash


def test_best_checkpoint_is_the_epoch_with_the_highest_validation_f1(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=4", "train.lr=0.01"))

    scores = [float(row["val/f1_macro"]) for row in rows_of(result.run_dir)]
    assert result.best_epoch == scores.index(max(scores))


def test_the_last_epoch_is_kept_if_asked(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=4", "train.keep=last"))
    assert result.checkpoint is not None
    last, final = load_checkpoint(checkpoints_dir(result.run_dir) / "last.ckpt"), load_checkpoint(result.checkpoint)
    assert result.best_epoch == final.metadata.epoch == 3
    assert all(torch.equal(final.network_state[name], tensor) for name, tensor in last.network_state.items())


def test_same_command_twice_gives_the_same_metrics(small_config: SmallConfig) -> None:
    overrides = ("augment=strong", "augment.image_size=64", "augment.mix.mixup_alpha=0.4", "model.drop_path=0.1")
    first, second = train(small_config(*overrides)), train(small_config(*overrides))

    assert first.run_dir != second.run_dir
    assert first.metrics == second.metrics
    assert rows_of(first.run_dir) == rows_of(second.run_dir)


def test_another_seed_gives_other_metrics(small_config: SmallConfig) -> None:
    assert train(small_config()).metrics != train(small_config("train.seed=1")).metrics


def test_a_small_network_learns_the_drawn_leaves(small_config: SmallConfig) -> None:
    result = train(
        small_config(
            *("data.synthetic.train_size=300", "data.synthetic.val_size=100", "train.epochs=8", "train.lr=5e-3"),
            *("train.batch_size=20", "optim.ema_decay=0.9"),
        )
    )

    assert result.metrics["val/acc"] > 0.5  # chance is 0.2


@pytest.mark.parametrize(
    "overrides",
    [
        ("optim.schedule=plateau", "optim.plateau.patience_epochs=0"),
        ("optim.schedule=plateau", "optim.warmup_epochs=0"),
        ("optim.schedule=constant", "optim.grad_clip_norm=null"),
        ("loss.class_weights=sqrt_inverse", "data.sampling=inverse"),
        ("model.freeze_backbone=true", "model.unfreeze_epoch=1"),
        ("optim.ema_decay=0.9", "model.backbone=test_vit"),
    ],
)
def test_recipes_train_to_the_end(small_config: SmallConfig, overrides: tuple[str, ...]) -> None:
    assert train(small_config(*overrides)).epochs == 2


def test_without_checkpoints_only_figures_are_kept(small_config: SmallConfig) -> None:
    result = train(small_config("train.save_checkpoints=false"))

    assert result.checkpoint is None
    assert not list(result.run_dir.rglob("*.ckpt"))
    assert "test/acc" in result.metrics


def test_early_stopping_ends_the_run(small_config: SmallConfig) -> None:
    result = train(
        small_config(
            "train.epochs=30",
            "train.lr=1e-9",
            "train.early_stopping.enabled=true",
            "train.early_stopping.patience_epochs=2",
        )
    )

    assert result.epochs < 30


def test_max_time_ends_the_run_with_a_checkpoint_and_figures(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=10000", "train.max_time=00:00:00:03"))

    assert 0 < result.epochs < 10_000
    assert result.checkpoint is not None
    assert "test/acc" in result.metrics


def test_a_diverged_run_stops_with_a_clear_error(small_config: SmallConfig, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"diverged in epoch \d: .* is not a number; lower train\.lr"):
        train(
            small_config(
                "train.lr=10",
                "train.epochs=40",
                "optim.grad_clip_norm=null",
                "optim.warmup_epochs=0",
                "model.backbone=test_vit",
                "optim.betas=[0.0,0.0]",
            )
        )
    assert not list(tmp_path.rglob("metrics.json"))


def test_two_runs_get_two_folders(small_config: SmallConfig) -> None:
    names = {train(small_config("train.epochs=1")).run_dir.name for _ in range(2)}
    assert names == {"version_0", "version_1"}


def test_without_a_test_part_only_validation_figures_are_given(small_config: SmallConfig, tmp_path: Path) -> None:
    write_synthetic_dataset(tmp_path / "leaves", 60, 64, 0)
    result = train(
        small_config("data.synthetic.enabled=false", f"paths.data_dir={tmp_path / 'leaves'}", "data.split.test_size=0")
    )

    assert set(result.metrics) == {"val/loss", "val/acc", "val/f1_macro"}
    assert result.confusion_matrix is None
    assert result.intervals == {}


def test_on_a_terminal_a_progress_bar_goes_to_stderr(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cassava_leaf_disease.training.build.stderr_is_terminal", lambda: True)
    train(small_config("train.epochs=1"))

    shown = capsys.readouterr()
    assert "Epoch 0/0" in shown.err
    assert shown.out == ""


def test_asking_for_a_gpu_where_there_is_none_is_refused(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"train\.accelerator=gpu: no such device"):
        train(small_config("train.accelerator=gpu"))


def test_missing_photos_leave_no_run_folder(small_config: SmallConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"paths\.data_dir"):
        train(small_config("data.synthetic.enabled=false", "paths.data_dir=/nowhere"))
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_wrong_backbone_is_told_before_a_photo_is_decoded(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cassava_leaf_disease.data.datamodule import LeafDataModule

    monkeypatch.setattr(LeafDataModule, "setup", lambda *_: pytest.fail("photos were decoded"))
    with pytest.raises(ConfigError, match=r"model\.backbone=test_resnett: timm has no such network; did you mean"):
        train(small_config("model.backbone=test_resnett"))


def test_freezing_a_network_without_a_named_classifier_is_refused(small_config: SmallConfig) -> None:
    config = small_config("model.freeze_backbone=true")
    from cassava_leaf_disease.data.datamodule import LeafDataModule
    from cassava_leaf_disease.modeling.module import LeafClassifier
    from cassava_leaf_disease.training.build import describe_model

    data = LeafDataModule(config)
    data.setup("fit")
    with pytest.raises(ConfigError, match="names no classifier"):
        LeafClassifier(config, torch.nn.Linear(1, 1), describe_model(config, data))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="being trained by another process"), locked(tmp_path):
        pass


def test_a_run_with_photos_enough_is_calibrated(small_config: SmallConfig) -> None:
    words = ("train.epochs=1", "data.synthetic.val_size=100")
    result, bare = train(small_config(*words)), train(small_config(*words, "train.calibrate=false"))
    assert result.checkpoint is not None
    assert bare.checkpoint is not None
    assert load_checkpoint(result.checkpoint).metadata.temperature != 1
    assert (result.run_dir / "calibration.json").is_file()
    assert load_checkpoint(bare.checkpoint).metadata.temperature == 1
    assert result.metrics == bare.metrics


def test_a_run_with_few_photos_is_not_calibrated(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=1", "data.synthetic.val_size=99"))
    assert result.checkpoint is not None
    assert load_checkpoint(result.checkpoint).metadata.temperature == 1
    assert not (result.run_dir / "calibration.json").exists()


def test_photos_are_judged_at_their_own_size(small_config: SmallConfig) -> None:
    result = train(small_config("augment.image_size=32", "augment.eval_size=48"))
    assert result.checkpoint is not None
    assert load_checkpoint(result.checkpoint).metadata.preprocessing.image_size_px == 48
    found = evaluate(small_config(f"infer.checkpoint_path={result.checkpoint}"))
    assert found.scores.accuracy == pytest.approx(result.metrics["test/acc"], abs=1e-6)


def test_a_second_size_for_a_vision_transformer_is_refused(small_config: SmallConfig) -> None:
    words = ("model.backbone=vit_tiny_patch16_224", "augment.image_size=32", "augment.eval_size=48")
    with pytest.raises(ConfigError, match=r"takes one size only; type augment\.eval_size=null"):
        train(small_config(*words))
