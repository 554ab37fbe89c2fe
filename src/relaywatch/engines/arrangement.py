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
_SAME_FLOW: Final = ("app", "start", "remote", "remote_port", "local_port", "protocol", "direction")
_SAME_VOLUME: Final = ("start", "duration", "bytes_out", "bytes_in")
US: Final = 1e-6
COARSEST_US: Final = 2_000_000
"""Longest interval of volumes that tunnels can be judged by: what enters and leaves in one interval tells nothing."""
SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Arranged:
    """One shard, ready to be judged.

    records: FLOW records row by row as in `flows`; apps: app code of each group; origins: us since epoch at which each
    group's time is 0, so that no group's numbers depend on its neighbours; duplicates: flows left out because another
    record shows the same flow; unmatched: volumes without a
    flow, or of intervals longer than COARSEST_US.
    """

    flows: FlowColumns
    volumes: VolumeColumns
    records: Records
    apps: npt.NDArray[np.uint32]
    origins: Ints
    duplicates: int
    unmatched: int


def arrange(flows: Records, volumes: Records, source_ranks: Ints) -> Arranged:
    """Sort a shard's records by (app, start), leave out duplicates, join volumes to their flows.

    source_ranks: place of each source's name among all, by source code. The result does not depend on the order of the
    records.
    """
    kept, duplicates = _settled(flows, source_ranks)
    apps, first = np.unique(kept["app"], return_index=True)
    offsets = np.append(first, len(kept)).astype(np.int64)
    origins = kept["start"][first] // SECOND * SECOND
    origin = np.repeat(origins, np.diff(offsets))
    columns = _flow_columns(kept, offsets, origin)
    joined, unmatched = _volume_columns(kept, volumes, offsets, origin)
    return Arranged(columns, joined, kept, apps, origins, duplicates, unmatched)


def settled(flows: Records, source_ranks: Ints) -> Records:
    """A shard's flows as `arrange` judges them: in order, each once. source_ranks: as there."""
    return _settled(flows, source_ranks)[0]


def _settled(flows: Records, source_ranks: Ints) -> tuple[Records, int]:
    return _without_duplicates(taken(flows, _order(flows, source_ranks)))


def _order(flows: Records, source_ranks: Ints) -> Ints:
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


def _without_duplicates(flows: Records) -> tuple[Records, int]:
    """One record for each flow of each app: exports overlap, and the same file may be given twice.

    Flows whose local port is not known may be several of a kind: only the same record read again, which has the same
    number in its source, counts as the same.
    """
    if len(flows) < 2:
        return flows, 0
    same = np.ones(len(flows) - 1, bool)
    for name in _SAME_FLOW:
        same &= flows[name][1:] == flows[name][:-1]
    if not same.any():
        return flows, 0
    again = np.diff(flows["flow_id"]) == 0
    same &= (flows["local_port"][1:] != 0) | again
    keep = np.append(~same, True)
    return flows[keep], int(same.sum())


def _flow_columns(flows: Records, offsets: Ints, origin: Ints) -> FlowColumns:
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


def _volume_columns(flows: Records, volumes: Records, offsets: Ints, origin: Ints) -> tuple[VolumeColumns, int]:
    flow = _flow_rows(flows, volumes)
    known = (flow >= 0) & (volumes["duration"] <= COARSEST_US)
    flow, volumes = flow[known], volumes[known]
    order = _volume_order(flow, volumes)
    flow = flow[order]
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
