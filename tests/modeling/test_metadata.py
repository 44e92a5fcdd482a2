"""A model file describes itself, and what it says is checked on reading."""

import json
import math
from typing import Any

import pytest

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.metadata import ModelMetadata, parse_metadata


def changed(metadata: ModelMetadata, **changes: Any) -> str:
    """The JSON of a self-description, changed by hand."""
    return json.dumps(json.loads(metadata.model_dump_json()) | changes)


def test_self_description_survives_its_json(metadata: ModelMetadata) -> None:
    text = metadata.model_dump_json()

    assert parse_metadata(text, "a.ckpt") == metadata
    assert set(json.loads(text)) >= {
        *("format_version", "backbone", "class_names", "preprocessing", "temperature", "thresholds", "metrics"),
        *("data_fingerprint", "split", "git_commit", "created_at", "licence_notes"),
    }


def test_defaults_are_the_contract_s_classes_and_an_untouched_temperature(metadata: ModelMetadata) -> None:
    assert metadata.class_names == CLASS_NAMES
    assert (metadata.format_version, metadata.temperature, metadata.thresholds.min_confidence) == (1, 1.0, 0.5)
    assert metadata.licence_notes


def test_metrics_of_a_diverged_run_survive_as_valid_json(metadata: ModelMetadata) -> None:
    diverged = metadata.model_copy(update={"metrics": {"val/loss": math.nan, "val/acc": math.inf}})
    text = diverged.model_dump_json()

    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    read = parse_metadata(text, "a.ckpt").metrics
    assert math.isnan(read["val/loss"])
    assert read["val/acc"] == math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2, this package reads 1; type pip install -U"),
        ({"format_version": None}, "format version None"),
        ({"format_version": 2, "surprise": 1}, "format version 2"),
        ({"surprise": 1}, r"is wrong \(surprise: Extra inputs are not permitted\)"),
        ({"temperature": 0}, r"is wrong \(temperature: .*greater than 0"),
        ({"epoch": None}, r"is wrong \(epoch: "),
        ({"split": {}}, r"is wrong \(split.strategy: Field required\)"),
        ({"class_names": ["Rust", "Healthy"]}, "the model tells apart Rust, Healthy; expected Cassava Bacterial"),
        ({"class_names": []}, "tells apart nothing"),
        ({"class_names": list(reversed(CLASS_NAMES))}, "the model tells apart Healthy, Cassava Mosaic"),
    ],
)
def test_what_does_not_fit_is_told_with_its_key(changes: dict[str, Any], message: str, metadata: ModelMetadata) -> None:
    with pytest.raises(CheckpointError, match=rf"^a\.ckpt: .*{message}"):
        parse_metadata(changed(metadata, **changes), "a.ckpt")


@pytest.mark.parametrize(("text", "message"), [("", "no JSON"), ("{", "no JSON"), ("[1]", "version None")])
def test_what_is_no_self_description_is_told(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_metadata(text, "a.ckpt")
