"""docs/serving.md tells the settings, endpoints, statuses and metrics that there are."""

import re
from pathlib import Path

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.serving.app import build_answerer, build_app
from cassava_leaf_disease.serving.feedback_routes import feedback
from cassava_leaf_disease.serving.metrics import Metrics
from cassava_leaf_disease.serving.routes import open_routes, routes, uploads
from cassava_leaf_disease.serving.settings import ServingSettings, with_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def row_of(name: str) -> str:
    field = ServingSettings.model_fields[name]
    default = "" if field.default in (None, ()) else f"`{field.default}`"
    return f"| `CASSAVA_{name.upper()}` | {default} | {field.description} |"


def test_the_table_of_settings_is_the_settings() -> None:
    told = [line for line in PAGE.splitlines() if line.startswith("| `CASSAVA_")]

    assert told == [row_of(name) for name in ServingSettings.model_fields]


def test_every_endpoint_is_told() -> None:
    paths = [route.path for router in (uploads, feedback, routes, open_routes) for route in router.routes]  # type: ignore[attr-defined]

    assert len(paths) == 11
    assert all(re.search(rf"^\| `(GET|POST) {re.escape(path)}`", PAGE, re.MULTILINE) for path in paths)


def test_every_metric_is_told() -> None:
    names = {family.name for family in Metrics().registry.collect() if family.name.startswith("cassava_")}

    assert len(names) > 10
    assert [name for name in sorted(names) if not re.search(rf"`{name}(_total)?`", PAGE)] == []


def test_every_documented_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ServingSettings.model_fields:
        monkeypatch.delenv(f"CASSAVA_{name.upper()}", raising=False)
    settings, metrics = ServingSettings(), Metrics()
    answerer = build_answerer(settings, with_settings(load_config(), settings), metrics)
    described = build_app(settings, answerer, metrics).openapi()
    refusals = {
        status
        for path in described["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
        if status >= "400"
    }

    table = PAGE.split("| status | when |")[1].split("\n\n")[0]
    assert refusals <= set(re.findall(r"\d{3}", table))
