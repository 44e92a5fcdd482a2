"""The machine that was measured on, in words and numbers, and this process's memory and threads."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease import __version__
from cassava_leaf_disease.data.cpus import available_cpus

_CPUINFO: Final = Path("/proc/cpuinfo")
_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_LIBRARIES: Final = {"numpy": "numpy", "pillow": "PIL", "onnxruntime": "onnxruntime", "torch": "torch", "timm": "timm"}


class Machine(BaseModel):
    """What the figures hold for.

    `cpus` are the processors that this process may use; `vnni` says whether they multiply 8-bit integers at once, null
    where the system does not tell. `load` is how many processes ran or waited in the minute before, null on Windows:
    above `cpus`, times that pass say little. `versions` are those of the libraries that took part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    architecture: str
    cpus: int
    vnni: bool | None
    gpu: str | None
    load: float | None
    system: str
    python: str
    versions: dict[str, str]


def describe_machine(runtimes: Sequence[str], load: float | None) -> Machine:
    """This machine, after the models were loaded that `runtimes` run."""
    processor, vnni = _processor()
    loaded = {name: sys.modules[module].__version__ for name, module in _LIBRARIES.items() if module in sys.modules}
    return Machine(
        processor=processor,
        architecture=platform.machine(),
        cpus=available_cpus(),
        vnni=vnni,
        gpu=_gpu() if any(runtime.endswith("/cuda") for runtime in runtimes) else None,
        load=load,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={"cassava-leaf-disease": __version__, **loaded},
    )


def load_average() -> float | None:
    """Processes that ran or waited in the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; some containers
        return None


def _processor() -> tuple[str, bool | None]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), None
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return next(iter(names), platform.machine()), "vnni" in text


def _gpu() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(told.stdout.splitlines()), None)


def forget_peak() -> bool:
    """Lets the peak of this process's memory count from now on; False where the system cannot."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_bytes() -> int | None:
    """The most memory that this process has had at a time; None where the system does not tell."""
    told = _status("VmHWM")
    if told is not None or sys.platform == "win32":
        return told
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int | None:
    """The memory that this process has now; None where the system does not tell."""
    return _status("VmRSS")


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """So many threads for PyTorch, whose number is the whole process's; None, or without PyTorch: as it is."""
    if threads is None or "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_of(runtime: str, threads: int | None) -> int:
    """How many threads work on one photo in a network that `runtime` runs."""
    if threads is None and runtime.startswith("torch/"):
        import torch

        return torch.get_num_threads()
    return threads or available_cpus()
