"""`cassava score`: a row for each photo, whatever is wrong with it; killed runs go on; both engines agree."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.scale import scorer as scorer_module
from cassava_leaf_disease.scale.score import ScoreResult, score

Scoring = Callable[..., AppConfig]
ReadCsv = Callable[[Path], list[dict[str, str]]]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


class TestRows:
    def test_every_file_of_a_folder_has_a_row_and_a_bad_one_says_why(self, scoring: Scoring, field: Path) -> None:
        result = score(scoring(f"score.input={field}", "score.output=answers"))

        rows = read_parquet(result.output)
        assert [row["row"] for row in rows] == list(range(10))
        assert [row["path"] for row in rows][:3] == ["broken.JPG", "empty.png", "leaf 0.jpg"]
        assert rows[-1]["path"] == "Kläranlage süd/leaf 5.jpg"
        errors = {row["path"]: row["error"] for row in rows if row["error"] is not None}
        assert set(errors) == {"broken.JPG", "empty.png", "web.jpeg"}
        assert errors["empty.png"] == ("empty.png: empty, 0 bytes; expected a JPEG or PNG photo; send the file again")
        assert (result.photos, result.predicted, result.errors) == (10, 7, 3)
        assert sum(result.verdicts.values()) == sum(result.classes.values()) == 7
        assert list(result.error_examples) == list(errors.values())

    def test_rows_say_what_the_predictor_says(
        self, scoring: Scoring, field: Path, leaves: Sequence[bytes], exported_model: Path
    ) -> None:
        result = score(scoring(f"score.input={field}", "score.output=answers"))

        predictor = load_predictor(FoundModel(exported_model, "explicit"), "cpu", threads=1)
        answer = predictor.predict_bytes(leaves[2], name="leaf")
        row = next(row for row in read_parquet(result.output) if row["path"] == "leaf 2.jpg")
        probabilities = [row[f"prob_{index}"] for index in range(5)]
        assert probabilities == [answer.probabilities[name] for name in CLASS_NAMES]
        assert row["class_name"] == answer.class_name == CLASS_NAMES[row["predicted_class_id"]]
        assert (row["confidence"], row["verdict"]) == (answer.confidence, answer.verdict)
        assert tuple(row["reasons"]) == answer.reasons
        assert (row["size_bytes"], row["width_px"], row["height_px"]) == (len(leaves[2]), 120, 90)
        assert (row["model_name"], row["model_version"]) == (answer.model.name, answer.model.version)
        assert (row["error"], row["foreign"]) == (None, None)

    def test_a_gate_tells_how_foreign_photos_are(
        self, scoring: Scoring, field: Path, served_models: tuple[Path, Path]
    ) -> None:
        result = score(scoring(f"score.input={field}", f"infer.checkpoint_path={served_models[1]}"))

        assert all(row["foreign"] is not None for row in read_parquet(result.output) if row["error"] is None)

    def test_batches_give_the_rows_of_single_photos(self, scoring: Scoring, field: Path) -> None:
        one = read_parquet(score(scoring(f"score.input={field}", "score.readers=0")).output)
        three = read_parquet(score(scoring(f"score.input={field}", "score.batch_size=3")).output)

        assert [row["error"] for row in one] == [row["error"] for row in three]
        for single, batched in zip(one, three, strict=True):
            assert single["confidence"] == pytest.approx(batched["confidence"], abs=1e-5)

    def test_what_no_decoder_expects_is_an_error_of_that_photo(
        self, scoring: Scoring, field: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def decode(data: bytes, *_: object, name: str) -> object:
            raise RecursionError("deep") if name == "leaf 0.jpg" else MemoryError

        monkeypatch.setattr(scorer_module, "decode_image", decode)
        result = score(scoring(f"score.input={field}"))

        rows = {row["path"]: row for row in read_parquet(result.output)}
        assert result.errors == 10
        assert "cannot be decoded (RecursionError: deep)" in rows["leaf 0.jpg"]["error"]

    def test_a_model_that_does_not_answer_ends_the_run(
        self, scoring: Scoring, field: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def diverged(*_: object, **__: object) -> object:
            raise CheckpointError("gives no finite answer")

        monkeypatch.setattr(Predictor, "predict_all", diverged)
        with pytest.raises(CheckpointError, match="no finite answer"):
            score(scoring(f"score.input={field}"))


class TestOutputs:
    def test_csv_and_parquet_hold_the_same_rows(self, read_csv: ReadCsv, scoring: Scoring, field: Path) -> None:
        as_csv = read_csv(score(scoring(f"score.input={field}", "score.output=a.csv")).output)
        as_parquet = read_parquet(score(scoring(f"score.input={field}", "score.output=a.parquet")).output)

        def text(name: str, value: Any) -> str:
            if value is None:
                return ""
            return " | ".join(value) if name == "reasons" else str(value)

        assert as_csv == [{name: text(name, value) for name, value in row.items()} for row in as_parquet]

    def test_parts_in_a_folder_are_the_file_cut_up(self, read_csv: ReadCsv, scoring: Scoring, field: Path) -> None:
        one = score(scoring(f"score.input={field}", "score.output=a.csv"))
        parts = score(scoring(f"score.input={field}", "score.output=folder", "score.format=csv"))

        assert [path.name for path in sorted(parts.output.glob("part-*"))] == [f"part-{n:06}.csv" for n in range(3)]
        assert read_csv(parts.output) == read_csv(one.output)
        assert [path.name for path in (one.output.parent / "a.csv.parts").rglob("part-*")] == []

    def test_without_an_output_each_run_has_a_folder_of_its_own(self, scoring: Scoring, field: Path) -> None:
        names = [score(scoring(f"score.input={field}")).output.name for _ in range(2)]

        assert names == ["version_0", "version_1"]

    def test_answers_that_stand_there_are_never_replaced(self, scoring: Scoring, field: Path, tmp_path: Path) -> None:
        (tmp_path / "answers.csv").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.tex").write_text("mine")

        for output in ("answers.csv", "folder"):
            for resume in ("true", "false"):
                with pytest.raises(ConfigError, match="something stands there already"):
                    score(scoring(f"score.input={field}", f"score.output={output}", f"score.resume={resume}"))

    def test_a_file_of_another_kind_is_no_output(self, scoring: Scoring, field: Path, tmp_path: Path) -> None:
        (tmp_path / "answers.xlsx").touch()

        with pytest.raises(ConfigError, match=r"answers.xlsx: a file; expected a folder, or a name that ends in"):
            score(scoring(f"score.input={field}", "score.output=answers.xlsx"))

    def test_rows_do_not_go_to_s3(self, scoring: Scoring, field: Path) -> None:
        with pytest.raises(ConfigError, match="rows are written on this machine"):
            score(scoring(f"score.input={field}", "score.output=s3://bucket/answers.csv"))

    def test_stdout_has_the_summary(self, field: Path, exported_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["score", f"score.input={field}", f"infer.checkpoint_path={exported_model}"]) == 0

        summary = json.loads(capfd.readouterr().out)
        assert (summary["photos"], summary["predicted"], summary["errors"]) == (10, 7, 3)
        assert list(summary["verdicts"]) == ["diagnosis", "uncertain", "not_cassava", "poor_photo"]
        assert list(summary["classes"]) == list(CLASS_NAMES)
        assert summary["photos_per_second"] > 0

    def test_the_base_install_writes_csv(self, scoring: Scoring, field: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "ray", None)

        assert score(scoring(f"score.input={field}", "score.output=a.csv")).photos == 10
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(MissingDependencyError, match=r"score.format=csv does not.*\[scale\]"):
            score(scoring(f"score.input={field}", "score.output=folder"))


class TestRefusals:
    def test_a_server_of_models_is_not_asked(self, scoring: Scoring, field: Path) -> None:
        with pytest.raises(ConfigError, match=r"infer.engine=triton"):
            score(scoring(f"score.input={field}", "infer.engine=triton", "infer.checkpoint_path=null"))

    def test_a_checkpoint_answers_with_a_hint(
        self, scoring: Scoring, field: Path, random_checkpoint: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        result = score(scoring(f"score.input={field}", f"infer.checkpoint_path={random_checkpoint}"))

        assert result.predicted == 7
        assert f"cassava export infer.checkpoint_path={random_checkpoint}" in caplog.text


class TestResume:
    def test_two_thousand_files_with_fifty_broken_ones_survive_a_kill(
        self, tmp_path: Path, leaves: Sequence[bytes], exported_model: Path, scoring: Scoring
    ) -> None:
        folder = tmp_path / "many"
        folder.mkdir()
        for number, leaf in enumerate(leaves):
            (tmp_path / f"leaf-{number}.jpg").write_bytes(leaf)
        for number in range(2000):
            photo = folder / f"{number:04}.jpg"
            if number % 40 == 7:
                photo.write_bytes(leaves[0][: 100 + number])
            else:
                os.link(tmp_path / f"leaf-{number % 7}.jpg", photo)
        words = (f"score.input={folder}", "score.part_rows=40", "infer.tta=flips")

        kill_after_parts(3, tmp_path, exported_model, *words, "score.output=killed")
        assert not (tmp_path / "killed" / "_score" / "summary.json").exists()
        resumed = score(scoring(*words, "score.output=killed", "score.resume=true"))
        whole = score(scoring(*words, "score.output=whole"))

        assert 3 * 40 <= resumed.resumed_photos < 2000
        assert (resumed.photos, resumed.predicted, resumed.errors) == (2000, 1950, 50)
        rows = read_parquet(resumed.output)
        assert [row["path"] for row in rows] == [f"{number:04}.jpg" for number in range(2000)]
        assert sum(row["error"] is None for row in rows) == 1950
        assert rows == read_parquet(whole.output)
        assert (resumed.verdicts, resumed.classes) == (whole.verdicts, whole.classes)

    def test_a_part_that_is_missing_or_not_in_the_journal_is_scored_again(self, scoring: Scoring, field: Path) -> None:
        words = (f"score.input={field}", "score.output=answers")
        first = score(scoring(*words))
        rows = read_parquet(first.output)
        state = first.output / "_score"
        (state / "summary.json").unlink()
        (first.output / "part-000000.parquet").unlink()
        (first.output / ".part-000001.parquet.0123abcd.tmp").touch()
        journal = (state / "journal.jsonl").read_text()
        (state / "journal.jsonl").write_text(journal[:-20])  # the last line was being written

        again = score(scoring(*words, "score.resume=true"))

        assert again.resumed_photos == 4
        assert read_parquet(again.output) == rows
        assert {path.name for path in again.output.iterdir()} == {
            "_score",
            *(f"part-{number:06}.parquet" for number in range(3)),
        }
        shutil.rmtree(state)
        with pytest.raises(ConfigError, match="something stands there already"):
            score(scoring(*words, "score.resume=true"))

    @pytest.mark.parametrize("output", ["answers", "answers.csv"])
    def test_a_finished_run_gives_its_result_again(self, scoring: Scoring, field: Path, output: str) -> None:
        words = (f"score.input={field}", f"score.output={output}", "score.resume=true")
        first = score(scoring(*words))

        assert score(scoring(*words)) == first

    def test_the_newest_unfinished_run_goes_on(self, scoring: Scoring, field: Path) -> None:
        words = (f"score.input={field}",)
        with pytest.raises(ConfigError, match="no unfinished run"):
            score(scoring(*words, "score.resume=true"))
        runs = [score(scoring(*words)) for _ in range(3)]
        for run in runs[:2]:
            (run.output / "_score" / "summary.json").unlink()

        assert score(scoring(*words, "score.resume=true")).output == runs[1].output

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ("score.part_rows=5", "score.part_rows=4; now score.part_rows=5"),
            ("infer.tta=flips", "infer.tta=none; now infer.tta=flips"),
            ("score.root=elsewhere", "score.root="),
        ],
    )
    def test_other_settings_are_refused(self, scoring: Scoring, field: Path, changed: str, told: str) -> None:
        words = (f"score.input={table_of(field)}", "score.output=answers")
        result = score(scoring(*words))
        (result.output / "_score" / "summary.json").unlink()

        with pytest.raises(ConfigError) as refused:
            score(scoring(*words, "score.resume=true", changed))
        assert told in str(refused.value)
        assert str(refused.value).endswith("or another score.output to score everything anew")

    def test_another_model_or_another_table_is_refused(
        self,
        scoring: Scoring,
        field: Path,
        tmp_path: Path,
        metadata: ModelMetadata,
        write_random_checkpoint: Callable[[Path, ModelMetadata], Path],
    ) -> None:
        table = table_of(field)
        model = write_random_checkpoint(tmp_path / "model.ckpt", metadata)
        words = (f"score.input={table}", "score.output=a.csv", f"infer.checkpoint_path={model}", "score.resume=true")
        score(scoring(*words))
        write_random_checkpoint(model, metadata.model_copy(update={"temperature": 2.0}))
        with pytest.raises(ConfigError, match="the model's SHA-256="):
            score(scoring(*words))
        write_random_checkpoint(model, metadata)
        table.write_text(table.read_text() + "one-more.jpg\n")
        with pytest.raises(ConfigError, match="the table's SHA-256="):
            score(scoring(*words))

    def test_photos_that_come_later_wait_for_another_run(
        self, scoring: Scoring, field: Path, leaves: Sequence[bytes]
    ) -> None:
        words = (f"score.input={field}", "score.output=answers")
        result = score(scoring(*words))
        (result.output / "_score" / "summary.json").unlink()
        (field / "a new one.jpg").write_bytes(leaves[0])
        (result.output / "part-000002.parquet").unlink()

        assert score(scoring(*words, "score.resume=true")).photos == 10

    def test_a_damaged_list_or_plan_is_told(self, scoring: Scoring, field: Path) -> None:
        words = (f"score.input={field}", "score.output=answers")
        state = score(scoring(*words)).output / "_score"
        (state / "summary.json").unlink()
        (state / "inputs.jsonl").write_text('"leaf 0.jpg"\n')
        with pytest.raises(DataError, match=r"inputs.jsonl: damaged"):
            score(scoring(*words, "score.resume=true"))
        (state / "plan.json").write_text("{}")
        with pytest.raises(DataError, match=r"plan.json: damaged"):
            score(scoring(*words, "score.resume=true"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's about its own settings
def test_both_engines_give_the_same_rows(scoring: Scoring, field: Path, served_models: tuple[Path, Path]) -> None:
    members = ",".join(f"'{path}'" for path in served_models)
    words = (f"score.input={field}", f"infer.checkpoint_path=[{members}]", "score.workers=1")
    local = score(scoring(*words))
    result = score(scoring(*words, "score.engine=ray", "score.ray.actors=2"))

    assert read_parquet(result.output) == read_parquet(local.output)
    assert the_same(result) == the_same(local)
    assert result.engine == "ray"


def the_same(result: ScoreResult) -> dict[str, Any]:
    return result.model_dump(exclude={"output", "engine", "seconds", "photos_per_second"})


def table_of(folder: Path) -> Path:
    """A list of a folder's photos, in it."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.jpg"))]
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder / "list.txt"


def kill_after_parts(parts: int, root: Path, model: Path, *words: str) -> None:
    """Runs the command in a process of its own, and kills it when so many parts stand."""
    command = [sys.executable, "-P", "-m", "cassava_leaf_disease", "score", f"infer.checkpoint_path={model}", *words]
    surroundings = {**os.environ, "CASSAVA_ROOT": str(root)}
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=surroundings)
        journal = root / "killed" / "_score" / "journal.jsonl"
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if journal.is_file() and journal.read_bytes().count(b"\n") >= parts:
                break
            time.sleep(0.002)
        process.kill()
        process.wait()
    stood = [json.loads(line)["part"] for line in journal.read_text().splitlines()]
    assert len(stood) >= parts, (root / "log").read_text()
