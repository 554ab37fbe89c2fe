"""Figures with their uncertainty: proportions, rates, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import beta, chi2
from sklearn.metrics import roc_auc_score

from relaywatch.detection.columns import Flags, Floats

LEVEL: Final = 0.95
RESAMPLED: Final = 500


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def proportion(hits: int, trials: int) -> Estimate:
    """Share of hits, with the exact interval of Clopper and Pearson (1934); NaN of nothing."""
    if trials == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    tail = (1.0 - LEVEL) / 2.0
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Estimate(hits / trials, low, high)


def rate(events: int, exposure: float) -> Estimate:
    """Events per unit of exposure, with the exact interval of a Poisson count (Garwood 1936); NaN of no exposure."""
    if exposure <= 0.0:
        return Estimate(float("nan"), 0.0, float("inf"))
    tail = (1.0 - LEVEL) / 2.0
    low = float(chi2.ppf(tail, 2 * events)) / 2.0 if events else 0.0
    high = float(chi2.ppf(1.0 - tail, 2 * events + 2)) / 2.0
    return Estimate(events / exposure, low / exposure, high / exposure)


def area_under_curve(scores: Floats, positive: Flags, groups: Sequence[str]) -> Estimate:
    """Probability that a positive scores above a negative, ties half; interval by resampling whole groups.

    NaN where there are positives or negatives only.
    """
    if positive.all() or not positive.any():
        return Estimate(float("nan"), 0.0, 1.0)
    value = float(roc_auc_score(positive, scores))
    names = np.array(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLED):
        rows = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        if positive[rows].any() and not positive[rows].all():
            drawn.append(float(roc_auc_score(positive[rows], scores[rows])))
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (0.0, 1.0)
    return Estimate(value, float(low), float(high))


def recall_without_alarms(scores: Floats, positive: Flags) -> float:
    """Share of positives that score above every negative; NaN where there are positives or negatives only."""
    if positive.all() or not positive.any():
        return float("nan")
    return float((scores[positive] > scores[~positive].max()).mean())


def threshold_at(negatives: Floats, negatives_in_all: int, false_positive_rate: float) -> float:
    """Least score above which no more than this share of all negatives lies; unlisted negatives score -inf."""
    allowed = int(false_positive_rate * negatives_in_all)
    ranked = np.sort(negatives)[::-1]
    return float(ranked[allowed]) if allowed < len(ranked) else -np.inf
