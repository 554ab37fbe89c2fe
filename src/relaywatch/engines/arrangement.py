"""From a shard's records to the sorted columns that detection judges: order, duplicates, volumes joined to flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.columns import Flags, FlowColumns, Ints, VolumeColumns, client_sides
from relaywatch.engines.records import Records, taken
from relaywatch.engines.stretches import (
    DAY_US,
    MOST_FLOWS,
    VOLUME_REACH_US,
    app_days,
    places_in_stretches,
    same_as_before,
    written_at,
)
from relaywatch.model.schemas import Direction

LOOKUP_PORTS: Final = (53, 5353, 853)
"""Name lookups accompany the legs that they serve; leaving them out of the targets hides no session."""
_TIES: Final = (
    "position",
    "flow_id",
    "seen",
    "name",
    "bytes_out",
    "bytes_in",
    "end",
    "direction",
    "protocol",
    "remote_port",
    "local_port",
    "remote",
)
"""What orders flows that begin together, the last key first; of one flow's records the most complete comes last."""
_SAME_VOLUME: Final = ("start", "duration", "bytes_out", "bytes_in")
US: Final = 1e-6
COARSEST_US: Final = 2_000_000
"""Longest interval of volumes that tunnels can be judged by: what enters and leaves in one interval tells nothing."""
SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Arranged:
    """One shard, ready to be judged.

    A group is one stretch of an app's day. records: FLOW records row by row as in `flows`; apps, days: app code and
    day since epoch of each group; origins: us since epoch at which each group's time is 0, so that no group's numbers
    depend on its neighbours; duplicates: flows left out because another record shows the same flow; unmatched: volumes
    without a flow, out of its stretch's reach, or of intervals longer than COARSEST_US.
    """

    flows: FlowColumns
    volumes: VolumeColumns
    records: Records
    apps: npt.NDArray[np.uint32]
    days: Ints
    origins: Ints
    duplicates: int
    unmatched: int


def arrange(flows: Records, volumes: Records, source_ranks: Ints) -> Arranged:
    """Sort records by (app, day, stretch, start), leave out duplicates, join volumes to their flows.

    source_ranks: place of each source's name among all, by source code. The result does not depend on the order of the
    records.
    """
    kept, groups, duplicates = _settled(flows, source_ranks)
    first = np.flatnonzero(np.append(True, np.diff(groups) != 0)) if len(kept) else np.empty(0, np.int64)
    offsets = np.append(first, len(kept)).astype(np.int64)
    days = written_at(kept[first]) // DAY_US
    origins = kept["start"][first] // SECOND * SECOND
    columns = flow_columns(kept, offsets, np.repeat(origins, np.diff(offsets)))
    joined, unmatched = _volume_columns(kept, volumes, offsets, origins)
    return Arranged(columns, joined, kept, kept["app"][first], days, origins, duplicates, unmatched)


def settled(flows: Records, source_ranks: Ints) -> Records:
    """A shard's flows as `arrange` judges them: in order, each once. source_ranks: as there."""
    return _settled(flows, source_ranks)[0]


def _settled(flows: Records, source_ranks: Ints) -> tuple[Records, Ints, int]:
    """Flows in order, each once; a number for each one's group, in order; how many were left out."""
    days = app_days(flows, written_at(flows))
    order = _order(flows, days, flows["start"], source_ranks)
    kept, groups = taken(flows, order), days[order]
    groups = groups * (len(kept) // MOST_FLOWS + 1)
    sizes = np.diff(np.append(np.flatnonzero(np.append(True, np.diff(groups) != 0)), len(kept)))
    if sizes.max(initial=0) > MOST_FLOWS:
        _cut(kept, groups, np.flatnonzero(np.repeat(sizes > MOST_FLOWS, sizes)), source_ranks)
        order = np.argsort(groups, kind="stable")
        kept, groups = taken(kept, order), groups[order]
    again = np.append(False, same_as_before(kept) & (np.diff(groups) == 0))[: len(kept)]
    if not again.any():
        return kept, groups, 0
    # Of several records of one flow the last, the most complete, is kept.
    keep = ~np.append(again[1:], False)
    return kept[keep], groups[keep], int(again.sum())


def in_order_written(flows: Records, source_ranks: Ints) -> tuple[Records, Ints]:
    """Flows of one app's day in the order in which they were written, and when each was, us since epoch."""
    order = _order(flows, np.zeros(len(flows), np.int64), written_at(flows), source_ranks)
    ordered = taken(flows, order)
    return ordered, written_at(ordered)


def _cut(flows: Records, groups: Ints, rows: Ints, source_ranks: Ints) -> None:
    """Number the stretches of the days whose flows stand at `rows`, in `groups`."""
    own, written = flows[rows], written_at(flows[rows])
    order = _order(own, groups[rows], written, source_ranks)
    groups[rows[order]] += places_in_stretches(own[order], written[order], groups[rows[order]])


def _order(flows: Records, groups: Ints, time: Ints, source_ranks: Ints) -> Ints:
    """Rows by (group, time), equal ones by everything else that a flow is. time: us since epoch."""
    if not len(flows):
        return np.empty(0, np.int64)
    offset = time - time.min()
    room = int(offset.max()) + 1
    if room * (int(groups.max()) + 1) >= np.iinfo(np.int64).max:
        groups = np.unique(groups, return_inverse=True)[1]
    if room * (int(groups.max()) + 1) < np.iinfo(np.int64).max:
        key = groups * room + offset
        order = np.argsort(key)
    else:
        order = np.lexsort((offset, groups))
        key = np.zeros(len(flows), np.int64)
        key[order[1:]] = np.cumsum((np.diff(groups[order]) != 0) | (np.diff(offset[order]) != 0))
    sorted_key = key[order]
    rows = _tied(sorted_key[1:] == sorted_key[:-1])
    if len(rows):
        group = flows[order[rows]]
        ties = (group[name] for name in _TIES)
        order[rows] = order[rows][np.lexsort((source_ranks[group["source"]], *ties, sorted_key[rows]))]
    return order


def _tied(same: Flags) -> Ints:
    """Rows that equal a neighbour; same: whether each row but the first equals the one before it."""
    tied = np.append(False, same)
    tied[:-1] |= same
    return np.flatnonzero(tied)


def flow_columns(flows: Records, offsets: Ints, origin: Ints) -> FlowColumns:
    """The columns of flows in order. origin: us since epoch at which each one's time is 0."""
    inbound = flows["direction"] == Direction.INBOUND
    lookup: Flags = np.isin(flows["remote_port"], LOOKUP_PORTS) & ~inbound
    start = (flows["start"] - origin).astype(np.float64) * US
    end = np.where(flows["end"] < flows["start"], start, (flows["end"] - origin) * US)
    return FlowColumns(
        offsets=offsets,
        start=start,
        end=end,
        bytes_out=flows["bytes_out"].astype(np.float64),
        bytes_in=flows["bytes_in"].astype(np.float64),
        inbound=inbound,
        side=client_sides(inbound, flows["local_port"], flows["protocol"], _dialled(flows)),
        lookup=lookup,
        protocol=flows["protocol"].astype(np.int64),
    )


def _dialled(flows: Records) -> npt.NDArray[np.uint64]:
    """Key of whom a flow was dialled to: the address; the port where a source, as Perfetto, sees no addresses."""
    return np.where(flows["remote"] == 0, flows["remote_port"].astype(np.uint64), flows["remote"])


def _volume_columns(flows: Records, volumes: Records, offsets: Ints, origins: Ints) -> tuple[VolumeColumns, int]:
    flow = flow_rows(flows, volumes)
    known = (flow >= 0) & (volumes["duration"] <= COARSEST_US)
    if len(volumes):
        known &= _in_reach(flows, volumes, flow, offsets)
    flow, volumes = flow[known], volumes[known]
    order = _volume_order(flow, volumes)
    flow = flow[order]
    origin = np.repeat(origins, np.diff(offsets))
    return (
        VolumeColumns(
            offsets=np.searchsorted(flow, offsets).astype(np.int64),
            flow=flow,
            time=(volumes["start"][order] - origin[flow]).astype(np.float64) * US,
            bytes_out=volumes["bytes_out"][order].astype(np.float64),
            bytes_in=volumes["bytes_in"][order].astype(np.float64),
        ),
        int((~known).sum()),
    )


def _in_reach(flows: Records, volumes: Records, flow: Ints, offsets: Ints) -> Flags:
    """Whether each volume lies within the day, the stretch and VOLUME_REACH_US of its flow (rows; -1: none)."""
    written = written_at(flows)
    if not len(flows):
        return np.zeros(len(volumes), bool)
    day = written // DAY_US * DAY_US
    first = np.append(True, (np.diff(flows["app"][offsets[:-1]]) != 0) | (np.diff(day[offsets[:-1]]) != 0))
    last = np.maximum.reduceat(written, offsets[:-1])
    begins = np.where(first, day[offsets[:-1]], np.append(0, last[:-1]))
    begin = np.maximum(np.repeat(begins, np.diff(offsets)), written - VOLUME_REACH_US)[flow]
    same_day = volumes["start"] // DAY_US == (day // DAY_US)[flow]
    return np.asarray(same_day & (volumes["start"] + volumes["duration"] > begin))


def _volume_order(flow: Ints, volumes: Records) -> Ints:
    """Rows of the volumes by (flow, start), without those that were read before."""
    order = np.lexsort((volumes["start"], flow))
    rows = _tied((np.diff(flow[order]) == 0) & (np.diff(volumes["start"][order]) == 0))
    if not len(rows):
        return order
    group, of = volumes[order[rows]], flow[order[rows]]
    settled = np.lexsort((*(group[name] for name in reversed(_SAME_VOLUME)), of))
    order[rows] = order[rows][settled]
    again = np.diff(of[settled]) == 0
    for name in _SAME_VOLUME:
        again &= np.diff(group[name][settled]) == 0
    return np.delete(order, rows[1:][again])


def flow_rows(flows: Records, volumes: Records) -> Ints:
    """Row of each volume's flow; -1 where there is none (left out as a duplicate, or never seen)."""
    if not len(volumes):
        return np.empty(0, np.int64)
    index = pl.DataFrame(
        {"source": flows["source"], "flow_id": flows["flow_id"], "row": np.arange(len(flows), dtype=np.int64)}
    ).unique(["source", "flow_id"], keep="first", maintain_order=True)
    wanted = pl.DataFrame({"source": volumes["source"], "flow_id": volumes["flow_id"]})
    rows = wanted.join(index, on=["source", "flow_id"], how="left", maintain_order="left")["row"]
    return rows.fill_null(-1).to_numpy()
