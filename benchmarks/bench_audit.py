"""How many wrong labels `cassava audit` finds, when it is known which are wrong.

    python benchmarks/bench_audit.py features --data-dir DATA --weights mobilenetv2.safetensors [--seeds 5]
    python benchmarks/bench_audit.py flip --data-dir DATA --output-dir FLIPPED [--fraction 0.05] [--seed 1]
    python benchmarks/bench_audit.py score --flips FLIPPED/flips.csv --oof oof.csv

`features` needs no GPU: it flips labels at random, learns a logistic regression on the flipped labels in folds, from
frozen features of an ImageNet network that has seen none of these labels, and audits its out-of-fold answers; mean
over `--seeds` flips. `flip` writes a data set with flipped labels (its photos are linked), for `cassava crossval`
and `cassava audit` to run on; `score` then measures that cross-validation's out-of-fold table.

Labels that were wrong before the flips count as false alarms here: precision is a lower bound.
"""

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import FindIssuesBy, RankLabelsBy
from cassava_leaf_disease.data.extra import read_probabilities
from cassava_leaf_disease.data.table import LabeledPhoto, read_kaggle, read_rows
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.evaluation.audit.confident import find_label_issues
from cassava_leaf_disease.storage.files import write_text

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FLIPS_FILE = "flips.csv"


@dataclass(frozen=True)
class Trial:
    """N photos of which some labels were flipped: `labels` and `truth` `(N,)`, out-of-fold `probabilities` `(N, C)`."""

    labels: Labels
    truth: Labels
    probabilities: Floats

    @property
    def flipped(self) -> npt.NDArray[np.bool_]:
        """Which labels are wrong on purpose."""
        return np.not_equal(self.labels, self.truth)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one of the three commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    features = commands.add_parser("features", help="flip, learn from frozen features in folds, audit")
    features.add_argument("--data-dir", type=Path, required=True)
    features.add_argument("--weights", type=Path, required=True, help="ImageNet weights of mobilenetv2_100")
    features.add_argument("--fraction", type=float, default=0.05)
    features.add_argument("--seeds", type=int, default=5)
    features.add_argument("--folds", type=int, default=5)
    features.add_argument("--image-size", type=int, default=224)
    features.add_argument("--cache", type=Path, default=None, help="an .npy file to keep the features in")
    features.set_defaults(run=run_features)
    flip = commands.add_parser("flip", help="write a data set with flipped labels")
    flip.add_argument("--data-dir", type=Path, required=True)
    flip.add_argument("--output-dir", type=Path, required=True)
    flip.add_argument("--fraction", type=float, default=0.05)
    flip.add_argument("--seed", type=int, default=1)
    flip.set_defaults(run=run_flip)
    score = commands.add_parser("score", help="measure an out-of-fold table against the flips")
    score.add_argument("--flips", type=Path, required=True)
    score.add_argument("--oof", type=Path, required=True)
    score.set_defaults(run=run_score)
    options = parser.parse_args(argv)
    options.run(options)


def run_flip(options: argparse.Namespace) -> None:
    """Writes `train.csv` with flipped labels, a link to the photos, and `flips.csv`, which says what was flipped."""
    photos = read_kaggle(options.data_dir)
    truth = np.array([photo.label for photo in photos], np.int64)
    labels = flip_labels(truth, options.fraction, options.seed)
    folder: Path = options.output_dir
    folder.mkdir(parents=True, exist_ok=False)
    (folder / "train_images").symlink_to(photos[0].path.parent.resolve(), target_is_directory=True)
    rows = list(zip([photo.image_id for photo in photos], labels.tolist(), truth.tolist(), strict=True))
    write_text(folder / "train.csv", "image_id,label\n" + "".join(f"{name},{label}\n" for name, label, _ in rows))
    flips = [f"{name},{label},{true}\n" for name, label, true in rows if label != true]
    write_text(folder / FLIPS_FILE, "image_id,label,true_label\n" + "".join(flips))
    print(f"{len(flips)} of {len(rows)} labels flipped (seed {options.seed}): {folder}")


def run_score(options: argparse.Namespace) -> None:
    """Prints what an audit of the table finds of the flips; photos without an answer (the test part) do not count."""
    names, probabilities = read_probabilities(options.oof, "image_id")
    labels = {row.image_id: int(row.label) for row in read_rows(options.oof)}
    with options.flips.open(encoding="utf-8", newline="") as file:
        flips = {row["image_id"]: int(row["true_label"]) for row in csv.DictReader(file)}
    given = np.array([labels[name] for name in names], np.int64)
    truth = np.array([flips.get(name, labels[name]) for name in names], np.int64)
    report([Trial(given, truth, probabilities)])


def run_features(options: argparse.Namespace) -> None:
    """Prints what an audit finds of random flips, by a logistic regression on frozen features."""
    started = time.perf_counter()
    photos = read_kaggle(options.data_dir)
    truth = np.array([photo.label for photo in photos], np.int64)
    features = load_features(photos, options)
    extracted = time.perf_counter()
    trials = []
    for seed in range(1, options.seeds + 1):
        labels = flip_labels(truth, options.fraction, seed)
        trials.append(Trial(labels, truth, out_of_fold(features, labels, options.folds, seed)))
    report(trials)
    print(f"\nFeatures {extracted - started:.0f} s, folds and audits {time.perf_counter() - extracted:.0f} s.")


def flip_labels(truth: Labels, fraction: float, seed: int) -> Labels:
    """`truth` `(N,)` with `fraction` of its labels, drawn at random, replaced by another class, each equally likely."""
    rng = np.random.default_rng(seed)
    labels = truth.copy()
    chosen = rng.choice(len(truth), round(fraction * len(truth)), replace=False)
    labels[chosen] = (truth[chosen] + rng.integers(1, NUM_CLASSES, len(chosen))) % NUM_CLASSES
    return labels


def load_features(photos: Sequence[LabeledPhoto], options: argparse.Namespace) -> npt.NDArray[np.float32]:
    """Penultimate features `(N, 1280)` of the frozen ImageNet network, kept in `--cache`."""
    if options.cache is not None and options.cache.is_file():
        kept: npt.NDArray[np.float32] = np.load(options.cache)
        return kept
    import timm
    import torch
    from safetensors.torch import load_file

    from cassava_leaf_disease.imaging.decode import read_image
    from cassava_leaf_disease.imaging.preprocess import Preprocessing, to_network_size

    network: Any = timm.create_model("mobilenetv2_100", pretrained=False)
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(options.weights).items()})
    network.reset_classifier(0)
    network.eval()
    spec = Preprocessing(image_size_px=options.image_size, crop_ratio=0.875)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    found = []
    with torch.inference_mode():
        for start in range(0, len(photos), 32):
            pixels = [to_network_size(read_image(photo.path), spec) for photo in photos[start : start + 32]]
            batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
            found.append(network((batch - mean) / std).numpy())
    features: npt.NDArray[np.float32] = np.concatenate(found)
    if options.cache is not None:
        options.cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(options.cache, features)
    return features


def out_of_fold(features: npt.NDArray[np.float32], labels: Labels, folds: int, seed: int) -> Floats:
    """Probabilities `(N, C)` of a logistic regression that was fitted to the (flipped) labels of the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probabilities: Floats = cross_val_predict(model, features, labels, cv=splits, method="predict_proba")
    return probabilities


def report(trials: Sequence[Trial]) -> None:
    """Prints tables in Markdown: flagged sets by `audit.find_by`, rankings by `audit.rank_by`; mean and spread."""
    flips = [int(trial.flipped.sum()) for trial in trials]
    right = [float((trial.probabilities.argmax(axis=1) == trial.truth).mean()) for trial in trials]
    print(f"`{shlex.join(['python', *sys.argv])}`\n")
    print(f"{len(trials)} trials of {len(trials[0].labels)} photos; flips: {shown(flips, 0)}; out-of-fold accuracy")
    print(f"against the labels before the flips: {shown(right)}.\n")
    print("| audit.find_by | flagged | recall | precision | right class suggested |")
    print("| --- | --- | --- | --- | --- |")
    for find_by in get_args(FindIssuesBy):
        print(f"| `{find_by}` | " + " | ".join(flagged_figures(trials, find_by)) + " |")
    print("\n| audit.rank_by | recall = precision among the first k = flips | average precision |")
    print("| --- | --- | --- |")
    for rank_by in get_args(RankLabelsBy):
        print(f"| `{rank_by}` | " + " | ".join(ranking_figures(trials, rank_by)) + " |")
    chance = np.array(flips) / len(trials[0].labels)
    print(f"| by chance | {shown(chance)} | {shown(chance)} |")


def flagged_figures(trials: Sequence[Trial], find_by: FindIssuesBy) -> tuple[str, ...]:
    """Of the flagged labels: their number, recall, precision, and how often a flip's old class is suggested."""
    columns: list[list[float]] = [[], [], [], []]
    for trial in trials:
        issues = find_label_issues(trial.labels, trial.probabilities, find_by, "self_confidence")
        hits = issues.suspicious & trial.flipped
        figures = (
            issues.suspicious.sum(),
            hits.sum() / trial.flipped.sum(),
            hits.sum() / max(1, issues.suspicious.sum()),
            (issues.suggested == trial.truth)[hits].mean() if hits.any() else 0.0,
        )
        for column, figure in zip(columns, figures, strict=True):
            column.append(float(figure))
    return shown(columns[0], 0), *(shown(column) for column in columns[1:])


def ranking_figures(trials: Sequence[Trial], rank_by: RankLabelsBy) -> tuple[str, str]:
    """Recall among as many labels as were flipped, lowest quality first, and average precision."""
    from sklearn.metrics import average_precision_score

    first, average = [], []
    for trial in trials:
        issues = find_label_issues(trial.labels, trial.probabilities, "both", rank_by)
        count = int(trial.flipped.sum())
        first.append(float(trial.flipped[issues.order[:count]].mean()))
        average.append(float(average_precision_score(trial.flipped, -issues.quality)))
    return shown(first), shown(average)


def shown(values: Sequence[float] | npt.NDArray[Any], digits: int = 3) -> str:
    """Mean, and the standard deviation where there are several values."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


if __name__ == "__main__":
    main()
