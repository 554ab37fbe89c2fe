"""Flow and volume columns written by hand, one group, for tests of detection by itself."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relaywatch.detection.columns import FlowColumns, VolumeColumns, client_sides


class Flow(NamedTuple):
    """One flow: times in s, bytes of the device. remote: any number; port: the local one."""

    start: float
    end: float
    bytes_out: float
    bytes_in: float
    remote: int
    inbound: bool = False
    port: int = 40_000
    lookup: bool = False
    protocol: int = 6


def flow_columns(flows: Sequence[Flow]) -> FlowColumns:
    """The flows in order of start (equal ones as given), as one group."""
    rows = sorted(flows, key=lambda flow: flow.start)
    column = {name: np.array([getattr(row, name) for row in rows]) for name in Flow._fields}
    inbound, remote = column["inbound"].astype(bool), column["remote"].astype(np.uint64)
    ports, protocols = column["port"].astype(np.uint16), column["protocol"].astype(np.uint8)
    return FlowColumns(
        offsets=np.array([0, len(rows)], np.int64),
        start=column["start"].astype(float),
        end=column["end"].astype(float),
        bytes_out=column["bytes_out"].astype(float),
        bytes_in=column["bytes_in"].astype(float),
        inbound=inbound,
        side=client_sides(inbound, ports, protocols, remote),
        lookup=column["lookup"].astype(bool),
        protocol=column["protocol"].astype(np.int64),
    )


def volume_columns(rows: Sequence[tuple[int, float, float, float]]) -> VolumeColumns:
    """Volumes of one group from (flow row, begin in s, bytes out, bytes in)."""
    ordered = sorted(rows)
    return VolumeColumns(
        offsets=np.array([0, len(ordered)], np.int64),
        flow=np.array([row[0] for row in ordered], np.int64),
        time=np.array([row[1] for row in ordered], float),
        bytes_out=np.array([row[2] for row in ordered], float),
        bytes_in=np.array([row[3] for row in ordered], float),
    )
