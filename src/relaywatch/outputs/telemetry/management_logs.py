"""Usage logs as the Android Management API publishes them: Pub/Sub messages of batches, one JSON object a line.

Synthetic: written from the API's discovery document, of what the given rows hold. The attribute `synthetic` says so.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from relaywatch.model.schemas import Direction, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.plain_tables import rfc3339

TCP: Final = 6
EVENTS_A_BATCH: Final = 500
_PLAIN: Final = {SignalKind.USER_INTERACTION: ("KEYGUARD_DISMISSED", "keyguardDismissedEvent")}
Event = tuple[str, int, dict[str, Any]]


def write_management_api(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-usage-logs.ndjson`: batches by device, events by time; what the log cannot carry is left out."""
    events: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for part in batches:
        make = {"flows": _connects, "signals": _told}.get(part.table)
        for device, time, event in make(part.rows) if make is not None else ():
            events[device].append((time, event))
    if not events:
        return []
    path = folder / "synthetic-usage-logs.ndjson"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for device, told in sorted(events.items()):
            ordered = sorted(told, key=lambda entry: entry[0])
            for first in range(0, len(ordered), EVENTS_A_BATCH):
                file.write(json.dumps(_message(device, ordered[first : first + EVENTS_A_BATCH], first)) + "\n")
    return [path]


def _message(device: str, events: list[tuple[int, dict[str, Any]]], first: int) -> dict[str, Any]:
    listed = [
        {"eventId": str(first + n), "eventTime": rfc3339(time), **event} for n, (time, event) in enumerate(events)
    ]
    held = {"device": f"enterprises/synthetic/devices/{device}", "retrievalTime": rfc3339(events[-1][0])}
    data = base64.b64encode(json.dumps(held | {"usageLogEvents": listed}).encode()).decode()
    attributes = {"notificationType": "USAGE_LOGS", "synthetic": "true"}
    return {"message": {"attributes": attributes, "data": data, "messageId": str(first)}}


def _rows(rows: pa.RecordBatch, *names: str) -> list[dict[str, Any]]:
    start = rows["start_time"].cast(pa.int64())
    found: list[dict[str, Any]] = pa.table([*(rows[name] for name in names), start], [*names, "time"]).to_pylist()
    return found


def _connects(rows: pa.RecordBatch) -> Iterator[Event]:
    names = ("device_uid", "android_package", "protocol_num", "direction_id", "remote_ip", "remote_port")
    for row in _rows(rows, *names):
        dialled = row["protocol_num"] == TCP and row["direction_id"] == Direction.OUTBOUND
        if dialled and row["android_package"] and row["remote_ip"] and row["remote_port"] is not None:
            connect = {"destinationIpAddress": row["remote_ip"], "destinationPort": row["remote_port"]}
            event = {"eventType": "CONNECT", "connectEvent": connect | {"packageName": row["android_package"]}}
            yield row["device_uid"], row["time"], event


def _told(rows: pa.RecordBatch) -> Iterator[Event]:
    end = rows["end_time"].cast(pa.int64()).to_pylist()
    for row, until in zip(_rows(rows, "device_uid", "android_package", "kind", "detail"), end, strict=True):
        device, time, package = row["device_uid"], row["time"], row["android_package"]
        if row["kind"] == SignalKind.NAME_LOOKUP and package and row["detail"]:
            host, *addresses = row["detail"].split(" ")
            answer = {"hostname": host, "ipAddresses": addresses, "totalIpAddressesReturned": str(len(addresses))}
            yield device, time, {"eventType": "DNS", "dnsEvent": answer | {"packageName": package}}
        elif row["kind"] == SignalKind.PROCESS_START and package:
            started = {"processInfo": {"processName": package, "packageNames": [package]}}
            yield device, time, {"eventType": "APP_PROCESS_START", "appProcessStartEvent": started}
        elif row["kind"] == SignalKind.KEYGUARD_LOCKED:
            yield device, time, {"eventType": "KEYGUARD_SECURED", "keyguardSecuredEvent": {}}
            if until is not None:
                yield device, until, {"eventType": "KEYGUARD_DISMISSED", "keyguardDismissedEvent": {}}
        elif row["kind"] in _PLAIN:
            kind, name = _PLAIN[row["kind"]]
            yield device, time, {"eventType": kind, name: {}}
