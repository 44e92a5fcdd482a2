"""compose.yaml and the Dockerfiles: no Docker engine is needed to read them."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cassava_leaf_disease.serving.settings import ServingSettings

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROFILES = {
    "api": {"api"},
    "gpu": {"api-triton", "triton"},
    "bot": {"api", "bot"},
    "train": {"trainer"},
    "mlops": {"mlflow"},
    "monitoring": {"prometheus", "grafana"},
}
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def composed(*words: str) -> Any:
    """What `docker compose` makes of the file; skipped where neither it nor the program of the wheel is there."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed; type uv sync")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CASSAVA_", "COMPOSE_"))}
    said = subprocess.run(
        [program, "--file", "compose.yaml", *words, "config", "--format", "json"],
        cwd=REPOSITORY,
        env=environment | {"CASSAVA_BOT_TOKEN": "1:a"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "WARN" not in said.stderr.upper()
    return json.loads(said.stdout)


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_takes_every_profile(profile: str) -> None:
    assert {*composed("--profile", profile)["services"]} == PROFILES[profile]


def test_nothing_starts_unasked() -> None:
    assert all(service["profiles"] for service in SERVICES.values())
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {*PROFILES}


def test_every_port_is_for_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_only_what_works_with_gpus_may_write_its_own_files() -> None:
    services = composed("--profile", "*")["services"]
    free = {name for name, service in services.items() if not service.get("read_only")}
    assert free == {"triton", "trainer"}
    careful = [service for name, service in services.items() if name not in free]
    assert all(service["cap_drop"] == ["ALL"] for service in careful)
    assert all(service["security_opt"] == ["no-new-privileges:true"] for service in careful)


def test_every_file_that_is_named_is_there() -> None:
    for service in composed("--profile", "*")["services"].values():
        for volume in service.get("volumes", []):
            source = Path(volume["source"])
            made_by_use = source.name in ("data", "outputs", "artifacts")
            assert volume["type"] == "volume" or made_by_use or source.exists()
        if build := service.get("build"):
            dockerfile = Path(build["context"]) / build["dockerfile"]
            assert dockerfile.is_file()
            assert f" AS {build['target']}\n" in dockerfile.read_text(encoding="utf-8") if "target" in build else True


def test_variables_of_the_service_are_settings_of_it() -> None:
    known = {f"CASSAVA_{name.upper()}" for name in ServingSettings.model_fields}
    told = {name for name in ("api", "api-triton") for name in SERVICES[name]["environment"]}
    assert sorted(told - known) == []


def test_mlflow_server_and_client_are_of_one_version() -> None:
    [pinned] = [
        name.partition("==")[2]
        for name in PYPROJECT["project"]["optional-dependencies"]["track"]
        if name.startswith("mlflow==")
    ]
    assert re.findall(
        r"mlflow==([\d.]+)", (REPOSITORY / "docker" / "mlflow.Dockerfile").read_text(encoding="utf-8")
    ) == [pinned]


def test_images_of_others_have_a_version_and_ours_are_built_here() -> None:
    tags = {name: service["image"].partition(":")[2] for name, service in SERVICES.items()}
    assert {name for name, tag in tags.items() if not tag} == {name for name in SERVICES if "build" in SERVICES[name]}
    assert "latest" not in tags.values()


def test_what_is_tracked_outlives_the_container() -> None:
    [volume] = SERVICES["mlflow"]["volumes"]
    name, _, place = volume.partition(":")
    assert name in COMPOSE["volumes"]
    command = (REPOSITORY / "docker" / "mlflow.Dockerfile").read_text(encoding="utf-8").rpartition("CMD ")[2]
    stores = [word for word in json.loads(command) if "store" in word or "artifacts" in word]
    assert len(stores) == 2
    assert all(f"{place}/" in word for word in stores)


def test_images_install_extras_that_there_are_and_run_without_rights() -> None:
    dockerfile = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    extras = {name for listed in re.findall(r"\*\.whl\)\[([\w,]+)\]", dockerfile) for name in listed.split(",")}
    assert extras <= {*PYPROJECT["project"]["optional-dependencies"]}
    for name in ("api", "bot", "trainer"):
        [stage] = re.findall(rf"^FROM base AS {name}$(.*?)(?=^FROM |\Z)", dockerfile, re.MULTILINE | re.DOTALL)
        users = re.findall(r"^USER (\d+)$", stage, re.MULTILINE)
        assert users[-1:] in ([], ["10001"])  # none: that of `base`


def test_a_build_sees_nothing_but_sources() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    seen = [line[1:] for line in lines if line.startswith("!")]
    assert seen == ["pyproject.toml", "README.md", "LICENSE", "src", "web"]


def test_the_uv_of_images_is_that_of_the_workflows() -> None:
    dockerfile = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    action = (REPOSITORY / ".github" / "actions" / "environment" / "action.yml").read_text(encoding="utf-8")
    assert re.findall(r"uv==([\d.]+)", dockerfile) == re.findall(r"version: ([\d.]+)$", action, re.MULTILINE)
