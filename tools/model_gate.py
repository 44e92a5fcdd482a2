"""May this model take the place of the current one? Reads what `cassava evaluate` wrote, says pass or refuse, and why.

    just rivals new.ckpt current.ckpt data/held-out
    just gate outputs/gate/new/report.json --current outputs/gate/current/metrics.json

Exit code 0: pass; 3: refuse; 2: files that do not fit together. stdout carries the decision as JSON.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cassava_leaf_disease.evaluation.report.comparison import Comparison
from cassava_leaf_disease.evaluation.scores import Scores

EXIT_REFUSED = 3


class EvidenceError(Exception):
    """Files that are missing, damaged, or about different photos."""


@dataclass(frozen=True)
class Rules:
    """What a new model has to show. Losses are the current model's figure minus the new one's."""

    first: bool = False  # there is no current model
    require: Literal["not-worse", "better"] = "not-worse"
    alpha: float = 0.05
    min_photos: int = 200
    max_accuracy_loss: float = 0.0
    max_f1_loss: float = 0.0
    max_recall_loss: float = 0.1  # of each class
    min_support: int = 10  # photos of a class; with fewer its recall tells nothing
    max_calibration_error: float = 0.1


@dataclass(frozen=True)
class Evidence:
    """The new model's figures, the current one's, and both on the same photos; the last two None for a first model."""

    new: Scores
    current: Scores | None
    comparison: Comparison | None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, in words that hold whether it passed or not."""

    name: str
    told: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """Pass only where every check passed; `reasons` are those that did not."""

    verdict: Literal["pass", "refuse"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def decide(evidence: Evidence, rules: Rules) -> Decision:
    """Judges by the figures alone; reads nothing and writes nothing."""
    checks = (*_alone(evidence.new, rules), *_against_current(evidence, rules))
    reasons = tuple(f"{check.name}: {check.told}" for check in checks if not check.passed)
    return Decision("refuse" if reasons else "pass", reasons, checks)


def _alone(new: Scores, rules: Rules) -> Iterator[Check]:
    yield Check(
        "photos", f"measured on {new.photos}, at least {rules.min_photos} expected", new.photos >= rules.min_photos
    )
    yield Check(
        "better than guessing",
        f"accuracy {new.accuracy:.3f}, always the commonest class {new.majority_accuracy:.3f}",
        new.accuracy > new.majority_accuracy,
    )
    yield Check(
        "calibration",
        f"expected error {new.calibration_error:.3f}, at most {rules.max_calibration_error:g} expected",
        new.calibration_error <= rules.max_calibration_error,
    )


def _against_current(evidence: Evidence, rules: Rules) -> Iterator[Check]:
    both = evidence.comparison
    if both is None or evidence.current is None:
        yield Check("current model", "none to compare with, the first one was announced", rules.first)
        return
    counts = f"{both.only_measured_right} photos only the new one gets right, {both.only_other_right} only the current"
    told = f"{counts}, McNemar p = {both.p_value:.3g}"
    sure = both.p_value < rules.alpha
    if rules.require == "better":
        yield Check("surely better", told, sure and both.only_measured_right > both.only_other_right)
    yield Check("not surely worse", told, not (sure and both.only_other_right > both.only_measured_right))
    yield _loss("accuracy", both.accuracy_difference, both.accuracy, rules.max_accuracy_loss)
    yield _loss("macro-F1", both.f1_macro_difference, both.f1_macro, rules.max_f1_loss)
    for name, now in evidence.new.per_class.items():
        before = evidence.current.per_class[name]
        if now.support >= rules.min_support:
            told = (
                f"{now.recall:.3f}, current {before.recall:.3f}; a loss of at most {rules.max_recall_loss:g} expected"
            )
            yield Check(f"recall of {name}", told, before.recall - now.recall <= rules.max_recall_loss + 1e-12)


def _loss(name: str, loss: float, current: float, at_most: float) -> Check:
    told = f"{current - loss:.3f}, current {current:.3f}; a loss of at most {at_most:g} expected"
    return Check(name, told, loss <= at_most + 1e-12)  # differences of floats


def read_evidence(report: Path, current: Path | None) -> Evidence:
    """The figures of a `report.json`, and of the current model's `metrics.json`.

    Raises:
        EvidenceError: One is missing or damaged, they are about different photos, or nothing was compared.
    """
    content = _read(report)
    try:
        new = Scores.model_validate(content.get("scores"))
        comparisons = [Comparison.model_validate(one) for one in content.get("comparisons") or ()]
        before = None if current is None else Scores.model_validate(_read(current).get("scores"))
    except ValidationError as error:
        raise EvidenceError(
            f"{report}: no report of this version ({error.error_count()} mistakes); evaluate again"
        ) from None
    if before is None:
        return Evidence(new, None, None)
    if len(comparisons) != 1:
        raise EvidenceError(
            f"{report}: {len(comparisons)} comparisons, expected one; type "
            "'evaluate.compare=[…/predictions.csv]' with the current model's answers"
        )
    both = comparisons[0]
    supports = [{name: each.support for name, each in scores.per_class.items()} for scores in (new, before)]
    if supports[0] != supports[1] or abs(before.accuracy - both.accuracy) > 1e-9:
        raise EvidenceError(f"{current}: not the model and photos that {report} compares with; evaluate both again")
    return Evidence(new, before, both)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}; type evaluate.report=true to have it written") from None
    except ValueError:
        raise EvidenceError(f"{path}: no JSON; evaluate again") from None
    if not isinstance(content, dict):
        raise EvidenceError(f"{path}: no JSON object; evaluate again")
    return content


def as_markdown(decision: Decision) -> str:
    """The decision for a pull request or a run's summary."""
    lines = [f"### Model gate: {decision.verdict}", "", "| | check | found |", "| --- | --- | --- |"]
    lines += [
        f"| {'pass' if check.passed else '**refuse**'} | {check.name} | {check.told} |" for check in decision.checks
    ]
    return "\n".join(lines) + "\n"


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line; every rule is a flag."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, help="report.json of the new model")
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--current", type=Path, help="metrics.json of the current model, on the same photos")
    known.add_argument("--first", action="store_true", help="there is no current model yet")
    parser.add_argument("--require", choices=("not-worse", "better"), default=Rules.require)
    for name in ("min_photos", "min_support"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Rules, name))
    for name in ("alpha", "max_accuracy_loss", "max_f1_loss", "max_recall_loss", "max_calibration_error"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Rules, name))
    parser.add_argument("--summary", type=Path, help="a Markdown file that the decision is added to")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Prints the decision; its exit code is the decision too."""
    options = vars(parse(words))
    report, current, summary = (options.pop(name) for name in ("report", "current", "summary"))
    try:
        decision = decide(read_evidence(report, current), Rules(**options))
    except EvidenceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(json.dumps(asdict(decision), indent=2, ensure_ascii=False))
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(as_markdown(decision))
    return EXIT_REFUSED if decision.verdict == "refuse" else 0


if __name__ == "__main__":
    sys.exit(main())
