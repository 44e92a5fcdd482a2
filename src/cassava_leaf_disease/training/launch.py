"""One training in several processes of this machine, a rank for each device, as `torchrun` would start them."""

import os
import secrets
import socket
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, not marked as exported

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.ranks import launcher
from cassava_leaf_disease.training.children import Task, nursery, wait_for_all
from cassava_leaf_disease.training.devices import local_devices
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.team import check_batch

_HOST = "127.0.0.1"
_LOOPBACK = ("lo", "lo0")  # on Linux and macOS


def refuse_launcher(command: str, hint: str = "") -> None:
    """Refuses to run a command in the processes of a launcher, where each would start all trainings again.

    Raises:
        ConfigError: torchrun or SLURM started this process as one of several; `hint` ends the error.
    """
    started_by = launcher()
    if started_by is not None:
        raise ConfigError(
            f"{started_by} started this command in several processes, and {command} starts its own: type it alone{hint}"
        )


def processes_to_start(config: AppConfig) -> int:
    """How many processes are to train together; 1 where this one trains, alone or as torchrun and SLURM say.

    Raises:
        ConfigError: Several machines, and nothing that starts processes there.
        DeviceError: A device that was asked for is not there.
    """
    if launcher() is not None:
        return 1
    if config.train.num_nodes > 1:
        raise ConfigError(
            f"train.num_nodes={config.train.num_nodes}: start the command on each machine with torchrun, or in a "
            "SLURM job with srun; type train.num_nodes=1 to train on this machine alone"
        )
    return local_devices(config.train, resolve_accelerator(config.train))


def train_together(config: AppConfig, run_dir: Path | None, size: int) -> TrainResult:
    """Trains with `size` processes of this machine; when one fails, all end.

    Raises:
        ConfigError: They cannot share a batch.
        ProcessError: One was killed.
        CassavaError: What went wrong in them.
    """
    check_batch(config, size)
    store = _open_store()
    shared = {
        "TORCHELASTIC_RUN_ID": f"cassava-{secrets.token_hex(4)}",
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # rank zero is to use this store, not to open one
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cpus() // size)),
    }
    loopback = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
    if loopback:  # else gloo listens where other machines reach it, or not at all where the host has no address
        shared["GLOO_SOCKET_IFNAME"] = loopback[0]
    with nursery() as children:
        ranks = [
            children.start(
                f"rank {rank} of {size}",
                Task(config=config, run_dir=run_dir),
                {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                relayed=False,
            )
            for rank in range(size)
        ]
        culprit = wait_for_all(ranks)
        if culprit is not None:
            raise culprit.failure()
        return ranks[0].result()


def _open_store() -> TCPStore:
    """Where the ranks find each other: open to this machine alone, on a port that is this process's from the start."""
    listening = socket.create_server((_HOST, 0))
    return TCPStore(
        _HOST,
        listening.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(minutes=5),
        master_listen_fd=listening.detach(),
    )
