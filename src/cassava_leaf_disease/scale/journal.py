"""What a run remembers on disk, so that another start goes on after the last part that was finished.

In the folder of the parts lies `_score/` (readers of Parquet folders pass over names with `_`):

    plan.json       what is scored, with which model and settings; written last of all that a start prepares
    inputs.jsonl    the list of photos, a line each
    journal.jsonl   a line for each part that stands
    summary.json    the result of a finished run

A part is written beside its place, moved there whole, and then entered in the journal. Killed in between, it is
written again and replaces itself: part K always holds the same rows, so none is lost and none doubled.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.scale.rows import Row, TableFormat
from cassava_leaf_disease.storage.files import remove_leftovers, write_json

MAX_EXAMPLES: Final = 5  # errors that a summary shows


class Plan(BaseModel):
    """What a run does; `settings` are those that its rows depend on, by the keys that users type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    photos: int
    listing_sha256: str
    part_rows: int
    table: TableFormat
    settings: dict[str, str | int | float | None]


class PartRecord(BaseModel):
    """A line of the journal: a part that stands, and what its rows count up to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: int
    rows: int
    errors: int
    verdicts: dict[str, int]
    classes: dict[str, int]
    examples: tuple[str, ...]

    @classmethod
    def of(cls, part: int, rows: Sequence[Row]) -> Self:
        """The record of a part's rows."""
        errors = [row.error for row in rows if row.error is not None]
        return cls(
            part=part,
            rows=len(rows),
            errors=len(errors),
            verdicts=dict(Counter(row.verdict for row in rows if row.verdict is not None)),
            classes=dict(Counter(row.class_name for row in rows if row.class_name is not None)),
            examples=tuple(errors[:MAX_EXAMPLES]),
        )


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie, and what it remembers."""

    parts_dir: Path

    @property
    def state_dir(self) -> Path:
        """What is remembered."""
        return self.parts_dir / "_score"

    @property
    def plan_path(self) -> Path:
        """What is scored."""
        return self.state_dir / "plan.json"

    @property
    def listing_path(self) -> Path:
        """The list of photos."""
        return self.state_dir / "inputs.jsonl"

    @property
    def summary_path(self) -> Path:
        """The result; it is there when the run is finished."""
        return self.state_dir / "summary.json"

    def part_path(self, number: int, table: TableFormat) -> Path:
        """The file of a part."""
        return self.parts_dir / f"part-{number:06}.{table}"

    def part_paths(self, plan: Plan) -> list[Path]:
        """The files of all parts, in order."""
        return [self.part_path(number, plan.table) for number in range(-(-plan.photos // plan.part_rows))]

    @property
    def is_begun(self) -> bool:
        """Whether a run has a plan here."""
        return self.plan_path.is_file()

    def clear_leftovers(self) -> None:
        """Removes what a killed start left half written."""
        for folder in (self.parts_dir, self.state_dir):
            remove_leftovers(folder)

    def write_plan(self, plan: Plan) -> None:
        """Begins the run."""
        write_json(self.plan_path, plan.model_dump(mode="json"))

    def read_plan(self) -> Plan:
        """The plan of a run that was begun.

        Raises:
            DataError: It is damaged.
        """
        try:
            return Plan.model_validate_json(self.plan_path.read_bytes())
        except (OSError, ValidationError):
            raise DataError(
                f"{self.plan_path}: damaged, or of another version; type another score.output to score anew"
            ) from None

    def read_journal(self, plan: Plan) -> dict[int, PartRecord]:
        """The parts that stand, by number; a line that a killed start left unfinished does not count."""
        records: dict[int, PartRecord] = {}
        for line in self._lines():
            try:
                record = PartRecord.model_validate_json(line)
            except ValidationError:
                continue
            if self.part_path(record.part, plan.table).is_file():
                records[record.part] = record
        return records

    @contextmanager
    def journal(self) -> Iterator["Journal"]:
        """The journal, opened to enter parts."""
        path = self.state_dir / "journal.jsonl"
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        with path.open("ab") as file:
            if torn:
                file.write(b"\n")
            yield Journal(file.fileno())

    def _lines(self) -> list[bytes]:
        path = self.state_dir / "journal.jsonl"
        return path.read_bytes().splitlines() if path.is_file() else []


@dataclass(frozen=True)
class Journal:
    """A journal that is open."""

    descriptor: int

    def enter(self, record: PartRecord) -> None:
        """Adds a part that stands; on disk when this returns."""
        os.write(self.descriptor, record.model_dump_json().encode() + b"\n")
        os.fsync(self.descriptor)


def refuse_changes(begun: Mapping[str, object], now: Mapping[str, object], folder: Path) -> None:
    """Lets a run go on only with what it was begun with.

    Raises:
        ConfigError: What has changed, by its keys.
    """
    changed = [key for key in now if begun.get(key) != now[key]]
    if changed:
        was = ", ".join(f"{key}={_typed(begun.get(key))}" for key in changed)
        seen = ", ".join(f"{key}={_typed(now[key])}" for key in changed)
        raise ConfigError(
            f"score.resume=true: {folder} was begun with {was}; now {seen}. Its rows would not be of one kind: type "
            "what it was begun with, or another score.output to score everything anew"
        )


def _typed(value: object) -> str:
    return "null" if value is None else str(value) if not isinstance(value, bool) else json.dumps(value)
