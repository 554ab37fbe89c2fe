"""TCP payload without retransmissions, from sequence numbers alone.

Per direction the highest sequence number seen (the edge) is kept, and up to GAPS ranges below it that were skipped.
Bytes beyond the edge, and bytes that fill a gap, are new; all others are retransmissions. A range that
finds all GAPS places taken becomes a mere number of bytes: what later arrives below the edge counts as new until the
number is used up. So the sum is exact once all gaps were filled, and never more than the range of sequence numbers.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relaywatch.model.compilation import compiled

GAPS: Final = 4
_LARGEST_GAP: Final = 1 << 26
"""Beyond any TCP window in use: the numbering began anew, or the packet is forged."""

Gaps = NDArray[np.uint32]


@compiled
def distance(first: int, second: int) -> int:
    """Sequence number `first` minus `second`, modulo 2**32, as a signed number (RFC 9293, section 3.4)."""
    return ((first - second + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@compiled
def new_payload(edge: int, gaps: Gaps, loose: int, sequence: int, length: int) -> tuple[int, int, int]:
    """Account for `length` payload bytes at `sequence`: bytes that are new, the edge, the loose bytes.

    gaps: [begin, end) pairs, changed in place; begin equal to end is a free place.
    """
    if length == 0:
        return 0, edge, loose
    ahead = distance(sequence, edge)
    end = (sequence + length) & 0xFFFFFFFF
    if ahead > _LARGEST_GAP or ahead < -(1 << 30):
        gaps[:] = 0
        return length, end, 0
    if ahead >= 0:
        if ahead > 0:
            loose += open_gap(gaps, edge, sequence)
        return length, end, loose
    beyond = max(distance(end, edge), 0)
    filled, spilled = fill_gaps(gaps, sequence, end)
    taken = min(loose, length - beyond - filled)
    return beyond + filled + taken, end if beyond else edge, loose - taken + spilled


@compiled
def open_gap(gaps: Gaps, begin: int, end: int) -> int:
    """Keep the gap [begin, end); returns its bytes where there is no place for it."""
    for i in range(len(gaps)):
        if gaps[i, 0] == gaps[i, 1]:
            gaps[i, 0], gaps[i, 1] = begin, end
            return 0
    return distance(end, begin)


@compiled
def fill_gaps(gaps: Gaps, begin: int, end: int) -> tuple[int, int]:
    """Take [begin, end) out of the gaps; returns the bytes missing until now, and those no longer tracked."""
    filled = spilled = 0
    for i in range(len(gaps)):
        low, high = np.int64(gaps[i, 0]), np.int64(gaps[i, 1])
        if low == high or distance(end, low) <= 0 or distance(high, begin) <= 0:
            continue
        left = max(distance(begin, low), 0)
        right = max(distance(high, end), 0)
        filled += distance(high, low) - left - right
        if left and right:
            gaps[i, 1] = begin
            spilled += open_gap(gaps, end, high)
        elif left:
            gaps[i, 1] = begin
        elif right:
            gaps[i, 0] = end
        else:
            gaps[i, 0] = gaps[i, 1] = 0
    return filled, spilled


def no_gaps(flows: int) -> NDArray[Any]:
    """Room for the gaps of `flows` flows, both directions: shape (flows, 2, GAPS, 2)."""
    return np.zeros((flows, 2, GAPS, 2), np.uint32)
