"""Volumes of flows, second by second: where the bytes of each lie in time, as measured of real relays' target legs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Floats, Ints
from relaywatch.model.compilation import compiled
from relaywatch.simulation.drafts import LINK, Drafts
from relaywatch.simulation.lateness import Lateness, arrival_of, in_gap
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, SECOND


class Seconds(NamedTuple):
    """What a flow carried in one second, one value each. arrival, start: us since the begin; flow, pair: numbers."""

    arrival: Ints
    start: Ints
    flow: Ints
    pair: npt.NDArray[np.int32]
    bytes_out: Ints
    bytes_in: Ints

    def at(self, rows: Ints) -> Seconds:
        """Some of the seconds."""
        return Seconds(
            self.arrival[rows],
            self.start[rows],
            self.flow[rows],
            self.pair[rows],
            self.bytes_out[rows],
            self.bytes_in[rows],
        )


def seconds_of(drafts: Drafts, since: int, until: int, profile: Floats, skew: Ints, faults: Lateness) -> Seconds:
    """The volumes of drafts whose records arrive in [since, until), in the order in which they do.

    profile: share of a flow's bytes carried by the end of each equal part of its time. A link's pieces are put
    together.
    """
    made = _seconds(drafts, since, until, profile, skew, faults)
    order = np.lexsort((made.start, made.flow, made.arrival))
    ordered = made.at(order)
    if not len(order):
        return ordered
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(ordered.flow) != 0) | (np.diff(ordered.start) != 0)
    first = np.flatnonzero(new)
    sent, received = (np.add.reduceat(amount, first) for amount in (ordered.bytes_out, ordered.bytes_in))
    return ordered.at(first)._replace(bytes_out=sent, bytes_in=received)


@compiled
def _seconds(drafts: Drafts, since: int, until: int, profile: Floats, skew: Ints, faults: Lateness) -> Seconds:
    room = 0
    for k in range(len(drafts)):
        low, high = _reach(drafts, k, since, until, faults)
        room += max(0, high - low)
    arrival, start, flow = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    pair = np.empty(room, np.int32)
    sent, received = np.empty(room, np.int64), np.empty(room, np.int64)
    made = 0
    for k in range(len(drafts)):
        low, high = _reach(drafts, k, since, until, faults)
        device = drafts["pair"][k] // APPS_A_PHONE
        for second in range(low, high):
            at = arrival_of(faults, device, (second + 1) * SECOND)
            if not since <= at < until or in_gap(faults, device, (second + 1) * SECOND + skew[device], DAY_US):
                continue
            before, after = _carried(drafts, k, second, profile), _carried(drafts, k, second + 1, profile)
            out = int(np.rint(after * drafts["bytes_out"][k])) - int(np.rint(before * drafts["bytes_out"][k]))
            into = int(np.rint(after * drafts["bytes_in"][k])) - int(np.rint(before * drafts["bytes_in"][k]))
            if out > 0 or into > 0:
                arrival[made], start[made], flow[made] = at, second * SECOND + skew[device], drafts["flow"][k]
                pair[made], sent[made], received[made] = drafts["pair"][k], out, into
                made += 1
    return Seconds(arrival[:made], start[:made], flow[:made], pair[:made], sent[:made], received[:made])


@compiled
def _reach(drafts: Drafts, row: int, since: int, until: int, faults: Lateness) -> tuple[int, int]:
    """Seconds, from and to below, of a draft of which something may arrive in [since, until)."""
    if drafts["kind"][row] == LINK or drafts["bytes_out"][row] + drafts["bytes_in"][row] <= 0:
        return 0, 0  # a link's pieces stand for it
    low = max(drafts["busy"][row] // SECOND, (since - faults.late_us) // SECOND - 1)
    high = min(drafts["idle"][row] // SECOND, until // SECOND)
    return low, high + 1


@compiled
def _carried(drafts: Drafts, row: int, second: int, profile: Floats) -> float:
    """Share of its bytes that a draft has carried when a second begins."""
    busy, idle = drafts["busy"][row], drafts["idle"][row]
    at = second * SECOND
    if at <= busy:
        return 0.0
    if at > idle:
        return 1.0
    parts = len(profile) - 1
    place = (at - busy) / (idle - busy) * parts
    part = min(int(place), parts - 1)
    return float(profile[part] + (place - part) * (profile[part + 1] - profile[part]))
