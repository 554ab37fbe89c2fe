"""Judging against chance: the null from an app's own traffic, and evidence that adds up with a known error rate.

Every leg's match is turned into one of a few grades. The same legs, moved in time around their own activity, show how
often each grade arises when legs are independent (circular shift null). The likelihood ratio of a leg is the
frequency of its grade among real relays over its frequency under that null. Over an episode the ratios are combined
as a mixture over the share of legs that relay: under the null its expectation is at most one, so by Ville's inequality
it exceeds 1/a with probability at most a, whenever one looks (Vovk and Wang, E-values, Annals of Statistics 2021).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.columns import Floats, Ints
from relaywatch.model.compilation import compiled

SHIFTS: Final = 24
NEAREST_S: Final = 10.0
FURTHEST_S: Final = 290.0
"""Shifts of the null: beyond any relay's delay, near enough to stay within one bout of the app's activity."""
GOLDEN: Final = 0.6180339887498949
"""Multiples of it, modulo 1, meet every phase of any period: two clocks in step look alike when shifted, too."""
SHORTEST_SPAN_S: Final = 40.0
"""Below this length of activity no shift is free of the real alignment, and the prior null stands alone."""
AROUND_S: Final = 15.0
"""Time on each side of what is judged in which it may be moved: hours of silence between would show no coincidence."""
FEWEST_UNLIKE: Final = 0.25
"""Where fewer exchanges than this share change anything, all of them count: alike sizes are no sign of anything."""
COARSE_CLOCKS_S: Final = np.array([60.0, 30.0, 10.0, 5.0, 1.0])
RAREST: Final = 0.25
"""An app's own null never makes a grade rarer than this part of what is assumed of all apps."""
RELAYED_SHARES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95])
"""Grid of the share of legs that relay: an app may have much traffic of its own."""
LINK_SHARES: Final = np.array([0.4, 0.7, 0.95])
"""Grid of the share of a link's sendings that relay: a gateway's link carries little else but keep-alives and chaff."""


@compiled
def shifts_within(span_s: float) -> Floats:
    """The null's shifts for activity of span_s seconds; empty where it is too short to have any."""
    if span_s < SHORTEST_SPAN_S:
        return np.empty(0, np.float64)
    reach = min(span_s - NEAREST_S, FURTHEST_S) - NEAREST_S
    phases: Floats = np.mod(np.arange(1, SHIFTS + 1) * GOLDEN, 1.0)
    return NEAREST_S + reach * phases


@compiled
def clock_step(start: Floats) -> float:
    """Step in s of the clock that stamped these starts, from COARSE_CLOCKS_S; 0 where it is finer."""
    for step in COARSE_CLOCKS_S:
        coarse = True
        for time in start:
            steps = (time - start[0]) / step
            if abs(steps - np.round(steps)) >= 1e-6:
                coarse = False
                break
        if coarse:
            return float(step)
    return 0.0


@compiled
def stake(sent: float, sent_in_all: float, ways: float) -> float:
    """Natural log of the belief staked on one client side before it is tried; to be added to its evidence.

    A relay sends to its clients all that it carries, so a side's stake is its share of the bytes that the app sends;
    `ways` in which each side is tried share it. Stakes sum to at most one, so the best of all sides errs no more often
    than a single one would.
    """
    return float(np.log(sent / sent_in_all / ways))


class Timeline(NamedTuple):
    """The time around what is judged, with the silence between cut out.

    begin: of each interval, s; before: seconds of earlier intervals, with the seconds of all appended.
    """

    begin: Floats
    before: Floats


@compiled
def timeline_around(begin: Floats, end: Floats) -> Timeline:
    """The intervals from AROUND_S before each begin to AROUND_S after its end, merged."""
    order = np.argsort(begin, kind="mergesort")
    begins, before = np.empty(len(order)), np.zeros(len(order) + 1)
    count, until = 0, -np.inf
    for k in order:
        if begin[k] - AROUND_S > until:
            if count > 0:
                before[count] = before[count - 1] + until - begins[count - 1]
            begins[count] = begin[k] - AROUND_S
            count += 1
            until = begins[count - 1]
        until = max(until, end[k] + AROUND_S)
    before[count] = before[count - 1] + until - begins[count - 1]
    return Timeline(begins[:count], before[: count + 1])


@compiled
def moved(time: float, shift: float, line: Timeline) -> float:
    """A time on the timeline, moved by shift s along it and around its end."""
    k = max(int(np.searchsorted(line.begin, time, "right")), 1) - 1
    along = line.before[k] + time - line.begin[k] + shift
    along -= line.before[-1] * np.floor(along / line.before[-1])
    k = min(int(np.searchsorted(line.before, along, "right")), len(line.begin)) - 1
    return float(line.begin[k] + along - line.before[k])


@compiled
def grade_ratios(null_counts: Floats, relay_share: Floats, null_share: Floats, weight: float) -> Floats:
    """Likelihood ratio of each grade.

    null_counts: how often shifted legs reached each grade; relay_share: frequency among real relays' legs;
    null_share: frequency that is assumed before the app's own null is seen, worth `weight` legs.
    """
    return ratios_among(null_counts, null_counts.sum(), relay_share, null_share, weight)


@compiled
def ratios_among(null_counts: Floats, in_all: float, relay_share: Floats, null_share: Floats, weight: float) -> Floats:
    """As grade_ratios, of so many shifted legs; upper bounds where `null_counts` counts only some of these."""
    measured = (null_counts + weight * null_share) / (in_all + weight)
    ratios: Floats = relay_share / np.maximum(measured, RAREST * null_share)
    return ratios


@compiled
def log_evidence(ratios: Floats, counts: Ints, shares: Floats) -> float:
    """Natural log of the mixture evidence of `counts` legs in each grade with the grades' likelihood ratios.

    shares: grid of the share of legs that relay, each believed alike.
    """
    logs = np.zeros(len(shares))
    for k in range(len(shares)):
        share = shares[k]
        for grade in range(len(ratios)):
            if counts[grade] > 0:
                logs[k] += counts[grade] * np.log1p(share * (ratios[grade] - 1.0))
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).mean()))
