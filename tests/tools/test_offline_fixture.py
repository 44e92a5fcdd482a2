"""What the tests of the page's engine are held to is what this package computes now."""

import json
from typing import Any

import pytest

from offline_fixture import FIXTURE, build


def assert_close(ours: Any, theirs: Any, place: str) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for key, value in ours.items():
            assert_close(value, theirs[key], f"{place}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), place
        for index, value in enumerate(ours):
            assert_close(value, theirs[index], f"{place}[{index}]")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-9), place
    else:
        assert ours == theirs, place


def test_the_fixture_is_what_this_package_computes() -> None:
    kept = json.loads(FIXTURE.read_text(encoding="utf-8"))

    assert_close(json.loads(json.dumps(build())), kept, "fixture")
