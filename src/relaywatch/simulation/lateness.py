"""When records arrive, and when a device records nothing: asked of any device and time, always the same answer."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.model.compilation import compiled
from relaywatch.simulation.chance import bits_of, key_of, share_of
from relaywatch.simulation.plan import SECOND, Plan

_LATENESS: Final = 41


class Lateness(NamedTuple):
    """Late batches and gaps as kernels see them.

    late, gaps: their rates; late_us: how late at most, 0 where nothing is; gap_us: the longest gap; days: how many
    there are, as only they have gaps.
    """

    key: np.uint64
    late: float
    late_us: int
    gaps: float
    gap_us: int
    days: int


def lateness_of(plan: Plan) -> Lateness:
    """The plan's late batches and gaps."""
    late, gaps = plan.faults.late, plan.faults.gaps
    longest = int(late.bound_s * SECOND) if late.rate > 0.0 else 0
    key = key_of(plan.seed, _LATENESS)
    return Lateness(key, late.rate, longest, gaps.rate, int(gaps.bound_s * SECOND), plan.days)


@compiled
def arrival_of(faults: Lateness, device: int, at: int) -> int:
    """When the record of something at a time (us) arrives: with all that the device recorded within half a bound."""
    half = faults.late_us // 2
    if faults.late <= 0.0:
        return at
    window = at // half
    key = bits_of(bits_of(faults.key, device), window)
    if share_of(key, 1) >= faults.late:
        return at
    return (window + 1) * half + int(share_of(key, 2) * half)


@compiled
def gap_of(faults: Lateness, device: int, day: int, day_us: int) -> tuple[int, int]:
    """Begin and end (us by the device's clock) of a day's gap of the device; both 0 where there is none."""
    if faults.gaps <= 0.0 or not 0 <= day < faults.days:
        return 0, 0
    key = bits_of(bits_of(faults.key ^ np.uint64(1), device), day)
    if share_of(key, 1) >= faults.gaps:
        return 0, 0
    length = 1 + int(faults.gap_us * share_of(key, 2))
    begin = day * day_us + 1 + int((day_us - length - 2) * share_of(key, 3))
    return begin, begin + length


@compiled
def in_gap(faults: Lateness, device: int, at: int, day_us: int) -> bool:
    """Whether the device's own time (us) lies in a gap."""
    if faults.gaps <= 0.0:
        return False
    begin, end = gap_of(faults, device, at // day_us, day_us)
    return begin <= at < end
