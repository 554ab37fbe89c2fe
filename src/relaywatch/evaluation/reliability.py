"""Whether probabilities mean what they say, on apps and on programs merged into one app."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from relaywatch.detection.calibration import PRIOR_LOG_ODDS
from relaywatch.detection.columns import Flags, Floats
from relaywatch.evaluation.labels import LabelledApp
from relaywatch.evaluation.merging import pairs_of, write_merged
from relaywatch.evaluation.verdicts import NOTHING, Findings, found_in
from relaywatch.model.estimates import Estimate, proportion
from relaywatch.model.finding import Finding

EDGES: Final = (0.5, 0.8, 0.95, 0.99, 0.999)
"""Lower edges of the groups of reported probabilities; below the first nothing is reported."""


@dataclass(frozen=True, slots=True)
class Group:
    """Apps whose probability lies in one group.

    expected: mean of what was said; observed: share that relays; weighted: that share if one app in a thousand relays,
    as the detector's prior says.
    """

    label: str
    apps: int
    relays: int
    expected: float
    observed: Estimate
    weighted: float


@dataclass(frozen=True, slots=True)
class ReliabilityResult:
    """brier: mean squared error of the probability; merged: verdicts on relays in benign apps, and on benign pairs.

    calibration_error: mean distance of what was said from what was observed over the groups, each by its apps (Naeini
    et al. 2015); *_weighted: if one app in a thousand relays.
    """

    groups: list[Group]
    brier: float
    brier_weighted: float
    calibration_error: float
    calibration_error_weighted: float
    merged: dict[str, Counter[str]]


def evaluate_reliability(apps: Sequence[LabelledApp], findings: Findings) -> ReliabilityResult:
    """Reliability over the apps as they are and as merged pairs."""
    merged = pairs_of(apps)
    with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
        for pair in merged:
            write_merged(pair, Path(folder))
        found = found_in([Path(folder)]) if merged else {}
    cases = [(findings.get(app.name), app.relays) for app in apps]
    cases += [(found.get(pair.name), pair.first.relays) for pair in merged]
    verdicts: dict[str, Counter[str]] = {"relay in a benign app": Counter(), "two benign programs": Counter()}
    for pair in merged:
        kind = "relay in a benign app" if pair.first.relays else "two benign programs"
        verdicts[kind][found[pair.name].verdict.value if pair.name in found else NOTHING] += 1
    said = np.array([_probability(finding) for finding, _ in cases])
    relays = np.array([relay for _, relay in cases])
    weight = _weights(relays)
    error = (said - relays) ** 2
    return ReliabilityResult(
        groups=_grouped(said, relays, weight),
        brier=float(error.mean()),
        brier_weighted=float(np.average(error, weights=weight)),
        calibration_error=calibration_error(said, relays, np.ones(len(said))),
        calibration_error_weighted=calibration_error(said, relays, weight),
        merged=verdicts,
    )


def calibration_error(said: Floats, relays: Flags, weight: Floats) -> float:
    """Expected calibration error over the groups of EDGES: sum over groups of |sum of weight x (said - relays)|."""
    sums = np.bincount(np.searchsorted(EDGES, said, "right"), weight * (said - relays))
    return float(np.abs(sums).sum() / weight.sum())


def _probability(finding: Finding | None) -> float:
    """What was said; of apps without a finding the prior."""
    return finding.probability if finding is not None else float(1.0 / (1.0 + np.exp(-PRIOR_LOG_ODDS)))


def _weights(relays: Flags) -> Floats:
    """Weights under which one app in 1 + exp(-prior) relays."""
    odds = float(np.exp(PRIOR_LOG_ODDS))
    return np.where(relays, odds * max((~relays).sum(), 1) / max(relays.sum(), 1), 1.0)


def _grouped(said: Floats, relays: Flags, weight: Floats) -> list[Group]:
    place = np.searchsorted(EDGES, said, "right")
    names = ["not reported", *(f"{low:g} to {high:g}" for low, high in zip(EDGES, (*EDGES[1:], 1.0), strict=True))]
    groups = []
    for k, name in enumerate(names):
        own = place == k
        if own.any():
            hits = int(relays[own].sum())
            share = float((weight[own] * relays[own]).sum() / weight[own].sum())
            groups.append(
                Group(name, int(own.sum()), hits, float(said[own].mean()), proportion(hits, int(own.sum())), share)
            )
    return groups
