"""Alerts and dashboard ask for metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cassava_leaf_disease.serving.metrics import Metrics

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
ADAPTER = FOLDER.parent / "k8s" / "prometheus-adapter" / "values.yaml"
ALERTS = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "cassava.json").read_text(encoding="utf-8"))
OF_PROMETHEUS = {"up"}


def asked_for(expression: str) -> set[str]:
    """The names of metrics in an expression of PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|(?:by|ignoring|on|group_left) *\([^)]*\)", " ", expression)
    return {*re.findall(r"\b((?:cassava|process)_\w+|up)\b", bare)}


def known() -> set[str]:
    names = set(OF_PROMETHEUS)
    for family in Metrics().registry.collect():
        names |= {family.name}
        if family.type == "counter":
            names |= {f"{family.name}_total"}
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for rule in ALERTS)]


def test_every_metric_that_is_asked_for_is_told_by_the_service() -> None:
    asked = {name for expression in expressions() for name in asked_for(expression)}
    assert len(asked) > 12
    assert sorted(asked - known()) == []


def test_the_dashboard_shows_every_metric_of_the_service() -> None:
    asked = {name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in asked_for(target["expr"])}
    stems = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    told = {family.name for family in Metrics().registry.collect() if family.name.startswith("cassava_")}
    assert sorted(told - stems - {"cassava_package_info"}) == []


def test_labels_are_those_that_the_metrics_have() -> None:
    metrics = Metrics()
    metrics.request("POST", "/predict", 200, 0.1)
    metrics.stage("total", 0.1)
    metrics.rejected("full")
    metrics.reload("ok")
    labels = {
        label for family in metrics.registry.collect() for sample in family.samples for label in sample.labels
    } | {"verdict", "class_name", "feature", "source", "said", "job", "instance", "name", "version"}
    for expression in expressions():
        matched = re.findall(r"[{,] *(\w+) *(?:=~|!~|!=|=)", expression)
        grouped = [name for listed in re.findall(r"\bby \(([^)]*)\)", expression) for name in listed.split(", ")]
        assert {*matched, *grouped} <= labels, expression


def test_every_alert_tells_what_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len({*names}) >= 8
    assert all(rule["labels"]["severity"] in ("page", "ticket") for rule in ALERTS)
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in ALERTS)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert max(x for x, _ in taken) == 23


def test_datasource_and_dashboard_are_found_where_compose_mounts_them() -> None:
    [source] = yaml.safe_load(
        (FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8")
    )["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    [provider] = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/cassava.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    compose = yaml.safe_load((FOLDER.parents[1] / "compose.yaml").read_text(encoding="utf-8"))["services"]["grafana"]
    assert f"./deploy/monitoring/grafana/dashboards:{provider['options']['path']}:ro" in compose["volumes"]


def test_the_adapter_gives_what_the_autoscaler_scales_by() -> None:
    rules = yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]
    given = {rule.get("name", {}).get("as") or asked_for(rule["seriesQuery"]).pop() for rule in rules}
    scaler = yaml.safe_load((FOLDER.parent / "k8s" / "base" / "autoscaler.yaml").read_text(encoding="utf-8"))
    wanted = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"}
    assert given == wanted
    assert {name for rule in rules for name in asked_for(rule["seriesQuery"])} <= known()


@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")],
    ids=" ".join,
)
def test_prometheus_takes_it_and_each_alert_comes_where_it_should(words: tuple[str, ...]) -> None:
    promtool(FOLDER, *words)


def test_every_query_of_dashboard_and_adapter_is_promql(tmp_path: Path) -> None:
    asked = [
        target["expr"].replace("$__rate_interval", "5m") for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]
    for rule in yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]:
        series = rule["seriesQuery"].partition("{")[0]
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", 'pod="a"')
        asked.append(query.replace("<<.GroupBy>>", "pod"))
    rules = [{"record": f"asked_{place}", "expr": query} for place, query in enumerate(asked)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    promtool(tmp_path, "check", "rules", "rules.yaml")


def promtool(folder: Path, *words: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; apt-get install prometheus brings it")
    said = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
