"""Which of several processes this one is, where torchrun or SLURM started them for one command.

Read from the environment alone, so that a door can ask before anything heavy is imported.
"""

import os
from collections.abc import Mapping
from typing import Literal

Launcher = Literal["torchrun", "slurm"]

_INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs that are shells, as Lightning takes them


def launcher() -> Launcher | None:
    """What started this process as one of several; None where it was started alone.

    Of SLURM that is `srun` with more than one task: a batch script's own process, a shell in a job and a single
    task stand alone.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if "SLURM_STEP_ID" in os.environ and tasks != "1" and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        return "slurm"
    return None


def launched_rank() -> int:
    """This process's number among them, over all machines; 0 where it was started alone."""
    return _number({"torchrun": "RANK", "slurm": "SLURM_PROCID"})


def local_rank() -> int:
    """This process's number among those of its machine; 0 where it was started alone."""
    return _number({"torchrun": "LOCAL_RANK", "slurm": "SLURM_LOCALID"})


def _number(variables: Mapping[Launcher, str]) -> int:
    started_by = launcher()
    return 0 if started_by is None else int(os.environ[variables[started_by]])
