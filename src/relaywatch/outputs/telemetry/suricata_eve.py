"""Flows as Suricata's EVE log has them: one flow event each, byte counts of whole Ethernet frames.

Synthetic: written from Suricata's documentation, of what the given rows hold; `host` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.sensor_rows import PROTOCOLS, SensorFlow, sensor_flows

ETHERNET_HEADER: Final = 14
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def write_suricata(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-eve.json`, one flow event a line with a TLS event before it where the flow has a name."""
    path = folder / "synthetic-eve.json"
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for count, flow in enumerate(sensor_flows(batches), 1):
            common = _common(flow, count)
            name = flow.row["remote_hostname"]
            if name:
                file.write(json.dumps(common | {"event_type": "tls", "tls": {"sni": name}}) + "\n")
            file.write(json.dumps(common | {"event_type": "flow", "flow": _counts(flow)}) + "\n")
    if not count:
        path.unlink()
    return [path] if count else []


def _common(flow: SensorFlow, number: int) -> dict[str, Any]:
    return {
        "timestamp": _time(flow.end),
        "flow_id": number,
        "host": "synthetic",
        "src_ip": flow.source.ip,
        "src_port": flow.source.port,
        "dest_ip": flow.destination.ip,
        "dest_port": flow.destination.port,
        "proto": PROTOCOLS[flow.protocol],
    }


def _counts(flow: SensorFlow) -> dict[str, Any]:
    counts: dict[str, Any] = {"start": _time(flow.start), "end": _time(flow.end), "reason": "timeout"}
    counts["state"] = "closed" if flow.row["established"] is not False else "new"
    for end, way in ((flow.source, "toserver"), (flow.destination, "toclient")):
        if end.packets is not None and end.wire is not None:
            counts |= {f"pkts_{way}": end.packets, f"bytes_{way}": end.wire + end.packets * ETHERNET_HEADER}
    return counts


def _time(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
