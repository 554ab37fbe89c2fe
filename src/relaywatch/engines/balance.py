"""Byte balance over time: what came from one side of a relay and what left on the other, interval by interval."""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.columns import Flags, Floats, Ints, VolumeColumns

POINTS: Final = 160
"""Intervals at the most: what a chart can show."""
SPREAD_AT_ONCE: Final = 1_024
"""Flows whose bytes are spread over the intervals at one time: 1.3 MB a table."""


def balance_bins(
    start: Floats, end: Floats, flow_bytes: tuple[Floats, Floats], volumes: VolumeColumns, client: Ints, target: Ints
) -> tuple[Floats, Ints]:
    """Begin of each interval (s) and its bytes: rows client_in, target_out, target_in, client_out.

    start, end, flow_bytes (out, in): of all flows of the app; client, target: rows of the episode's flows. Where there
    are no volumes, a flow's bytes are taken as even over its life.
    """
    begin = np.floor(min(start[client].min(), start[target].min()))
    last = max(end[client].max(), end[target].max(), begin + 1.0)
    width = max(1.0, np.ceil((last - begin) / POINTS))
    count = int((last - begin) // width) + 1
    result = np.zeros((4, count), np.int64)
    for rows, (received, sent) in ((client, (0, 3)), (target, (2, 1))):
        member = np.zeros(len(start), np.bool_)
        member[rows] = True
        out, in_ = _over_time(start, end, flow_bytes, volumes, member, begin, width, count)
        result[received], result[sent] = in_, out
    return begin + width * np.arange(count), result


def _over_time(
    start: Floats,
    end: Floats,
    flow_bytes: tuple[Floats, Floats],
    volumes: VolumeColumns,
    member: Flags,
    begin: float,
    width: float,
    count: int,
) -> tuple[Floats, Floats]:
    if len(volumes.flow):
        rows = member[volumes.flow]
        place = np.clip(((volumes.time[rows] - begin) // width).astype(np.int64), 0, count - 1)
        out, in_ = volumes.bytes_out[rows], volumes.bytes_in[rows]
        return np.bincount(place, out, count).astype(np.float64), np.bincount(place, in_, count).astype(np.float64)
    edges = begin + width * np.arange(count + 1)
    totals = np.zeros((2, count))
    spread = np.flatnonzero(member)
    for part in np.split(spread, range(SPREAD_AT_ONCE, len(spread), SPREAD_AT_ONCE)):
        life = np.maximum(end[part] - start[part], 1e-3)
        share = np.diff(np.clip((edges - start[part, None]) / life[:, None], 0.0, 1.0), axis=1)
        for k in range(2):
            moved = share * np.maximum(flow_bytes[k][part], 0.0)[:, None]
            # Added flow by flow, in their order: the last digit does not depend on how many are spread at once.
            totals[k] = np.add.accumulate(np.vstack([totals[k], moved]))[-1]
    return totals[0], totals[1]
