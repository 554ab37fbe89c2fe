"""A phone's socket tables polled with ss, as `while sleep 5; do date +%s; ss -tunaep; done` over adb prints them.

Synthetic: written from iproute2's format, of what the given rows hold; the first line says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TextIO

import pyarrow as pa

from relaywatch.model.schemas import Direction, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file

INTERVAL_US: Final = 5_000_000
_NAMES: Final = {6: "tcp", 17: "udp"}
_HEADER: Final = "Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port"
_FLOW: Final = (
    "device_uid", "android_uid", "protocol_num", "local_ip", "local_port", "remote_ip", "remote_port", "direction_id",
    "start_time", "end_time",
)  # fmt: skip
_SIGNAL: Final = ("device_uid", "android_uid", "kind", "local_port", "detail", "start_time", "end_time")


def write_socket_polls(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-<device>-sockets.txt` per device: a table every INTERVAL_US; what falls between two is not seen."""
    flows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    bound: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for part in batches:
        if part.table == "flows":
            for row in _rows(part.rows, _FLOW):
                if row["protocol_num"] in _NAMES and row["local_ip"] and row["remote_ip"] and row["local_port"]:
                    flows[row["device_uid"]].append(row)
        elif part.table == "signals":
            for row in _rows(part.rows, _SIGNAL):
                if row["kind"] == SignalKind.LISTENER and row["local_port"]:
                    bound[row["device_uid"]].append(row)
    written = []
    for device in sorted({*flows, *bound}):
        plain = device_file(folder, device, "-sockets.txt")
        path = plain.with_name(f"synthetic-{plain.name}")
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("# synthetic socket tables\n")
            _polls(flows[device], bound[device], file)
        written.append(path)
    return written


def _rows(rows: pa.RecordBatch, names: Iterable[str]) -> list[dict[str, Any]]:
    columns = [rows[name].cast(pa.int64()) if pa.types.is_timestamp(rows[name].type) else rows[name] for name in names]
    found: list[dict[str, Any]] = pa.table(columns, list(names)).to_pylist()
    return found


def _polls(flows: list[dict[str, Any]], bound: list[dict[str, Any]], file: TextIO) -> None:
    """The tables of one device, from its first flow or listener to its last."""
    waiting = sorted(flows, key=lambda row: int(row["start_time"]), reverse=True)
    times = [row["start_time"] for row in (*flows, *bound)]
    ends = [row["end_time"] or row["start_time"] for row in (*flows, *bound)]
    active: list[dict[str, Any]] = []
    for now in range(min(times), max(ends) + INTERVAL_US, INTERVAL_US):
        while waiting and waiting[-1]["start_time"] <= now:
            active.append(waiting.pop())
        active = [row for row in active if (row["end_time"] or row["start_time"]) >= now]
        listening = [row for row in bound if row["start_time"] <= now and (row["end_time"] or now) >= now]
        file.write(f"{now / 1e6:.3f}\n{_HEADER}\n")
        for row in listening:
            udp = (row["detail"] or "").startswith("udp")
            file.write(f"{'udp   UNCONN' if udp else 'tcp   LISTEN'} 0 0 *:{row['local_port']} *:*{_owner(row)}\n")
        for row in active:
            local, remote = (_endpoint(row[f"{side}_ip"], row[f"{side}_port"]) for side in ("local", "remote"))
            file.write(f"{_NAMES[row['protocol_num']]}   ESTAB  0 0 {local} {remote}{_owner(row)}\n")
        implied = {
            (row["local_port"], row["android_uid"]) for row in active if row["direction_id"] == Direction.INBOUND
        }
        for port, uid in sorted(implied, key=repr):
            file.write(f"tcp   LISTEN 0 0 *:{port} *:*{_owner({'android_uid': uid})}\n")


def _endpoint(address: str, port: int | None) -> str:
    return f"[{address}]:{port or 0}" if ":" in address else f"{address}:{port or 0}"


def _owner(row: dict[str, Any]) -> str:
    """The socket's owner; ss names none for root."""
    return f" uid:{row['android_uid']} ino:1 sk:1 <->" if row["android_uid"] else " ino:1 sk:1 <->"
