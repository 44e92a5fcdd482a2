"""What docker-compose.yaml promises; no Docker engine is needed to read it."""

import re
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())


def test_every_port_is_for_this_machine_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8080:8080"]


def test_mlflow_server_and_client_are_of_one_version() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [pinned] = [name.partition("==")[2] for name in extras["track"] if name.startswith("mlflow==")]
    dockerfile = (REPOSITORY / "docker" / COMPOSE["services"]["mlflow"]["build"]["dockerfile"]).read_text()
    assert re.findall(r"mlflow==([\d.]+)", dockerfile) == [pinned]
    assert COMPOSE["services"]["mlflow"]["image"] == f"cassava-mlflow:{pinned}"


def test_what_is_tracked_outlives_the_container() -> None:
    service = COMPOSE["services"]["mlflow"]
    [volume] = service["volumes"]
    name, _, place = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert all(place in word for word in service["command"] if "store" in word or "artifacts" in word)
