"""A gate's arrays as text, for files that hold text only."""

import base64
import json

import numpy as np
import pytest

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.gate_arrays import GateArrays, decode_arrays, encode_arrays

ARRAYS: GateArrays = {"mean": np.arange(3, dtype=np.float16), "components": np.ones((2, 3), np.float32) / 3}


def test_arrays_come_back_as_they_were() -> None:
    again = decode_arrays(encode_arrays(ARRAYS), "best.onnx")
    assert again.keys() == ARRAYS.keys()
    assert all(
        np.array_equal(again[name], array) and again[name].dtype == array.dtype for name, array in ARRAYS.items()
    )


def test_plain_code_can_read_them() -> None:
    described = json.loads(encode_arrays(ARRAYS))["arrays"]["mean"]
    assert (described["dtype"], described["shape"]) == ("float16", [3])
    assert base64.b64decode(described["data"]) == b"\x00\x00\x00\x3c\x00\x40"  # 0, 1, 2; the low byte first


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"format": 1}',
        '{"format": 1, "arrays": {"mean": {"dtype": "float64", "shape": [1], "data": "AAA="}}}',
        '{"format": 1, "arrays": {"mean": {"dtype": "float16", "shape": [3], "data": "AAA="}}}',
        '{"format": 1, "arrays": {"mean": {"dtype": "float16", "shape": [1], "data": "AHw="}}}',  # infinity
    ],
)
def test_damaged_text_is_an_error(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"best\.onnx: its gate cannot be read; type cassava fit-gate again"):
        decode_arrays(text, "best.onnx")


def test_a_newer_format_says_so() -> None:
    with pytest.raises(CheckpointError, match=r"its gate has format 2, this package reads 1; type pip install -U"):
        decode_arrays('{"format": 2, "arrays": {}}', "best.onnx")
