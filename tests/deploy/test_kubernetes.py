"""The manifests: built by kustomize where kubectl is there, held against Kubernetes' own schemas, and to our rules."""

import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cassava_leaf_disease.serving.routes import open_routes
from cassava_leaf_disease.serving.settings import ServingSettings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
OVERLAYS = ("cpu", "gpu")
KUBERNETES = "1.33"
KUSTOMIZATIONS = sorted(path for path in FOLDER.rglob("kustomization.yaml"))


@cache
def built(overlay: str) -> tuple[dict[str, Any], ...]:
    """What `kubectl kustomize` makes of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; see https://kubernetes.io/docs/tasks/tools/")
    said = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert "deprecated" not in said.stderr.lower()
    return tuple(yaml.safe_load_all(said.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in built(overlay) if each["kind"] == kind}


def plain_manifests() -> list[Path]:
    others = {"kustomization.yaml", "values.yaml"}
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name not in others)


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    [only] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("path", plain_manifests(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_is_a_manifest_by_itself(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if path.name != "ask-triton.yaml":  # a patch: only what it changes
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_built_manifest_fits_the_schema(overlay: str) -> None:
    assert len(built(overlay)) >= 10
    for manifest in built(overlay):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.parent.relative_to(FOLDER)))
def test_what_a_kustomization_names_is_there_and_nothing_lies_beside_it(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    patches = [patch["path"] for patch in content.get("patches", ()) if "path" in patch]
    settings = [name for each in content.get("configMapGenerator", ()) for name in each["envs"]]
    named = {*content["resources"], *patches, *settings}
    assert all((path.parent / name).exists() for name in named)
    files = {each.name for each in path.parent.iterdir() if each.is_file()} - {path.name}
    assert files == {name for name in named if (path.parent / name).is_file()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_those_of_the_release(overlay: str) -> None:
    pyproject = (FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(pyproject)["project"]["version"]
    images = [container(deployment)["image"] for deployment in of_kind(overlay, "Deployment").values()]
    assert {image.partition(":")[2] for image in images} == {f"v{version}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_stands_in_one_namespace(overlay: str) -> None:
    spaces = {each["metadata"].get("namespace") for each in built(overlay) if each["kind"] != "Namespace"}
    assert spaces == {"cassava"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_what_the_restricted_standard_lets_in(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, deployment in of_kind(overlay, "Deployment").items():
        pod, only = deployment["spec"]["template"]["spec"], container(deployment)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert only["securityContext"]["allowPrivilegeEscalation"] is False
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert only["securityContext"].get("readOnlyRootFilesystem", False) is name.startswith("cassava-api")
        assert only["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in only["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_endpoints_that_there_are(overlay: str) -> None:
    served = {route.path for route in open_routes.routes}  # type: ignore[attr-defined]
    for name in ("cassava-api", "cassava-api-canary"):
        only = container(of_kind(overlay, "Deployment")[name])
        paths = {probe: only[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}
        assert {*paths.values()} <= served


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_canary_is_the_stable_version_but_for_its_track(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")
    stable, canary = deployments["cassava-api"], deployments["cassava-api-canary"]
    assert canary["spec"]["replicas"] == 0
    assert "replicas" not in stable["spec"]
    assert container(canary) == container(stable)
    service = of_kind(overlay, "Service")["cassava-api"]["spec"]["selector"].items()
    for deployment, track in ((stable, "stable"), (canary, "canary")):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert labels["track"] == deployment["spec"]["selector"]["matchLabels"]["track"] == track
        assert labels.items() >= service
    budget = of_kind(overlay, "PodDisruptionBudget")["cassava-api"]["spec"]["selector"]["matchLabels"]
    assert budget["track"] == "stable"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_settings_of_the_service(overlay: str) -> None:
    known = {f"CASSAVA_{name.upper()}" for name in ServingSettings.model_fields}
    [settings] = of_kind(overlay, "ConfigMap").values()
    only = container(of_kind(overlay, "Deployment")["cassava-api"])
    assert only["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert {*settings["data"], *(each["name"] for each in only.get("env", ()))} <= known


def test_the_service_with_triton_asks_it_where_it_listens() -> None:
    only = container(of_kind("gpu", "Deployment")["cassava-api-canary"])
    environment = {each["name"]: each["value"] for each in only["env"]}
    triton = of_kind("gpu", "Service")["cassava-triton"]
    assert environment["CASSAVA_TRITON_URL"] == f"grpc://cassava-triton:{triton['spec']['ports'][0]['port']}"
    assert container(of_kind("gpu", "Deployment")["cassava-triton"])["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_reached_that_no_policy_names(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ports = {port["name"] for each in of_kind(overlay, "Deployment").values() for port in container(each)["ports"]}
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", ()):
            assert rule["from"]
            assert {port["port"] for port in rule["ports"]} <= ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_autoscaler_looks_at_the_queue_and_the_time(overlay: str) -> None:
    [scaler] = of_kind(overlay, "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] == "cassava-api"
    names = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"]
    assert names == ["cassava_pending_photos", "cassava_request_p95_seconds"]
