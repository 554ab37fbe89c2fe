"""Flows as one-directional records of collectors: nfdump's JSON, and AWS VPC flow logs.

Synthetic: written from the documented formats, of what the given rows hold; file names say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.sensor_rows import End, SensorFlow, sensor_flows

RESPONSE_US: Final = 1_000
"""How much later the first packet back is taken to be: the rows do not say."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def write_nfdump(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-nfdump.ndjson`: two records a flow, one a direction; times in UTC to the millisecond."""
    path = folder / "synthetic-nfdump.ndjson"
    lines = (json.dumps(_nfdump(*record)) for record in one_directional(batches))
    return _written(path, lines)


def write_vpc_flow_logs(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-vpc-flow-logs.log`: version 2 with its header; times in whole seconds."""
    path = folder / "synthetic-vpc-flow-logs.log"
    ends = "srcaddr dstaddr srcport dstport protocol packets bytes start end"
    header = f"version account-id interface-id {ends} action log-status"
    lines = (_vpc(*record) for record in one_directional(batches))
    return _written(path, lines, header)


def _written(path: Path, lines: Iterator[str], header: str = "") -> list[Path]:
    first = next(lines, None)
    if first is None:
        return []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in chain([header] if header else [], [first], lines):
            file.write(line + "\n")
    return [path]


def one_directional(batches: Iterable[Batch]) -> Iterator[tuple[SensorFlow, End, End, int]]:
    """Both directions of each flow, where bytes are known: the flow, who sends, who receives, when first."""
    for flow in sensor_flows(batches):
        if flow.source.wire is not None:
            yield flow, flow.source, flow.destination, flow.start
        if flow.destination.wire is not None and flow.destination.packets:
            yield flow, flow.destination, flow.source, min(flow.start + RESPONSE_US, flow.end)


def _nfdump(flow: SensorFlow, sender: End, receiver: End, start: int) -> dict[str, Any]:
    family = "6" if ":" in sender.ip else "4"
    return {
        "type": "FLOW",
        "export_sysid": 0,
        "first": _local(start),
        "last": _local(flow.end),
        "in_packets": sender.packets,
        "in_bytes": sender.wire,
        "proto": flow.protocol,
        "tcp_flags": "...AP.SF" if flow.protocol == 6 else "........",
        "src_port": sender.port,
        "dst_port": receiver.port,
        f"src{family}_addr": sender.ip,
        f"dst{family}_addr": receiver.ip,
        "sampled": 0,
    }


def _vpc(flow: SensorFlow, sender: End, receiver: End, start: int) -> str:
    ends = f"{sender.ip} {receiver.ip} {sender.port} {receiver.port} {flow.protocol}"
    counts = f"{sender.packets} {sender.wire} {start // 1_000_000} {flow.end // 1_000_000}"
    return f"2 000000000000 eni-synthetic {ends} {counts} ACCEPT OK"


def _local(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
