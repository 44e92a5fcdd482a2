"""The model card tells of one network as of several that answer as one."""

import json
from typing import Any

import pytest

from ship_model import CARD, RECORD, tables


@pytest.fixture
def record() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return kept


def test_the_card_holds_the_tables_of_the_record(record: dict[str, Any]) -> None:
    assert record["shipped"]["scores"]["photos"] > 0
    told = set(tables(record).splitlines()) - set(CARD.read_text(encoding="utf-8").splitlines())
    assert not [line for line in told if line.startswith("|")]


def test_several_networks_are_told_one_by_one_and_together(record: dict[str, Any]) -> None:
    [network, *_] = record["training"]["members"]
    record["training"]["members"] = [network, network | {"version": "0.0.0+another"}]
    record["alone"] = [record["checkpoint"], record["checkpoint"]]

    lines = tables(record).splitlines()

    measured = f"{record['part']} part", record["checkpoint"]["scores"]["photos"]
    assert any(line.startswith(f"| {measured[0]}, its checkpoints together | {measured[1]} |") for line in lines)
    assert any(line.startswith(f"| {measured[0]}, network 2 alone | {measured[1]} |") for line in lines)
    assert f"| 2 | {network['backbone']} | 0.0.0+another | {network['git_commit'][:7]} |" in lines
    assert any("of its answers about validation photos are the checkpoints'." in line for line in lines)
