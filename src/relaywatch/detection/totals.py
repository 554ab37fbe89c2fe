"""Tunnels without volumes: whether a link's totals mirror the totals of the flows beside it.

One number per link cannot tell a relay from chance: totals agree by accident, and an app's own traffic hides them. So
this never supports more than "insufficient telemetry": it says that interval volumes would settle the matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.bridging import side_bounds
from relaywatch.detection.columns import FlowColumns, Ints, group_of

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


def mirrored_totals(flows: FlowColumns, number: int) -> MirroredTotals | None:
    """The link of group `number` whose bytes_out come nearest to what the flows within its life received, if any does.

    Ratio 1 is exact conservation; accepted within SHORTEST_RATIO to LONGEST_RATIO.
    """
    group = group_of(flows, number)
    order, bounds = side_bounds(group.side)
    best: MirroredTotals | None = None
    for k in range(len(bounds) - 1):
        legs = order[bounds[k] : bounds[k + 1]]
        sent = group.bytes_out[legs].sum()
        if sent < LEAST_BYTES or sent < group.bytes_in[legs].sum():
            continue
        begin, end = group.start[legs].min(), group.end[legs].max()
        inside = (group.start >= begin) & (group.end <= end + 1.0) & (group.side != group.side[legs[0]])
        targets = np.flatnonzero(inside & ~group.inbound & ~group.lookup & (group.bytes_in > 0))
        received = group.bytes_in[targets].sum()
        if len(targets) < FEWEST_TARGETS or not SHORTEST_RATIO <= sent / received <= LONGEST_RATIO:
            continue
        if best is None or abs(np.log(sent / received)) < abs(np.log(best.ratio)):
            best = MirroredTotals(np.sort(legs), targets, float(sent / received))
    return best
