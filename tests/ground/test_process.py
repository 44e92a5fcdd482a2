"""A process loads its libraries without looking for garbage, and ends with its work instead of taking them apart."""

import gc
import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cassava_leaf_disease.process import FULL_COLLECTIONS_AFTER, collect_rarely, imports_only


@pytest.fixture(autouse=True)
def collecting_as_it_was() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.enable()


def end_of(code: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """What comes of a process that runs this and leaves with exit code 3."""
    program = f"from cassava_leaf_disease.process import leave\n{code}\nleave(3)"
    words = [sys.executable, "-c", program]
    return subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60)


def test_the_exit_code_and_all_that_was_said_arrive() -> None:
    ended = end_of("import sys; print('x' * 100_000); sys.stderr.write('told')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "x" * 100_000 + "\n", "told")


def test_what_is_registered_for_the_end_runs_after_threads_and_executors_have_ended() -> None:
    ended = end_of(
        "import atexit, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def late(text): time.sleep(0.1); print(text, flush=True)\n"
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=late, args=['thread']).start()\n"
        "threading.Thread(target=time.sleep, args=[60], daemon=True).start()\n"
        "ThreadPoolExecutor().submit(late, 'executor')\n"
    )
    assert ended.stdout.splitlines()[2:] == ["registered"]
    assert set(ended.stdout.splitlines()[:2]) == {"thread", "executor"}


def test_modules_are_not_taken_apart() -> None:
    kept = "class Kept:\n    def __del__(self): print('taken apart')\nkept = Kept()"
    assert end_of(kept).stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no full device there")
def test_what_cannot_be_said_at_the_end_is_told_as_python_does() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        ended = end_of("print('lost')", stdout=full.fileno())
    assert ended.returncode != 0
    assert "No space left on device" in ended.stderr


def test_nothing_is_collected_while_libraries_load() -> None:
    with imports_only():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), imports_only():
        importlib.import_module("of_nobody")
    assert gc.isenabled()

    gc.disable()  # by who called
    with imports_only():
        pass
    assert not gc.isenabled()


def test_full_collections_become_rarer_and_others_do_not() -> None:
    gc.set_threshold(700, 10, 10)
    collect_rarely()
    assert gc.get_threshold() == (700, 10, FULL_COLLECTIONS_AFTER)
