"""Tunnels without volumes: whether a link's totals mirror the totals of the flows beside it.

One number per link cannot tell a relay from chance: totals agree by accident, and an app's own traffic hides them. So
this never supports more than "insufficient telemetry": it says that interval volumes would settle the matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.bridging import NONE, side_bounds
from relaywatch.detection.columns import Flags, FlowColumns, Group, Ints, group_of
from relaywatch.model.compilation import compiled

LONGEST_RATIO: Final = 1.25
"""Bytes that a link sends over bytes that the flows beside it receive, at the most; framing adds little to bulk."""
SHORTEST_RATIO: Final = 0.9
FEWEST_TARGETS: Final = 8
LEAST_BYTES: Final = 65_536.0


@dataclass(frozen=True, slots=True)
class MirroredTotals:
    """A link whose totals mirror those of the flows within its life. legs, targets: rows of the group's flows."""

    legs: Ints
    targets: Ints
    ratio: float


@compiled
def _mirroring_side(group: Group) -> tuple[int, float]:
    """First row of the client side whose bytes_out come nearest to what the flows within its life received; the ratio.

    Row NONE where no side's ratio lies within SHORTEST_RATIO to LONGEST_RATIO.
    """
    order, bounds = side_bounds(group.side)
    found, best = NONE, 0.0
    for k in range(len(bounds) - 1):
        legs = order[bounds[k] : bounds[k + 1]]
        sent = group.bytes_out[legs].sum()
        if sent < LEAST_BYTES or sent < group.bytes_in[legs].sum():
            continue
        targets = _within_life(group, legs)
        if len(targets) < FEWEST_TARGETS:
            continue
        ratio = sent / group.bytes_in[targets].sum()
        if SHORTEST_RATIO <= ratio <= LONGEST_RATIO and (found == NONE or abs(np.log(ratio)) < abs(np.log(best))):
            found, best = legs[0], ratio
    return found, best


@compiled
def _within_life(group: Group, legs: Ints) -> Ints:
    """Rows of possible target legs that begin and end within the life of the client legs."""
    begin, end = group.start[legs].min(), group.end[legs].max() + 1.0
    inside = (group.start >= begin) & (group.end <= end) & (group.side != group.side[legs[0]])
    return np.flatnonzero(inside & ~group.inbound & ~group.lookup & (group.bytes_in > 0.0))


@compiled
def score_totals(flows: FlowColumns) -> Flags:
    """Whether each group has a client side whose totals mirror those of the flows within its life."""
    groups = len(flows.offsets) - 1
    result = np.zeros(groups, np.bool_)
    for g in range(groups):
        if flows.offsets[g + 1] - flows.offsets[g] > FEWEST_TARGETS:
            result[g] = _mirroring_side(group_of(flows, g))[0] != NONE
    return result


def mirrored_totals(flows: FlowColumns, number: int) -> MirroredTotals:
    """The link of group `number`, of which score_totals said that there is one. Ratio 1 is exact conservation."""
    group = group_of(flows, number)
    first, ratio = _mirroring_side(group)
    legs = np.flatnonzero(group.side == group.side[first])
    return MirroredTotals(legs, _within_life(group, legs), ratio)
