"""The Triton kernels against PyTorch's operations: in Triton's interpreter, and on a GPU where there is one."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from cassava_leaf_disease.data.device import color, geometry

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with PyTorch's CUDA builds alone")

ORDERS = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 1), (1, 3, 0, 2), (0,))


def check_on(device: torch.device) -> None:
    from cassava_leaf_disease.data.device import kernels

    torch.manual_seed(0)
    photos = torch.randint(0, 256, (5, 3, 70, 93), dtype=torch.uint8, device=device)
    rows = torch.tensor([3, 0, 4], device=device)
    crop = torch.tensor([[3, 5, 60, 80.0], [0, 0, 30, 20], [0, 0, 70, 93]], device=device)
    flips = torch.tensor([[0, 0, 0.0], [1, 0, 1], [0, 1, 0]], device=device)
    cropped = kernels.crop_and_resize(photos, rows, crop, flips, 48, torch.float32)
    expected = geometry.crop_and_resize(photos.index_select(0, rows).float(), crop, flips, 48)
    assert (cropped - expected).abs().max() < 0.01
    values = torch.tensor([[1.2, 0.8, 1.3, 0.05], [0.8, 1.2, 0.7, -0.03]], device=device)
    chosen = torch.tensor([2, 0], device=device)
    for order in ORDERS:
        changed = expected.clone()
        kernels.jitter_(changed, chosen, values, order)
        assert (changed[chosen] - color.jitter(expected[chosen], values, order)).abs().max() < 0.01
        assert torch.equal(changed[1], expected[1])


@pytest.mark.slow
def test_they_compute_the_same_in_tritons_interpreter() -> None:
    # the interpreter is chosen when Triton is imported
    program = f"""
import importlib.util, os, sys, torch
os.environ["TRITON_INTERPRET"] = "1"
spec = importlib.util.spec_from_file_location("kernels_test", {__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.check_on(torch.device("cpu"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_they_compute_the_same_on_a_gpu() -> None:
    check_on(torch.device("cuda"))
