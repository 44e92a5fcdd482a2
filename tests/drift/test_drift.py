"""Counts of answers by day, and whether they have moved from the reference by more than chance."""

import json
import threading
from collections.abc import Callable
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import CLASS_NAMES, Check, ModelIdentity, Prediction, Verdict, rank_classes
from cassava_leaf_disease.drift import recorder as recorder_module
from cassava_leaf_disease.drift.compare import Thresholds, chance_limit, compare, population_stability
from cassava_leaf_disease.drift.features import FEATURES, count, key_of, observe
from cassava_leaf_disease.drift.recorder import Recorder, open_statistics, read_counts, today
from cassava_leaf_disease.drift.reference import DriftReference, load_reference, make_reference, reference_path
from cassava_leaf_disease.drift.report import DriftReport, drift, table_of
from cassava_leaf_disease.errors import ConfigError, DatabaseError, DataError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor
from cassava_leaf_disease.storage.files import write_json

Config = Callable[..., AppConfig]
MODEL = ModelIdentity(name="small", version="1", source="explicit", path="small.onnx")
KEY = "small 1"


def answer(
    class_id: int = 3, confidence: float = 0.72, verdict: Verdict = "diagnosis", brightness: float | None = 0.44
) -> Prediction:
    shares = [(1 - confidence) / 4] * 5
    shares[class_id] = confidence
    light = [] if brightness is None else [Check(name="brightness", value=brightness, at_least=0.1, passed=True)]
    return Prediction(
        predicted_class_id=class_id,
        class_name=CLASS_NAMES[class_id],
        confidence=confidence,
        probabilities=dict(zip(CLASS_NAMES, shares, strict=True)),
        top_k=rank_classes(shares, CLASS_NAMES, 1),
        verdict=verdict,
        checks=(*light, Check(name="confidence", value=confidence, at_least=0.5, passed=True)),
        model=MODEL,
    )


def answers(
    seed: int, number: int, mix: tuple[float, ...] = (0.05, 0.1, 0.1, 0.6, 0.15), light: float = 0.45
) -> list[Prediction]:
    """As a model answers in a field: mostly mosaic, of some spread in confidence and light."""
    draw = np.random.default_rng(seed)
    classes = draw.choice(5, number, p=mix)
    sure = 0.3 + 0.69 * draw.beta(4, 2, number)
    bright = np.clip(draw.normal(light, 0.1, number), 0.01, 0.99)
    return [
        answer(int(c), float(s), "diagnosis" if s > 0.5 else "uncertain", float(b))
        for c, s, b in zip(classes, sure, bright, strict=True)
    ]


def test_an_answer_falls_into_a_bin_of_each_feature() -> None:
    assert dict(observe(answer(3, 0.72, "diagnosis", 0.44))) == {
        "verdict": 0,
        "class": 3,
        "confidence": 5,
        "brightness": 4,
    }
    assert FEATURES["confidence"].bins[5] == "0.7 to 0.8"


def test_the_class_of_what_is_no_leaf_does_not_count() -> None:
    assert dict(observe(answer(verdict="not_cassava", brightness=None))) == {"verdict": 2}


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (0.2, 2), (0.999, 9), (1.0, 9)])
def test_bins_reach_from_end_to_end(value: float, place: int) -> None:
    assert dict(observe(answer(brightness=value)))["brightness"] == place
    assert dict(observe(answer(confidence=1.0)))["confidence"] == 7
    assert dict(observe(answer(confidence=0.2)))["confidence"] == 0


def test_the_index_is_the_textbooks() -> None:
    """Shares of 50:50 that become 40:60: (0.4 - 0.5) ln(0.4 / 0.5) + (0.6 - 0.5) ln(0.6 / 0.5) = 0.0405."""
    assert population_stability((50_000, 50_000), (40_000, 60_000)) == pytest.approx(0.0405, abs=1e-4)
    assert population_stability((10, 20), (100, 200)) == pytest.approx(0, abs=1e-3)
    assert population_stability((50, 0), (0, 50)) < 20  # finite


def test_chance_stays_below_its_limit_in_99_of_100_cases() -> None:
    draw = np.random.default_rng(0)
    mix = (0.05, 0.1, 0.1, 0.6, 0.15)
    above = 0
    for _ in range(2000):
        a, b = draw.multinomial(250, mix).tolist(), draw.multinomial(300, mix).tolist()
        above += population_stability(a, b) > chance_limit(a, b)

    assert above / 2000 < 0.02


def test_the_same_source_does_not_drift_and_another_does() -> None:
    reference = count(answers(0, 400))

    for seed in range(1, 21):
        same = compare(reference, count(answers(seed, 250)), Thresholds())
        assert {feature.level for feature in same} == {"stable"}

    moved = compare(reference, count(answers(1, 250, mix=(0.3, 0.3, 0.1, 0.2, 0.1), light=0.75)), Thresholds())
    assert {feature.feature: feature.level for feature in moved} == {
        "class": "alarm",
        "confidence": "stable",
        "verdict": "stable",
        "brightness": "alarm",
    }


def test_few_photos_are_not_judged() -> None:
    dark = count(answers(1, 199, light=0.1))
    few = compare(count(answers(0, 400)), dark, Thresholds())

    assert {feature.level for feature in few} == {"too_few"}
    assert {feature.psi for feature in few} == {None}
    assert "too_few" in "\n".join(table_of(report_of(few)))


def test_a_model_without_a_gate_tells_no_brightness() -> None:
    blind = count([answer(brightness=None)] * 300)

    assert [feature.feature for feature in compare(blind, blind, Thresholds())] == ["class", "confidence", "verdict"]


def report_of(features: object) -> DriftReport:
    days = {"first_day": date(2026, 11, 1), "last_day": date(2026, 11, 7)}
    about = {"model": KEY, "reference": "r.json", "reference_data": "val", "photos": 199, "watch": 0.1, "alarm": 0.25}
    return DriftReport.model_validate({"level": "too_few", **about, **days, "features": features})


def recorded(url: str, predictions: list[Prediction], source: recorder_module.Source = "service") -> None:
    recorder = Recorder(source, url)
    for prediction in predictions:
        recorder.record(prediction)
    recorder.close()


def written(url: str, source: recorder_module.Source | None = None) -> dict[str, tuple[int, ...]]:
    database = open_statistics(url)
    try:
        return read_counts(database, KEY, today(), today(), source)
    finally:
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    address: str = "sqlite:///counts.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return address


def test_counts_of_several_doors_add_up(url: str) -> None:
    seen = answers(0, 50)
    recorded(url, seen)
    recorded(url, seen, "bot")
    recorded(url, seen)

    assert sum(written(url)["verdict"]) == 150
    assert written(url, "bot") == count(seen)
    assert written(url, "service") == {name: tuple(2 * n for n in bins) for name, bins in count(seen).items()}


def test_threads_lose_no_count() -> None:
    recorder = Recorder("service", "sqlite:///counts.db", flush_s=0.001)
    recorder.start()
    seen = answers(0, 200)

    def record_all() -> None:
        for one in seen:
            recorder.record(one)

    threads = [threading.Thread(target=record_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()

    assert sum(written("sqlite:///counts.db")["verdict"]) == 800


def test_counts_are_seen_before_and_after_they_are_written() -> None:
    recorder = Recorder("service", "sqlite:///counts.db")
    recorder.record(answer())
    recorder.flush()
    recorder.record(answer())

    assert sum(recorder.counts(KEY, today(), today())["verdict"]) == 2
    assert sum(recorder.counts("other 1", today(), today())["verdict"]) == 0
    assert sum(recorder.counts(KEY, date(2020, 1, 1), date(2020, 1, 7))["verdict"]) == 0
    recorder.close()


def test_without_a_database_counts_stay_in_memory(tmp_path: Path) -> None:
    recorder = Recorder("service", None)
    recorder.record(answer())
    recorder.flush()

    assert sum(recorder.counts(KEY, today(), today())["verdict"]) == 1
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_fails_loses_no_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "counts.db").write_text("this is no database, but it is long enough for one", encoding="utf-8")
    recorder = Recorder("service", "sqlite:///counts.db")
    for _ in range(3):
        recorder.record(answer())
        recorder.flush()
    assert caplog.text.count("wait in memory") == 1

    (tmp_path / "counts.db").unlink()
    recorder.close()
    assert sum(written("sqlite:///counts.db")["verdict"]) == 3


def test_old_days_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = today() - timedelta(days=500)
    for keep in (Recorder("service", None), Recorder("service", "sqlite:///counts.db")):
        with monkeypatch.context() as then:
            then.setattr(recorder_module, "today", lambda: long_ago)
            keep.record(answer())
            keep.flush()
        keep.record(answer())
        keep.flush()
        assert sum(keep.counts(KEY, long_ago, today())["verdict"]) == 1
        keep.close()


def test_what_is_kept_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    recorded("sqlite:///counts.db", answers(0, 500))
    before = (tmp_path / "counts.db").stat().st_size
    recorded("sqlite:///counts.db", answers(0, 5000))

    assert (tmp_path / "counts.db").stat().st_size == before


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "small.drift.json"
    made = DriftReference(
        model="small",
        version="1",
        data="validation photos",
        photos=400,
        counts=dict(count(answers(0, 400))),
        created_at="2026-11-25T00:00:00+00:00",
    )
    write_json(path, made.model_dump(mode="json"))
    return path


def test_a_period_is_compared_and_told(small_config: Config, reference: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    recorded("sqlite:///counts.db", answers(1, 300))
    config = small_config("drift.statistics_url=sqlite:///counts.db", f"drift.reference={reference}")
    assert (drift(config).level, drift(config).photos) == ("stable", 300)

    recorded("sqlite:///counts.db", answers(2, 900, light=0.8), "bot")
    report = drift(config)
    assert (report.level, report.photos) == ("alarm", 1200)
    assert "brightness" in caplog.text
    from_service = drift(config.changed(drift=config.drift.changed(source="service")))
    assert (from_service.level, from_service.photos) == ("stable", 300)


def test_the_command_prints_json_and_reads_the_environment(
    reference: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded("sqlite:///counts.db", answers(1, 300))
    monkeypatch.setenv("CASSAVA_STATISTICS_URL", "sqlite:///counts.db")

    assert cli.main(["drift", f"drift.reference={reference}", f"drift.until={today()}", "drift.days=1"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["level"] == "stable"
    assert "confidence" in said.err


def test_mistakes_are_told(small_config: Config, reference: Path, tmp_path: Path) -> None:
    named = f"drift.reference={reference}"
    with pytest.raises(ConfigError, match="CASSAVA_STATISTICS_URL"):
        drift(small_config(named))
    with pytest.raises(DataError, match=r"none\.db: no such file"):
        drift(small_config(named, "drift.statistics_url=sqlite:///none.db"))
    with pytest.raises(DataError, match=r"other\.json: cannot be read .*cassava drift reference"):
        drift(small_config("drift.reference=other.json", "drift.statistics_url=sqlite:///counts.db"))
    with pytest.raises(ConfigError, match=r"expected drift\.alarm to be the larger"):
        small_config("drift.watch=0.5")
    recorded("sqlite:///counts.db", answers(1, 300))
    other = DriftReference.model_validate_json(reference.read_bytes()).model_copy(update={"version": "2"})
    write_json(tmp_path / "two.json", other.model_dump(mode="json"))
    with pytest.raises(DataError, match=r"no answers of small 2 .* but of small 1"):
        drift(small_config("drift.reference=two.json", "drift.statistics_url=sqlite:///counts.db"))


def test_without_a_model_named_it_is_about_the_one_that_would_answer(small_config: Config) -> None:
    recorded("sqlite:///counts.db", answers(1, 300))
    with pytest.raises(DataError, match=r"no answers of .*mobilenetv2_100 .* but of small 1"):
        drift(small_config("drift.statistics_url=sqlite:///counts.db"))


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"counts": {"class": [1]}}'])
def test_a_damaged_reference_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="no reference of this version"):
        load_reference(tmp_path / "bad.json")


def test_bins_of_another_version_are_refused(reference: Path) -> None:
    made = json.loads(reference.read_bytes())
    made["counts"]["class"] = [1, 2, 3]
    reference.write_text(json.dumps(made), encoding="utf-8")
    with pytest.raises(DataError, match="no reference of this version"):
        load_reference(reference)


def test_statistics_of_a_file_that_is_no_database(small_config: Config, reference: Path, tmp_path: Path) -> None:
    (tmp_path / "counts.db").write_text("this is no database, but it is long enough for one", encoding="utf-8")
    with pytest.raises(DatabaseError):
        drift(small_config(f"drift.reference={reference}", "drift.statistics_url=sqlite:///counts.db"))


def test_the_packages_model_has_its_reference() -> None:
    path = Path(str(files("cassava_leaf_disease"))) / "assets" / "default_model.onnx"
    reference = load_reference(reference_path(path))
    model = load_predictor(FoundModel(path, "package"), "cpu").identity

    assert reference.key == key_of(model)
    assert sum(reference.counts["brightness"]) > 200


def test_a_reference_is_made_beside_the_model_of_photos_that_it_has_not_learned(
    small_config: Config, tmp_path: Path
) -> None:
    from cassava_leaf_disease.training.fit import train

    config = small_config("train.epochs=1", "train.fit_gate=false")
    checkpoint = train(config).checkpoint
    assert checkpoint is not None

    made = make_reference(config)
    assert made.path == checkpoint.with_name("best.drift.json")
    assert made.reference.photos == sum(made.reference.counts["verdict"]) == 20
    assert load_reference(made.path) == made.reference
