"""How many processors this process may use."""

import os


def available_cpus() -> int:
    """Processors that this process may run on; on Linux that honours `taskset` and containers' cpusets."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
