"""Figures of a run or an evaluation: learning curves, confusion matrix, scores of each class."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.modeling.calibration import expected_calibration_error, reliability, risk_coverage
from cassava_leaf_disease.storage.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, GREY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#666666", "#CC79A7"
DOTS_PER_INCH = 120

Counts = Sequence[Sequence[int]] | npt.NDArray[np.int64]


def confusion_figure(counts: Counts, title: str, names: Sequence[str] = CLASS_NAMES) -> "Figure":
    """True classes as rows: the share of each row as shade and percentage, and the count; a dash without photos."""
    matrix = np.asarray(counts, dtype=np.int64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_figure(7.4, 6.4)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        shade = "white" if shares[row, column] > 0.55 else "black"
        text = f"{shares[row, column]:.0%}\n{matrix[row, column]}" if matrix[row].any() else "-"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    short = [name.removeprefix("Cassava ") for name in names]
    axes.set_xticks(range(len(short)), short, rotation=25, ha="right")
    totals = matrix.sum(axis=1)
    axes.set_yticks(range(len(short)), [f"{name}\n({total})" for name, total in zip(short, totals, strict=True)])
    axes.set_xlabel("answer of the model")
    axes.set_ylabel("label (photos)")
    axes.set_title(_lines(title, 72), fontsize=11)
    return figure


def class_scores_figure(counts: Counts, title: str, names: Sequence[str] = CLASS_NAMES) -> "Figure":
    """Precision, recall and F1 of each class as bars."""
    matrix = np.asarray(counts, dtype=np.float64)
    right = np.diag(matrix)
    precision = right / np.maximum(matrix.sum(axis=0), 1)
    recall = right / np.maximum(matrix.sum(axis=1), 1)
    f1 = 2 * right / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1)
    figure = new_figure(8.0, 4.4)
    axes = figure.add_subplot()
    places = np.arange(len(names))
    for offset, (label, values, color) in enumerate(
        (("precision", precision, BLUE), ("recall", recall, ORANGE), ("F1", f1, GREEN))
    ):
        bars = axes.bar(places + (offset - 1) * 0.27, values, 0.25, label=label, color=color)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    totals = matrix.sum(axis=1).astype(int)
    short = [f"{name.removeprefix('Cassava ')}\n({total} photos)" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(places, short, fontsize=8)
    axes.set_ylim(0, 1.12)
    axes.set_title(_lines(title, 80), fontsize=11)
    axes.legend(loc="upper left", ncols=3, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def learning_figure(history: Sequence[Mapping[str, float]], best_epoch: int | None, title: str) -> "Figure":
    """Loss, accuracy and macro-F1 by epoch, training and validation; a line marks the best epoch (from 0)."""
    figure = new_figure(11.0, 3.6)
    epochs = [row["epoch"] + 1 for row in history]
    panels = (("loss", "loss"), ("acc", "accuracy"), ("f1_macro", "macro-F1"))
    for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
        marker = "o" if len(epochs) < 15 else None
        for stage, color, style in (("train", GREY, "--"), ("val", BLUE, "-")):
            values = [row.get(f"{stage}/{key}", float("nan")) for row in history]
            axes.plot(
                epochs,
                values,
                style,
                color=color,
                label="training" if stage == "train" else "validation",
                marker=marker,
                markersize=3,
            )
        if best_epoch is not None:
            axes.axvline(best_epoch + 1, color=ORANGE, linewidth=1, label=f"best epoch ({best_epoch + 1})")
        axes.set_xlabel("epoch")
        axes.set_title(label, fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(epochs) == 1:
            axes.set_xticks(epochs)
        axes.spines[["top", "right"]].set_visible(False)
        if key != "loss":
            axes.set_ylim(0, 1)
    axes.legend(fontsize=8, frameon=False)
    figure.suptitle(_lines(title, 120), fontsize=11)
    return figure


def reliability_figure(
    answers: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]], title: str
) -> "Figure":
    """Accuracy by confidence, a panel for each of `answers`: probabilities `(N, C)` and labels `(N,)`.

    Bars hang from the diagonal of honest answers; the dots' area goes with the number of photos.
    """
    figure = new_figure(4.2 * len(answers) + 0.4, 4.2)
    for axes, (name, (probabilities, labels)) in zip(
        figure.subplots(1, len(answers), squeeze=False)[0], answers.items(), strict=True
    ):
        bins = reliability(probabilities, labels)
        confidences, accuracies = [one.confidence for one in bins], [one.accuracy for one in bins]
        axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="honest")
        axes.vlines(confidences, confidences, accuracies, color=ORANGE, linewidth=2, label="distance")
        axes.scatter(
            confidences, accuracies, [400 * one.photos / len(labels) + 8 for one in bins], color=BLUE, zorder=3
        )
        axes.set_title(
            f"{name}: calibration error {expected_calibration_error(probabilities, labels):.3f}", fontsize=10
        )
        axes.set_xlabel("confidence")
        axes.set_ylabel("right answers")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.05)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_lines(title, 90), fontsize=11)
    return figure


def risk_coverage_figure(
    answers: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]], min_confidence: float, title: str
) -> "Figure":
    """Accuracy by the fraction of photos that get a diagnosis, the surest first.

    A curve for each of `answers`: probabilities `(N, C)` and labels `(N,)`. Dots mark what `min_confidence` answers.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    colors = (BLUE,) if len(answers) == 1 else (GREY, BLUE, GREEN)
    for (name, (probabilities, labels)), color in zip(answers.items(), colors, strict=False):
        confidences, coverage, accuracy = risk_coverage(probabilities, labels)
        axes.plot(coverage, accuracy, color=color, label=f"{name} ({len(labels)} photos)")
        answered = int((confidences >= min_confidence).sum())
        if answered:
            axes.plot(coverage[answered - 1], accuracy[answered - 1], "o", color=ORANGE)
            axes.annotate(
                f"{accuracy[answered - 1]:.0%} of {coverage[answered - 1]:.0%}",
                (coverage[answered - 1], accuracy[answered - 1]),
                textcoords="offset points",
                xytext=(5, 6),
                fontsize=8,
            )
    axes.set_xlabel(f"fraction answered; dots: confidence from {min_confidence:.2f} up")
    axes.set_ylabel("right answers among them")
    axes.set_xlim(0, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="best")
    axes.set_title(_lines(title, 70), fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def foreign_figure(scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]], title: str) -> "Figure":
    """How foreign each score finds sets of photos, a panel for each score; what lies right of the line is refused."""
    colors = {"train": GREY, "val": GREEN, "test": BLUE, "extra": PURPLE, "foreign": ORANGE}
    figure = new_figure(4.2 * len(scores) + 0.4, 3.8)
    for axes, (name, sets) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        low, high = (float(np.quantile(np.concatenate([*sets.values()]), share)) for share in (0.0, 0.995))
        for part, values in sets.items():
            axes.hist(
                np.minimum(values, high),
                bins=np.linspace(low, max(high, 1.0), 40).tolist(),
                density=True,
                histtype="step",
                color=colors[part],
                label=f"{part} ({len(values)})",
            )
        axes.axvline(1, color="black", linewidth=1, linestyle="--")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("0: a typical leaf, 1: the limit")
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.suptitle(_lines(title, 90), fontsize=11)
    return figure


def write_figure(figure: "Figure", path: Path) -> Path:
    """Replaces `path` whole with a PNG."""
    with replacing(path) as file:
        draw(figure, file)
    return path


def draw(figure: "Figure", file: BinaryIO) -> None:
    """Writes a PNG. Placing the texts takes 0.2 s a figure."""
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def read_history(metrics_csv: Path) -> list[dict[str, float]]:
    """The rows of a run's `metrics.csv`, epochs from 0; empty where there is no such file."""
    if not metrics_csv.is_file():
        return []
    with metrics_csv.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _lines(title: str, width: int) -> str:
    """Broken where it would be cut off: names of networks can be long."""
    return textwrap.fill(title, width)


def new_figure(width_inch: float, height_inch: float) -> "Figure":
    """An empty figure, made without pyplot, which would want a display and keep every figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inch, height_inch), layout="constrained")
