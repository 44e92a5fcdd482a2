"""A release in a cluster: kubectl is a stand-in that notes what it is told, the services behind it are real HTTP."""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollout import CANARY, STABLE, main

Serve = Callable[..., Any]  # of conftest.py

# Notes its words, fails once where a file says so, and leads `port-forward` to the service of a deployment.
KUBECTL = """\
import json, sys, time
from pathlib import Path

folder = Path(__file__).parent
words = sys.argv[3:]
with (folder / "said").open("a") as file:
    file.write(json.dumps(words) + "\\n")
settings = json.loads((folder / "settings").read_text(encoding="utf-8"))
line = " ".join(words)
for part in settings["fails"]:
    if part in line:
        settings["fails"].remove(part)
        (folder / "settings").write_text(json.dumps(settings))
        sys.exit("no such thing: " + line)
if words[0] == "get":
    print(7)
if words[0] == "port-forward":
    print(f"Forwarding from 127.0.0.1:{settings['ports'][words[1]]} -> 8000", flush=True)
    time.sleep(60)
"""


class Kubectl:
    """What was said to it, and where its port-forwards lead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "kubectl"
        (folder / "fake.py").write_text(KUBECTL)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/fake.py" "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def lead(self, canary: Any, stable: Any, *fails: str) -> None:
        ports = {CANARY: canary.url.rpartition(":")[2], STABLE: stable.url.rpartition(":")[2]}
        (self._folder / "settings").write_text(json.dumps({"ports": ports, "fails": fails}))

    @property
    def said(self) -> list[str]:
        lines = (self._folder / "said").read_text(encoding="utf-8").splitlines()
        return [" ".join(json.loads(line)) for line in lines]

    @property
    def changes(self) -> list[str]:
        return [line for line in self.said if line.split()[0] in ("patch", "scale") or "undo" in line]


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for kubectl is a shell script")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Kubectl(tmp_path)


QUICK = ("--minutes", "0.003", "--after", "0.003", "--every", "0.02", "--min-requests", "5")
ASKED = (*QUICK, "--photo", "drawn")


def rolled_out(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], how: tuple[str, ...] = ASKED
) -> tuple[int, Any]:
    code = main([*words, *how])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def patch_of(**container: Any) -> str:
    return json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "api", **container}]}}}})


def test_a_good_release_goes_everywhere_and_the_canary_away(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(), serve(visitors=10))
    code, verdicts = rolled_out(("--image", "api:2", "--model", "s3://models/new.onnx"), capsys)
    assert code == 0
    assert [verdict["decision"] for verdict in verdicts] == ["promote", "promote"]
    new = patch_of(image="api:2", env=[{"name": "CASSAVA_CHECKPOINT_S3_URI", "value": "s3://models/new.onnx"}])
    assert kubectl.changes == [
        f"patch {CANARY} --type=strategic --patch={new}",
        f"scale {CANARY} --replicas=1",
        f"patch {STABLE} --type=strategic --patch={new}",
        f"scale {CANARY} --replicas=0",
    ]


def test_quiet_minutes_after_a_good_canary_are_nothing_against_it(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(visitors=10), serve())
    code, verdicts = rolled_out(("--image", "api:2"), capsys, QUICK)
    assert code == 0
    assert [verdict["canary"]["requests"] > 0 for verdict in verdicts] == [True, False]


def test_a_canary_with_errors_never_reaches_the_stable_deployment(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(errors=50), serve(visitors=10))
    code, verdicts = rolled_out(("--image", "api:2"), capsys)
    assert code == 3
    assert "5xx" in verdicts[0]["reasons"][0]
    assert not any(line.startswith(f"patch {STABLE} ") for line in kubectl.said)
    assert kubectl.changes[-1] == f"scale {CANARY} --replicas=0"


def test_a_canary_that_never_gets_ready_is_taken_away(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(), serve(), f"rollout status {CANARY}")
    code, verdicts = rolled_out(("--image", "api:2"), capsys)
    assert code == 3
    assert "the canary does not get ready" in verdicts[0]["reasons"][0]
    assert kubectl.changes[-1] == f"scale {CANARY} --replicas=0"


def test_what_goes_wrong_everywhere_is_undone_to_what_was_before(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(), serve(errors=50, visitors=10))
    code, verdicts = rolled_out(("--image", "api:2"), capsys)
    assert code == 3
    assert [verdict["decision"] for verdict in verdicts] == ["promote", "roll back"]
    assert kubectl.changes[-2:] == [f"rollout undo {STABLE} --to-revision=7", f"scale {CANARY} --replicas=0"]
    assert kubectl.said[-2].startswith(f"rollout status {STABLE}")


def test_pods_that_do_not_get_ready_everywhere_are_undone_too(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(), serve(visitors=10), f"rollout status {STABLE} ")
    code, verdicts = rolled_out(("--model", "s3://models/new.onnx"), capsys)
    assert code == 3
    assert "rollout status" in verdicts[1]["reasons"][0]
    assert f"rollout undo {STABLE} --to-revision=7" in kubectl.changes


def test_where_the_canary_cannot_be_reached_nothing_else_is_changed(
    kubectl: Kubectl, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lead(serve(), serve(), f"port-forward {CANARY}")
    code, verdicts = rolled_out(("--image", "api:2"), capsys)
    assert (code, verdicts) == (1, None)
    assert kubectl.changes[-1] == f"scale {CANARY} --replicas=0"
    assert not any(line.startswith(f"patch {STABLE} ") for line in kubectl.said)


def test_nothing_new_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "type --image or --model" in capsys.readouterr().err


def test_without_kubectl_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--image", "api:2"]) == 1
    assert "kubectl is not installed" in capsys.readouterr().err
