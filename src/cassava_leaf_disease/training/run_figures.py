"""The figures of one run, drawn from its own files."""

from pathlib import Path

from cassava_leaf_disease.evaluation.figures import (
    class_scores_figure,
    confusion_figure,
    learning_figure,
    read_history,
    write_figure,
)
from cassava_leaf_disease.training.result import TrainResult
from cassava_leaf_disease.training.run_folder import FIGURES_DIR


def write_run_figures(result: TrainResult) -> list[Path]:
    """Writes `figures/*.png` into the run's folder and returns them."""
    folder = result.run_dir / FIGURES_DIR
    history = read_history(result.run_dir / "metrics.csv")
    written = []
    if history:
        title = f"{result.backbone}: {result.photos.get('train', 0)} photos, {len(history)} epochs"
        written.append(write_figure(learning_figure(history, result.best_epoch, title), folder / "learning.png"))
    if result.confusion_matrix is not None:
        metrics = result.metrics
        title = (
            f"{result.backbone}, {result.photos.get('test', 0)} test photos: "
            f"accuracy {metrics['test/acc']:.3f}, macro-F1 {metrics['test/f1_macro']:.3f}"
        )
        matrix = result.confusion_matrix
        written.append(write_figure(confusion_figure(matrix, title), folder / "confusion.png"))
        written.append(write_figure(class_scores_figure(matrix, title), folder / "classes.png"))
    return written
