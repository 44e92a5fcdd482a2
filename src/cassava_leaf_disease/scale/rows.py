"""A row of the result for each photo, and the files that hold rows: Parquet or CSV, whole or not at all."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from cassava_leaf_disease.data.extra import PROBABILITY_COLUMNS
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.storage.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

TableFormat = Literal["parquet", "csv"]

REASON_SEPARATOR: Final = " | "  # in CSV, which has no lists


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What is known of a photo before anything is said about it; None from where it could not be read on."""

    size_bytes: int | None = None
    width_px: int | None = None
    height_px: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is written about one photo: `Prediction`, flattened, or in `error` why there is none.

    `row` is its place in the list of photos, from 0. `foreign` is how unlike a cassava leaf it is (see `Check`), null
    where the model file has no gate.
    """

    row: int
    path: str
    error: str | None = None
    verdict: str | None = None
    predicted_class_id: int | None = None
    class_name: str | None = None
    confidence: float | None = None
    prob_0: float | None = None
    prob_1: float | None = None
    prob_2: float | None = None
    prob_3: float | None = None
    prob_4: float | None = None
    foreign: float | None = None
    reasons: tuple[str, ...] | None = None
    size_bytes: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    model_name: str | None = None
    model_version: str | None = None

    @classmethod
    def answered(cls, row: int, path: str, facts: PhotoFacts, answer: Prediction) -> Self:
        """The row of a photo that was answered."""
        prob_0, prob_1, prob_2, prob_3, prob_4 = answer.probabilities.values()
        return cls(
            row=row,
            path=writable(path),
            verdict=answer.verdict,
            predicted_class_id=answer.predicted_class_id,
            class_name=answer.class_name,
            confidence=answer.confidence,
            prob_0=prob_0,
            prob_1=prob_1,
            prob_2=prob_2,
            prob_3=prob_3,
            prob_4=prob_4,
            foreign=next((check.value for check in answer.checks if check.name == "foreign"), None),
            reasons=answer.reasons,
            size_bytes=facts.size_bytes,
            width_px=facts.width_px,
            height_px=facts.height_px,
            model_name=answer.model.name,
            model_version=answer.model.version,
        )

    @classmethod
    def failed(cls, row: int, path: str, facts: PhotoFacts, error: CassavaError) -> Self:
        """The row of a photo that cannot be used."""
        return cls(
            row=row,
            path=writable(path),
            error=writable(str(error)),
            size_bytes=facts.size_bytes,
            width_px=facts.width_px,
            height_px=facts.height_px,
        )


COLUMNS: Final = tuple(field.name for field in fields(Row))
_values: Final = attrgetter(*COLUMNS)


def writable(text: str) -> str:
    """Text as UTF-8 can hold it: names of files may have bytes that cannot be decoded."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def rows_as_json(rows: Sequence[Row]) -> str:
    """Rows for another process; `rows_from_json` gives exactly the same ones back."""
    return json.dumps([_values(row) for row in rows])


def rows_from_json(text: str) -> list[Row]:
    """What `rows_as_json` wrote."""
    named = (dict(zip(COLUMNS, values, strict=True)) for values in json.loads(text))
    return [Row(**{**row, "reasons": None if row["reasons"] is None else tuple(row["reasons"])}) for row in named]


def write_rows(path: Path, rows: Sequence[Row], kind: TableFormat) -> None:
    """Replaces `path` whole with a table of the rows."""
    if kind == "csv":
        content = csv_header() + _csv_lines([_csv_cells(row) for row in rows])
        with replacing(path) as file:
            file.write(content)
        return
    import pyarrow as pa
    from pyarrow import parquet

    columns = zip(*map(_values, rows), strict=True)
    table = pa.Table.from_pydict(dict(zip(COLUMNS, map(list, columns), strict=True)), schema=parquet_schema())
    with replacing(path) as file:
        parquet.write_table(table, file)


def join_tables(parts: Iterable[Path], path: Path, kind: TableFormat) -> None:
    """Replaces `path` whole with the rows of all parts, one part after another in memory."""
    with replacing(path) as file:
        if kind == "csv":
            header = csv_header()
            file.write(header)
            for part in parts:
                file.write(part.read_bytes()[len(header) :])
            return
        from pyarrow import parquet

        with parquet.ParquetWriter(file, parquet_schema()) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part))


def csv_header() -> bytes:
    """The first line of a table in CSV."""
    return _csv_lines([COLUMNS])


def parquet_schema() -> "pa.Schema":
    """The types of the columns in Parquet."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        **{name: pa.int64() for name in ("row", "size_bytes")},
        **{name: pa.int32() for name in ("predicted_class_id", "width_px", "height_px")},
        **{name: pa.float64() for name in ("confidence", "foreign", *PROBABILITY_COLUMNS)},
        "reasons": pa.list_(pa.string()),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def _csv_cells(row: Row) -> list[object]:
    cells = dict(zip(COLUMNS, _values(row), strict=True))
    return list({**cells, "reasons": REASON_SEPARATOR.join(row.reasons or ())}.values())


def _csv_lines(lines: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()
