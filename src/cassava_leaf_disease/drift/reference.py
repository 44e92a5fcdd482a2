"""What the model's answers look like on photos of its training data that it has not learned: a small file beside it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.drift.features import FEATURES, Counts, count, model_key
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.files import write_json

SUFFIX: Final = ".drift.json"
_MEND: Final = "type cassava drift reference infer.checkpoint_path=… where the model's training data lies"


class DriftReference(BaseModel):
    """Counts of a model's answers by feature and bin, of which model, and about which photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    model: str
    version: str
    data: str
    photos: int = Field(ge=1)
    counts: dict[str, tuple[int, ...]]
    created_at: str

    @field_validator("counts")
    @classmethod
    def _known_bins(cls, counts: dict[str, tuple[int, ...]]) -> Counts:
        if any(name not in FEATURES or len(FEATURES[name].bins) != len(bins) for name, bins in counts.items()):
            raise ValueError("features or bins of another version")
        return counts

    @property
    def key(self) -> str:
        """The model whose answers may be compared with it."""
        return model_key(self.model, self.version)


class ReferenceResult(BaseModel):
    """Where the reference lies, and what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    reference: DriftReference


def reference_path(model: Path) -> Path:
    """Where the reference of a model file lies: beside it."""
    return model.with_suffix(SUFFIX)


def load_reference(path: Path) -> DriftReference:
    """Reads a reference.

    Raises:
        DataError: There is none, or it is damaged.
    """
    try:
        return DriftReference.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_MEND}") from None
    except ValidationError:
        raise DataError(f"{path}: no reference of this version; {_MEND}") from None


def make_reference(config: AppConfig) -> ReferenceResult:
    """Lets a model answer about the validation photos of its split, or any table, and keeps the counts beside it.

    Raises:
        CassavaError: No model, no photos, or the photos are not those that the split was made from.
    """
    from cassava_leaf_disease.evaluation.predictions import judge_photos
    from cassava_leaf_disease.evaluation.selection import select_photos
    from cassava_leaf_disease.inference.ensemble import load_model
    from cassava_leaf_disease.inference.model_files import check_device

    check_device(config.infer.device, config.infer.checkpoint_path)
    predictor = load_model(config)
    chosen = config.changed(evaluate=config.evaluate.changed(part=config.drift.part))
    photos = select_photos(chosen, predictor)
    answers = judge_photos(predictor, photos.source, config.evaluate.batch_size)
    table = config.evaluate.csv_path
    reference = DriftReference(
        model=predictor.identity.name,
        version=predictor.identity.version,
        data=f"{config.drift.part} part of {config.paths.data_dir.name}" if table is None else table.name,
        photos=len(answers),
        counts=dict(count(answers)),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = config.drift.reference or reference_path(Path(predictor.identity.path))
    write_json(path, reference.model_dump(mode="json"))
    return ReferenceResult(path=path, reference=reference)
