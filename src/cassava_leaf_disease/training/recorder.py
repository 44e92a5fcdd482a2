"""What a run leaves behind while it goes on: metrics by epoch, the best and the last checkpoint."""

import csv
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from cassava_leaf_disease.errors import DivergedError
from cassava_leaf_disease.modeling.checkpoint import write_checkpoint
from cassava_leaf_disease.modeling.module import MONITOR, LeafClassifier
from cassava_leaf_disease.paths import LAST_CHECKPOINT, best_checkpoint, checkpoints_dir
from cassava_leaf_disease.storage.files import write_text

if TYPE_CHECKING:
    import lightning

logger = logging.getLogger(__name__)

Keep = Literal["best", "last"]

COLUMNS = (
    *("epoch", "lr"),
    *("train/loss", "train/acc", "train/f1_macro"),
    *("val/loss", "val/acc", "val/f1_macro"),
)


class RunRecorder(Checkpoint):
    """Writes `metrics.csv`, `checkpoints/best.ckpt` and `checkpoints/last.ckpt` of a run.

    The history travels inside `last.ckpt`, so a resumed run continues the table where the checkpoint left
    it. With `keep="last"` each epoch counts as the best so far. Every file is replaced whole. Derived from
    Lightning's `Checkpoint` to be called after the module.
    """

    def __init__(self, run_dir: Path, epochs: int, *, save_checkpoints: bool, keep: Keep = "best") -> None:
        self.run_dir = run_dir
        self.epochs = epochs
        self.keep = keep
        self.save_checkpoints = save_checkpoints
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}

    @property
    def best_path(self) -> Path:
        """Where the best checkpoint stands, once there is one."""
        return best_checkpoint(self.run_dir)

    @property
    def last_path(self) -> Path:
        """Where the last checkpoint stands, once there is one."""
        return checkpoints_dir(self.run_dir) / LAST_CHECKPOINT

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_metrics": self.best_metrics,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = dict(state_dict["best_metrics"])

    @override
    def on_validation_end(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        check_finite(metrics, trainer.current_epoch)
        if self.keep == "best" and metrics[MONITOR] <= self.best_metrics.get(MONITOR, -math.inf):
            return
        self.best_epoch, self.best_metrics = trainer.current_epoch, metrics
        assert isinstance(pl_module, LeafClassifier)  # noqa: S101  for the type checker
        pl_module.metadata = pl_module.metadata.model_copy(update={"metrics": metrics, "epoch": trainer.current_epoch})
        if self.save_checkpoints and trainer.is_global_zero:
            write_checkpoint(self.best_path, pl_module.evaluation_network, pl_module.metadata)

    @override
    def on_train_epoch_end(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        row = {"epoch": float(trainer.current_epoch), "lr": max(rates)}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name in COLUMNS}
        check_finite(row, trainer.current_epoch)
        self.history.append(row)
        if trainer.is_global_zero:
            write_history(self.run_dir / "metrics.csv", self.history)
            logger.info("epoch %d/%d  %s", trainer.current_epoch + 1, self.epochs, _summary(row))
        if self.save_checkpoints:
            trainer.save_checkpoint(self.last_path)


def check_finite(metrics: Mapping[str, float], epoch: int) -> None:
    """Stops a run that can no longer learn; its last good checkpoint stays.

    Raises:
        DivergedError: A metric is NaN or infinite.
    """
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise DivergedError(
            f"training diverged in epoch {epoch + 1}: {', '.join(wrong)} is not a number; "
            "lower train.lr, set optim.grad_clip_norm=1, or type train.precision=32"
        )


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Writes one row an epoch; the file is replaced whole."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in history)
    write_text(path, buffer.getvalue())


def _summary(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[2:] if name in row)
