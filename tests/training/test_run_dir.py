"""`train.run_dir`: a run in a folder of one's own; and trainings on a split file, measured afterwards."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.divide import split
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.paths import METRICS_FILE, newest_best_checkpoint
from cassava_leaf_disease.training.crossval import crossval
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.run_folder import CONFIG_FILE

SmallConfig = Callable[..., AppConfig]

HERE = "train.run_dir=outputs/my run"


def test_run_goes_to_the_named_folder(small_config: SmallConfig, tmp_path: Path) -> None:
    result = train(small_config(HERE, "train.epochs=1"))

    assert result.run_dir == tmp_path / "outputs" / "my run"
    assert (
        newest_best_checkpoint(tmp_path / "outputs")
        == result.checkpoint
        == result.run_dir / "checkpoints" / "best.ckpt"
    )
    assert not (tmp_path / "outputs" / "runs").exists()


def test_run_that_stands_there_is_not_replaced(small_config: SmallConfig) -> None:
    finished = train(small_config(HERE, "train.epochs=1")).run_dir
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    with pytest.raises(ConfigError, match=r"my run: a run stands there; name another folder or remove this one"):
        train(small_config(HERE, "train.epochs=2"))

    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_unfinished_run_is_resumed_only_where_that_is_asked_for(small_config: SmallConfig) -> None:
    whole = train(small_config(HERE))
    (whole.run_dir / METRICS_FILE).unlink()

    with pytest.raises(
        ConfigError, match=r"a run stands there; type train\.resume=true to go on with it, name another"
    ):
        train(small_config(HERE))

    resumed = train(small_config(HERE, "train.resume=true"))
    assert (resumed.run_dir, resumed.metrics) == (whole.run_dir, whole.metrics)


@pytest.mark.parametrize("there", [True, False])
def test_finished_or_missing_folder_is_nothing_to_resume(
    small_config: SmallConfig, tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "outputs" / "my run").mkdir(parents=True)

    with pytest.raises(ConfigError, match=r"train\.resume=true: no unfinished run under .*my run; leave train\.resume"):
        train(small_config(HERE, "train.resume=true"))


def test_checkpoints_without_a_run_are_not_gone_on_from(small_config: SmallConfig) -> None:
    """What is left of a folder whose other files DVC has removed before it runs the stage again."""
    first = train(small_config(HERE, "train.epochs=2"))
    for name in (CONFIG_FILE, METRICS_FILE):
        (first.run_dir / name).unlink()

    second = train(small_config(HERE, "train.epochs=1", "train.save_checkpoints=false"))

    assert second.epochs == 1
    assert not list(first.run_dir.rglob("*.ckpt"))


@pytest.fixture
def on_photos(tmp_path: Path, small_config: SmallConfig) -> SmallConfig:
    """Settings for drawn leaves that lie there as photos, divided by a file."""
    write_synthetic_dataset(tmp_path / "data", 60, 64, seed=3)
    photos = (f"paths.data_dir={tmp_path / 'data'}", "data.synthetic.enabled=false", "train.epochs=1")
    sizes = ("data.split.val_size=0.2", "data.split.test_size=0.2")
    return lambda *overrides: small_config(*photos, *sizes, *overrides)


FILE = "data.split.manifest=split.csv"


def test_training_on_a_split_file_is_measured_with_it_and_without_it(on_photos: SmallConfig) -> None:
    made = split(on_photos(FILE, "data.split.seed=9"))

    run = train(on_photos(FILE, "data.split.seed=9"))

    assert (run.split_hash, run.data_fingerprint) == (made.split_hash, made.data_fingerprint)
    assert (run.run_dir / "split.csv").read_bytes() == made.manifest.read_bytes()
    with_file, without = evaluate(on_photos(FILE)), evaluate(on_photos())
    assert with_file.scores == without.scores
    assert with_file.scores.photos == made.photos["test"]


def test_split_file_of_one_s_own_is_the_only_way_to_its_test_part(on_photos: SmallConfig, tmp_path: Path) -> None:
    path = split(on_photos(FILE)).manifest
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    other_way = {"val": "test", "test": "val"}
    text = "".join(f"{name},{label},{other_way.get(part, part)}\n" for name, label, part in rows)
    path.write_text(text, encoding="utf-8")
    run = train(on_photos(FILE))

    with pytest.raises(DataError, match=r"type paths\.data_dir=FOLDER .*, data\.split\.manifest=RUN_FOLDER/split\.csv"):
        evaluate(on_photos())
    shutil.copy(run.run_dir / "split.csv", tmp_path / "kept.csv")
    assert evaluate(on_photos("data.split.manifest=kept.csv")).scores.photos == 12


def test_model_of_drawn_leaves_has_no_split_file(small_config: SmallConfig, on_photos: SmallConfig) -> None:
    split(on_photos(FILE))
    train(small_config("train.epochs=1"))

    with pytest.raises(
        DataError, match=r"trained on drawn leaves, which no split file names; type data\.split\.manifest=null"
    ):
        evaluate(on_photos(FILE))


def test_crossval_makes_its_own_folds(on_photos: SmallConfig) -> None:
    with pytest.raises(ConfigError, match=r"crossval makes its own folds, .* type data\.split\.manifest=null"):
        crossval(on_photos(FILE))
