"""Flows as a security lake's events: OCSF Network Activity, and documents of the Elastic Common Schema.

Synthetic: written from the schemas, of what the given rows hold; metadata (OCSF) and tags (ECS) say so. The app stands
in `unmapped.android` (OCSF) and in `process.name` with a package (ECS), as far as the rows know it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from relaywatch.model.schemas import Direction
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.plain_tables import rfc3339
from relaywatch.outputs.telemetry.sensor_rows import PROTOCOLS, End, SensorFlow, sensor_flows

TRAFFIC: Final = 6


def write_ocsf_activity(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-ocsf.ndjson`: one Network Activity a flow."""
    return _written(folder / "synthetic-ocsf.ndjson", map(_ocsf, sensor_flows(batches)))


def write_ecs(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-ecs.ndjson`: one network document a flow."""
    return _written(folder / "synthetic-ecs.ndjson", map(_ecs, sensor_flows(batches)))


def _written(path: Path, records: Iterator[dict[str, Any]]) -> list[Path]:
    first = next(records, None)
    if first is None:
        return []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(first) + "\n")
        file.writelines(json.dumps(record) + "\n" for record in records)
    return [path]


def _ocsf(flow: SensorFlow) -> dict[str, Any]:
    source, destination, row = flow.source, flow.destination, flow.row
    traffic = {"bytes_out": source.wire, "bytes_in": destination.wire}
    traffic |= {"packets_out": source.packets, "packets_in": destination.packets}
    record: dict[str, Any] = {
        "class_uid": 4001,
        "category_uid": 4,
        "activity_id": TRAFFIC,
        "time": flow.end // 1000,
        "start_time": flow.start // 1000,
        "end_time": flow.end // 1000,
        "metadata": {"version": "1.5.0", "product": {"name": "synthetic"}},
        "connection_info": {"direction_id": row["direction_id"], "protocol_num": flow.protocol},
        "src_endpoint": _endpoint(source),
        "dst_endpoint": _endpoint(destination),
        "device": {"uid": row["device_uid"], "ip": row["local_ip"], "type_id": 5},
        "traffic": {name: value for name, value in traffic.items() if value is not None},
    }
    if row["remote_hostname"] and row["direction_id"] != Direction.INBOUND:
        record["dst_endpoint"]["hostname"] = row["remote_hostname"]
    android = {"package": row["android_package"], "uid": row["android_uid"]}
    known = {name: value for name, value in android.items() if value is not None}
    return record | ({"unmapped": {"android": known}} if known else {})


def _endpoint(end: End) -> dict[str, Any]:
    return {"ip": end.ip, "port": end.port}


def _ecs(flow: SensorFlow) -> dict[str, Any]:
    row = flow.row
    record: dict[str, Any] = {
        "@timestamp": rfc3339(flow.end),
        "ecs": {"version": "8.17.0"},
        "tags": ["synthetic"],
        "event": {
            "category": ["network"],
            "kind": "event",
            "start": rfc3339(flow.start),
            "end": rfc3339(flow.end),
            "duration": (flow.end - flow.start) * 1000,
        },
        "network": {
            "transport": PROTOCOLS[flow.protocol].lower(),
            "iana_number": str(flow.protocol),
            "direction": "ingress" if row["direction_id"] == Direction.INBOUND else "egress",
        },
        "source": _side(flow.source),
        "destination": _side(flow.destination),
        "host": {"id": row["device_uid"], "ip": [row["local_ip"]]},
    }
    if row["remote_hostname"] and row["direction_id"] != Direction.INBOUND:
        record["destination"]["domain"] = row["remote_hostname"]
    return record | ({"package": {"name": row["android_package"]}} if row["android_package"] else {})


def _side(end: End) -> dict[str, Any]:
    counts = {"bytes": end.wire, "packets": end.packets}
    return {"ip": end.ip, "port": end.port, **{name: value for name, value in counts.items() if value is not None}}
