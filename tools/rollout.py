"""Brings a new image, or a new model, into a Kubernetes cluster: first a canary, then all; back by itself if it is bad.

    just rollout --image ghcr.io/OWNER/cassava-api@sha256:… --minutes 10 --photo leaf.jpg
    just rollout --model s3://bucket/models/best.onnx

What is there (`kubectl apply -k deploy/k8s/overlays/cpu`) stays as it is but for the image or the model. Exit code 0:
it serves everywhere; 3: it was taken back, and what served before serves again; 1: kubectl failed otherwise.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from canary import EXIT_ROLL_BACK, Limits, Plan, Verdict, add_limits, add_photo, limits_of, read_photo, watch

STABLE: Final = "deployment/cassava-api"
CANARY: Final = "deployment/cassava-api-canary"
CONTAINER: Final = "api"
_MODEL: Final = "CASSAVA_CHECKPOINT_S3_URI"
_REVISION: Final = r"{.metadata.annotations.deployment\.kubernetes\.io/revision}"
_PORT: Final = re.compile(r"127\.0\.0\.1:(\d+) ->")


class KubectlError(Exception):
    """kubectl said no, or is not there."""


@dataclass(frozen=True)
class Release:
    """What is new; None: as it is."""

    image: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Watching:
    """How long the canary is watched beside the stable version, and then all of it."""

    canary_s: float = 600
    after_s: float = 120
    every_s: float = 15
    photo: bytes | None = None
    limits: Limits = field(default_factory=Limits)


class Cluster:
    """One namespace, through kubectl."""

    def __init__(self, namespace: str, timeout_s: int) -> None:
        self._words = ("kubectl", "--namespace", namespace)
        self._timeout_s = timeout_s

    def do(self, *words: str) -> str:
        """Runs a command of kubectl and returns what it prints, which goes to stderr too.

        Raises:
            KubectlError: It failed.
        """
        try:
            said = subprocess.run([*self._words, *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise KubectlError("kubectl is not installed; see https://kubernetes.io/docs/tasks/tools/") from None
        sys.stderr.write(said.stdout + said.stderr)
        if said.returncode:
            raise KubectlError(f"kubectl {' '.join(words)}: {said.stderr.strip() or said.returncode}")
        return said.stdout

    def change(self, deployment: str, release: Release) -> None:
        """Writes the new image and the new model into a deployment, as one revision."""
        container: dict[str, Any] = {"name": CONTAINER}
        if release.image:
            container["image"] = release.image
        if release.model:
            container["env"] = [{"name": _MODEL, "value": release.model}]
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        self.do("patch", deployment, "--type=strategic", f"--patch={json.dumps(patch)}")

    def revision(self, deployment: str) -> str:
        """The number of what a deployment is now, for `rollout undo`."""
        return self.do("get", deployment, f"--output=jsonpath={_REVISION}").strip()

    def wait_for(self, deployment: str) -> None:
        """Waits until every pod of a deployment is the new one, and ready."""
        self.do("rollout", "status", deployment, f"--timeout={self._timeout_s}s")

    @contextlib.contextmanager
    def reached(self, deployment: str) -> Iterator[str]:
        """The address of one pod of a deployment, by a port of this machine."""
        words = [*self._words, "port-forward", deployment, ":8000"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None  # noqa: S101  asked for above
            found = _PORT.search(process.stdout.readline())
            if found is None:
                raise KubectlError(f"kubectl port-forward {deployment}: no port")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()


def roll_out(cluster: Cluster, release: Release, watching: Watching) -> list[Verdict]:
    """The verdicts in turn; the last one says whether the release stays."""
    try:
        verdicts = [_try_canary(cluster, release, watching)]
        if verdicts[0].decision == "promote":
            verdicts.append(_try_everywhere(cluster, release, watching))
        return verdicts
    finally:
        cluster.do("scale", CANARY, "--replicas=0")


def _try_canary(cluster: Cluster, release: Release, watching: Watching) -> Verdict:
    cluster.change(CANARY, release)
    cluster.do("scale", CANARY, "--replicas=1")
    try:
        cluster.wait_for(CANARY)
    except KubectlError as error:
        return Verdict("roll back", (f"the canary does not get ready: {error}",), 0, None, None)
    with cluster.reached(CANARY) as canary, cluster.reached(STABLE) as stable:
        return watch(Plan(canary, stable, watching.canary_s, watching.every_s, watching.photo), watching.limits)


def _try_everywhere(cluster: Cluster, release: Release, watching: Watching) -> Verdict:
    """The stable deployment becomes the release; `rollout undo` brings the earlier one back."""
    before = cluster.revision(STABLE)
    cluster.change(STABLE, release)
    try:
        cluster.wait_for(STABLE)
        with cluster.reached(STABLE) as stable:
            plan = Plan(stable, None, watching.after_s, watching.every_s, watching.photo)
            # The canary has shown enough: a quiet minute is nothing against it.
            verdict = watch(plan, replace(watching.limits, min_requests=0))
    except KubectlError as error:
        verdict = Verdict("roll back", (str(error),), 0, None, None)
    if verdict.decision == "roll back":
        cluster.do("rollout", "undo", STABLE, f"--to-revision={before}")
        cluster.wait_for(STABLE)
    return verdict


def main(words: Sequence[str] | None = None) -> int:
    """Rolls out and prints the verdicts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", help="the new image, best by its digest")
    parser.add_argument("--model", help="s3://bucket/key of the new model file")
    parser.add_argument("--namespace", default="cassava")
    parser.add_argument("--minutes", type=float, default=10, help="of the canary")
    parser.add_argument("--after", type=float, default=2, help="minutes that all of it is watched afterwards")
    parser.add_argument("--every", type=float, default=15, help="seconds from look to look")
    add_photo(parser)
    parser.add_argument("--timeout", type=int, default=300, help="seconds until pods must be ready")
    add_limits(parser)
    options = parser.parse_args(words)
    if not options.image and not options.model:
        parser.error("nothing is new; type --image or --model")
    photo = read_photo(options.photo)
    watching = Watching(options.minutes * 60, options.after * 60, options.every, photo, limits_of(options))
    try:
        cluster = Cluster(options.namespace, options.timeout)
        verdicts = roll_out(cluster, Release(options.image, options.model), watching)
    except KubectlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    return EXIT_ROLL_BACK if verdicts[-1].decision == "roll back" else 0


if __name__ == "__main__":
    sys.exit(main())
