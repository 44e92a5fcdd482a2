"""`cassava split`: the photos of a data set divided, once, into a file that trainings and evaluations then use."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig, DataConfig
from cassava_leaf_disease.data.digests import data_fingerprint, photo_digests
from cassava_leaf_disease.data.splits import (
    PARTS,
    Part,
    Split,
    limit_photos,
    read_manifest,
    split_photos,
    write_manifest,
)
from cassava_leaf_disease.data.table import LabeledPhoto, name_some, read_kaggle
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


class SplitResult(BaseModel):
    """The split file, and how many photos of each class each part has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: Path
    photos: dict[str, int]
    classes: dict[str, dict[str, int]]
    data_fingerprint: str
    split_hash: str


@dataclass(frozen=True, slots=True)
class DividedPhotos:
    """The photos of a data set, sorted by image_id; in their parts; and the fingerprint of all of them."""

    photos: tuple[LabeledPhoto, ...]
    split: Split
    fingerprint: str


def split(config: AppConfig) -> SplitResult:
    """Divides the photos under `paths.data_dir` as `data.split` says and writes `data.split.manifest`.

    Raises:
        ConfigError: No file to write was named.
        DataError: The photos or their table are missing or wrong, or too few for the split.
    """
    manifest = config.data.split.manifest
    if manifest is None:
        raise ConfigError(
            "data.split.manifest is not set; type data.split.manifest=split.csv, the file to write"
            + (", and data.synthetic.enabled=false after `cassava prepare`" if config.data.synthetic.enabled else "")
        )
    settings = config.data.split.changed(manifest=None)
    divided = divide_photos(config.changed(data=config.data.changed(split=settings)))
    write_manifest(divided.split, manifest)
    parts = divided.split.parts
    return SplitResult(
        manifest=manifest,
        photos={part: len(parts[part]) for part in PARTS},
        classes={part: count_classes(parts[part]) for part in PARTS},
        data_fingerprint=divided.fingerprint,
        split_hash=divided.split.hash,
    )


def divide_photos(config: AppConfig) -> DividedPhotos:
    """Reads the table and divides the photos, or takes the parts that `data.split.manifest` names; decodes none.

    Raises:
        DataError: The photos or their table are missing or wrong, too few, or not those of the manifest.
    """
    photos = read_kaggle(config.paths.data_dir)
    digests = photo_digests(photos, config.paths.cache_dir if config.data.cache.enabled else None)
    manifest = config.data.split.manifest
    if manifest is None:
        divided = split_photos(photos, config.data.split, config.data.limits, digests)
    else:
        divided = split_as_written(manifest, photos, digests, config.data)
    return DividedPhotos(photos, divided, data_fingerprint(photos, digests))


def split_as_written(
    manifest: Path, photos: Sequence[LabeledPhoto], digests: Sequence[str], settings: DataConfig
) -> Split:
    """The split that a manifest holds, for `photos` sorted by image_id; limits thin it out as they do a drawn one.

    Raises:
        DataError: Its photos are missing or labelled otherwise in the table, the same picture stands in two
            parts, or a class is missing in training or validation.
    """
    written = read_manifest(manifest)
    _check_table(manifest, written, photos)
    parts: dict[Part, list[LabeledPhoto]] = {part: [] for part in PARTS}
    places: dict[str, dict[Part, str]] = {}  # digest -> the parts that hold this picture, and under which name
    for photo, digest in zip(photos, digests, strict=True):
        if photo.image_id in written:
            part = written[photo.image_id][1]
            parts[part].append(photo)
            places.setdefault(digest, {})[part] = photo.image_id
    _check_leaks(manifest, [found for found in places.values() if len(found) > 1])
    _check_classes(manifest, parts)
    limits, seed = settings.limits, settings.split.seed
    return Split(
        {
            "train": limit_photos(parts["train"], limits.max_train_samples, seed),
            "val": limit_photos(parts["val"], limits.max_val_samples, seed),
            "test": tuple(parts["test"]),
        },
        settings.split,
    )


def count_classes(photos: Sequence[LabeledPhoto]) -> dict[str, int]:
    """How many photos each class has, by name in class order."""
    counts = Counter(photo.label for photo in photos)
    return {name: counts[label] for label, name in enumerate(CLASS_NAMES)}


def _check_table(manifest: Path, written: Mapping[str, tuple[int, Part]], photos: Sequence[LabeledPhoto]) -> None:
    labels = {photo.image_id: photo.label for photo in photos}
    missing = [name for name in written if name not in labels]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(written)} photos in {manifest} are not in the table of paths.data_dir: "
            f"{name_some(missing)}; {_MEND}"
        )
    changed = [
        f"{name} ({label}, in the table {labels[name]})"
        for name, (label, _) in written.items()
        if labels[name] != label
    ]
    if changed:
        raise DataError(f"{manifest} has other labels for {len(changed)} photos: {name_some(changed)}; {_MEND}")
    if len(written) < len(labels):
        logger.info("%d of %d photos are in no part of %s", len(labels) - len(written), len(labels), manifest)


def _check_leaks(manifest: Path, leaks: Sequence[Mapping[Part, str]]) -> None:
    if leaks:
        shown = [" = ".join(f"{name} ({part})" for part, name in found.items()) for found in leaks]
        raise DataError(f"{manifest}: {len(leaks)} pictures stand in two parts: {name_some(shown)}; {_MEND}")


def _check_classes(manifest: Path, parts: Mapping[Part, Sequence[LabeledPhoto]]) -> None:
    for part in ("train", "val"):
        absent = [name for name, count in count_classes(parts[part]).items() if not count]
        if absent:
            raise DataError(f"{manifest}: its {part} part holds no photo of {', '.join(absent)}; {_MEND}")


_MEND = "name the photos that it was made from with paths.data_dir, or write it again with `cassava split`"
