"""What is told of the machine, and what is null where the system does not tell."""

import os
import subprocess
from pathlib import Path

import pytest

from cassava_leaf_disease.benchmark import machine
from cassava_leaf_disease.benchmark.machine import describe_machine


def test_processor_and_its_integers_are_read_from_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU 7\nflags\t: avx2 avx512_vnni\n")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")

    found = describe_machine(["onnxruntime/cpu"], 0.5)

    assert (found.processor, found.vnni, found.load, found.gpu) == ("Some CPU 7", True, 0.5, None)


def test_what_the_system_does_not_tell_is_null(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("_CPUINFO", "_STATUS"):
        monkeypatch.setattr(machine, name, tmp_path / "none")
    monkeypatch.setattr(machine, "_CLEAR_REFS", tmp_path)
    monkeypatch.delattr(os, "getloadavg")

    assert describe_machine([], machine.load_average()).vnni is None
    assert machine.load_average() is None
    assert machine.resident_bytes() is None
    assert not machine.forget_peak()


def test_peak_is_known_without_linux_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "none")

    peak = machine.peak_bytes()

    assert peak is not None
    assert peak > 10**7


def test_memory_is_read_from_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "status")

    assert (machine.peak_bytes(), machine.resident_bytes()) == (2 * 2**20, 2**20)


def test_peak_counts_anew_where_the_system_lets_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CLEAR_REFS", tmp_path / "clear_refs")

    assert machine.forget_peak()
    assert (tmp_path / "clear_refs").read_text() == "5"


def test_gpu_is_named_by_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho Some GPU\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert describe_machine(["torch/cuda"], None).gpu == "Some GPU"

    def failing(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(subprocess, "run", failing)
    assert describe_machine(["torch/cuda"], None).gpu is None

    monkeypatch.setattr("shutil.which", lambda _: None)
    assert describe_machine(["torch/cuda"], None).gpu is None
