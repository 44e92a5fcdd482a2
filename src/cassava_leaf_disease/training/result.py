"""What a training run gives back."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class TrainResult(BaseModel):
    """The final figures of a run; `metrics.json` is this as JSON.

    `metrics` holds the best epoch's `val/…` and, measured once with the best weights, `test/…`.
    `intervals` are bootstrap 95% intervals of the test part; `confusion_matrix` its counts, true classes as
    rows. `seconds` is wall time of this process, data preparation included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_dir: Path
    checkpoint: Path | None
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confusion_matrix: list[list[int]] | None
    best_epoch: int | None
    epochs: int
    seconds: float
    photos: dict[str, int]
    backbone: str
    data_fingerprint: str
    split_hash: str
    seed: int
    hardware: str
    precision: str
    git_commit: str | None
    started_at: str
