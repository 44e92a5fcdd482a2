"""Pseudo-labels: a model's confident answers about a folder of photos, and a training that learns from them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig, PseudoLabelConfig
from cassava_leaf_disease.data.synthetic import draw_leaf, write_synthetic_dataset
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.pseudo_label import Answers, choose, pseudo_label

SmallConfig = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """A data set of 60 drawn leaves."""
    write_synthetic_dataset(tmp_path / "leaves", 60, 64, 0)
    return tmp_path / "leaves"


@pytest.fixture
def field(tmp_path: Path, leaves: Path) -> Path:
    """A folder as people have it: 12 leaves in two folders, a copy, a labelled photo, and what is no photo."""
    folder = tmp_path / "field"
    (folder / "Kläranlage süd").mkdir(parents=True)
    for number in range(12):
        place = folder / ("Kläranlage süd" if number % 2 else ".") / f"leaf {number}.jpg"
        Image.fromarray(draw_leaf(1000 + number, number % 5, 96)).save(place, quality=95)
    shutil.copy(folder / "leaf 0.jpg", folder / "leaf 0 (copy).JPG")
    shutil.copy(next((leaves / "train_images").iterdir()), folder / "known.jpg")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def labelling(
    small_config: SmallConfig, leaves: Path, field: Path, random_checkpoint: Path
) -> Callable[..., AppConfig]:
    words = (
        *("data.synthetic.enabled=false", f"paths.data_dir={leaves}", "infer.device=cpu"),
        *(f"pseudo_label.images_dir={field}", f"infer.checkpoint_path={random_checkpoint}"),
    )
    return lambda *more: small_config(*words, *more)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_photo_is_accounted_for(labelling: SmallConfig) -> None:
    result = pseudo_label(labelling("pseudo_label.min_confidence=0.2"))

    assert result.found == 15
    assert sum(result.kept.values()) == 12
    assert (result.labeled, result.copies, result.unsure, result.contradicted, result.over_limit) == (1, 1, 0, 0, 0)
    assert list(result.unreadable) == ["broken.png"]
    rows = read_rows(result.csv_path)
    assert {row["path"] for row in rows} >= {"leaf 2.jpg", "Kläranlage süd/leaf 1.jpg"}
    for row in rows:
        assert sum(float(row[f"prob_{index}"]) for index in range(5)) == pytest.approx(1, abs=1e-5)
    summary = json.loads((result.csv_path.parent / "pseudo_labels.json").read_text(encoding="utf-8"))
    assert summary == result.model_dump(mode="json")


def test_only_sure_answers_are_kept(labelling: SmallConfig, caplog: pytest.LogCaptureFixture) -> None:
    everything = pseudo_label(labelling("pseudo_label.min_confidence=0.2"))
    confidences = [max(float(row[f"prob_{index}"]) for index in range(5)) for row in read_rows(everything.csv_path)]
    middle = float(np.median(confidences))

    some = pseudo_label(labelling(f"pseudo_label.min_confidence={middle:.6f}"))
    assert (sum(some.kept.values()), some.unsure) == (6, 6)
    assert some.csv_path.parent.name == "version_1"

    none = pseudo_label(labelling("pseudo_label.min_confidence=1.0"))
    assert (sum(none.kept.values()), none.unsure) == (0, 12)
    assert "no photo was kept; lower pseudo_label.min_confidence=1.0" in caplog.text


def test_members_that_name_different_classes_keep_a_photo_out(
    labelling: SmallConfig,
    random_checkpoint: Path,
    write_random_checkpoint: WriteCheckpoint,
    metadata: ModelMetadata,
    tmp_path: Path,
) -> None:
    other = write_random_checkpoint(
        tmp_path / "other.ckpt", metadata.model_copy(update={"backbone": "test_efficientnet", "name": "other"})
    )
    both = f"infer.checkpoint_path=[{random_checkpoint},{other}]"
    words = (both, "pseudo_label.min_confidence=0.2")
    asked = pseudo_label(labelling(*words, "pseudo_label.members_agree=true"))
    unasked = pseudo_label(labelling(*words))
    assert asked.contradicted > 0
    assert sum(asked.kept.values()) + asked.contradicted + asked.unsure == 12
    assert (sum(unasked.kept.values()) + unasked.unsure, unasked.contradicted) == (12, 0)


def settings(small_config: SmallConfig, *words: str) -> PseudoLabelConfig:
    return small_config(*(f"pseudo_label.{word}" for word in words)).pseudo_label


def answers_about(labels: list[int], confidences: list[float]) -> Answers:
    """Photos whose answers name these classes with these probabilities."""
    rows = np.full((len(labels), 5), (1 - np.array(confidences)[:, None]) / 4)
    rows[np.arange(len(labels)), labels] = confidences
    return Answers([f"{index}.jpg" for index in range(len(labels))], rows, np.ones(len(labels), np.bool_), {})


def test_of_each_class_the_surest_are_kept_up_to_the_bounds(small_config: SmallConfig) -> None:
    answers = answers_about([3, 3, 3, 3, 0, 0], [0.91, 0.99, 0.93, 0.97, 0.95, 0.92])
    labeled = np.array([1.0, 9.0, 9.0, 9.0, 9.0])

    most = choose(answers, settings(small_config, "max_per_class=2"), labeled)
    assert most.rows == [1, 3, 4, 5]
    assert most.over_limit == 2

    balanced = choose(answers, settings(small_config, "max_per_class=3", "max_ratio=1.5"), labeled)
    assert balanced.rows == [1, 2, 3, 4]
    assert balanced.by_class == dict(zip(CLASS_NAMES, (1, 0, 0, 3, 0), strict=True))
    assert balanced.over_limit == 2


def test_a_training_learns_from_the_table(labelling: SmallConfig, field: Path) -> None:
    table = pseudo_label(labelling("pseudo_label.min_confidence=0.2")).csv_path
    words = (f"data.extra.csv_path={table}", f"data.extra.images_dir={field}", "data.split.val_size=0.2")
    result = train(labelling(*words, "train.epochs=1"))
    assert result.photos["extra"] == 12
    assert result.photos["train"] + result.photos["val"] + result.photos["test"] == 60


def test_a_missing_and_an_empty_folder_are_told(labelling: SmallConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"pseudo_label\.images_dir is not set; type pseudo_label\.images_dir=FOLDER"):
        pseudo_label(labelling("pseudo_label.images_dir=null"))
    with pytest.raises(DataError, match=r"pseudo_label\.images_dir=.*nowhere: no such folder"):
        pseudo_label(labelling(f"pseudo_label.images_dir={tmp_path / 'nowhere'}"))
    with pytest.raises(DataError, match=r"empty: no photos; expected files that end in \.jpg, \.jpeg, \.png"):
        pseudo_label(labelling(f"pseudo_label.images_dir={tmp_path / 'empty'}"))
