"""A killed run, and the same command with train.resume=true."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.cli import main
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.paths import METRICS_FILE, newest_best_checkpoint
from cassava_leaf_disease.training.fit import train

SmallConfig = Callable[..., AppConfig]


def test_a_resumed_run_equals_an_uninterrupted_one(small_config: SmallConfig, tmp_path: Path) -> None:
    recipe = ("train.epochs=4", "optim.ema_decay=0.9", "augment.mix.p=0.5", "model.dropout=0.3")
    whole = train(small_config(*recipe))
    rows = (whole.run_dir / "metrics.csv").read_text(encoding="utf-8")

    cut = tmp_path / "outputs" / "runs" / "version_1"
    train_until(small_config(*recipe), cut, epoch=2)
    assert len((cut / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2
    resumed = train(small_config(*recipe, "train.resume=true"))

    assert resumed.run_dir == cut
    assert (cut / "metrics.csv").read_text(encoding="utf-8") == rows
    assert resumed.metrics == whole.metrics
    assert resumed.best_epoch == whole.best_epoch


def train_until(config: AppConfig, run_dir: Path, epoch: int) -> None:
    """Trains in another process that is killed at the start of `epoch`, as kill -9 would."""
    script = f"""
import os, signal
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.modeling.module import LeafClassifier
from cassava_leaf_disease.training.fit import train
from pathlib import Path

def on_train_batch_start(self, batch, batch_idx):
    if self.current_epoch == {epoch} and batch_idx == 1:
        os.kill(os.getpid(), signal.SIGKILL)

LeafClassifier.on_train_batch_start = on_train_batch_start
train(AppConfig.model_validate({config.model_dump(mode="json")!r}), Path({str(run_dir)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def test_kill_9_during_training_leaves_a_run_that_resumes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    overrides = ["data.synthetic.enabled=true", "data.synthetic.train_size=60", "model.backbone=test_resnet"]
    overrides += ["data.synthetic.val_size=20", "data.synthetic.test_size=20", "augment.image_size=64"]
    overrides += ["train.accelerator=cpu", "train.num_workers=0", "train.epochs=12", "train.batch_size=10"]
    command = [sys.executable, "-m", "cassava_leaf_disease", "train", *overrides]
    run_dir = tmp_path / "outputs" / "runs" / "version_0"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not (run_dir / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert not (run_dir / METRICS_FILE).exists()
    found = newest_best_checkpoint(tmp_path / "outputs")
    assert found == run_dir / "checkpoints" / "best.ckpt"

    code = main(["train", *overrides, "train.resume=true"])
    stdout, stderr = capfd.readouterr()
    assert code == 0, stderr[-2000:]
    assert json.loads(stdout)["run_dir"] == str(run_dir)
    assert (run_dir / METRICS_FILE).is_file()
    assert len((run_dir / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 1 + 12


def test_a_run_killed_in_its_first_epoch_starts_again_in_its_folder(small_config: SmallConfig, tmp_path: Path) -> None:
    cut = tmp_path / "outputs" / "runs" / "version_0"
    train_until(small_config(), cut, epoch=0)
    half_written = cut / "checkpoints" / ".last.ckpt.0123abcd.tmp"
    half_written.parent.mkdir()
    half_written.touch()

    resumed = train(small_config("train.resume=true"))

    assert resumed.run_dir == cut
    assert resumed.epochs == 2
    assert not half_written.exists()


def test_a_run_killed_after_its_last_epoch_still_gets_its_figures(small_config: SmallConfig) -> None:
    result = train(small_config())
    (result.run_dir / METRICS_FILE).unlink()

    resumed = train(small_config("train.resume=true"))

    assert resumed.metrics == result.metrics
    assert resumed.epochs == 2


def test_nothing_to_resume_is_refused(small_config: SmallConfig) -> None:
    train(small_config("train.epochs=1"))
    with pytest.raises(ConfigError, match="no unfinished run under"):
        train(small_config("train.resume=true", "train.epochs=1"))


def test_other_settings_than_the_killed_run_are_named(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=1"))
    (result.run_dir / METRICS_FILE).unlink()
    with pytest.raises(ConfigError, match=r"other settings \(train\.lr\)"):
        train(small_config("train.resume=true", "train.epochs=1", "train.lr=0.1"))


def test_a_named_folder_is_resumed(small_config: SmallConfig, tmp_path: Path) -> None:
    result = train(small_config("train.epochs=1"))
    (result.run_dir / METRICS_FILE).unlink()
    train(small_config("train.epochs=1", "train.seed=3"))

    assert train(small_config("train.epochs=1", f"train.resume={result.run_dir}")).run_dir == result.run_dir
    with pytest.raises(ConfigError, match="no run folder"):
        train(small_config(f"train.resume={tmp_path / 'elsewhere'}"))


def test_a_finished_named_folder_is_not_trained_again(small_config: SmallConfig) -> None:
    result = train(small_config("train.epochs=1"))
    with pytest.raises(ConfigError, match="is finished"):
        train(small_config("train.epochs=1", f"train.resume={result.run_dir}"))


def test_half_written_files_are_never_found(small_config: SmallConfig, tmp_path: Path) -> None:
    result = train(small_config("train.epochs=1"))
    assert result.checkpoint is not None
    half = result.checkpoint.with_name(".best.ckpt.abc.tmp")
    shutil.copy(result.checkpoint, half)
    os.utime(half, (2**31, 2**31))

    assert newest_best_checkpoint(tmp_path / "outputs") == result.checkpoint
