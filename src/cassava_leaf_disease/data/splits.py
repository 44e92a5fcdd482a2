"""Which photos train, which select and which test: stratified, and the same on every machine."""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

import numpy as np

from cassava_leaf_disease.config.schema import LimitsConfig, SplitConfig
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.files import write_text

Part = Literal["train", "val", "test"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
MANIFEST_COLUMNS = ("image_id", "label", "part")

_Units = list[tuple[LabeledPhoto, ...]]  # photos of one content stay together; the first one's label stands for all


@dataclass(frozen=True, slots=True)
class Split:
    """The photos of each part, sorted by image_id, and the settings that made them."""

    parts: Mapping[Part, tuple[LabeledPhoto, ...]]
    settings: SplitConfig

    @property
    def hash(self) -> str:
        """SHA-256 over the sorted lines `image_id,label,part`."""
        return hashlib.sha256("".join(_manifest_lines(self)).encode()).hexdigest()


def split_photos(
    photos: Sequence[LabeledPhoto],
    config: SplitConfig,
    limits: LimitsConfig,
    digests: Sequence[str] | None = None,
) -> Split:
    """Divides the photos; the order of `photos` does not matter.

    The test part is drawn first, by `seed` and `test_size` alone: it is the same for hold-out and for
    every fold. Limits then thin out the train and val parts. Photos with equal `digests` (the same file
    under two names) go to one part.

    Raises:
        DataError: A class with too few photos for the parts or folds.
    """
    order = sorted(range(len(photos)), key=lambda index: photos[index].image_id)
    units = _units([photos[i] for i in order], None if digests is None else [digests[i] for i in order])
    _check_enough(units, config)
    rest, test = _draw(units, round(config.test_size * len(units)), config.seed)
    if config.strategy == "holdout":
        train, val = _draw(rest, max(1, round(config.val_size * len(units))), config.seed)
    else:
        train, val = _fold(rest, config)
    _check_every_class({"train": train, "val": val, "test": test}, config)
    return Split(
        {
            "train": limit_photos(_photos(train), limits.max_train_samples, config.seed),
            "val": limit_photos(_photos(val), limits.max_val_samples, config.seed),
            "test": _photos(test),
        },
        config,
    )


def limit_photos(photos: Sequence[LabeledPhoto], max_samples: int | None, seed: int) -> tuple[LabeledPhoto, ...]:
    """At most `max_samples` photos with the class balance of all (largest remainders), sorted by image_id.

    Every class that is there keeps at least one photo. Within a class the photos with the smallest
    SHA-256 of `seed:image_id` stay, so that a smaller limit takes a subset of a larger one.
    """
    if max_samples is None or len(photos) <= max_samples:
        return tuple(photos)
    by_class: dict[int, list[LabeledPhoto]] = {}
    for photo in sorted(photos, key=lambda photo: hashlib.sha256(f"{seed}:{photo.image_id}".encode()).digest()):
        by_class.setdefault(photo.label, []).append(photo)
    shares = _largest_remainders({label: len(members) for label, members in by_class.items()}, max_samples)
    kept = (photo for label, members in by_class.items() for photo in members[: shares[label]])
    return tuple(sorted(kept, key=lambda photo: photo.image_id))


def write_manifest(split: Split, path: Path) -> None:
    """Writes `image_id,label,part`, sorted by image_id; whole or not at all."""
    write_text(path, ",".join(MANIFEST_COLUMNS) + "\n" + "".join(_manifest_lines(split)))


def read_manifest(path: Path) -> dict[str, tuple[int, Part]]:
    """What `write_manifest` wrote: image_id to label and part.

    Raises:
        DataError: The file is missing, or no such manifest, or names a photo twice.
    """
    manifest: dict[str, tuple[int, Part]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, restval=""):
                image_id, label, part = (row[name] for name in MANIFEST_COLUMNS)
                if image_id in manifest:
                    raise DataError(f"{path} names {image_id} twice; expected each photo once")
                manifest[image_id] = (range(NUM_CLASSES)[int(label)], PARTS[PARTS.index(cast("Part", part))])
    except OSError as error:
        raise DataError(f"no split manifest: {path} cannot be read ({error.strerror})") from None
    except (LookupError, ValueError, csv.Error):
        raise DataError(f"{path} is no split manifest; expected the columns {','.join(MANIFEST_COLUMNS)}") from None
    return manifest


def _manifest_lines(split: Split) -> list[str]:
    return sorted(
        f"{photo.image_id},{photo.label},{part}\n" for part, photos in split.parts.items() for photo in photos
    )


def _units(photos: Sequence[LabeledPhoto], digests: Sequence[str] | None) -> _Units:
    if digests is None:
        return [(photo,) for photo in photos]
    by_digest: dict[str, list[LabeledPhoto]] = {}
    for photo, digest in zip(photos, digests, strict=True):
        by_digest.setdefault(digest, []).append(photo)
    return [tuple(members) for members in by_digest.values()]


def _photos(units: _Units) -> tuple[LabeledPhoto, ...]:
    return tuple(sorted((photo for unit in units for photo in unit), key=lambda photo: photo.image_id))


def _labels(units: _Units) -> list[int]:
    return [unit[0].label for unit in units]


def _draw(units: _Units, size: int, seed: int) -> tuple[_Units, _Units]:
    """All but `size` units, and those: stratified."""
    if size == 0:
        return units, []
    from sklearn.model_selection import train_test_split

    kept, drawn = train_test_split(
        np.arange(len(units)), test_size=size, stratify=_labels(units), random_state=seed, shuffle=True
    )
    return [units[i] for i in sorted(kept)], [units[i] for i in sorted(drawn)]


def _fold(units: _Units, config: SplitConfig) -> tuple[_Units, _Units]:
    from sklearn.model_selection import StratifiedKFold

    _check_counts(units, config.folds, config)
    folds = StratifiedKFold(n_splits=config.folds, shuffle=True, random_state=config.seed)
    train, val = list(folds.split(np.zeros(len(units)), _labels(units)))[config.fold_index]
    return [units[i] for i in train], [units[i] for i in val]


def _check_enough(units: _Units, config: SplitConfig) -> None:
    """Before drawing: enough of every class, and parts large enough to hold all classes."""
    _check_counts(units, (config.folds if config.strategy == "kfold" else 2) + (config.test_size > 0), config)
    fractions = {"test_size": config.test_size}
    if config.strategy == "holdout":
        fractions["val_size"] = config.val_size
    sizes = {key: round(fraction * len(units)) for key, fraction in fractions.items() if fraction > 0}
    sizes["train"] = len(units) - sum(sizes.values())
    for key, size in sizes.items():
        if size < NUM_CLASSES:
            seen = f"data.split.{key}={fractions[key]}" if key in fractions else "data.split"
            mend = f"raise data.split.{key}" if key in fractions else "lower data.split.val_size or test_size"
            raise DataError(
                f"{seen} leaves {size} of {len(units)} photos to the {key.removesuffix('_size')} part, "
                f"too few for one of each of the {NUM_CLASSES} classes; {mend} or add photos"
            )


def _check_counts(units: _Units, needed: int, config: SplitConfig) -> None:
    counts = Counter(_labels(units))
    for label, name in enumerate(CLASS_NAMES):
        if counts[label] < needed:
            folds = f", folds={config.folds}" if config.strategy == "kfold" else ""
            raise DataError(
                f"class {label} ({name}) has {counts[label]} photos where {needed} or more are needed for "
                f"data.split.strategy={config.strategy} (test_size={config.test_size}{folds}); "
                "add photos of it or ask for fewer folds or parts"
            )


def _check_every_class(parts: Mapping[Part, _Units], config: SplitConfig) -> None:
    for part, units in parts.items():
        absent = [name for label, name in enumerate(CLASS_NAMES) if label not in set(_labels(units))]
        if absent and (part != "test" or config.test_size > 0):
            raise DataError(
                f"the {part} part holds no photo of {', '.join(absent)}: the class is too rare for "
                f"data.split.val_size={config.val_size} and test_size={config.test_size}; "
                "add photos of it or raise the sizes"
            )


def _largest_remainders(counts: Mapping[int, int], total: int) -> dict[int, int]:
    """Shares of `total` in proportion to `counts`, each at least 1; total >= len(counts)."""
    everything = sum(counts.values())
    exact = {label: total * count / everything for label, count in counts.items()}
    shares = {label: max(1, int(share)) for label, share in exact.items()}
    while sum(shares.values()) < total:
        label = max(shares, key=lambda label: (exact[label] - shares[label], -label))
        shares[label] += 1
    while sum(shares.values()) > total:  # the fuller classes pay for those that were lifted to 1
        label = max(
            (label for label in shares if shares[label] > 1),
            key=lambda label: (shares[label] - exact[label], -label),
        )
        shares[label] -= 1
    return shares
