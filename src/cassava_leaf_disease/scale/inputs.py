"""Which photos are scored, and their bytes: a folder, a table of paths, or what lies below a prefix of S3.

The list is written once, at the first start, a line a photo, and read from there: a million of them take no memory,
and a run that goes on later scores the photos that it began with.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cassava_leaf_disease.config.schema import ScoreConfig
from cassava_leaf_disease.data.folder import is_photo_name, no_photos, walk_photos
from cassava_leaf_disease.errors import ConfigError, DataError, MissingDependencyError
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_bytes
from cassava_leaf_disease.paths import resolve
from cassava_leaf_disease.storage.files import replacing
from cassava_leaf_disease.storage.s3_listing import S3Reader, list_objects, split_prefix
from cassava_leaf_disease.storage.s3_transfer import sha256_of

S3: Final = "s3://"
_TABLES: Final = (".csv", ".txt", ".parquet")


@dataclass(frozen=True)
class Source:
    """Where the list of photos comes from; `base` is the folder that relative paths in it start at."""

    where: str
    path: Path | None
    base: Path
    column: str

    @property
    def is_table(self) -> bool:
        """Whether a file names the photos."""
        return self.path is not None and self.path.is_file()

    @property
    def digest(self) -> str | None:
        """What tells a changed table; None of a folder and of a prefix, whose list is made once."""
        return sha256_of(self.path) if self.path is not None and self.is_table else None


@dataclass(frozen=True)
class Listing:
    """A written list of photos."""

    count: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """Neighbours in the list of photos, whose rows become one file; `first_row` is the place of the first."""

    number: int
    first_row: int
    paths: tuple[str, ...]


def find_source(settings: ScoreConfig) -> Source:
    """What `score.input` names.

    Raises:
        ConfigError: It is not set, or a file that is no table.
        DataError: It is not there.
    """
    if settings.input is None:
        raise ConfigError(
            "score.input is not set; type score.input=FOLDER of photos, score.input=photos.csv (a table of paths) or "
            "score.input=s3://bucket/prefix"
        )
    if settings.input.startswith(S3):
        return Source(settings.input, None, resolve("."), settings.path_column)
    path = resolve(settings.input)
    if path.is_dir():
        return Source(str(path), path, path, settings.path_column)
    if not path.is_file():
        raise DataError(f"score.input={path}: no such folder or table; expected one, or s3://bucket/prefix")
    if path.suffix.lower() not in _TABLES:
        raise ConfigError(
            f"score.input={path}: expected a folder, or a table of paths that ends in {', '.join(_TABLES)}"
        )
    return Source(str(path), path, settings.root or path.parent, settings.path_column)


def list_photos(source: Source) -> Iterator[str]:
    """The photos of a source, one after another, always in the same order.

    Raises:
        DataError: The table has no such column, or cannot be read.
        CassavaError: As `list_objects`.
    """
    if source.path is None:
        yield from filter(is_photo_name, list_objects(source.where))
    elif not source.is_table:
        yield from walk_photos(source.path, "score.input")
    elif source.path.suffix.lower() == ".parquet":
        yield from _parquet_paths(source.path, source.column)
    elif source.path.suffix.lower() == ".csv":
        yield from _csv_paths(source.path, source.column)
    else:
        with source.path.open(encoding="utf-8-sig") as file:
            yield from (name for line in file if (name := line.rstrip("\r\n")))


def write_listing(source: Source, path: Path) -> Listing:
    """Writes the list of photos, a line of JSON each.

    Raises:
        DataError: There are none, or as `list_photos`.
    """
    digest, count = hashlib.sha256(), 0
    with replacing(path) as file:
        try:
            for name in list_photos(source):
                line = json.dumps(name).encode() + b"\n"  # in ASCII: names may hold bytes that cannot be decoded
                digest.update(line)
                file.write(line)
                count += 1
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"score.input={source.where}: cannot be read ({error}); save it as UTF-8") from None
        if not count:
            raise no_photos(f"score.input={source.where}")
    return Listing(count, digest.hexdigest())


def is_remote(listing: Path) -> bool:
    """Whether the photos of a written list lie in S3, by the first of them."""
    with listing.open(encoding="ascii") as file:
        return str(json.loads(file.readline())).startswith(S3)


def read_parts(listing: Path, part_rows: int, done: frozenset[int]) -> Iterator[Part]:
    """The parts of a written list that are not done, one after another."""
    with listing.open(encoding="ascii") as file:
        number = 0
        while lines := list(islice(file, part_rows)):
            if number not in done:
                yield Part(number, number * part_rows, tuple(map(json.loads, lines)))
            number += 1


class PhotoReader:
    """The bytes of photos by their name in the list. Any number of threads may ask."""

    def __init__(self, base: Path, limits: DecodeLimits) -> None:
        self._base = base
        self._limits = limits
        self._s3 = S3Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._s3.__exit__(kind, error, trace)

    def read(self, name: str) -> bytes:
        """The content of a photo's file.

        Raises:
            DataError: There is no readable file, or the name is no address.
            ImageTooLargeError: It has more bytes than the limits allow.
            StorageError: S3 has no such object, or cannot be reached (`UnreachableError`).
        """
        if name.startswith(S3):
            try:
                split_prefix(name)
            except ConfigError as error:
                raise DataError(str(error)) from None  # of this line of a table; other settings are everybody's
            return self._s3.read(name, self._limits.max_bytes)
        return read_bytes(self._base / name, self._limits)


def _csv_paths(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if column not in (table.fieldnames or ()):
            raise _no_column(path, column, list(table.fieldnames or ()))
        yield from (row[column] or "" for row in table)


def _parquet_paths(path: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingDependencyError("pyarrow, which reads Parquet,", "scale") from None
    try:
        with parquet.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                raise _no_column(path, column, table.schema_arrow.names)
            for batch in table.iter_batches(columns=[column]):
                yield from (str(value or "") for value in batch.column(0).to_pylist())
    except pa.ArrowException as error:
        raise DataError(f"score.input={path}: no Parquet file that can be read ({error})") from None


def _no_column(path: Path, column: str, columns: list[str]) -> DataError:
    return DataError(
        f"score.input={path}: no column {column}, only {', '.join(columns) or 'an empty line'}; "
        "type score.path_column=NAME of the one that holds the paths"
    )
