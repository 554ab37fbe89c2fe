"""Packets that add up to a flow's volumes: made up in number and size, true in time and bytes.

Payload is cut into segments of SEGMENT_BYTES, spread over the interval that carried it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import Direction, Observability

SEGMENT_BYTES: Final = 1_400
FIN: Final = 0x01
SYN: Final = 0x02
PSH: Final = 0x08
ACK: Final = 0x10
TCP: Final = 6
UDP: Final = 17


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of a flow. time: microseconds; sent: the device sent it; seq, ack: TCP numbers."""

    time: int
    sent: bool
    flags: int
    seq: int
    ack: int
    size: int


Volumes = dict[tuple[str, str, int], list[tuple[int, int, int, int]]]


def volumes_by_flow(volumes: pa.Table) -> Volumes:
    """Intervals (start, duration, bytes_out, bytes_in) of each flow, by (device, source, flow_id)."""
    found: Volumes = {}
    table = pl.from_arrow(volumes)
    assert isinstance(table, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    table = table.drop_nulls("flow_id").with_columns(pl.col("start_time").dt.epoch("us")).sort("start_time")
    columns = table.select("device_uid", "source", "flow_id", "start_time", "duration_us", "bytes_out", "bytes_in")
    for device, source, flow, *interval in columns.iter_rows():
        found.setdefault((device, source, flow), []).append(tuple(interval))
    return found


def packets_of(row: dict[str, Any], intervals: list[tuple[int, int, int, int]]) -> Iterator[Packet]:
    """The flow's packets: its opening where it was seen, its volumes in segments, its end."""
    outbound = row["direction_id"] != Direction.INBOUND
    tcp = row["protocol_num"] == TCP
    opened = tcp and row["direction_observability"] == Observability.OBSERVED
    refused = row["established"] is False
    time, isn = row["start_time"], 0
    if opened:
        yield Packet(time, outbound, SYN, isn, 0, 0)
        if not refused:
            yield Packet(time + 1, not outbound, SYN | ACK, isn, isn + 1, 0)
            yield Packet(time + 2, outbound, ACK, isn + 1, isn + 1, 0)
    sequence = {True: isn + 1, False: isn + 1}
    last = time + 2 if opened and not refused else time
    written = 0
    for moment, sent, size in _segments(row, intervals, last, outbound):
        yield Packet(moment, sent, PSH | ACK, sequence[sent], sequence[not sent], size)
        sequence[sent] = (sequence[sent] + size) % 2**32
        last, written = max(last, moment), written + 1
    if not opened and not written:
        yield Packet(time, outbound, ACK, isn + 1, isn + 1, 0)
    if tcp and not refused and row["end_time"] is not None:
        end = max(row["end_time"], last + 1)
        yield Packet(end, outbound, FIN | ACK, sequence[outbound], sequence[not outbound], 0)
        yield Packet(end, not outbound, FIN | ACK, sequence[not outbound], (sequence[outbound] + 1) % 2**32, 0)


def _segments(
    row: dict[str, Any],
    intervals: list[tuple[int, int, int, int]],
    opened: int,
    outbound: bool,  # noqa: FBT001 - a fact, not a switch
) -> list[tuple[int, bool, int]]:
    """(time, sent, payload bytes) of each data packet, in order; what no interval holds is spread over the flow."""
    start, end = row["start_time"], row["end_time"]
    left_out = max((row["bytes_out"] or 0) - sum(entry[2] for entry in intervals), 0)
    left_in = max((row["bytes_in"] or 0) - sum(entry[3] for entry in intervals), 0)
    spans = list(intervals)
    if left_out or left_in:
        spans.append((start, max((end or start) - start, 1), left_out, left_in))
    found = []
    for begin, duration, out, received in spans:
        last = begin + duration - 1
        low = min(max(begin, opened + 1), max(last, opened + 1))
        high = max(low, last if end is None else min(last, end))
        for total, sent in ((out, True), (received, False)):
            count = -(-total // SEGMENT_BYTES)
            for index in range(count):
                size = min(SEGMENT_BYTES, total - index * SEGMENT_BYTES)
                found.append((low + (high - low) * index // count, sent, size))
    return sorted(found, key=lambda entry: (entry[0], entry[1] != outbound))
