"""Files of N records in each line-based format, for timing readers: by our own writers where there is one.

Made-up traffic in bulk: nothing here says anything of detection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.outputs.telemetry import ExportFormat, export

ROWS: Final = 50_000
START_US: Final = 1_767_225_600_000_000
NOT_LINES: Final = {
    "parquet", "pcapdroid-pcap", "perfetto", "netstats-binary", "netstats-text", "netflow-v9", "ipfix", "socket-polls",
    "usagestats",
}  # fmt: skip
"""Export formats whose records are not lines, or not of the flows below."""
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


def _sockets(count: int, folder: Path) -> object:
    """One phone's socket tables, polled every 5 s; a socket lasts a minute on average, so is in some 12 tables."""
    rng = np.random.default_rng(7)
    size = count // 13 + 1
    start = START_US + np.sort(rng.integers(0, size * 1_000_000, size))
    inbound = rng.random(size) < 0.1
    columns = _of_phone(size) | {
        "android_uid": 10_100 + rng.integers(0, 40, size),
        "flow_id": np.arange(size),
        "start_time": start,
        "end_time": start + rng.exponential(60e6, size).astype(np.int64),
        "protocol_num": np.where(rng.random(size) < 0.8, 6, 17),
        "direction_id": np.where(inbound, Direction.INBOUND, Direction.OUTBOUND).astype(np.uint8),
        "direction_observability": int(Observability.OBSERVED),
        "bytes_observability": int(Observability.NOT_OBSERVABLE),
        "local_ip": "10.0.0.5",
        "local_port": rng.integers(32_768, 60_999, size),
        "remote_ip": [f"198.51.{n // 250}.{n % 250 + 1}" for n in rng.integers(0, 60_000, size)],
        "remote_port": 443,
    }
    return export([batch("flows", columns, length=size)], ExportFormat.SOCKET_POLLS, folder)


KERNEL_HEADER: Final = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
)


def _kernel_tables(count: int, folder: Path) -> None:
    """/proc/net/tcp of 100 sockets, polled every 5 s, some new each minute; timers run, so no line comes twice."""
    rng = np.random.default_rng(7)
    with (folder / "tcp.txt").open("w", encoding="utf-8", newline="\n") as file:
        for poll in range(count // 100):
            file.write(f"{START_US // 1_000_000 + 5 * poll}\n{KERNEL_HEADER}")
            for socket, timer in enumerate(rng.integers(0, 2**32, 100).tolist()):
                number = socket + poll // 12 * 7
                file.write(
                    f"{socket:4}: 0500000A:{30_000 + number % 30_000:04X} {number * 7_919 % 2**24:06X}C6:01BB 01"
                    f" 00000000:00000000 02:{timer:08X} 00000000 {10_100 + number % 40}        0 {number} 2 0\n"
                )


def _usage(count: int, folder: Path) -> object:
    """One phone's day: what was in front, services and touches of 200 apps."""
    rng = np.random.default_rng(7)
    size = count * 5 // 8
    app = rng.integers(0, 200, size)
    kinds = [SignalKind.FOREGROUND_UI, SignalKind.FOREGROUND_SERVICE, SignalKind.USER_INTERACTION]
    kind = rng.choice(np.array(kinds, np.int64), size)
    start = START_US + np.sort(rng.integers(0, 86_000_000_000, size))
    columns = _of_phone(size) | {
        "android_package": [f"com.example.app{n}" for n in app],
        "android_uid": 10_100 + app,
        "kind": kind,
        "start_time": start,
        "end_time": [
            None if one == SignalKind.USER_INTERACTION else begin + 2_000_000
            for one, begin in zip(kind.tolist(), start.tolist(), strict=True)
        ],
        "observability": int(Observability.OBSERVED),
    }
    return export([batch("signals", columns, length=size)], ExportFormat.USAGESTATS, folder)


def _uid_buckets(count: int, folder: Path) -> object:
    """Buckets of two hours of 400 apps, in the background and in front."""
    rng, numbers = np.random.default_rng(7), np.arange(count)
    columns = _of_phone(count) | {
        "android_uid": 10_000 + numbers % 400,
        "android_set": [("background", "foreground")[n // 400 % 2] for n in range(count)],
        "start_time": START_US + numbers // 800 * 7_200_000_000,
        "duration_us": 7_200_000_000,
        "bytes_in": rng.integers(0, 10**7, count),
        "bytes_out": rng.integers(0, 10**7, count),
        "packets_in": 100,
        "packets_out": 100,
    }
    return export([batch("volumes", columns, length=count)], ExportFormat.NETSTATS_TEXT, folder)


def _of_phone(size: int) -> dict[str, Any]:
    return {"device_uid": "phone-1", "source": "synthetic", "clock": "device", "position": np.arange(size) + 1}


EVENTS: Final = (
    "am_proc_start: [0,{pid},{uid},{app},service,{{{app}/{app}.Sync}}]",
    "wm_set_resumed_activity: [0,{app}/.Main,resumeTopActivityInnerLocked]",
    "am_uid_idle: {uid}",
    "am_foreground_service_start: [0,{app}/.Relay,1,PROC_STATE_TOP]",
    "wm_pause_activity: [0,{pid},{app}/.Main,userLeaving=true]",
    "am_foreground_service_stop: [0,{app}/.Relay,1,PROC_STATE_TOP]",
)


def _event_log(count: int, folder: Path) -> None:
    """A log of events, five a second; each service runs for some of them."""
    rng, time = np.random.default_rng(7), datetime(2026, 1, 1, tzinfo=UTC)
    apps = rng.integers(0, 200, count // len(EVENTS) + 1).repeat(len(EVENTS)).tolist()
    with (folder / "events.txt").open("w", encoding="utf-8", newline="\n") as file:
        file.write("== dumpstate: 2026-01-02 10:00:00\n------ EVENT LOG (logcat -b events -v threadtime) ------\n")
        for number in range(count):
            time += timedelta(milliseconds=200)
            app, event = apps[number], EVENTS[number % len(EVENTS)]
            told = event.format(pid=3_000 + number % 9_000, uid=10_100 + app, app=f"com.example.app{app}")
            file.write(f"{time:%m-%d %H:%M:%S}.{time.microsecond // 1000:03d}  1000   929  1349 I {told}\n")


def _battery_history(count: int, folder: Path) -> None:
    """A battery history with -c: 50 apps come to the top and leave it in turn, with wake locks between."""
    with (folder / "batterystats.txt").open("w", encoding="utf-8", newline="\n") as file:
        file.write("9,0,i,vers,34,186,QP1A,QP1A\n")
        file.writelines(f'9,hsp,{number},{10_100 + number},"com.example.app{number}"\n' for number in range(50))
        file.write(f"9,h,0:RESET:TIME:{START_US // 1000}\n")
        for number in range(count):
            change = ("+Etp=", "+w=", "-Etp=", "-w=")[number % 4]
            file.write(f"9,h,250,{change}{number // 4 % 50}\n")


SECTIONS: Final[dict[str, Callable[[int, Path], object]]] = {
    "socket-polls": _sockets,
    "proc-net-polls": _kernel_tables,
    "usagestats": _usage,
    "netstats-text": _uid_buckets,
    "event-log": _event_log,
    "batterystats": _battery_history,
}
"""Text sections of Android dumps."""
PATTERNS: Final = {
    "socket-polls": (
        r"^(tcp|udp)\s+(\S+)\s+\d+ \d+ (\S+):(\S+) (\S+):(\S+)(?: uid:(\d+))?",
        ("protocol", "state", "local_ip", "local_port", "remote_ip", "remote_port", "uid"),
    ),
    "proc-net-polls": (
        r"^\s*\d+: (\w+):(\w+) (\w+):(\w+) (\w+) \S+ \S+ \S+\s+(\d+)",
        ("local_ip", "local_port", "remote_ip", "remote_port", "state", "uid"),
    ),
    "usagestats": (
        r"^\s*time=\"([^\"]*)\" type=(\S+) package=(\S+)(?: class=(\S+))?",
        ("time", "type", "package", "class"),
    ),
    "netstats-text": (
        r"^\s*st=(\d+) rb=(\d+) rp=(\d+) tb=(\d+) tp=(\d+)",
        ("st", "rb", "rp", "tb", "tp"),
    ),
    "event-log": (
        r"^(\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\s+(\d+)\s+(\d+)\s+(\d+) \w (\w+): (.*)$",
        ("time", "uid", "pid", "tid", "tag", "value"),
    ),
    "batterystats": (r"^9,h,(\d+),(.*)$", ("after", "change")),
}
"""What other tools extract of each line of a section, and the names of the groups."""


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
CASES: Final = {str(fmt): _exported(fmt) for fmt in ExportFormat if fmt not in NOT_LINES} | WRITTEN | SECTIONS | DAMAGED
"""Every line-based format, by name: writes N records into a folder."""
