"""Figures with their uncertainty: proportions, rates, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from sklearn.metrics import roc_auc_score

from relaywatch.detection.columns import Flags, Floats
from relaywatch.model.estimates import Estimate

RESAMPLED: Final = 500


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
