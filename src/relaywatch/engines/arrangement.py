"""From a shard's records to the sorted columns that detection judges: order, duplicates, volumes joined to flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.columns import Flags, FlowColumns, Ints, VolumeColumns, client_sides
from relaywatch.engines.records import Records, taken
from relaywatch.model.schemas import Direction

LOOKUP_PORTS: Final = (53, 5353, 853)
"""Name lookups accompany the legs that they serve; leaving them out of the targets hides no session."""
_TIES: Final = (
    "position",
    "flow_id",
    "bytes_out",
    "bytes_in",
    "end",
    "protocol",
    "remote_port",
    "local_port",
    "remote",
)
_SAME_FLOW: Final = ("app", "start", "remote", "remote_port", "local_port", "protocol", "direction")
US: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Arranged:
    """One shard, ready to be judged.

    records: FLOW records row by row as in `flows`; apps: app code of each group; origin: us since epoch at which the
    columns' time is 0; duplicates: flows left out because another record shows the same flow; unmatched: volumes
    without a flow.
    """

    flows: FlowColumns
    volumes: VolumeColumns
    records: Records
    apps: npt.NDArray[np.uint32]
    origin: int
    duplicates: int
    unmatched: int


def arrange(flows: Records, volumes: Records) -> Arranged:
    """Sort a shard's records by (app, start), leave out duplicates, join volumes to their flows.

    The result does not depend on the order of the records.
    """
    kept, duplicates = _without_duplicates(taken(flows, _order(flows)))
    apps, first = np.unique(kept["app"], return_index=True)
    offsets = np.append(first, len(kept)).astype(np.int64)
    origin = int(kept["start"].min()) if len(kept) else 0
    columns = _flow_columns(kept, offsets, origin)
    joined, unmatched = _volume_columns(kept, volumes, offsets, origin)
    return Arranged(columns, joined, kept, apps, origin, duplicates, unmatched)


def _order(flows: Records) -> Ints:
    """Rows by (app, start), equal ones by everything else that a flow is."""
    if not len(flows):
        return np.empty(0, np.int64)
    apps, place = np.unique(flows["app"], return_inverse=True)
    offset = flows["start"] - flows["start"].min()
    room = int(offset.max()) + 1
    if room * len(apps) < np.iinfo(np.int64).max:
        key = place * room + offset
        order = np.argsort(key)
    else:
        order = np.lexsort((offset, place))
        key = np.zeros(len(flows), np.int64)
        key[order[1:]] = np.cumsum((np.diff(place[order]) != 0) | (np.diff(offset[order]) != 0))
    sorted_key = key[order]
    tied = np.zeros(len(order), bool)
    tied[1:] = sorted_key[1:] == sorted_key[:-1]
    tied[:-1] |= tied[1:]
    rows = np.flatnonzero(tied)
    if len(rows):
        group = flows[order[rows]]
        order[rows] = order[rows][np.lexsort((*(group[name] for name in _TIES), sorted_key[rows]))]
    return order


def _without_duplicates(flows: Records) -> tuple[Records, int]:
    """One record for each flow of each app: exports overlap, and the same file may be given twice."""
    if len(flows) < 2:
        return flows, 0
    same = np.ones(len(flows) - 1, bool)
    for name in _SAME_FLOW:
        same &= flows[name][1:] == flows[name][:-1]
    same &= flows["local_port"][1:] != 0
    if not same.any():
        return flows, 0
    keep = np.append(True, ~same)
    return flows[keep], int(same.sum())


def _flow_columns(flows: Records, offsets: Ints, origin: int) -> FlowColumns:
    inbound = flows["direction"] == Direction.INBOUND
    lookup: Flags = np.isin(flows["remote_port"], LOOKUP_PORTS) & ~inbound
    start = (flows["start"] - origin) * US
    end = np.where(flows["end"] < flows["start"], start, (flows["end"] - origin) * US)
    return FlowColumns(
        offsets=offsets,
        start=start,
        end=end,
        bytes_out=flows["bytes_out"].astype(np.float64),
        bytes_in=flows["bytes_in"].astype(np.float64),
        inbound=inbound,
        side=client_sides(inbound, flows["local_port"], flows["protocol"], flows["remote"]),
        remote=np.ascontiguousarray(flows["remote"]),
        lookup=lookup,
        protocol=flows["protocol"].astype(np.int64),
    )


def _volume_columns(flows: Records, volumes: Records, offsets: Ints, origin: int) -> tuple[VolumeColumns, int]:
    flow = _flow_rows(flows, volumes)
    known = flow >= 0
    flow, volumes = flow[known], volumes[known]
    order = np.lexsort((volumes["start"], flow))
    flow = flow[order]
    return (
        VolumeColumns(
            offsets=np.searchsorted(flow, offsets).astype(np.int64),
            flow=flow,
            time=(volumes["start"][order] - origin) * US,
            bytes_out=volumes["bytes_out"][order].astype(np.float64),
            bytes_in=volumes["bytes_in"][order].astype(np.float64),
        ),
        int((~known).sum()),
    )


def _flow_rows(flows: Records, volumes: Records) -> Ints:
    """Row of each volume's flow; -1 where there is none (left out as a duplicate, or never seen)."""
    if not len(volumes):
        return np.empty(0, np.int64)
    index = pl.DataFrame(
        {"source": flows["source"], "flow_id": flows["flow_id"], "row": np.arange(len(flows), dtype=np.int64)}
    ).unique(["source", "flow_id"], keep="first", maintain_order=True)
    wanted = pl.DataFrame({"source": volumes["source"], "flow_id": volumes["flow_id"]})
    rows = wanted.join(index, on=["source", "flow_id"], how="left", maintain_order="left")["row"]
    return rows.fill_null(-1).to_numpy()
