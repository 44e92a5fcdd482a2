"""The processes that train one network together: how many, which one this is, and how they wait for each other."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar, cast

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import distributed

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import CassavaError, ConfigError, OtherRankError
from cassava_leaf_disease.ranks import launcher, local_rank
from cassava_leaf_disease.training.devices import check_local_devices

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy
    from torch.distributed import ProcessGroup

T = TypeVar("T")

# Others wait so long while rank zero decodes photos or asks a teacher; one that dies is noticed at once.
_PATIENCE: Final = timedelta(days=7)
_SYNC_BELOW: Final = 16  # photos of a rank in one step; fewer make noisy statistics (Wu and He, 2018, figure 1)


@dataclass(frozen=True)
class Team:
    """Ranks that share each step's batch; the default is one process alone.

    `group` carries what they tell each other on the CPU; gradients go through PyTorch's default group.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    nodes: int = 1
    environment: ClusterEnvironment = field(default_factory=LightningEnvironment)
    group: "ProcessGroup | None" = None

    @property
    def leads(self) -> bool:
        """Whether this is rank zero, which writes files and tells about the training."""
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """Ranks on this machine."""
        return self.size // self.nodes

    def alone(self, action: Callable[[], T]) -> T | None:
        """Runs `action` on rank zero alone, which gets its answer; None elsewhere.

        Raises:
            CassavaError: On rank zero what `action` raised, elsewhere `OtherRankError`.
        """
        return self._agree(action, mine=self.leads)

    def lead(self, action: Callable[[], T]) -> T:
        """Runs `action` on rank zero alone; all ranks get its answer, which must be picklable.

        Raises:
            CassavaError: On rank zero what `action` raised, elsewhere `OtherRankError`.
        """
        answer = self.alone(action)
        if self.size > 1:
            told = [answer]
            distributed.broadcast_object_list(told, src=0, group=self.group)
            answer = told[0]
        return cast("T", answer)

    def node_first(self, action: Callable[[], T]) -> T:
        """Runs `action` on every rank, on one of each machine first: the others find its files there.

        Raises:
            CassavaError: Where `action` failed what it raised, elsewhere `OtherRankError`.
        """
        first = self._agree(action, mine=self.local_rank == 0)
        others = self._agree(action, mine=self.local_rank > 0) if self.size > 1 else None
        return cast("T", first if self.local_rank == 0 else others)

    def _agree(self, action: Callable[[], T], *, mine: bool) -> T | None:
        """Runs `action` where it is `mine`; where one rank fails, all do."""
        answer, error = None, None
        if mine:
            try:
                answer = action()
            except CassavaError as caught:
                error = caught
        if self.size > 1:
            well: list[bool] = [False] * self.size
            distributed.all_gather_object(well, error is None, group=self.group)
            if error is None and not all(well):
                raise OtherRankError
        if error is not None:
            raise error
        return answer


@contextmanager
def gathered(config: AppConfig, accelerator: str) -> Iterator[Team]:
    """This process's team: those that torchrun or SLURM started together, or itself alone.

    Raises:
        ConfigError: They are not as many as the settings say, or cannot share a batch.
        DeviceError: There is not a device for each.
    """
    started_by = launcher()
    if started_by is None:
        check_batch(config, 1)
        yield Team()
        return
    try:
        environment = _slurm() if started_by == "slurm" else _torchrun()
        size, local_size = environment.world_size(), _local_size(started_by)
        check_sizes(config, started_by, size, local_size)
        check_batch(config, size)
        check_local_devices(local_size, accelerator)
    except CassavaError:
        if local_rank():
            raise OtherRankError from None  # it is the same for all of this machine, and one tells about it
        raise
    if size == 1:
        yield Team()
        return
    yield Team(
        rank=environment.global_rank(),
        local_rank=environment.local_rank(),
        size=size,
        nodes=size // local_size,
        environment=environment,
        group=_connect(environment, accelerator),
    )


def check_sizes(config: AppConfig, started_by: str, size: int, local_size: int) -> None:
    """Finds out whether the settings agree with what the launcher has started.

    Raises:
        ConfigError: They do not.
    """
    train, nodes = config.train, size // local_size
    if train.num_nodes != nodes or nodes * local_size != size:
        raise ConfigError(
            f"train.num_nodes={train.num_nodes}: {started_by} started {size} processes, {local_size} on this machine; "
            f"type train.num_nodes={nodes}, and start as many on each machine"
        )
    if train.devices not in ("auto", local_size):
        raise ConfigError(
            f"train.devices={train.devices}: {started_by} started {local_size} processes on this machine; "
            f"type train.devices={local_size}, or leave it out"
        )


def check_batch(config: AppConfig, size: int) -> None:
    """Finds out whether `size` ranks can share each step's `train.batch_size` photos.

    Raises:
        ConfigError: They cannot.
    """
    batch = config.train.batch_size
    if batch % size or batch // size < 2:
        near = max(2, round(batch / size)) * size
        raise ConfigError(
            f"train.batch_size={batch}: {size} processes share each step's photos alike, two or more for each; "
            f"type train.batch_size={near}, or another number in train.devices"
        )


def synchronizes(config: AppConfig, team: Team, accelerator: str) -> bool:
    """Whether batch norms take their statistics from all ranks' photos; auto: where a rank has few of them.

    Raises:
        ConfigError: It is asked for where PyTorch cannot do it.
    """
    wanted = config.train.sync_batchnorm
    if wanted is True and accelerator != "cuda":
        raise ConfigError(
            f"train.sync_batchnorm=true: PyTorch synchronises batch norms between GPUs alone, and this run is on "
            f"{accelerator}; type train.sync_batchnorm=auto"
        )
    few = config.train.batch_size // team.size < _SYNC_BELOW
    return team.size > 1 and accelerator == "cuda" and (few if wanted == "auto" else wanted)


def build_strategy(config: AppConfig, team: Team) -> "Strategy | str":
    """Lightning's strategy: DistributedDataParallel for a team.

    Parameters that get no gradient are looked for where some are frozen for a time. Buffers are not broadcast in
    every step: the module averages those of batch norms before they are used.
    """
    if team.size == 1:
        return "auto"
    from lightning.pytorch.strategies import DDPStrategy

    unused = config.model.freeze_backbone or config.train.strategy == "ddp_find_unused_parameters_true"
    return DDPStrategy(find_unused_parameters=unused, forward_sync_buffers=False, gradient_as_bucket_view=True)


def _torchrun() -> ClusterEnvironment:
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return TorchElasticEnvironment()


def _slurm() -> ClusterEnvironment:
    """SLURM's environment, without Lightning's own requeueing: a run is resumed with train.resume=true."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ConfigError(
            f"srun started {os.environ['SLURM_NTASKS']} tasks, and nobody said how many on each machine; "
            "type #SBATCH --ntasks-per-node=NUMBER, one for each GPU"
        )
    return SLURMEnvironment(auto_requeue=False)


def _local_size(started_by: str) -> int:
    return int(os.environ["LOCAL_WORLD_SIZE" if started_by == "torchrun" else "SLURM_NTASKS_PER_NODE"])


def _connect(environment: ClusterEnvironment, accelerator: str) -> "ProcessGroup":
    """Joins PyTorch's default group as Lightning would later, and one for the CPU beside it."""
    if not distributed.is_initialized():
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        device = None
        if accelerator == "cuda":
            device = torch.device("cuda", environment.local_rank())
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "nccl" if device else "gloo",
            rank=environment.global_rank(),
            world_size=environment.world_size(),
            device_id=device,
        )
        atexit.register(_disconnect)
    return cast("ProcessGroup", distributed.new_group(backend="gloo", timeout=_PATIENCE))


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
