"""The picture of answers about plants: what each further photo is worth."""

from typing import TYPE_CHECKING, Final

from cassava_leaf_disease.evaluation.figures import BLUE, GREEN, GREY, ORANGE, new_figure
from cassava_leaf_disease.evaluation.plant_groups import Draw, Prevalence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cassava_leaf_disease.evaluation.plants import PlantsResult, PlantsRow

_TARGET: Final = 0.9


def plants_figure(result: "PlantsResult") -> "Figure":
    """Accuracy against the number of photos; beside it confidence and the fraction that is answered."""
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2)

    def line(draw: Draw, prevalence: Prevalence) -> "list[PlantsRow]":
        return [row for row in result.rows if (row.draw, row.prevalence) == (draw, prevalence)]

    natural = line("independent", "natural")
    counts = [row.photos for row in natural]
    bounds = [row.accuracy_interval or (row.accuracy, row.accuracy) for row in natural]
    left.fill_between(counts, *zip(*bounds, strict=True), color=BLUE, alpha=0.15, linewidth=0)
    styles: tuple[tuple[Draw, Prevalence, str, str], ...] = (
        ("independent", "natural", BLUE, "-"),
        ("independent", "balanced", GREEN, "-"),
        ("alike", "natural", BLUE, "--"),
        ("alike", "balanced", GREEN, "--"),
    )
    for draw, prevalence, color, style in styles:
        rows = line(draw, prevalence)
        if rows:
            label = f"{draw} photos, {prevalence} classes"
            left.plot(counts, [row.accuracy for row in rows], style, color=color, marker="o", markersize=3, label=label)
    left.axhline(_TARGET, color=GREY, linewidth=1, linestyle=":")
    left.set_ylabel("accuracy")
    right.plot(counts, [row.accuracy for row in natural], color=BLUE, marker="o", markersize=3, label="accuracy")
    right.plot(counts, [row.confidence for row in natural], color=ORANGE, marker="o", markersize=3, label="confidence")
    right.plot(counts, [row.answered for row in natural], color=GREY, marker="o", markersize=3, label="answered")
    right.set_title("independent photos, natural classes", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("photos of a plant")
        axes.set_xticks(counts)
        axes.set_ylim(min(0.5, *(row.accuracy for row in result.rows)), 1.01)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Several photos, one answer: {sum(result.photos.values())} photos in {result.groups} groups", fontsize=11
    )
    return figure
