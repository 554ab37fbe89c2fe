"""Intrusion logs as Android's Advanced Protection writes them: dialled TCP connects and name look-ups, with the app.

Synthetic: written from the documented format (sources/intrusion_logs.py), of what the given rows hold.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from relaywatch.model.schemas import Direction, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file

TCP = 6


def write_intrusion_logs(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-<device>.txt` per device, events by time; what the log cannot carry is left out."""
    events: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for part in batches:
        make = {"flows": _connects, "signals": _told}.get(part.table)
        if make is not None:
            for device, time, event in make(part.rows):
                events[device].append((time, event))
    written = []
    for device, told in sorted(events.items()):
        plain = device_file(folder, device, ".txt")
        path = plain.with_name(f"synthetic-{plain.name}")
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for _, event in sorted(told, key=lambda entry: entry[0]):
                file.write(json.dumps(event) + "\n")
        written.append(path)
    return written


def _rows(rows: pa.RecordBatch, *names: str) -> Iterator[dict[str, Any]]:
    start = rows["start_time"].cast(pa.int64())
    table = pa.table([*(rows[name] for name in names), start], [*names, "time"])
    yield from table.to_pylist()


def _connects(rows: pa.RecordBatch) -> Iterator[tuple[str, int, dict[str, Any]]]:
    names = ("device_uid", "android_package", "protocol_num", "direction_id", "remote_ip", "remote_port")
    for row in _rows(rows, *names):
        dialled = row["protocol_num"] == TCP and row["direction_id"] == Direction.OUTBOUND
        if dialled and row["android_package"] and row["remote_ip"] and row["remote_port"] is not None:
            event = {
                "event_time": row["time"] // 1000,
                "ip_address": f"/{row['remote_ip']}",
                "port": row["remote_port"],
                "package_name": row["android_package"],
            }
            yield row["device_uid"], row["time"], {"connect_event": event}


def _told(rows: pa.RecordBatch) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for row in _rows(rows, "device_uid", "android_package", "android_uid", "kind", "detail"):
        package, time = row["android_package"], row["time"]
        if row["kind"] == SignalKind.NAME_LOOKUP and package and row["detail"]:
            host, *addresses = row["detail"].split(" ")
            answer = {"ip_addresses": [f"/{address}" for address in addresses], "ip_addresses_count": len(addresses)}
            event = {"event_time": time // 1000, "hostname": host, **answer, "package_name": package}
            yield row["device_uid"], time, {"dns_event": event}
        elif row["kind"] == SignalKind.PROCESS_START and package:
            started = {"process": package, "uid": row["android_uid"] or 0, "pid": 1}
            event = {"event_id": 1, "event_time": time * 1000, "app_process_start": started}
            yield row["device_uid"], time, {"security_event": event}
