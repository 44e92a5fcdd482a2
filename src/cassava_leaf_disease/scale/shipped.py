"""A model's files, packed to travel to other machines, and unpacked there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.ensemble import read_ensemble
from cassava_leaf_disease.inference.model_files import is_ensemble
from cassava_leaf_disease.paths import ENSEMBLE_FILE


@dataclass(frozen=True)
class ShippedModel:
    """The content of a model's files by name; `members` are the names of several that answer as one."""

    main: str
    files: Mapping[str, bytes]
    members: tuple[str, ...]
    source: ModelSource

    @property
    def digest(self) -> str:
        """What tells another model: of the contents, in their order."""
        each = (hashlib.sha256(content).hexdigest() for content in self.files.values())
        return hashlib.sha256("".join(each).encode()).hexdigest()

    def unpack(self, folder: Path) -> FoundModel:
        """Writes the files below `folder`, and names them as they were named."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return FoundModel(folder / self.main, self.source, tuple(folder / name for name in self.members))


def ship(found: FoundModel) -> ShippedModel:
    """The files of a model, whose names tell their kind as before.

    Raises:
        CheckpointError: One is missing, or an ensemble's file is damaged.
    """
    if found.members:
        files = _numbered(found.members)
        return ShippedModel(next(iter(files)), files, tuple(files), found.source)
    if not is_ensemble(found.path):
        return ShippedModel(found.path.name, {found.path.name: _read(found.path)}, (), found.source)
    path = found.path / ENSEMBLE_FILE if found.path.is_dir() else found.path
    description = read_ensemble(path)
    files = _numbered([path.parent / member.path for member in description.members])
    renamed = tuple(
        member.model_copy(update={"path": name}) for member, name in zip(description.members, files, strict=True)
    )
    written = description.model_copy(update={"members": renamed}).model_dump_json().encode()
    return ShippedModel(ENSEMBLE_FILE, {**files, ENSEMBLE_FILE: written}, (), found.source)


def _numbered(paths: "tuple[Path, ...] | list[Path]") -> dict[str, bytes]:
    """Contents by names that differ, whatever the files are called."""
    return {f"{number}-{path.name}": _read(path) for number, path in enumerate(paths)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a model file") from None
