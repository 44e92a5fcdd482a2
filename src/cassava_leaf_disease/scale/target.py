"""Where rows go: one file, or a folder of parts."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cassava_leaf_disease.config.schema import AppConfig, ScoreConfig
from cassava_leaf_disease.errors import ConfigError, MissingDependencyError
from cassava_leaf_disease.paths import create_version_dir, version_dirs
from cassava_leaf_disease.scale.journal import RunFolder
from cassava_leaf_disease.scale.rows import TableFormat

_FILES: Final[Mapping[str, TableFormat]] = {".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Target:
    """The folder of the parts, and the one file that they become in the end, if one was asked for."""

    folder: RunFolder
    table: TableFormat
    file: Path | None

    @property
    def output(self) -> Path:
        """What the user finds them by."""
        return self.file or self.folder.parts_dir

    @property
    def is_taken(self) -> bool:
        """Whether something stands there."""
        parts = self.folder.parts_dir
        others = parts.is_dir() and any(path != self.folder.state_dir for path in parts.iterdir())
        return others or self.folder.is_begun or (self.file is not None and self.file.exists())


def find_target(config: AppConfig) -> Target:
    """What `score.output` names; where it names nothing, the next folder, or the newest unfinished one.

    Raises:
        ConfigError: Something stands there already, or there is nothing to go on with.
        MissingDependencyError: Parquet needs a library that is not installed.
    """
    settings = config.score
    if settings.output is not None:
        target = _named(settings.output, settings)
    elif settings.resume:
        target = _named(_newest_unfinished(config.paths.outputs_dir / "score"), settings)
    else:
        target = _named(create_version_dir(config.paths.outputs_dir / "score"), settings)
    if target.table == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingDependencyError("pyarrow, which Parquet needs (score.format=csv does not),", "scale")
    if target.is_taken and not (settings.resume and target.folder.is_begun):
        raise ConfigError(
            f"score.output={target.output}: something stands there already; type score.resume=true to go on with an "
            "unfinished run, or another score.output"
        )
    return target


def _named(output: Path, settings: ScoreConfig) -> Target:
    if "s3:" in output.parts:
        raise ConfigError("score.output: rows are written on this machine; type a path here, and copy the file to S3")
    table = _FILES.get(output.suffix.lower())
    if table is not None:
        return Target(RunFolder(output.with_name(f"{output.name}.parts")), table, output)
    if output.is_file():
        raise ConfigError(f"score.output={output}: a file; expected a folder, or a name that ends in .parquet or .csv")
    return Target(RunFolder(output), "csv" if settings.format == "csv" else "parquet", None)


def _newest_unfinished(parent: Path) -> Path:
    folders = [RunFolder(path) for path in version_dirs(parent)]
    unfinished = [folder for folder in folders if folder.is_begun and not folder.summary_path.is_file()]
    if not unfinished:
        raise ConfigError(
            f"score.resume=true: no unfinished run under {parent}; leave score.resume out to start a new one"
        )
    return unfinished[-1].parts_dir
