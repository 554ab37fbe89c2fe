"""Canonical flows as a sensor names them: source and destination instead of the device and the other side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import pyarrow as pa

from relaywatch.model.schemas import Direction
from relaywatch.model.tables import Batch

HEADERS: Final = {6: 40, 17: 28}
IPV6_MORE: Final = 20
PROTOCOLS: Final = {6: "TCP", 17: "UDP"}
_COLUMNS: Final = (
    "protocol_num", "direction_id", "local_ip", "local_port", "remote_ip", "remote_port", "remote_hostname",
    "bytes_out", "bytes_in", "wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in", "established",
    "start_time", "end_time", "device_uid", "android_package", "android_uid",
)  # fmt: skip


class End(NamedTuple):
    """One end of a flow, and what it sent: IP bytes and packets, None where not known."""

    ip: str
    port: int
    wire: int | None
    packets: int | None


class SensorFlow(NamedTuple):
    """A flow from who opened it (source) to the other end; times us since epoch. row: the canonical row."""

    source: End
    destination: End
    protocol: int
    start: int
    end: int
    row: dict[str, Any]


def sensor_flows(batches: Iterable[Batch]) -> Iterator[SensorFlow]:
    """The TCP and UDP flows with both ends; wire bytes that are not known are made of payload and packets."""
    for part in batches:
        if part.table != "flows":
            continue
        columns = [_plain(part.rows[name]) for name in _COLUMNS]
        for row in pa.table(columns, list(_COLUMNS)).to_pylist():
            whole = row["protocol_num"] in HEADERS and row["local_ip"] and row["remote_ip"]
            if whole and row["local_port"] is not None and row["remote_port"] is not None:
                yield _sensed(row)


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _sensed(row: dict[str, Any]) -> SensorFlow:
    local = End(row["local_ip"], row["local_port"], *_sent(row, "out"))
    remote = End(row["remote_ip"], row["remote_port"], *_sent(row, "in"))
    ends = (remote, local) if row["direction_id"] == Direction.INBOUND else (local, remote)
    end = row["end_time"] if row["end_time"] is not None else row["start_time"]
    return SensorFlow(*ends, row["protocol_num"], row["start_time"], max(end, row["start_time"]), row)


def _sent(row: dict[str, Any], way: str) -> tuple[int | None, int | None]:
    """IP bytes and packets in one direction."""
    header = HEADERS[row["protocol_num"]] + (IPV6_MORE if ":" in row["local_ip"] else 0)
    payload, wire, packets = row[f"bytes_{way}"], row[f"wire_bytes_{way}"], row[f"packets_{way}"]
    if packets is None and payload is not None:
        packets = -(-payload // 1400) or 1
    if wire is None and payload is not None and packets is not None:
        wire = payload + packets * header
    return wire, packets
