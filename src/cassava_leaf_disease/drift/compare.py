"""How far counts have moved from a reference: the population stability index, held against chance.

PSI is the sum over bins of (seen - expected) ln(seen / expected), of shares. By custom below 0.1 nothing has changed
and above 0.25 much has (Siddiqi, "Credit Risk Scorecards", 2006). Of two samples of N and M photos from the same
source it is distributed as (1/N + 1/M) times chi-squared with one degree less than there are bins (Yurdakul,
"Statistical Properties of Population Stability Index", 2018): what chance alone exceeds in one case of a hundred is
no drift, whatever the thresholds say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.drift.features import FEATURES, Counts

Level = Literal["stable", "watch", "alarm", "too_few"]

_Z_99: Final = 2.3263  # the standard normal's 99th percentile
_PRIOR: Final = 0.5  # photos added to each bin, so that an empty one has a logarithm


@dataclass(frozen=True)
class Thresholds:
    """From which index on a feature is worth a look, or has changed, and how many photos it takes to say so."""

    watch: float = 0.1
    alarm: float = 0.25
    min_photos: int = 200


class BinShare(BaseModel):
    """One bin: its share of the reference and of what was seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bin: str
    expected: float
    seen: float


class FeatureDrift(BaseModel):
    """How far one feature has moved; `noise` is the PSI that chance alone exceeds in one case of a hundred.

    `photos` and `reference_photos` are those that have this feature. With too few of them there is no `psi`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    level: Level
    psi: float | None
    noise: float | None
    photos: int
    reference_photos: int
    shares: tuple[BinShare, ...]


def compare(reference: Counts, seen: Counts, thresholds: Thresholds) -> tuple[FeatureDrift, ...]:
    """Every feature that the reference has; a feature with fewer than `min_photos` photos is not judged."""
    return tuple(
        _compare_one(name, reference[name], seen.get(name, (0,) * len(reference[name])), thresholds)
        for name in FEATURES
        if sum(reference.get(name, ()))
    )


def population_stability(expected: Sequence[int], seen: Sequence[int]) -> float:
    """PSI of counts in the same bins; 0 where the shares are equal."""
    pairs = zip(_shares(expected, _PRIOR), _shares(seen, _PRIOR), strict=True)
    return sum((q - p) * math.log(q / p) for p, q in pairs)


def chance_limit(expected: Sequence[int], seen: Sequence[int]) -> float:
    """The PSI that two samples of the same source exceed in one case of a hundred; bins empty in both do not count."""
    bins = sum(1 for p, q in zip(expected, seen, strict=True) if p or q)
    return _chi_squared_99(max(bins - 1, 1)) * (1 / sum(expected) + 1 / sum(seen))


def _compare_one(name: str, expected: Sequence[int], seen: Sequence[int], thresholds: Thresholds) -> FeatureDrift:
    shares = zip(FEATURES[name].bins, _shares(expected), _shares(seen), strict=True)
    psi = noise = None
    level: Level = "too_few"
    if min(sum(expected), sum(seen)) >= thresholds.min_photos:
        psi, noise = population_stability(expected, seen), chance_limit(expected, seen)
        moved = psi >= thresholds.watch and psi > noise
        level = "stable" if not moved else "watch" if psi < thresholds.alarm else "alarm"
    return FeatureDrift(
        feature=name,
        level=level,
        psi=psi,
        noise=noise,
        photos=sum(seen),
        reference_photos=sum(expected),
        shares=tuple(BinShare(bin=label, expected=p, seen=q) for label, p, q in shares),
    )


def _shares(counts: Sequence[int], prior: float = 0.0) -> list[float]:
    total = sum(counts) + prior * len(counts)
    return [(number + prior) / total if total else 0.0 for number in counts]


def _chi_squared_99(degrees: int) -> float:
    """The 99th percentile by Wilson and Hilferty (1931), within 1% for two degrees and more."""
    part = 2 / (9 * degrees)
    return degrees * (1 - part + _Z_99 * math.sqrt(part)) ** 3
