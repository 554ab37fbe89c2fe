"""Which apps may have a case, told at a tenth of the cost of their scores: most have none, and are ruled out here.

Nothing is decided that a score would not decide alike: where a group is passed over, its score finds nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.bridging import NONE, has_sure, may_bridge, own_grades, sure_prospects
from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Flags, Floats, FlowColumns, Group, Ints, Keys, group_of
from relaywatch.detection.totals import FEWEST_PARTIES, LEAST_BYTES, UPLOAD_HEAVY, fed_side
from relaywatch.model.compilation import compiled

_SPREADING: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier whose high bits depend on all bits of a key (Knuth, The Art of Computer Programming 3, 6.4)."""
_ROUNDING: Final = 1.001
"""Sums of bytes that are taken in another order may differ by less."""


@compiled
def _coded(side: Keys) -> tuple[Ints, int]:
    """A number for each flow's client side, as they first come, and how many there are."""
    bits = 1
    while 1 << bits < 2 * len(side):
        bits += 1
    slots, met = np.full(1 << bits, NONE, np.int64), np.empty(len(side), np.uint64)
    codes, count = np.empty(len(side), np.int64), 0
    for row in range(len(side)):
        slot = np.int64((side[row] * _SPREADING) >> np.uint64(64 - bits))
        while slots[slot] != NONE and met[slots[slot]] != side[row]:
            slot = (slot + 1) & ((1 << bits) - 1)
        if slots[slot] == NONE:
            slots[slot], met[count] = count, side[row]
            count += 1
        codes[row] = slots[slot]
    return codes, count


@compiled
def _sums(codes: Ints, count: int, values: Floats) -> Floats:
    """Sum of the values that are known, by code."""
    sums = np.zeros(count)
    for row in range(len(codes)):
        sums[codes[row]] += max(values[row], 0.0)
    return sums


@compiled
def _may_bridge(
    group: Group, codes: Ints, sent: Floats, window: float, sessions: int, uplink: float, tables: Tables
) -> bool:
    """Whether a client side may be bridged in pairs. codes, sent: each flow's side, and what each side sends."""
    may = sure_prospects(group, window)
    likely = _sums(codes, len(sent), may.astype(np.float64))
    for side in range(len(sent)):
        if likely[side] < sessions or sent[side] * _ROUNDING < uplink or sent[side] <= 0.0:
            continue
        legs = np.flatnonzero(codes == side)
        if not has_sure(group, legs, window, sessions, may):
            continue
        if may_bridge(group, legs, own_grades(group, legs, legs, window), window, tables):
            return True
    return False


@compiled
def _may_be_fed(codes: Ints, sent: Floats, received: Floats, uplink: float) -> bool:
    """Whether a client side sends as much as fed_side asks for. codes, sent: as in _may_bridge; received: by flow."""
    least, came = max(LEAST_BYTES, uplink), _sums(codes, len(sent), received)
    return bool((sent * _ROUNDING >= np.maximum(least, UPLOAD_HEAVY * came)).any())


@compiled
def may_have_case(flows: FlowColumns, window: float, sessions: int, uplink: float, tables: Tables) -> Flags:
    """Whether each group may have evidence by score_bridging or a link by score_totals: where it says no it has none.

    Arguments as there.
    """
    result = np.zeros(len(flows.offsets) - 1, np.bool_)
    for g in range(len(result)):
        a, b = flows.offsets[g], flows.offsets[g + 1]
        if b - a < min(2 * sessions, FEWEST_PARTIES + 1):
            continue
        codes, count = _coded(flows.side[a:b])
        sent = _sums(codes, count, flows.bytes_out[a:b])
        if b - a >= 2 * sessions:
            result[g] = _may_bridge(group_of(flows, g), codes, sent, window, sessions, uplink, tables)
        if not result[g] and b - a > FEWEST_PARTIES and _may_be_fed(codes, sent, flows.bytes_in[a:b], uplink):
            result[g] = fed_side(group_of(flows, g), uplink)[0] != NONE
    return result
