"""Shares and rates with their exact 95 % intervals. Needs SciPy, which comes with the extras that use it."""

from __future__ import annotations

from typing import Final, NamedTuple

from scipy.stats import beta, chi2

LEVEL: Final = 0.95


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
