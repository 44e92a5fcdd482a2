"""What the C library does with memory that was given back."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from cassava_leaf_disease.data.allocator import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(24_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
print(keep_freed_memory(), keep_freed_memory())
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limits are glibc's")
def test_freed_buffers_are_used_again_instead_of_being_mapped_anew() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    answers, faults = done.stdout.splitlines()
    before, after = map(int, faults.split())
    assert answers == "True True"
    assert after < before / 10
