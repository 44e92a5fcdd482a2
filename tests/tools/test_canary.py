"""The canary: a good one is promoted, a bad one taken back as soon as it is known, against real HTTP servers."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from canary import Limits, Plan, Verdict, between, main, quantile, read_counts, read_photo, watch

QUICK = Limits(min_requests=20)
Serve = Callable[..., Any]  # of conftest.py
Meanwhile = Callable[[], None]


def watched(canary: Any, stable: Any = None, *, seconds: float = 0.2, meanwhile: Meanwhile = lambda: None) -> Verdict:
    """The verdict after looks for so long; `meanwhile` runs between them."""
    plan = Plan(canary.url, stable and stable.url, seconds=seconds, every_s=0, photo=b"leaf", photos_each=20)
    return watch(plan, QUICK, lambda _: meanwhile())


def test_a_canary_that_answers_like_the_stable_version_is_promoted(serve: Serve) -> None:
    verdict = watched(serve(), serve(visitors=10))
    assert verdict.decision == "promote"
    assert verdict.reasons == ()
    assert verdict.canary is not None
    assert verdict.canary.requests >= 20
    assert (verdict.canary.p95_s or 1) <= 0.05


def test_errors_end_the_watch_early(serve: Serve) -> None:
    verdict = watched(serve(errors=30), seconds=200)
    assert verdict.decision == "roll back"
    assert "answers were 5xx" in verdict.reasons[0]
    assert verdict.seconds < 60


def test_errors_that_the_stable_version_has_too_are_not_the_canarys(serve: Serve) -> None:
    stable = serve(errors=10, visitors=100)
    assert watched(serve(errors=10), stable).decision == "promote"


def test_slow_answers_are_held_against_it(serve: Serve) -> None:
    verdict = watched(serve(seconds=3), serve(visitors=10))
    assert verdict.reasons == ("95% of the answers took up to 4.80 s; at most 2.00 s",)


def test_answers_as_slow_as_the_stable_versions_are_not(serve: Serve) -> None:
    assert watched(serve(seconds=3), serve(seconds=3, visitors=10)).decision == "promote"


def test_too_few_answers_tell_nothing(serve: Serve) -> None:
    verdict = watched(serve(), seconds=0)
    assert verdict.decision == "roll back"
    assert verdict.reasons == ("0 answers in all, too few to tell; at least 20",)


def test_a_restart_or_a_model_that_was_not_taken_ends_it(serve: Serve) -> None:
    restarts = serve(visitors=10)
    verdict = watched(restarts, meanwhile=lambda: setattr(restarts, "started_at", 2000.0), seconds=200)
    assert verdict.reasons == ("the canary has started again",)
    reloads = serve(visitors=10)
    verdict = watched(reloads, meanwhile=lambda: setattr(reloads, "failed_reloads", 1), seconds=200)
    assert verdict.reasons == ("the canary could not take a model file (1 times)",)


def test_not_ready_once_is_forgiven_and_three_times_is_not(serve: Serve) -> None:
    once = serve()
    once.unready = 1
    assert watched(once).decision == "promote"
    gone = serve()
    gone.unready = 1000
    verdict = watched(gone, seconds=200)
    assert verdict.decision == "roll back"
    assert verdict.reasons[0].startswith("no answer 3 times: http://127.0.0.1:")
    assert verdict.reasons[0].endswith("/ready: 503")


def test_a_canary_that_is_not_there_is_no_canary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:9", "--minutes", "0"]) == 3
    assert "never looked at with success" in json.loads(capsys.readouterr().out)["reasons"][0]


def test_the_command_line_watches_and_asks(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    canary, stable = serve(), serve(visitors=10)
    words = [f"{canary.url}/", "--stable", stable.url, "--minutes", "0.005", "--every", "0.02", "--photo", "drawn"]
    assert main([*words, "--min-requests", "5"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["decision"] == "promote"
    assert said["canary"]["requests"] >= 5


def test_the_key_of_the_service_is_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = serve()
    keyed.key = "k" * 16
    assert watched(keyed, seconds=200).reasons[0].endswith("/health: 401")
    monkeypatch.setenv("CASSAVA_API_KEY", keyed.key)
    assert watched(keyed).decision == "promote"


def test_a_drawn_leaf_is_a_jpeg() -> None:
    assert (read_photo("drawn") or b"").startswith(b"\xff\xd8")
    assert read_photo(None) is None


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = {0.1: 10.0, 0.5: 90.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.3)
    assert quantile(buckets, 0.95) == pytest.approx(0.75)
    assert quantile({1.0: 0.0, math.inf: 10.0}, 0.95) == 1.0
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.95) is None
    assert quantile({}, 0.95) is None


def test_what_was_counted_before_the_watch_does_not_count(serve: Serve) -> None:
    service = serve(errors=100)
    for _ in range(50):
        service.answer()
    before = read_counts(service.exposition())
    service.errors = 0
    for _ in range(50):
        service.answer()
    window = between(before, read_counts(service.exposition()))
    assert (window.requests, window.errors) == (50, 0)


def test_it_reads_what_the_service_writes() -> None:
    from cassava_leaf_disease.serving.metrics import Metrics

    metrics = Metrics()
    for status in (200, 200, 503):
        metrics.request("POST", "/predict", status, 0.04)
    metrics.request("GET", "/", 500, 9.0)
    metrics.reload("failed")
    counts = read_counts(metrics.exposition().decode())
    assert (counts.requests, counts.errors, counts.failed_reloads) == (3, 1, 1)
    assert quantile(counts.buckets, 0.5) == pytest.approx(0.04, abs=0.011)
    assert counts.started_at > 0
