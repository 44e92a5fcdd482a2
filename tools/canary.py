"""Is a new version of the service as good as the one it is to replace? Watches both, then says promote or roll back.

    just canary http://127.0.0.1:8001 --stable http://127.0.0.1:8000 --minutes 10 --photo leaf.jpg

Reads /health, /ready and /metrics, as Prometheus does; CASSAVA_API_KEY is the key of both, if they ask for one.
Exit code 0: promote; 3: roll back; 2: a wrong command line. stdout carries the verdict as JSON. Ends early where
waiting longer cannot help.
"""

import argparse
import io
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Final, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

EXIT_ROLL_BACK: Final = 3
ANSWERING: Final = ("/predict", "/predict/plant", "/explain")
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Limits:
    """What a canary may show. A limit that the stable version breaks too is widened to what it shows."""

    min_requests: int = 50  # fewer tell nothing
    min_errors: int = 3  # fewer may be chance
    max_error_rate: float = 0.01
    error_factor: float = 2.0  # of the stable version's rate
    max_p95_s: float = 2.0
    latency_factor: float = 1.5  # of the stable version's 95th percentile
    max_failed_checks: int = 2  # of /health, /ready and /metrics, one after another


@dataclass(frozen=True)
class Counts:
    """What a service has counted since it started: answers, 5xx among them, and seconds by upper bound of a bucket."""

    started_at: float
    requests: float
    errors: float
    failed_reloads: float
    buckets: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """What came between two looks at one service."""

    requests: int
    errors: int
    p95_s: float | None
    restarted: bool
    failed_reloads: int

    @property
    def error_rate(self) -> float:
        """Fraction of the answers that were 5xx, 0 without answers."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Verdict:
    """`promote` only without a reason against it."""

    decision: Literal["promote", "roll back"]
    reasons: tuple[str, ...]
    seconds: float
    canary: Window | None
    stable: Window | None


def read_counts(exposition: str) -> Counts:
    """What Prometheus' text format tells about the paths that answer about photos."""
    sums = {"requests": 0.0, "errors": 0.0, "failed_reloads": 0.0, "started_at": 0.0}
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            answering = sample.labels.get("path") in ANSWERING
            if sample.name == "cassava_requests_total" and answering:
                sums["requests"] += sample.value
                sums["errors"] += sample.value if sample.labels["status"].startswith("5") else 0
            elif sample.name == "cassava_request_seconds_bucket" and answering:
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0) + sample.value
            elif sample.name == "cassava_model_reloads_total" and sample.labels["result"] == "failed":
                sums["failed_reloads"] += sample.value
            elif sample.name == "process_start_time_seconds":
                sums["started_at"] = sample.value
    return Counts(**sums, buckets=buckets)


def between(before: Counts, after: Counts) -> Window:
    """The difference of two looks; after a restart all that was counted since."""
    restarted = after.started_at != before.started_at or after.requests < before.requests
    start = Counts(after.started_at, 0, 0, 0) if restarted else before
    grown = {bound: count - start.buckets.get(bound, 0) for bound, count in after.buckets.items()}
    return Window(
        requests=round(after.requests - start.requests),
        errors=round(after.errors - start.errors),
        p95_s=quantile(grown, 0.95),
        restarted=restarted,
        failed_reloads=round(after.failed_reloads - start.failed_reloads),
    )


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Seconds that so large a share stays below, as Prometheus' `histogram_quantile`; None without observations."""
    total = max(buckets.values(), default=0)
    lower, below = 0.0, 0.0
    for bound in sorted(buckets) if total else ():
        if buckets[bound] >= share * total:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * (share * total - below) / inside if inside else bound
        lower, below = bound, buckets[bound]
    return None


def broken_limits(canary: Window, stable: Window | None, limits: Limits) -> list[str]:
    """What speaks against the canary, whatever comes later."""
    reasons = []
    if canary.restarted:
        reasons.append("the canary has started again")
    if canary.failed_reloads:
        reasons.append(f"the canary could not take a model file ({canary.failed_reloads} times)")
    allowed = max(limits.max_error_rate, limits.error_factor * stable.error_rate if stable else 0)
    if canary.errors >= limits.min_errors and canary.error_rate > allowed and canary.requests >= limits.min_requests:
        reasons.append(
            f"{canary.errors} of {canary.requests} answers were 5xx ({canary.error_rate:.1%}); at most {allowed:.1%}"
        )
    return reasons


def judge(canary: Window, stable: Window | None, limits: Limits) -> list[str]:
    """What speaks against the canary at the end of the watch."""
    reasons = broken_limits(canary, stable, limits)
    if canary.requests < limits.min_requests:
        reasons.append(f"{canary.requests} answers in all, too few to tell; at least {limits.min_requests}")
    slowest = max(limits.max_p95_s, limits.latency_factor * (stable.p95_s or 0) if stable else 0)
    if canary.p95_s is not None and canary.p95_s > slowest:
        reasons.append(f"95% of the answers took up to {canary.p95_s:.2f} s; at most {slowest:.2f} s")
    return reasons


class UnreachableError(Exception):
    """A service that gave no answer, or not the expected one."""


def fetch(url: str, body: bytes | None = None, content_type: str = "") -> str:
    """The body of a 200.

    Raises:
        UnreachableError: Anything else.
    """
    headers = {"Content-Type": content_type} if body else {}
    if key := os.environ.get("CASSAVA_API_KEY"):
        headers["X-API-Key"] = key
    try:
        with urlopen(Request(url, body, headers), timeout=_TIMEOUT_S) as answer:  # noqa: S310  an address that the operator typed
            return str(answer.read().decode("utf-8"))
    except HTTPError as error:
        error.close()
        raise UnreachableError(f"{url}: {error.code}") from None
    except (OSError, HTTPException) as error:
        raise UnreachableError(f"{url}: {error}") from None


def look(url: str) -> Counts:
    """Asks for health, readiness and figures.

    Raises:
        UnreachableError: One of them is not 200.
    """
    fetch(f"{url}/health")
    fetch(f"{url}/ready")
    return read_counts(fetch(f"{url}/metrics"))


def ask(url: str, photo: bytes) -> None:
    """One photo, so that a canary without visitors has something to show; what comes of it its own metrics tell."""
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="leaf.jpg"\r\n\r\n'
    body = head.encode() + photo + f"\r\n--{boundary}--\r\n".encode()
    try:
        fetch(f"{url}/predict", body, f"multipart/form-data; boundary={boundary}")
    except UnreachableError as error:
        sys.stderr.write(f"{error}\n")


@dataclass(frozen=True)
class Plan:
    """What to watch, and for how long."""

    canary: str
    stable: str | None = None
    seconds: float = 600
    every_s: float = 15
    photo: bytes | None = None
    photos_each: int = 10  # asked of the canary at each look


def watch(plan: Plan, limits: Limits, sleep: Callable[[float], None] = time.sleep) -> Verdict:
    """Looks until the time is over or the canary has shown enough."""
    started = time.monotonic()
    failed: list[str] = []
    of_canary, of_stable = _Looks(plan.canary), _Looks(plan.stable)
    while True:
        canary, error = of_canary.again()
        stable, _ = of_stable.again()
        failed = [*failed, error] if error else []
        seconds = round(time.monotonic() - started, 1)
        if len(failed) > limits.max_failed_checks:
            return Verdict("roll back", (f"no answer {len(failed)} times: {failed[-1]}",), seconds, canary, stable)
        reasons = broken_limits(canary, stable, limits) if canary else []
        if reasons or seconds >= plan.seconds:
            break
        if plan.photo:
            for _ in range(plan.photos_each):
                ask(plan.canary, plan.photo)
        sleep(min(plan.every_s, max(plan.seconds - seconds, 0)))
    if canary is None:
        reasons = [f"never looked at with success: {failed[-1]}"]
    reasons = reasons or (judge(canary, stable, limits) if canary else [])
    return Verdict("roll back" if reasons else "promote", tuple(reasons), seconds, canary, stable)


class _Looks:
    """All looks at one service: what it has shown since the first that succeeded."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._first: Counts | None = None
        self._window: Window | None = None

    def again(self) -> tuple[Window | None, str]:
        if self._url is None:
            return None, ""
        try:
            counts = look(self._url)
        except UnreachableError as error:
            sys.stderr.write(f"{error}\n")
            return self._window, str(error)
        self._first = self._first or counts
        self._window = between(self._first, counts)
        return self._window, ""


def add_photo(parser: argparse.ArgumentParser) -> None:
    """The flag that names a photo."""
    parser.add_argument("--photo", help="asked of the canary all the time, for want of visitors; `drawn`: a drawn leaf")


def read_photo(path: str | None) -> bytes | None:
    """The bytes to ask about."""
    if path != "drawn":
        return Path(path).read_bytes() if path else None
    from PIL import Image

    from cassava_leaf_disease.data.synthetic import draw_leaf

    picture = io.BytesIO()
    Image.fromarray(draw_leaf(1, 3, 320)).save(picture, "JPEG")
    return picture.getvalue()


def add_limits(parser: argparse.ArgumentParser) -> None:
    """A flag for each limit."""
    for name in ("min_requests", "min_errors", "max_failed_checks"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Limits, name))
    for name in ("max_error_rate", "error_factor", "max_p95_s", "latency_factor"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Limits, name))


def limits_of(options: argparse.Namespace) -> Limits:
    """What the flags say."""
    return Limits(**{name: getattr(options, name) for name in Limits.__dataclass_fields__})


def main(words: list[str] | None = None) -> int:
    """Watches and prints the verdict; its exit code is the verdict too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("canary", help="http://host:port of the new version")
    parser.add_argument("--stable", help="http://host:port of the version that it is to replace")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=15, help="seconds from look to look")
    add_photo(parser)
    add_limits(parser)
    options = parser.parse_args(words)
    stable = options.stable.rstrip("/") if options.stable else None
    plan = Plan(options.canary.rstrip("/"), stable, options.minutes * 60, options.every, read_photo(options.photo))
    verdict = watch(plan, limits_of(options))
    print(json.dumps(asdict(verdict), indent=2))
    return EXIT_ROLL_BACK if verdict.decision == "roll back" else 0


if __name__ == "__main__":
    sys.exit(main())
