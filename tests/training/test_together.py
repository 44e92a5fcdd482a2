"""Several processes train one network: as one process would, with one result, and ended together.

Two processes of this machine talk through gloo, as GPUs would through NCCL.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cassava_leaf_disease.cli import main
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, DeviceError, DivergedError
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.result import TrainResult

SmallConfig = Callable[..., AppConfig]

# Layer norms see one photo at a time: nothing depends on how a batch is divided.
NO_BATCH_NORM = ("model.backbone=test_convnext", "model.dropout=0", "optim.ema_decay=0.9")
DIVERGES = (
    *("model.backbone=test_vit", "train.lr=10", "train.epochs=40", "optim.betas=[0.0,0.0]"),
    *("optim.warmup_epochs=0", "optim.grad_clip_norm=null"),
)
ODD_PARTS = ("data.synthetic.train_size=47", "data.synthetic.val_size=21", "data.synthetic.test_size=19")


def test_two_processes_learn_what_one_learns(small_config: SmallConfig) -> None:
    recipe = (*NO_BATCH_NORM, *ODD_PARTS, "train.epochs=3")
    alone, together = train(small_config(*recipe)), train(small_config(*recipe, "train.devices=2"))

    assert losses(together) == pytest.approx(losses(alone), abs=2e-4)
    assert together.metrics["test/loss"] == pytest.approx(alone.metrics["test/loss"], abs=2e-4)
    assert together.photos == alone.photos
    assert together.confusion_matrix is not None
    assert sum(map(sum, together.confusion_matrix)) == 19  # each test photo once, though 19 is odd
    assert together.hardware.endswith("2 processes")
    assert together.split_hash == alone.split_hash


@pytest.mark.slow
def test_batch_norms_and_drawn_sampling_come_close(small_config: SmallConfig) -> None:
    recipe = ("train.epochs=2", "train.batch_size=20", "data.sampling=inverse", "augment.mix.p=0.5")
    alone, together = train(small_config(*recipe)), train(small_config(*recipe, "train.devices=2"))
    assert losses(together) == pytest.approx(losses(alone), rel=0.1)


def test_the_command_answers_once_and_leaves_one_run(
    small_words: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", *small_words, "train.epochs=1", "train.devices=2"])
    stdout, stderr = capfd.readouterr()
    assert code == 0, stderr[-2000:]
    result = TrainResult.model_validate_json(stdout)
    assert [path.name for path in (tmp_path / "outputs" / "runs").iterdir()] == ["version_0"]
    assert result.run_dir == tmp_path / "outputs" / "runs" / "version_0"
    assert stderr.count("epoch 1/1") == 1
    assert json.loads((result.run_dir / "metrics.json").read_text(encoding="utf-8")) == json.loads(stdout)


def test_torchrun_starts_the_same_command(small_words: Sequence[str], tmp_path: Path) -> None:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cassava_leaf_disease"]
    done = python("-m", *torchrun, "train", *small_words, "train.epochs=1", root=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert TrainResult.model_validate_json(done.stdout).hardware.endswith("2 processes")
    assert [path.name for path in (tmp_path / "outputs" / "runs").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_what_one_rank_refuses_is_told_once(
    small_words: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = "import os, time\nif os.environ.get('RANK') == '0':\n    time.sleep(3)\n"  # the one that is to tell it
    (tmp_path / "sitecustomize.py").write_text(late, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cassava_leaf_disease"]
    done = python("-m", *torchrun, "train", *small_words, "train.batch_size=11", root=tmp_path)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told == [
        "error: train.batch_size=11: 2 processes share each step's photos alike, two or more for each; "
        "type train.batch_size=12, or another number in train.devices"
    ]
    assert done.stdout == ""


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds child processes through /proc")
@pytest.mark.slow
def test_a_killed_rank_ends_all_with_one_line_and_the_run_resumes(
    small_config: SmallConfig, small_words: Sequence[str], tmp_path: Path
) -> None:
    recipe = (*NO_BATCH_NORM, "train.epochs=6")
    with running("train", *small_words, *recipe, "train.devices=2", root=tmp_path) as process:
        wait_for(tmp_path / "outputs" / "runs" / "version_0" / "checkpoints" / "last.ckpt")
        ranks = children_of(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert stdout == ""
    assert process.returncode == 1, stderr[-2000:]
    told = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: rank 1 of 2 was killed (SIGKILL, as Linux does when memory is full)"]
    wait_until_gone(ranks)

    resumed = train(small_config(*recipe, "train.devices=2", "train.resume=true"))
    alone = train(small_config(*recipe))  # one process learns what two do, see above
    assert losses(resumed) == pytest.approx(losses(alone), abs=2e-4)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds child processes through /proc")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind_when_the_command_is_ended(
    small_words: Sequence[str], tmp_path: Path, number: signal.Signals
) -> None:
    with running("train", *small_words, "train.epochs=500", "train.devices=2", root=tmp_path) as process:
        wait_for(tmp_path / "outputs" / "runs" / "version_0" / "checkpoints" / "last.ckpt")
        ranks = children_of(process.pid)
        os.kill(process.pid, number)
        process.communicate(timeout=60)
    assert len(ranks) == 2
    wait_until_gone(ranks)


def test_errors_of_the_ranks_are_errors_of_the_command(small_config: SmallConfig) -> None:
    with pytest.raises(DivergedError, match=r"lower train\.lr"):
        train(small_config("train.devices=2", *DIVERGES))


def test_impossible_shares_are_refused_before_anything_starts(small_config: SmallConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"type train\.batch_size=9"):
        train(small_config("train.devices=3"))
    with pytest.raises(ConfigError, match=r"type train\.batch_size=16"):
        train(small_config("train.devices=8"))
    with pytest.raises(ConfigError, match=r"torchrun, or in a SLURM job"):
        train(small_config("train.num_nodes=2"))
    assert not (tmp_path / "outputs" / "runs").exists()


def test_more_gpus_than_there_are_is_refused(small_config: SmallConfig) -> None:
    from cassava_leaf_disease.training.devices import local_devices

    config = small_config("train.accelerator=gpu", "train.devices=64")
    with pytest.raises(DeviceError, match=r"64 processes want a GPU each, and this process sees \d+"):
        local_devices(config.train, "cuda")


def losses(result: TrainResult) -> list[float]:
    """All training and validation losses of a run, epoch by epoch."""
    rows = read_table(result.run_dir / "metrics.csv")
    return [float(row[name]) for row in rows for name in ("train/loss", "val/loss")]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def python(*words: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CASSAVA_ROOT": str(root)}
    return subprocess.run(
        [sys.executable, "-P", *words], env=environment, capture_output=True, text=True, check=False, timeout=240
    )


@contextmanager
def running(*words: str, root: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-P", "-m", "cassava_leaf_disease", *words]
    with subprocess.Popen(
        command,
        env={**os.environ, "CASSAVA_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """The Python processes that a process has started, in that order."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended just now
            continue
        if int(fields[1]) == pid:
            found.append((int(fields[19]), int(stat.parent.name)))
    return [child for _, child in sorted(found)]


def wait_until_gone(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
