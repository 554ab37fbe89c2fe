"""Tunnels of many sessions at once: a link's bytes second by second against the sum of the flows beside it.

Where sessions overlap so much that bursts cannot be told apart, their sum still can: what a relay's link sends follows
what the other flows receive, and what it receives precedes what they send. The correlation is free of scale, so framing
does not matter. An app's own heavy traffic drowns the sum; bursts (tunnelling.py) are judged one by one there.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from relaywatch.detection.bridging import largest_sides
from relaywatch.detection.chance import SHORTEST_SPAN_S, shifts_within, stake
from relaywatch.detection.columns import Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.detection.tunnelling import SERIES_STAKE, SINGLE_SERIES_STAKE, volumes_of
from relaywatch.model.compilation import compiled

LAGS_S: Final = 3
"""Lags tried, 0 s and up: a link sends at once or within two seconds."""
FREEDOM: Final = 8.0
"""Degrees of freedom of the null's Student distribution: a few shifts tell its spread, not its tails."""
INDEPENDENT_S: Final = 3.0
"""Seconds that one independent value of a series lasts: bounds the null's spread from below."""
RELAY_Z: Final = 1.3
RELAY_SPREAD: Final = 0.5
"""Fisher z of real relays' links, and its spread: a correlation of 0.86 and more."""
HIGHEST: Final = 0.999
UPSTREAM_MOST: Final = 3.0
UPSTREAM_LEAST: Final = -2.0
"""Bounds of what the small bytes of requests may add: keep-alives and handshakes blur them."""
LONGEST_S: Final = 14_400.0
"""Longest activity that is judged as one series: bounds the work; longer ones are judged by bursts and pairs."""
MOST_LINKS: Final = 8
BALANCE_LEAST: Final = 0.9
BALANCE_MOST: Final = 1.6
BALANCE_FAR: Final = 2.6
BALANCED_RATIO: Final = 0.5
UNBALANCED_RATIO: Final = -3.0
FAR_RATIO: Final = -8.0
"""Log likelihood ratio of bytes sent over bytes received by the others: within 0.9 to 1.6, beyond, and far off."""


@compiled
def _correlation(a: Floats, b: Floats) -> float:
    spread = math.sqrt(a.var() * b.var())
    return 0.0 if spread == 0.0 else float(((a - a.mean()) * (b - b.mean())).mean() / spread)


@compiled
def _best_z(follower: Floats, leader: Floats) -> float:
    """Fisher z of the best correlation of the follower with the leader some seconds earlier."""
    best = -HIGHEST
    for lag in range(LAGS_S):
        best = max(best, _correlation(np.roll(follower, -lag), leader))
    return math.atanh(min(best, HIGHEST))


@compiled
def follows(follower: Floats, leader: Floats) -> float:
    """Natural log likelihood ratio that one series follows another, second by second.

    Bytes are taken as square roots, so that a few large seconds do not decide. The null is the follower shifted around.
    """
    follower, leader = np.sqrt(follower), np.sqrt(leader)
    shifts = shifts_within(float(len(leader)))
    null = np.empty(len(shifts))
    for k in range(len(shifts)):
        null[k] = _best_z(np.roll(follower, int(shifts[k])), leader)
    spread = max(null.std(), math.sqrt(INDEPENDENT_S / len(leader)))
    z = _best_z(follower, leader)
    relay = -0.5 * ((min(z, RELAY_Z) - RELAY_Z) / RELAY_SPREAD) ** 2 - math.log(RELAY_SPREAD * math.sqrt(2.0 * math.pi))
    away = (z - null.mean()) / spread
    constant = math.lgamma((FREEDOM + 1.0) / 2.0) - math.lgamma(FREEDOM / 2.0) - 0.5 * math.log(FREEDOM * math.pi)
    chance = constant - (FREEDOM + 1.0) / 2.0 * math.log1p(away * away / FREEDOM) - math.log(spread)
    return relay - chance


@compiled
def _by_second(seconds: Ints, count: Floats, length: int) -> Floats:
    """Bytes in each of `length` seconds."""
    total = np.zeros(length)
    for k in range(len(seconds)):
        total[seconds[k]] += count[k]
    return total


@compiled
def balance_ratio(balance: float) -> float:
    """Log likelihood ratio of what a link sends over what the flows beside it receive, over its life."""
    if BALANCE_LEAST <= balance <= BALANCE_MOST:
        return BALANCED_RATIO
    return UNBALANCED_RATIO if BALANCE_LEAST / 1.5 < balance < BALANCE_FAR else FAR_RATIO


@compiled
def score_series(group: Group, volumes: VolumeColumns, sessions: int, uplink: float) -> tuple[Floats, Ints, Floats]:
    """Each client side tried: natural log evidence with its stake and balance_ratio, first row, balance."""
    order, begins, ends, sent = largest_sides(group, uplink)
    tried = min(len(begins), MOST_LINKS)
    evidence, balance = np.full(tried, -np.inf), np.zeros(tried)
    first = np.zeros(tried, np.int64)
    seconds = (volumes.time - volumes.time.min()).astype(np.int64)
    length = int(seconds.max()) + 1
    if length < SHORTEST_SPAN_S or length > LONGEST_S:
        return evidence[:0], first[:0], balance[:0]
    target = (~group.inbound & ~group.lookup)[volumes.flow]
    for k in range(tried):
        legs = order[begins[k] : ends[k]]
        first[k] = legs[0]
        member = np.zeros(len(group.side), np.bool_)
        member[legs] = True
        own = member[volumes.flow]
        other = target & ~own
        link_out = _by_second(seconds[own], volumes.bytes_out[own], length)
        sum_in = _by_second(seconds[other], volumes.bytes_in[other], length)
        if len(np.unique(volumes.flow[other])) < sessions or link_out.sum() < max(uplink, 1.0) or sum_in.sum() <= 0.0:
            continue
        link_in = _by_second(seconds[own], volumes.bytes_in[own], length)
        sum_out = _by_second(seconds[other], volumes.bytes_out[other], length)
        balance[k] = link_out.sum() / sum_in.sum()
        upstream = min(max(follows(link_in, sum_out), UPSTREAM_LEAST), UPSTREAM_MOST)
        share = SERIES_STAKE if len(legs) >= sessions else SINGLE_SERIES_STAKE
        believed = stake(sent[k], np.maximum(group.bytes_out, 0.0).sum(), 1.0 / share)
        evidence[k] = follows(link_out, sum_in) + upstream + balance_ratio(balance[k]) + believed
    return evidence, first, balance


@compiled
def score_sums(flows: FlowColumns, volumes: VolumeColumns, sessions: int, uplink: float) -> Floats:
    """Evidence that one client side of each group follows the sum of the other flows; 0 where there is none.

    sessions: fewest flows beside the link; uplink: UplinkBytesThreshold in bytes.
    """
    groups = len(flows.offsets) - 1
    result = np.zeros(groups)
    for g in range(groups):
        if volumes.offsets[g] == volumes.offsets[g + 1] or flows.offsets[g + 1] - flows.offsets[g] < 2:
            continue
        evidence = score_series(group_of(flows, g), volumes_of(flows, volumes, g), sessions, uplink)[0]
        if len(evidence) > 0:
            result[g] = max(0.0, evidence.max())
    return result
