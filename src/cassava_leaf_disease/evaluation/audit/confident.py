"""Confident learning (Northcutt, Jiang and Chuang, 2021) on out-of-fold probabilities, by cleanlab.

A class's threshold is the mean probability of that class among the photos that carry its label. A photo counts in
the confident joint under the class whose probability passes its threshold; off the diagonal stand the labels that
are likely to be wrong.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import FindIssuesBy, RankLabelsBy
from cassava_leaf_disease.domain import NUM_CLASSES

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelIssues:
    """What confident learning says of N labels.

    `quality` `(N,)` in 0..1 ranks them, lowest first; `self_confidence` `(N,)` is the probability of the given
    label; `suggested` `(N,)` the most probable class; `suspicious` `(N,)` bool, the ones to look at. `joint`
    `(C, C)` counts given labels (rows) by the class that passes its threshold (columns).
    """

    quality: Probabilities
    self_confidence: Probabilities
    suggested: Labels
    suspicious: npt.NDArray[np.bool_]
    joint: Labels

    @property
    def order(self) -> Labels:
        """Rows by rising quality."""
        return np.argsort(self.quality, kind="stable")


def find_label_issues(
    labels: Labels, probabilities: Probabilities, find_by: FindIssuesBy, rank_by: RankLabelsBy
) -> LabelIssues:
    """Judges `labels` `(N,)` by `probabilities` `(N, C)` of a model that has not learned them.

    Labels are told to be one of the classes that occur among them.
    """
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues as filter_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)  # of classes that do not occur
        suspicious = filter_issues(labels, probabilities, filter_by=find_by, n_jobs=1)
    occurs = np.bincount(labels, minlength=NUM_CLASSES) > 0  # cleanlab counts one of each class, occurring or not
    joint = np.asarray(compute_confident_joint(labels, probabilities, calibrate=False), np.int64)
    return LabelIssues(
        quality=np.asarray(get_label_quality_scores(labels, probabilities, method=rank_by), np.float64),
        self_confidence=probabilities[np.arange(len(labels)), labels],
        suggested=probabilities.argmax(axis=1).astype(np.int64),
        suspicious=np.asarray(suspicious, np.bool_),
        joint=joint.reshape(NUM_CLASSES, NUM_CLASSES) * occurs[:, np.newaxis],
    )
