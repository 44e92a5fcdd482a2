"""The picture of a search: each trial's value, and what the settings had to do with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cassava_leaf_disease.evaluation.figures import BLUE, GREY, ORANGE, new_figure, write_figure

if TYPE_CHECKING:
    import optuna


def write_tune_figure(study: "optuna.Study", importance: Mapping[str, float], path: Path) -> Path:
    """Draws value by trial with the best so far and, where it is known, the importance of each key."""
    from optuna.trial import TrialState

    figure = new_figure(10.0 if importance else 6.0, 3.8)
    left, *rest = figure.subplots(1, 2 if importance else 1, squeeze=False)[0]
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    pruned = [trial for trial in study.get_trials(states=(TrialState.PRUNED,)) if trial.intermediate_values]
    numbers, values = [trial.number for trial in complete], [trial.value or 0.0 for trial in complete]
    left.plot(numbers, np.maximum.accumulate(values), color=ORANGE, linewidth=1, label="best so far")
    left.scatter(numbers, values, color=BLUE, s=16, label="complete")
    if pruned:
        last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
        left.scatter([trial.number for trial in pruned], last, color=GREY, s=12, marker="x", label="pruned")
    left.set_xlabel("trial")
    left.set_ylabel("validation macro-F1")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=8, frameon=False)
    for axes in rest:
        keys = sorted(importance, key=lambda key: importance[key])
        bars = axes.barh(keys, [importance[key] for key in keys], color=BLUE)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
        axes.set_title("share of the spread explained", fontsize=10)
        axes.margins(x=0.15)
    for axes in (left, *rest):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{study.study_name}: {len(complete)} complete trials", fontsize=11)
    return write_figure(figure, path)
