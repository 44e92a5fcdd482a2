"""How many loader processes decode photos for a training, and on what each of them computes."""

from typing import Final, Literal

import torch

from cassava_leaf_disease.data.accelerator import Accelerator

MAX_WORKERS: Final = 16


def resolve_num_workers(setting: int | Literal["auto"], cpu_count: int, platform: str, accelerator: Accelerator) -> int:
    """How many loader processes: the setting, or for "auto" what suits the machine.

    0 on macOS and Windows, where processes start by spawn and import everything anew. On Linux with a GPU
    one for each processor, at most 16. In training on the CPU the network's own step uses every core.
    """
    if setting != "auto":
        return setting
    if platform != "linux" or accelerator != "cuda":
        return 0
    return min(cpu_count, MAX_WORKERS)


def keep_worker_on_one_core(_worker_id: int) -> None:
    """Loader processes are many: each gets one thread, and OpenCV, after a fork, none of its pool."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
