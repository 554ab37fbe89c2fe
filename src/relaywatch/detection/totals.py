"""Tunnels without volumes: whether the flows beside a link could have fed it.

One number per link cannot tell a relay from chance: totals agree by accident, and an app's own traffic hides them. So
this never supports more than "insufficient telemetry": it says that interval volumes would settle the matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from relaywatch.detection.bridging import NONE, largest_sides
from relaywatch.detection.columns import Flags, FlowColumns, Group, Ints, group_of
from relaywatch.model.compilation import compiled

UPLOAD_HEAVY: Final = 2.0
"""A link to a relay's clients sends what others receive: bytes out over bytes in, at the least."""
LEAST_BYTES: Final = 65_536.0
FEWEST_PARTIES: Final = 3
CAPACITY: Final = 0.7
"""Bytes that the flows beside the link received over the bytes that it sent, at the least."""
NEAR: Final = 1.25
"""Up to this ratio the two totals mirror each other; beyond it, the app has traffic of its own or is no relay."""


@dataclass(frozen=True, slots=True)
class FedLink:
    """A client side that the flows beside it could have fed. legs, targets: rows of the group's flows.

    ratio: bytes that the targets received over bytes that the legs sent; 1 is exact conservation.
    """

    legs: Ints
    targets: Ints
    ratio: float

    @property
    def mirrors(self) -> bool:
        """Whether the totals agree, and not only allow it."""
        return self.ratio <= NEAR


@compiled
def fed_side(group: Group, uplink: float) -> tuple[int, float]:
    """First row of the client side whose total comes nearest to what the flows beside it received, and their ratio.

    Row NONE where no side could have been fed.
    """
    order, begins, ends, sent_by = largest_sides(group, max(LEAST_BYTES, uplink))
    found, best = NONE, 0.0
    for k in range(len(begins)):
        legs, sent = order[begins[k] : ends[k]], sent_by[k]
        known = legs[group.bytes_in[legs] >= 0.0]  # a connect that no sensor saw has no bytes
        if not len(known) or sent < UPLOAD_HEAVY * group.bytes_in[known].sum():
            continue
        targets = _beside(group, legs)
        if len(np.unique(group.side[targets])) < FEWEST_PARTIES:
            continue
        ratio = group.bytes_in[targets].sum() / sent
        if ratio >= CAPACITY and (found == NONE or abs(np.log(ratio)) < abs(np.log(best))):
            found, best = legs[0], ratio
    return found, best


@compiled
def _beside(group: Group, legs: Ints) -> Ints:
    """Rows of possible target legs: within the life of the client legs, and not larger than what these sent."""
    begin, end = group.start[legs].min(), group.end[legs].max() + 1.0
    inside = (group.start >= begin) & (group.end <= end) & (group.side != group.side[legs[0]])
    carried = (group.bytes_in > 0.0) & (group.bytes_in <= 1.02 * group.bytes_out[legs].sum())
    return np.flatnonzero(inside & carried & ~group.inbound & ~group.lookup)


@compiled
def score_totals(flows: FlowColumns, uplink: float) -> Flags:
    """Whether each group has a client side that the flows beside it could have fed. uplink: UplinkBytesThreshold."""
    groups = len(flows.offsets) - 1
    result = np.zeros(groups, np.bool_)
    least = max(LEAST_BYTES, uplink)
    for g in range(groups):
        a, b = flows.offsets[g], flows.offsets[g + 1]
        # Most apps send less than any link must have sent.
        if b - a > FEWEST_PARTIES and np.maximum(flows.bytes_out[a:b], 0.0).sum() >= least:
            result[g] = fed_side(group_of(flows, g), uplink)[0] != NONE
    return result


def fed_link(flows: FlowColumns, number: int, uplink: float) -> FedLink:
    """The link of group `number`, of which score_totals said that there is one."""
    group = group_of(flows, number)
    first, ratio = fed_side(group, uplink)
    legs = np.flatnonzero(group.side == group.side[first])
    return FedLink(legs, _beside(group, legs), ratio)
