"""The report as a whole: one page that needs nothing else, whose numbers are those of the answers."""

import csv
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CassavaError, ConfigError, DataError
from cassava_leaf_disease.evaluation.evaluate import EvaluationResult, evaluate
from cassava_leaf_disease.evaluation.report.numbers import Report
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


class Page(HTMLParser):
    """Headings, tables, pictures and every address of a page; fails on tags that are not closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.extend([str(values["id"])] if "id" in values else [])
        self.addresses.extend(str(values[name]) for name in ("src", "href") if name in values)
        if tag == "img":
            self.images.append(values)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
            assert tag == "td" or values["scope"] in {"row", "col"}
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "caption" in self.open:
            self.captions.append(data)
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, heading = self.headings.pop()
            self.headings.append((level, heading + data))


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of 80 pixels in the Kaggle layout, and a table about them; read only."""
    folder = tmp_path_factory.mktemp("photos")
    write_synthetic_dataset(folder, 40, 80, seed=3)
    with (folder / "train.csv").open(encoding="utf-8") as file:
        names = [row["image_id"] for row in csv.DictReader(file)]
    rows = [f"{name},{'<b>farm</b>' if index % 2 else 'station'}\n" for index, name in enumerate(names)]
    (folder / "about.csv").write_text("image_id,place\n" + "".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def other_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint
) -> Path:
    """A model of another input size."""
    larger = metadata.preprocessing.model_copy(update={"image_size_px": 96})
    described = metadata.model_copy(update={"name": "larger", "preprocessing": larger, "temperature": 0.5})
    return write_random_checkpoint(tmp_path_factory.mktemp("other") / "best.ckpt", described)


@pytest.fixture
def config_for(photos_dir: Path, random_checkpoint: Path, root_in_tmp_path: None) -> Config:
    return lambda *overrides: load_config(
        [
            *(f"infer.checkpoint_path={random_checkpoint}", "infer.device=cpu", "evaluate.output_dir=out"),
            *(f"evaluate.csv_path={photos_dir / 'train.csv'}", "evaluate.bootstrap_samples=100"),
            *("evaluate.report=true", "evaluate.report_photos=3", *overrides),
        ]
    )


def read_back(result: EvaluationResult) -> tuple[Page, Report]:
    assert result.report is not None
    numbers = json.loads((result.output_dir / "report.json").read_text(encoding="utf-8"))
    return Page(result.report.read_text(encoding="utf-8")), Report.model_validate(numbers)


def rows_of(result: EvaluationResult) -> list[dict[str, str]]:
    with (result.output_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.draws
def test_page_stands_alone_and_tells_the_figures(config_for: Config, photos_dir: Path, other_checkpoint: Path) -> None:
    earlier = evaluate(
        config_for(f"infer.checkpoint_path={other_checkpoint}", "evaluate.output_dir=earlier", "evaluate.report=false")
    )
    table = earlier.output_dir / "predictions.csv"

    result = evaluate(
        config_for(f"evaluate.slices_csv={photos_dir / 'about.csv'}", f"evaluate.compare=[{table},{other_checkpoint}]")
    )

    page, report = read_back(result)
    assert result.report == result.output_dir / "report.html"
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert all(image["alt"] for image in page.images)
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.captions) == len(page.tables)
    assert {path.stem for path in (result.output_dir / "figures").iterdir()} == {
        *("confusion_matrix", "class_scores", "precision_recall", "reliability", "risk_coverage"),
        *("slices", "comparison"),
    }
    rows = rows_of(result)
    labels, predicted = ([int(row[name]) for row in rows] for name in ("label", "predicted"))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=0)
    for line, name, precision, recall, f1, support in zip(report.classes, CLASS_NAMES, *expected, strict=True):
        assert (line.name, line.support) == (name, support)
        assert line.recall == pytest.approx(recall)
        assert (line.precision or 0) == pytest.approx(precision)
        assert line.f1 == pytest.approx(f1)
        assert line.recall_interval[0] <= recall <= line.recall_interval[1]
    first = page.tables[1][1]
    assert first[0] == "Bacterial Blight"
    assert first[2].startswith(f"{100 * (report.classes[0].recall or 0):.1f}%")
    assert f"{100 * metrics.accuracy_score(labels, predicted):.1f}%" in page.text
    for given in report.verdicts:
        rights = [row["label"] == row["predicted"] for row in rows if row["verdict"] == given.verdict]
        assert (given.photos, given.labelled, given.accuracy) == (len(rights), len(rights), float(np.mean(rights)))
    assert sum(given.photos for given in report.verdicts) == 40
    by_place = next(slicing for slicing in report.slices if slicing.name == "place")
    assert sum(one.photos for one in by_place.slices) == 40
    assert "<b>farm</b>" in page.text  # as text, not as markup
    told, asked = report.comparisons
    assert told.model_dump(exclude={"name", "path"}) == asked.model_dump(exclude={"name", "path"})
    assert asked.accuracy == pytest.approx(earlier.scores.accuracy)
    pictures = [image for image in page.images if str(image["src"]).startswith("data:image/jpeg")]
    assert len(pictures) == 2 * (3 + 3)  # each photo with its heatmap
    assert result.report is not None
    assert result.report.stat().st_size < 5e6


def test_temperature_is_told_before_and_after(config_for: Config, other_checkpoint: Path) -> None:
    page, report = read_back(evaluate(config_for(f"infer.checkpoint_path={other_checkpoint}")))

    assert report.calibration.temperature == 0.5
    assert report.calibration.calibration_error_before is not None
    assert report.calibration.calibration_error_before != report.calibration.calibration_error
    assert "temperature of 0.50" in page.text


def test_several_models_as_one_are_reported(
    config_for: Config, random_checkpoint: Path, other_checkpoint: Path
) -> None:
    config = config_for(f"infer.checkpoint_path=[{random_checkpoint},{other_checkpoint}]")

    page, report = read_back(evaluate(config))

    assert report.calibration.temperature is None
    assert report.calibration.calibration_error_before is None
    assert report.model.input_sizes_px == (64, 96)
    assert "means over several models or views" in page.text
    assert str(other_checkpoint) in page.text


def test_model_of_drawn_leaves_is_reported_and_compared(small_config: Config) -> None:
    trained = train(small_config("train.epochs=1", "train.calibrate=false"))

    result = evaluate(
        small_config(
            *(f"infer.checkpoint_path={trained.checkpoint}", f"evaluate.compare=[{trained.checkpoint}]"),
            *("evaluate.report=true", "evaluate.bootstrap_samples=100", "evaluate.report_photos=1"),
        )
    )

    page, report = read_back(result)
    assert report.photos == 20
    assert report.comparisons[0].accuracy == pytest.approx(trained.metrics["test/acc"])
    assert (report.comparisons[0].p_value, report.comparisons[0].only_other_right) == (1.0, 0)
    assert "was never fitted" in page.text


def test_page_without_photos(config_for: Config) -> None:
    page, _ = read_back(evaluate(config_for("evaluate.report_photos=0")))

    assert not [image for image in page.images if str(image["src"]).startswith("data:image/jpeg")]
    assert "Mistakes" not in page.text


def test_model_without_maps_shows_photos_without_heatmaps(
    config_for: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cassava_leaf_disease.inference.engines.torch_engine.shows_its_work", lambda *_: False)

    page, _ = read_back(evaluate(config_for()))

    assert len([image for image in page.images if str(image["src"]).startswith("data:image/jpeg")]) == 6
    assert "Without heatmaps:" in page.text
    assert "gives no class maps" in caplog.text


def test_other_photos_are_not_compared(config_for: Config, tmp_path: Path) -> None:
    evaluate(config_for("evaluate.report=false"))
    table = tmp_path / "out" / "predictions.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    name = lines[1].partition(",")[0]
    changes = {
        rf"1 of the 40 measured are missing: {name}": lines[:1] + lines[2:],
        r"1 are others: new\.jpg": [*lines, lines[1].replace(name, "new.jpg")],
        rf"1 photos have another label there: {name}": [lines[0], f"{name},9{lines[1][len(name) + 2 :]}", *lines[2:]],
        r"no column predicted": [lines[0].replace("predicted,", "guess,"), *lines[1:]],
        r"answers that are no class id: x": [lines[0], re.sub(r",(\d),\d,", r",\1,x,", lines[1], count=1), *lines[2:]],
    }
    for message, content in changes.items():
        (tmp_path / "other.csv").write_text("".join(content), encoding="utf-8")
        with pytest.raises(DataError, match=rf"evaluate\.compare=.*other\.csv: .*{message}"):
            evaluate(config_for("evaluate.compare=[other.csv]"))
    (tmp_path / "other.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no readable CSV"):
        evaluate(config_for("evaluate.compare=[other.csv]"))


@pytest.mark.parametrize("name", ["none.csv", "none.ckpt"])
def test_missing_rival_is_told(name: str, config_for: Config) -> None:
    with pytest.raises(CassavaError, match=rf"evaluate\.compare=.*{name}: (cannot be read|no such file)"):
        evaluate(config_for(f"evaluate.compare=[{name}]"))


@pytest.mark.parametrize("key", ["evaluate.slices_csv=a.csv", "evaluate.compare=[a.ckpt]"])
def test_settings_of_the_report_want_the_report(key: str, config_for: Config) -> None:
    with pytest.raises(ConfigError, match=r"is for the report; type evaluate\.report=true too"):
        config_for("evaluate.report=false", key)


@pytest.mark.draws
def test_another_collection_is_told_apart(config_for: Config, photos_dir: Path, tmp_path: Path) -> None:
    names = ["blight", "spot", "mite", "mosaic", "well"]
    with (photos_dir / "train.csv").open(encoding="utf-8") as file:
        rows = [f"{row['image_id']},{names[int(row['label'])]}\n" for row in csv.DictReader(file)]
    (tmp_path / "labels.csv").write_text("file,disease\n" + "".join(rows), encoding="utf-8")
    foreign = (
        *(f"evaluate.csv_path={tmp_path / 'labels.csv'}", f"evaluate.images_dir={photos_dir / 'train_images'}"),
        *("evaluate.image_column=file", "evaluate.label_column=disease"),
        "evaluate.class_map={blight:0,mosaic:3,well:Healthy,spot:null,mite:null}",
    )

    result = evaluate(config_for(*foreign))

    whole = evaluate(config_for("evaluate.output_dir=whole", "evaluate.report=false"))
    answers = {row["image_id"]: row for row in rows_of(whole)}
    known = [row for row in answers.values() if row["label"] in {"0", "3", "4"}]
    labels, predicted = ([int(row[name]) for row in known] for name in ("label", "predicted"))
    assert result.scores.photos == len(known) == 24
    assert result.scores.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.outside is not None
    outside = result.outside
    assert (outside.photos, outside.photos_without_counterpart) == (40, 16)
    assert outside.classes_present == (CLASS_NAMES[0], CLASS_NAMES[3], CLASS_NAMES[4])
    assert outside.f1_macro_present == pytest.approx(
        metrics.f1_score(labels, predicted, labels=[0, 3, 4], average="macro", zero_division=0)
    )
    low, high = outside.f1_macro_present_interval
    assert low <= outside.f1_macro_present <= high
    assert [one.name for one in outside.classes] == ["blight", "mosaic", "well", "mite", "spot"]
    mite = outside.classes[3]
    of_mite = [row for row in answers.values() if row["label"] == "2"]
    assert (mite.counterpart, mite.recall, mite.photos) == (None, None, 8)
    assert mite.answers == {name: sum(row["predicted_name"] == name for row in of_mite) for name in CLASS_NAMES}
    assert mite.mean_confidence == pytest.approx(
        np.mean([max(float(row[f"prob_{index}"]) for index in range(5)) for row in of_mite]), abs=1e-5
    )
    assert sum(mite.verdicts.values()) == 8
    written = rows_of(result)
    assert {row["label"] for row in written if row["outside_class"] == "mite"} == {""}
    assert EvaluationResult.model_validate_json((result.output_dir / "metrics.json").read_bytes()) == result
    page, report = read_back(result)
    assert report.outside == outside
    assert "The surest answers about classes that we do not have" in page.text
    assert (result.output_dir / "figures" / "outside.png").is_file()
    again = evaluate(
        config_for(*foreign, "evaluate.report_photos=0", f"evaluate.compare=[{result.output_dir / 'predictions.csv'}]")
    )
    assert read_back(again)[1].comparisons[0].p_value == 1.0


def test_class_map_without_a_table_is_told(config_for: Config) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.class_map is set without evaluate\.csv_path"):
        config_for("evaluate.csv_path=null", "evaluate.class_map={a:1}")
