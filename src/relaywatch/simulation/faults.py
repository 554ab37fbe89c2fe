"""What goes wrong with the records of flows: late batches, gaps, and repetitions. Clocks are off in records.py."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.columns import Flags, Ints
from relaywatch.engines.records import taken
from relaywatch.model.compilation import compiled
from relaywatch.simulation.chance import key_of, share_of
from relaywatch.simulation.drafts import Drafts, joined
from relaywatch.simulation.lateness import Lateness, arrival_of, in_gap
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, Plan

_REPEATS, _DELAYS = 21, 22


class Recorded(NamedTuple):
    """Drafts as they are recorded, repetitions behind them; and how many records gaps, repetitions and delays made."""

    drafts: Drafts
    missing: int
    repeated: int
    late: int


class Recorder:
    """Applies a plan's faults to drafts, each by itself: what becomes of one depends on it and the plan alone."""

    def __init__(self, plan: Plan, lateness: Lateness, skew: Ints) -> None:
        self._lateness, self._skew = lateness, skew
        self._repeats = plan.faults.duplicates
        self._keys: Final = key_of(plan.seed, _REPEATS), key_of(plan.seed, _DELAYS)

    def recorded(self, drafts: Drafts) -> Recorded:
        """The flows that are recorded, with the time at which their records arrive."""
        kept, late = _arrived(drafts, self._lateness, self._skew)
        own = drafts if kept.all() else taken(drafts, np.flatnonzero(kept))
        if self._repeats.rate <= 0.0:
            return Recorded(own, len(drafts) - len(own), 0, late)
        again = taken(own, np.flatnonzero(_chosen(own["flow"], self._keys[0], self._repeats.rate)))
        again["arrival"] += _delays(again["flow"], self._keys[1], int(self._repeats.bound_s * 1e6))
        return Recorded(joined([own, again]), len(drafts) - len(own), len(again), late)


@compiled
def _arrived(drafts: Drafts, faults: Lateness, skew: Ints) -> tuple[Flags, int]:
    """Which drafts are recorded, and how many of them come late; sets when each arrives."""
    kept, late = np.ones(len(drafts), np.bool_), 0
    for k in range(len(drafts)):
        device, end = drafts["pair"][k] // APPS_A_PHONE, drafts["end"][k]
        drafts["arrival"][k] = arrival_of(faults, device, end)
        kept[k] = not in_gap(faults, device, end + skew[device], DAY_US)
        late += kept[k] and drafts["arrival"][k] > end
    return kept, late


@compiled
def _chosen(flows: Ints, key: np.uint64, rate: float) -> Flags:
    out = np.empty(len(flows), np.bool_)
    for k in range(len(flows)):
        out[k] = share_of(key, flows[k]) < rate
    return out


@compiled
def _delays(flows: Ints, key: np.uint64, bound_us: int) -> Ints:
    out = np.empty(len(flows), np.int64)
    for k in range(len(flows)):
        out[k] = 1 + int(share_of(key, flows[k]) * (bound_us - 1))
    return out
