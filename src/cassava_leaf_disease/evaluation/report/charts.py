"""The report's own figures; those of a confusion matrix, of classes and of calibration stand in `figures`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.evaluation.figures import BLUE, GREEN, GREY, ORANGE, new_figure
from cassava_leaf_disease.evaluation.outside import OutsideScores
from cassava_leaf_disease.evaluation.report.comparison import Comparison
from cassava_leaf_disease.evaluation.report.curves import PrecisionRecall
from cassava_leaf_disease.evaluation.report.slices import Slicing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PURPLE, _YELLOW = "#CC79A7", "#E69F00"  # of the same set as the others, by Okabe and Ito
CLASS_COLOURS = (BLUE, ORANGE, GREEN, _PURPLE, _YELLOW)
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # so that the lines differ in grey too


def short_name(name: str) -> str:
    """A class name without the word that all of them share."""
    return name.removeprefix("Cassava ")


def precision_recall_figure(curves: Mapping[str, PrecisionRecall]) -> "Figure":
    """One line a class: how precision falls while more of the class is found."""
    figure = new_figure(7.0, 5.4)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        index = CLASS_NAMES.index(name)
        label = f"{short_name(name)}: {curve.average_precision:.2f} (guessing {curve.share:.2f})"
        axes.plot(
            *(curve.recall, curve.precision),
            color=CLASS_COLOURS[index],
            linestyle=_STYLES[index],
            linewidth=1.8,
            label=label,
            drawstyle="steps-post",
        )
    axes.set_xlabel("recall: share of the class's photos that are found")
    axes.set_ylabel("precision: share of such answers that are right")
    _unit_square(axes)
    figure.legend(title="average precision", loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def slices_figure(slicings: Sequence[Slicing], overall: float) -> "Figure":
    """A dot and its interval for each group, a bar for what its classes alone would give."""
    rows = [(slicing.name, one) for slicing in slicings for one in slicing.slices]
    figure = new_figure(7.4, 1.1 + 0.3 * (len(rows) + len(slicings)))
    axes = figure.add_subplot()
    places, ticks, place, before = [], [], 0.0, ""
    for name, one in rows:
        if name != before:
            axes.text(
                0.005, place, name, fontsize=9, fontweight="bold", va="center", transform=axes.get_yaxis_transform()
            )
            place, before = place + 1, name
        colour = ORANGE if one.stands_out else BLUE
        axes.plot(one.interval, [place, place], color=colour, linewidth=2.2)
        axes.plot([one.accuracy], [place], "D" if one.stands_out else "o", color=colour, markersize=6)
        axes.plot([one.expected_accuracy] * 2, [place - 0.32, place + 0.32], color=GREY, linewidth=2)
        places.append(place)
        ticks.append(f"{one.group}  ({one.photos})")
        place += 1
    axes.axvline(overall, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(places, ticks, fontsize=9)
    axes.set_ylim(place - 0.3, -0.7)
    axes.set_xlim(max(0.0, min(one.interval[0] for _, one in rows) - 0.05), 1.01)
    axes.set_xlabel(f"share of right answers (dashed: of all photos, {overall:.1%})")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    return figure


def comparison_figure(comparisons: Sequence[Comparison], names: Sequence[str]) -> "Figure":
    """The difference of each other model's accuracy from the measured one's, with its interval."""
    figure = new_figure(7.0, 1.3 + 0.5 * len(comparisons))
    axes = figure.add_subplot()
    for row, one in enumerate(comparisons):
        colour = ORANGE if one.p_value_holm < 0.05 else BLUE
        low, high = one.accuracy_difference_interval
        axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2.2)
        axes.plot([100 * one.accuracy_difference], [row], "o", color=colour, markersize=7)
    reach = max(abs(value) for one in comparisons for value in one.accuracy_difference_interval)
    axes.set_xlim(-110 * max(reach, 0.01), 110 * max(reach, 0.01))
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("accuracy minus that of model A, in percentage points (right: better than A)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    return figure


def outside_figure(outside: OutsideScores) -> "Figure":
    """What the model answers about each class of the other collection, as shares of its photos; right ones framed."""
    from matplotlib.patches import Rectangle

    rows = outside.classes
    counts = np.array([list(row.answers.values()) for row in rows])
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure = new_figure(7.6, 1.9 + 0.62 * len(rows))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        shade = "white" if shares[row, column] > 0.55 else "black"
        text = f"{shares[row, column]:.0%} ({counts[row, column]})"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    for row, one in enumerate(rows):
        if one.counterpart is not None:
            corner = (CLASS_NAMES.index(one.counterpart) - 0.48, row - 0.46)
            axes.add_patch(Rectangle(corner, 0.96, 0.92, fill=False, edgecolor=ORANGE, linewidth=2.5))
    axes.set_xticks(range(len(CLASS_NAMES)), [short_name(name) for name in CLASS_NAMES], rotation=20, ha="right")
    axes.set_yticks(range(len(rows)), [f"{row.name}\n({row.photos})" for row in rows])
    axes.set_xlabel("answer of the model")
    axes.set_ylabel("class of the collection (photos)")
    return figure


def _unit_square(axes: "Axes") -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
