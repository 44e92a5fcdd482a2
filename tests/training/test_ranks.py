"""What a process finds out about its place among others, from the environment that a launcher leaves."""

from collections.abc import Callable

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.modeling.lr_rule import peak_lr
from cassava_leaf_disease.ranks import launched_rank, launcher, local_rank
from cassava_leaf_disease.training.crossval import crossval
from cassava_leaf_disease.training.team import Team, build_strategy, check_sizes, gathered, synchronizes

SmallConfig = Callable[..., AppConfig]

SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NAME": "leaves",
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SRUN, "TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_started_alone_has_no_launcher() -> None:
    assert launcher() is None
    assert (launched_rank(), local_rank()) == (0, 0)


def test_torchrun_numbers_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1"})
    assert launcher() == "torchrun"
    assert (launched_rank(), local_rank()) == (3, 1)


def test_srun_numbers_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SRUN)
    assert launcher() == "slurm"
    assert (launched_rank(), local_rank()) == (5, 1)


@pytest.mark.parametrize(
    "alone",
    [{"SLURM_NTASKS": "1"}, {"SLURM_JOB_NAME": "interactive"}, {"SLURM_JOB_NAME": "bash"}],
)
def test_a_shell_in_a_slurm_job_and_a_single_task_stand_alone(
    monkeypatch: pytest.MonkeyPatch, alone: dict[str, str]
) -> None:
    set_all(monkeypatch, SRUN | alone)
    assert launcher() is None


def test_a_batch_script_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"})
    assert launcher() is None


def test_srun_without_tasks_per_machine_is_told_what_to_type(
    monkeypatch: pytest.MonkeyPatch, small_config: SmallConfig
) -> None:
    set_all(monkeypatch, SRUN | {"SLURM_LOCALID": "0"})
    with (
        pytest.raises(ConfigError, match=r"srun started 8 tasks.*#SBATCH --ntasks-per-node=NUMBER"),
        gathered(small_config(), "cpu"),
    ):
        pass


def test_settings_must_agree_with_what_was_started(small_config: SmallConfig) -> None:
    check_sizes(small_config("train.num_nodes=2", "train.devices=4"), "slurm", size=8, local_size=4)
    with pytest.raises(ConfigError, match=r"torchrun started 8 processes, 4 on this machine; type train\.num_nodes=2"):
        check_sizes(small_config(), "torchrun", size=8, local_size=4)
    with pytest.raises(ConfigError, match=r"train\.devices=3: torchrun started 4 .* type train\.devices=4"):
        check_sizes(small_config("train.devices=3"), "torchrun", size=4, local_size=4)


def test_crossval_under_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, small_config: SmallConfig) -> None:
    set_all(monkeypatch, {"TORCHELASTIC_RUN_ID": "none"})
    with pytest.raises(ConfigError, match=r"torchrun started this command.*crossval\.parallel=NUMBER"):
        crossval(small_config())


def test_the_learning_rate_follows_the_batch_as_asked(small_config: SmallConfig) -> None:
    words = ("train.batch_size=128", "train.lr=0.001", "optim.lr_reference_batch=32")
    rates = {rule: peak_lr(small_config(*words, f"optim.lr_rule={rule}")) for rule in ("constant", "linear", "sqrt")}
    assert rates == pytest.approx({"constant": 0.001, "linear": 0.004, "sqrt": 0.002})


def test_batch_norms_are_synchronised_where_gpus_have_few_photos_each(small_config: SmallConfig) -> None:
    four = Team(size=4)
    assert synchronizes(small_config("train.batch_size=32"), four, "cuda")
    assert not synchronizes(small_config("train.batch_size=128"), four, "cuda")
    assert synchronizes(small_config("train.batch_size=128", "train.sync_batchnorm=true"), four, "cuda")
    assert not synchronizes(small_config("train.batch_size=32"), Team(), "cuda")
    assert not synchronizes(small_config("train.batch_size=32"), four, "cpu")
    with pytest.raises(ConfigError, match=r"this run is on cpu; type train\.sync_batchnorm=auto"):
        synchronizes(small_config("train.sync_batchnorm=true"), four, "cpu")


def test_a_team_looks_for_unused_parameters_only_where_some_are_frozen(small_config: SmallConfig) -> None:
    assert build_strategy(small_config(), Team()) == "auto"
    kept = {}
    for name, words in {"whole": (), "frozen": ("model.freeze_backbone=true",)}.items():
        strategy = build_strategy(small_config(*words), Team(size=2))
        kept[name] = strategy._ddp_kwargs["find_unused_parameters"]  # type: ignore[union-attr]
    assert kept == {"whole": False, "frozen": True}
