"""A search for settings: whole, cut off and resumed, shared by processes, and refused where it makes no sense."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CassavaError, ConfigError, DeviceError
from cassava_leaf_disease.paths import newest_best_checkpoint
from cassava_leaf_disease.training.search_space import read_space
from cassava_leaf_disease.training.tune import TuneResult, open_study, tune

SmallConfig = Callable[..., AppConfig]

SPACE = (
    'tune.space=["train.lr=tag(log, interval(1e-4, 1e-2))","train.batch_size=range(8, 21, 4)",'
    '"data.sampling=choice(none, inverse)"]'
)


@pytest.mark.draws
def test_a_search_names_the_best_settings_and_keeps_their_run(small_config: SmallConfig, tmp_path: Path) -> None:
    result = tune(small_config(SPACE, "tune.trials=6"))

    assert (result.complete + result.pruned, result.failed) == (6, 0)
    assert set(result.best_params) == {"train.lr", "train.batch_size", "data.sampling"}
    assert result.best_params["train.batch_size"] in (8, 12, 16, 20)
    assert (result.best_run_dir / "checkpoints" / "best.ckpt").is_file()
    assert newest_best_checkpoint(tmp_path / "outputs") == result.best_run_dir / "checkpoints" / "best.ckpt"
    assert len(list(result.folder.rglob("*.ckpt"))) == 1
    best = json.loads((result.best_run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert best["metrics"]["val/f1_macro"] == result.best_value
    assert "test/acc" not in best["metrics"]  # the test part has not been looked at
    again = load_config(result.overrides)
    assert again.train.lr == result.best_params["train.lr"]
    assert again.data.sampling == result.best_params["data.sampling"]

    with (result.folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == [str(number) for number in range(6)]
    assert max(float(row["value"]) for row in rows if row["state"] == "COMPLETE") == pytest.approx(result.best_value)
    assert (result.folder / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_suggests_the_same_and_more_trials_go_on(small_config: SmallConfig) -> None:
    words = (SPACE, "train.epochs=1", "tune.prune=false")
    first = tune(small_config(*words, "tune.trials=2", "tune.study=a"))
    second = tune(small_config(*words, "tune.trials=2", "tune.study=b"))
    assert first.best_params == second.best_params
    assert first.best_value == second.best_value

    more = tune(small_config(*words, "tune.trials=3", "tune.study=a"))
    assert (more.complete, more.best_value >= first.best_value) == (3, True)
    lines = (more.folder / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert len({line.partition(",")[2].split(",", 2)[2] for line in lines[1:]}) == 3  # nothing was drawn twice


def test_a_finished_study_answers_at_once(small_config: SmallConfig) -> None:
    words = (SPACE, "train.epochs=1", "tune.trials=1")
    first = tune(small_config(*words))
    metrics = (first.best_run_dir / "metrics.json").stat().st_mtime_ns
    assert tune(small_config(*words)) == first
    assert (first.best_run_dir / "metrics.json").stat().st_mtime_ns == metrics


def test_other_settings_than_the_study_was_started_with_are_named(small_config: SmallConfig, tmp_path: Path) -> None:
    tune(small_config(SPACE, "train.epochs=1", "tune.trials=1"))
    with pytest.raises(ConfigError, match=r"tune\.study=tune: .* other settings \(train\.epochs\).*another name"):
        tune(small_config(SPACE, "train.epochs=2", "tune.trials=1"))
    with pytest.raises(ConfigError, match=r"holds trials of another database"):
        tune(small_config(SPACE, "train.epochs=1", "tune.trials=1", f"tune.storage=sqlite:///{tmp_path}/other.db"))
    with pytest.raises(ConfigError, match=r"type train\.run_dir=null"):
        tune(small_config(SPACE, "train.run_dir=mine"))


def test_a_password_of_the_database_is_written_nowhere(small_config: SmallConfig, tmp_path: Path) -> None:
    storage = f"tune.storage=sqlite:///{tmp_path}/secret-in-the-address.db"
    result = tune(small_config(SPACE, "train.epochs=1", "tune.trials=1", storage))
    written = [path for path in result.best_run_dir.rglob("*") if path.suffix in (".yaml", ".json", ".csv")]
    assert written
    assert not [path for path in written if "secret" in path.read_text(encoding="utf-8")]
    assert b"secret" not in (tmp_path / "secret-in-the-address.db").read_bytes()


def test_processes_that_start_together_draw_different_settings(small_config: SmallConfig, tmp_path: Path) -> None:
    config = small_config(SPACE)
    first, second = open_study(config, tmp_path), open_study(config, tmp_path)
    for study in (first, second, first, second):
        study.optimize(lambda trial: trial.suggest_float("train.lr", 1e-4, 1e-2), n_trials=1)
    assert len({trial.params["train.lr"] for trial in first.trials}) == 4


def test_values_that_contradict_each_other_leave_a_trial_out(
    small_config: SmallConfig, caplog: pytest.LogCaptureFixture
) -> None:
    both = 'tune.space=["data.sampling=choice(inverse)","loss.class_weights=choice(inverse)"]'
    with pytest.raises(ConfigError, match=r"no trial of the study tune came to its end"):
        tune(small_config(both, "tune.trials=2"))
    assert caplog.text.count("both turn it round") == 2


def test_a_device_that_is_missing_ends_the_search_at_once(small_config: SmallConfig) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"train\.accelerator=gpu: no such device"):
        tune(small_config(SPACE, "train.accelerator=gpu"))


def test_a_trial_that_diverges_is_told_and_the_search_goes_on(
    small_config: SmallConfig, caplog: pytest.LogCaptureFixture
) -> None:
    wild = 'tune.space=["train.lr=choice(10.0)"]'
    diverges = ("model.backbone=test_vit", "optim.betas=[0.0,0.0]", "optim.grad_clip_norm=null", "train.epochs=40")
    with pytest.raises(CassavaError, match=r"no trial of the study tune came to its end \(2 failed"):
        tune(small_config(wild, *diverges, "optim.warmup_epochs=0", "tune.trials=2", "tune.prune=false"))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("diverged" in warning for warning in warnings)


def test_trials_that_are_behind_end_early(small_config: SmallConfig) -> None:
    result = tune(small_config(SPACE, "train.epochs=3", "tune.trials=16"))
    assert result.pruned > 0
    with (result.folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        pruned = [row for row in csv.DictReader(file) if row["state"] == "PRUNED"]
    assert len(pruned) == result.pruned
    for row in pruned:
        assert float(row["value"]) <= result.best_value
        assert not (result.folder / f"trial_{row['number']}" / "checkpoints").exists()


@pytest.mark.slow
def test_two_processes_share_a_study(small_words: Sequence[str], tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "cassava_leaf_disease", "tune", *small_words, SPACE, "tune.trials=6"]
    environment = {**os.environ, "CASSAVA_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers[0][1][-2000:] + answers[1][1][-2000:]
    last = max((TuneResult.model_validate_json(stdout) for stdout, _ in answers), key=lambda result: result.complete)
    assert 6 <= last.complete + last.pruned <= 7
    assert all("run folder" in stderr for _, stderr in answers)  # both have worked


@pytest.mark.slow
def test_a_killed_search_goes_on(small_config: SmallConfig, small_words: Sequence[str], tmp_path: Path) -> None:
    words = [SPACE, "tune.trials=4", "tune.prune=false"]
    command = [sys.executable, "-P", "-m", "cassava_leaf_disease", "tune", *small_words, *words]
    folder = tmp_path / "outputs" / "tune" / "tune"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (folder / "trial_2" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    make_heartbeats_old(folder / "study.db")

    result = tune(small_config(*words))

    assert (result.complete, result.failed) == (4, 1)


def make_heartbeats_old(database: Path) -> None:
    """As if the half minute had passed after which a silent trial counts as dead."""
    import sqlite3

    connection = sqlite3.connect(database)
    connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 day')")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train.speed=choice(1,2)", "train.speed: no such key"),
        ("train=choice(1,2)", "train: a section; name one of its keys: epochs"),
        ("train.lr=0.1", "train.lr=0.1: not a range of values; for example train.lr=tag"),
        ("train.lr=interval(0.1, 100)", "train.lr=100.0: expected a number above 0"),
        ("train.epochs=interval(1, 9)", "train.epochs=3.9"),
        ("train.lr=interval(0.1, 0.01)", "the lower end stands first"),
        ("train.epochs=range(9, 1)", "the lower end stands first"),
        ("data.sampling=choice(none, often)", "data.sampling=often"),
        ("data.split.seed=choice(1, 2)", "trials that differ in it do not compare"),
        ("train.lr=interval(", "for example train.lr=tag"),
    ],
)
def test_a_range_that_cannot_be_searched_is_told(small_config: SmallConfig, line: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_space([line], small_config())
    assert said in str(raised.value)
    assert str(raised.value).startswith("tune.space: ")


def test_an_empty_space_a_key_twice_and_a_wrong_database_are_told(small_config: SmallConfig) -> None:
    with pytest.raises(ConfigError, match=r"tune\.space=\[\]: nothing to search"):
        tune(small_config("tune.space=[]"))
    with pytest.raises(ConfigError, match=r"train\.lr: stands there twice"):
        read_space(["train.lr=choice(0.1)", "train.lr=choice(0.2)"], small_config())
    with pytest.raises(ConfigError, match=r"tune\.storage=nothing://me:\*\*\*@host/x: .*postgresql://user:password"):
        tune(small_config(SPACE, "tune.storage=nothing://me:secret@host/x"))
    with pytest.raises(ConfigError, match=r"train\.save_checkpoints=true"):
        tune(small_config(SPACE, "train.save_checkpoints=false"))


def test_the_default_space_can_be_searched(small_config: SmallConfig) -> None:
    config = small_config()
    assert set(read_space(config.tune.space, config)) == {line.partition("=")[0] for line in config.tune.space}
