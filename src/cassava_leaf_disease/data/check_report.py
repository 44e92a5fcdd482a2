"""What `cassava check-data` reports, and how its findings read in plain words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, computed_field

from cassava_leaf_disease.data.splits import Part
from cassava_leaf_disease.data.table import name_some

TOLD_CORNERS: Final = 0.01  # the share of photos with black corners from which on they are worth a line


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Size(_Record):
    """How many photos have this size in pixels, upright."""

    width: int
    height: int
    photos: int


class TableFault(_Record):
    """A row of the table that training would refuse."""

    line: int
    image_id: str
    what: str


class UnreadablePhoto(_Record):
    """A file that is no usable photo, and why."""

    image_id: str
    reason: str


class BlackCorners(_Record):
    """Photos whose four corners are black, and their share of each class in 0..1."""

    photos: int
    share_by_class: dict[str, float]


class ExactCopies(_Record):
    """Files of one content."""

    image_ids: tuple[str, ...]
    labels: tuple[int, ...]


class NearDuplicate(_Record):
    """Two photos that show the same picture.

    `symmetry` is what was done to the second; `distance` counts the differing bits of their perceptual hashes;
    `correlation` is that of their thumbnails; `points` counts those found in both photos, where the thumbnails
    alone did not decide. A photo that the split leaves out has no part.
    """

    image_ids: tuple[str, str]
    labels: tuple[int, int]
    parts: tuple[Part | None, Part | None]
    symmetry: str
    distance: int
    correlation: float
    points: int | None

    @property
    def across_parts(self) -> bool:
        """Whether one part of the split could learn what another is measured on."""
        return None not in self.parts and self.parts[0] != self.parts[1]


class LabelConflict(_Record):
    """The same picture under different labels; `exact` where the files are equal."""

    image_ids: tuple[str, ...]
    labels: tuple[int, ...]
    exact: bool


class DataReport(_Record):
    """A data set, looked through.

    `rows` counts those of the table, `readable` the photos that can be used, `classes` the rows with a usable
    name and label. `parts` are those of the configured split; `split_error` says why there is none.
    `across_parts` and `label_conflicts` repeat the duplicates that harm.
    """

    data_dir: Path
    rows: int
    readable: int
    classes: dict[str, int]
    sizes: tuple[Size, ...]
    aspect_ratios: dict[str, int]
    table_faults: tuple[TableFault, ...]
    files_missing: tuple[str, ...]
    files_without_row: tuple[str, ...]
    unreadable: tuple[UnreadablePhoto, ...]
    blank: tuple[str, ...]
    black_corners: BlackCorners
    exact_copies: tuple[ExactCopies, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    label_conflicts: tuple[LabelConflict, ...]
    across_parts: tuple[NearDuplicate, ...]
    parts: dict[str, int]
    split_error: str | None
    output_dir: Path
    seconds: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fit_to_train(self) -> bool:
        """Whether `cassava train` would accept these photos."""
        return not (self.table_faults or self.files_missing or self.unreadable or self.split_error)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, in plain words: first what training refuses, then what spoils its figures."""
        return (*_refused(self), *_harmful(self), *_worth_knowing(self))


def _refused(report: DataReport) -> list[str]:
    lines = []
    if report.table_faults:
        shown = [f"line {fault.line} ({fault.image_id!r}: {fault.what})" for fault in report.table_faults]
        lines.append(f"{_count(shown, 'row')} of train.csv cannot be used: {name_some(shown)}")
    if report.files_missing:
        lines.append(f"{_count(report.files_missing, 'row')} without a file: {name_some(report.files_missing)}")
    if report.unreadable:
        shown = [f"{photo.image_id} ({photo.reason})" for photo in report.unreadable]
        lines.append(f"{_count(shown, 'photo')} cannot be used: {name_some(shown)}")
    if report.split_error:
        lines.append(f"the configured split is impossible: {report.split_error}")
    return lines


def _harmful(report: DataReport) -> list[str]:
    lines = []
    if report.label_conflicts:
        shown = [
            f"{' = '.join(conflict.image_ids)} (labels {', '.join(map(str, conflict.labels))})"
            for conflict in report.label_conflicts
        ]
        lines.append(f"{_count(shown, 'picture')} with labels that contradict each other: {name_some(shown)}")
    if report.across_parts:
        shown = [
            f"{pair.image_ids[0]} ({pair.parts[0]}) = {pair.image_ids[1]} ({pair.parts[1]})"
            for pair in report.across_parts
        ]
        lines.append(
            f"{_count(shown, 'pair')} of near duplicates in two parts of the split, so that figures come out too "
            f"good: {name_some(shown)}"
        )
    corners = report.black_corners
    if corners.photos > TOLD_CORNERS * report.readable:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in corners.share_by_class.items())
        lines.append(
            f"{corners.photos} of {report.readable} photos have four black corners, as copies have that somebody "
            f"rotated; a network can learn the class from them where their shares differ: {shares}"
        )
    return lines


def _worth_knowing(report: DataReport) -> list[str]:
    lines = []
    if report.exact_copies:
        shown = [" = ".join(copies.image_ids) for copies in report.exact_copies]
        lines.append(f"{_count(shown, 'photo')} stored under several names: {name_some(shown)}")
    if report.near_duplicates:
        shown = [" = ".join(pair.image_ids) for pair in report.near_duplicates]
        lines.append(f"{_count(shown, 'pair')} of near duplicates: {name_some(shown)}")
    if report.blank:
        lines.append(f"{_count(report.blank, 'photo')} of one brightness all over: {name_some(report.blank)}")
    if report.files_without_row:
        names = report.files_without_row
        lines.append(f"{_count(names, 'file')} in train_images that no row names: {name_some(names)}")
    return lines


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"
