"""The split: stratified, the same on every machine, with a test part that no recipe changes."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease.config.schema import LimitsConfig, SplitConfig
from cassava_leaf_disease.data.digests import photo_digests
from cassava_leaf_disease.data.splits import (
    PARTS,
    Part,
    Split,
    limit_photos,
    read_manifest,
    split_photos,
    write_manifest,
)
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle
from cassava_leaf_disease.errors import DataError

NO_LIMITS = LimitsConfig(max_train_samples=None, max_val_samples=None)


def settings(**changes: Any) -> SplitConfig:
    values = {
        "strategy": "holdout",
        "val_size": 0.1,
        "test_size": 0.15,
        "folds": 5,
        "fold_index": 0,
        "seed": 42,
        "manifest": None,
    }
    return SplitConfig.model_validate(values | changes)


def table(counts: Sequence[int]) -> list[LabeledPhoto]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [LabeledPhoto(f"{i:04d}.jpg", label, Path(f"{i:04d}.jpg")) for i, label in enumerate(labels)]


KAGGLE_LIKE = (20, 40, 60, 200, 80)


def names(split: Split, part: Part) -> set[str]:
    return {photo.image_id for photo in split.parts[part]}


@pytest.mark.parametrize("strategy", ["holdout", "kfold"])
@pytest.mark.parametrize("test_size", [0, 0.15])
def test_every_photo_is_in_exactly_one_part(strategy: str, test_size: float) -> None:
    photos = table(KAGGLE_LIKE)
    split = split_photos(photos, settings(strategy=strategy, test_size=test_size), NO_LIMITS)
    placed = [photo.image_id for part in PARTS for photo in split.parts[part]]
    assert sorted(placed) == [photo.image_id for photo in photos]
    assert bool(split.parts["test"]) == (test_size > 0)


def test_parts_have_their_sizes_and_the_class_balance_of_the_whole() -> None:
    split = split_photos(table(KAGGLE_LIKE), settings(), NO_LIMITS)
    assert {part: len(split.parts[part]) for part in PARTS} == {"train": 300, "val": 40, "test": 60}
    assert [Counter(photo.label for photo in split.parts["test"])[label] for label in range(5)] == [
        3,
        6,
        9,
        30,
        12,
    ]


def test_a_known_table_and_seed_give_a_known_hash() -> None:
    photos = table(KAGGLE_LIKE)
    holdout = split_photos(photos, settings(), NO_LIMITS)
    fold = split_photos(photos, settings(strategy="kfold", fold_index=3), NO_LIMITS)
    assert holdout.hash == "0331e84ab30491b42e718b0218021a6d1596f6c7271661c2e7c208fb6218a1f5"
    assert fold.hash == "d739e12213e4465d211fc4d0d9188ae7c40380d7f789050475206c130baa5f5e"


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    photos = table(KAGGLE_LIKE)
    shuffled = random.Random(0).sample(photos, len(photos))  # noqa: S311
    split = split_photos(photos, settings(), NO_LIMITS)
    assert split_photos(shuffled, settings(), NO_LIMITS) == split
    assert split_photos(photos, settings(seed=43), NO_LIMITS).hash != split.hash


def test_the_test_part_is_the_same_for_holdout_and_every_fold() -> None:
    photos = table(KAGGLE_LIKE)
    holdout = split_photos(photos, settings(), NO_LIMITS)
    assert split_photos(photos, settings(val_size=0.3), NO_LIMITS).parts["test"] == holdout.parts["test"]
    validated: list[str] = []
    for fold in range(5):
        split = split_photos(photos, settings(strategy="kfold", fold_index=fold), NO_LIMITS)
        assert split.parts["test"] == holdout.parts["test"]
        validated += names(split, "val")
    rest = names(holdout, "train") | names(holdout, "val")
    assert sorted(validated) == sorted(rest)  # the folds' validation parts cover the rest, once


def test_limits_thin_out_train_and_val_but_never_the_test_part() -> None:
    photos = table(KAGGLE_LIKE)
    limits = LimitsConfig(max_train_samples=50, max_val_samples=10)
    whole, limited = split_photos(photos, settings(), NO_LIMITS), split_photos(photos, settings(), limits)
    assert (len(limited.parts["train"]), len(limited.parts["val"])) == (50, 10)
    assert names(limited, "train") < names(whole, "train")
    assert names(limited, "val") < names(whole, "val")
    assert limited.parts["test"] == whole.parts["test"]
    assert limited.hash != whole.hash


@pytest.mark.parametrize(
    ("counts", "limit", "kept"),
    [
        ((20, 40, 60, 200, 80), 100, [5, 10, 15, 50, 20]),
        ((1, 1, 1, 1, 996), 10, [1, 1, 1, 1, 6]),
        ((1, 1, 1, 1, 996), 5, [1, 1, 1, 1, 1]),
        ((10, 10, 10, 10, 10), 7, [2, 2, 1, 1, 1]),
        ((3, 3, 3, 3, 3), 15, [3, 3, 3, 3, 3]),
        ((3, 3, 3, 3, 3), 100, [3, 3, 3, 3, 3]),
        ((0, 2, 0, 3, 100), 8, [0, 1, 0, 1, 6]),
    ],
)
def test_limits_keep_the_class_balance_and_every_class(counts: tuple[int, ...], limit: int, kept: list[int]) -> None:
    limited = limit_photos(table(counts), limit, seed=1)
    assert [sum(photo.label == label for photo in limited) for label in range(5)] == kept


def test_a_smaller_limit_takes_a_subset_of_a_larger_one() -> None:
    photos = table(KAGGLE_LIKE)
    small, large = set(limit_photos(photos, 40, seed=1)), set(limit_photos(photos, 90, seed=1))
    assert small < large
    assert set(limit_photos(photos, 40, seed=2)) != small


def test_the_same_file_under_two_names_stays_in_one_part() -> None:
    photos = table((40, 40, 40, 40, 40))
    digests = [f"{label}-{i // 2}" for i, label in enumerate(photo.label for photo in photos)]
    split = split_photos(photos, settings(), NO_LIMITS, digests)
    place = {photo.image_id: part for part in PARTS for photo in split.parts[part]}
    for first, second in zip(photos[::2], photos[1::2], strict=True):
        assert place[first.image_id] == place[second.image_id]


def test_different_files_split_the_same_with_digests_and_without() -> None:
    photos = table(KAGGLE_LIKE)
    digests = [f"{i}" for i in range(len(photos))]
    assert split_photos(photos, settings(), NO_LIMITS, digests) == split_photos(photos, settings(), NO_LIMITS)


@pytest.mark.parametrize(
    ("counts", "changes", "message"),
    [
        ((2, 40, 40, 40, 40), {}, r"class 0 \(Cassava Bacterial Blight\) has 2 photos where 3 or more"),
        ((40, 40, 0, 40, 40), {}, r"class 2 \(Cassava Green Mottle\) has 0 photos"),
        ((5, 9, 9, 9, 9), {"strategy": "kfold"}, r"has 5 photos where 6 or more .*folds=5"),
        ((7, 40, 40, 40, 40), {"strategy": "kfold", "test_size": 0.5}, r"has [34] photos where 5 or more"),
        (
            (4, 4, 4, 4, 4),
            {},
            r"test_size=0.15 leaves 3 of 20 photos to the test part.* raise data.split.test_size",
        ),
        ((8, 8, 8, 8, 8), {"val_size": 0.01}, r"val_size=0.01 leaves 0 of 40 photos to the val part"),
        (
            (5, 5, 5, 5, 5),
            {"val_size": 0.5, "test_size": 0.4},
            r"leaves 3 of 25 photos to the train part.* lower",
        ),
        ((3, 99, 99, 99, 99), {}, r"the \w+ part holds no photo of Cassava Bacterial Blight"),
    ],
)
def test_too_few_photos_are_a_clear_error(counts: tuple[int, ...], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        split_photos(table(counts), settings(**changes), NO_LIMITS)
    assert "\n" not in str(raised.value)


def test_the_manifest_says_where_every_photo_went(tmp_path: Path) -> None:
    split = split_photos(table(KAGGLE_LIKE), settings(), NO_LIMITS)
    path = tmp_path / "run" / "split.csv"
    write_manifest(split, path)
    assert path.read_bytes().startswith(b"image_id,label,part\n0000.jpg,0,")
    manifest = read_manifest(path)
    assert manifest == {p.image_id: (p.label, part) for part in PARTS for p in split.parts[part]}
    assert [entry.name for entry in path.parent.iterdir()] == ["split.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "image_id,label\na.jpg,1\n",
        "image_id,label,part\na.jpg,1,dev\n",
        "image_id,label,part\na.jpg,7,val\n",
        "image_id,label,part\na.jpg,x,val\n",
        "image_id,label,part\na.jpg\n",
    ],
)
def test_another_file_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match="is no split manifest; expected the columns image_id,label,part"):
        read_manifest(tmp_path / "split.csv")


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split manifest: .* cannot be read"):
        read_manifest(tmp_path / "split.csv")


def test_the_real_photos_are_all_different_and_split_as_recorded(shared_data: Path) -> None:
    photos = read_kaggle(shared_data / "cassava")
    digests = photo_digests(photos)
    assert len(set(digests)) == len(photos)
    split = split_photos(photos, settings(), NO_LIMITS, digests)
    assert {part: len(split.parts[part]) for part in PARTS} == {"train": 1840, "val": 245, "test": 368}
    assert split.hash == "f760022eeea079fb8a1903a06a330e1ab93b5dd6a916f6d9e5e52cbb1d033791"
