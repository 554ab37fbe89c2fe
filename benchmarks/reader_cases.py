"""Files of N records in each line-based format, for timing readers: by our own writers where there is one.

Made-up traffic in bulk: nothing here says anything of detection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from relaywatch.model.schemas import Direction, Observability
from relaywatch.model.tables import Batch, batch
from relaywatch.outputs.telemetry import ExportFormat, export

ROWS: Final = 50_000
START_US: Final = 1_767_225_600_000_000
NOT_LINES: Final = {
    "parquet", "pcapdroid-pcap", "perfetto", "netstats-binary", "netstats-text", "netflow-v9", "ipfix", "socket-polls",
    "usagestats",
}  # fmt: skip
"""Export formats whose records are not lines, or not of flows."""
INVENTORIES: Final = {"inventory-csv", "dhcp-leases"}
"""Export formats that carry the inventory only: small context, without a bar."""
DEVICES: Final = {"pcapdroid-csv": 1, "intrusion-logs": 1, "management-api": 5_000}
"""Phones in the file where not 500: formats of one file a phone, and of one line a phone."""


def flows(count: int, devices: int = 500) -> Iterator[Batch]:
    """Flows of so many phones, dialled and accepted, with apps and names."""
    rng = np.random.default_rng(7)
    for first in range(0, count, ROWS):
        size = min(ROWS, count - first)
        phone, app, remote = (rng.integers(0, top, size) for top in (devices, 40, 60_000))
        start = START_US + np.sort(rng.integers(0, 3_600_000_000, size)) + first
        sent, received = rng.lognormal(6.8, 1, size).astype(np.int64), rng.lognormal(9, 1.8, size).astype(np.int64)
        inbound = rng.random(size) < 0.1
        columns = {
            "device_uid": [f"phone-{n}" for n in phone],
            "android_package": [f"com.example.app{n}" for n in app],
            "android_uid": 10_100 + app,
            "flow_id": np.arange(first, first + size),
            "start_time": start,
            "end_time": start + 1_500_000,
            "protocol_num": 6,
            "direction_id": np.where(inbound, Direction.INBOUND, Direction.OUTBOUND).astype(np.uint8),
            "direction_observability": int(Observability.OBSERVED),
            "local_ip": [f"10.0.{n // 250}.{n % 250 + 1}" for n in phone],
            "local_port": rng.integers(32_768, 60_999, size),
            "remote_ip": [f"198.51.{n // 250}.{n % 250 + 1}" for n in remote],
            "remote_port": np.where(inbound, 50_000, 443),
            "remote_hostname": [
                None if back else f"host{n}.example.com" for n, back in zip(remote, inbound, strict=True)
            ],
            "hostname_observability": int(Observability.OBSERVED),
            "bytes_out": sent,
            "bytes_in": received,
            "bytes_observability": int(Observability.OBSERVED),
            "wire_bytes_out": sent + 480,
            "wire_bytes_in": received + 560,
            "packets_out": 9,
            "packets_in": 11,
            "established": True,
            "app_protocol": "tls",
            "source": "synthetic",
            "position": np.arange(first, first + size) + 1,
            "clock": "device",
        }
        yield batch("flows", columns, length=size)


def inventory(count: int) -> Iterator[Batch]:
    """Leases of phones: a hardware address and an IP address for a time."""
    for first in range(0, count, ROWS):
        size = min(ROWS, count - first)
        numbers = np.arange(first, first + size)
        macs = [f"02:00:{n >> 24 & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in numbers]
        named = {
            "mac": macs,
            "ip": [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in numbers],
        }
        columns = {
            "device_uid": [f"mac:{mac}" for mac in macs],
            "valid_from": START_US + numbers,
            "valid_to": START_US + 3_600_000_000 + numbers,
            "source": "synthetic",
            "position": numbers + 1,
            "clock": "sensor",
        }
        for kind, identifiers in named.items():
            yield batch("inventory", columns | {"identifier_kind": kind, "identifier": identifiers}, length=size)


def _exported(fmt: ExportFormat) -> Callable[[int, Path], object]:
    def write(count: int, folder: Path) -> object:
        rows = inventory(count) if fmt in INVENTORIES else flows(count, DEVICES.get(fmt, 500))
        return export(rows, fmt, folder)

    return write


def _lines(name: str, header: str, line: Callable[[dict[str, Any]], str]) -> Callable[[int, Path], object]:
    """A file of one line a flow."""

    def write(count: int, folder: Path) -> object:
        with (folder / name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(header)
            return file.writelines(line(row) + "\n" for part in flows(count) for row in part.rows.to_pylist())

    return write


def _json(record: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in record.items() if value is not None}, separators=(",", ":"))


def _ends(row: dict[str, Any]) -> tuple[str, str, bool]:
    """The ends of whoever began and answered, as column prefixes, and whether the device answered."""
    inbound = row["direction_id"] == Direction.INBOUND
    return ("remote", "local", True) if inbound else ("local", "remote", False)


def _zeek_json(row: dict[str, Any]) -> str:
    orig, resp, inbound = _ends(row)
    sent, received = ("in", "out") if inbound else ("out", "in")
    record = {"ts": row["start_time"].timestamp(), "uid": f"C{row['flow_id']:x}"}
    record |= {"id.orig_h": row[f"{orig}_ip"], "id.orig_p": row[f"{orig}_port"]}
    record |= {"id.resp_h": row[f"{resp}_ip"], "id.resp_p": row[f"{resp}_port"], "proto": "tcp", "service": "ssl"}
    record |= {"duration": 1.5, "orig_bytes": row[f"bytes_{sent}"], "resp_bytes": row[f"bytes_{received}"]}
    record |= {"conn_state": "SF", "local_orig": not inbound, "local_resp": inbound, "missed_bytes": 0}
    record |= {"history": "ShADadFf", "orig_pkts": row[f"packets_{sent}"], "resp_pkts": row[f"packets_{received}"]}
    record |= {"orig_ip_bytes": row[f"wire_bytes_{sent}"], "resp_ip_bytes": row[f"wire_bytes_{received}"]}
    return _json(record)


def _netflow_json(row: dict[str, Any]) -> str:
    orig, resp, _ = _ends(row)
    start = int(row["start_time"].timestamp() * 1000)
    record = {"exporter": "192.0.2.1", "sourceIPv4Address": row[f"{orig}_ip"], "protocolIdentifier": 6}
    record |= {"sourceTransportPort": row[f"{orig}_port"], "destinationIPv4Address": row[f"{resp}_ip"]}
    record |= {"destinationTransportPort": row[f"{resp}_port"], "octetDeltaCount": row["wire_bytes_out"]}
    record |= {"packetDeltaCount": row["packets_out"], "tcpControlBits": 27}
    return _json(record | {"flowStartMilliseconds": start, "flowEndMilliseconds": start + 1_500})


def _defender(row: dict[str, Any]) -> str:
    inbound = row["direction_id"] == Direction.INBOUND
    time = row["start_time"].isoformat().replace("+00:00", "Z")
    properties = {"DeviceId": row["device_uid"], "DeviceName": row["device_uid"], "Timestamp": time}
    properties |= {"ActionType": "InboundConnectionAccepted" if inbound else "ConnectionSuccess", "Protocol": "Tcp"}
    properties |= {"LocalIP": row["local_ip"], "LocalPort": row["local_port"], "RemoteIP": row["remote_ip"]}
    properties |= {"RemotePort": row["remote_port"], "RemoteUrl": row["remote_hostname"], "ReportId": row["flow_id"]}
    properties |= {"InitiatingProcessFileName": row["android_package"]}
    named = {name: value for name, value in properties.items() if value is not None}
    return _json({"time": time, "category": "AdvancedHunting-DeviceNetworkEvents", "properties": named})


NETSTATS: Final = "device,uid,set,net_type,roaming,metered,bucket_start_s,bucket_s,rx_bytes,rx_pkts,tx_bytes,tx_pkts\n"


def _netstats(row: dict[str, Any]) -> str:
    start = int(row["start_time"].timestamp())
    return (
        f"{row['device_uid']},{row['android_uid']},0,wifi,0,0,{start},7200,{row['wire_bytes_in']},"
        f"{row['packets_in']},{row['wire_bytes_out']},{row['packets_out']}"
    )


WRITTEN: Final[dict[str, Callable[[int, Path], object]]] = {
    "zeek-json": _lines("conn.log", "", _zeek_json),
    "netflow-json": _lines("netflow.json", "", _netflow_json),
    "defender": _lines("hunting.json", "", _defender),
    "netstats-csv": _lines("netstats.csv", NETSTATS, _netstats),
}
"""Formats without a writer of ours."""


def _broken(write: Callable[[int, Path], object]) -> Callable[[int, Path], object]:
    """As `write`, with every 50th line cut off in its middle."""

    def cut(count: int, folder: Path) -> object:
        write(count, folder)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            lines = path.read_bytes().splitlines(keepends=True)
            lines[49::50] = [line[: len(line) // 2] + b"\n" for line in lines[49::50]]
            path.write_bytes(b"".join(lines))
        return None

    return cut


def _headed(count: int, folder: Path) -> None:
    """A Zeek log with its header before every other record."""
    _exported(ExportFormat.ZEEK)(count, folder)
    for path in folder.rglob("*.log"):
        lines = path.read_bytes().splitlines(keepends=True)
        header = b"".join(line for line in lines if line.startswith(b"#") and not line.startswith(b"#close"))
        records = [line for line in lines if not line.startswith(b"#")]
        path.write_bytes(b"".join(header + b"".join(records[at : at + 2]) for at in range(0, len(records), 2)))


DAMAGED: Final[dict[str, Callable[[int, Path], object]]] = {
    "zeek-json, 1 in 50 cut": _broken(WRITTEN["zeek-json"]),
    "ndjson, 1 in 50 cut": _broken(_exported(ExportFormat.NDJSON)),
    "zeek, headers between": _headed,
}
"""Files that are slow to read where a reader takes damage record by record; without a bar."""
CASES: Final = {str(fmt): _exported(fmt) for fmt in ExportFormat if fmt not in NOT_LINES} | WRITTEN | DAMAGED
"""Every line-based format, by name: writes N records into a folder."""
