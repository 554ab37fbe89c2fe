"""A Perfetto trace of android.network_packets, with synthetic packets that add up to the flows' volumes.

Written as Android's NetworkTraceHandler writes polls: packets bundled by equal attributes, the attributes interned up
to a limit and in place beyond it. Field numbers as in sources/perfetto_packets. The file's name and the session's name
in its TraceConfig say that it is synthetic. Flows and volumes are held in memory until the packets are in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import FLOWS, VOLUMES
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file
from relaywatch.outputs.telemetry.synthetic_packets import TCP, UDP, Packet, Volumes, packets_of, volumes_by_flow

POLL_US: Final = 250_000
INTERNED: Final = 1_024
SESSION: Final = b"synthetic: written by relaywatch"
HEADERS: Final = {TCP: 52, UDP: 28}
"""IPv4 and TCP with timestamps, or UDP."""
_SYN_HEADERS: Final = 60
_SYN: Final = 2
_UPTIME_NS: Final = 3_600_000_000_000
"""The made-up boot is an hour before the first packet."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.]{1,255}")
"""What the system's package list can hold."""
_INTERFACE: Final = b"wlan0"
_SERVICE, _PACKAGES, _NETWORK = 1, 2, 3
"""Writers of the trace."""
_CLEARED, _NEEDED = 1, 2

_Key = tuple[int, int, int, int, int, int]
"""direction, uid, protocol, TCP flags, local port, remote port."""


def write_perfetto(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """A `synthetic-<device>.perfetto-trace` per device, of the TCP and UDP flows with both ports and a uid."""
    kept: dict[str, list[pa.RecordBatch]] = {"flows": [], "volumes": [], "inventory": []}
    for part in batches:
        if part.table in kept:
            kept[part.table].append(part.rows)
    volumes = volumes_by_flow(pa.Table.from_batches(kept["volumes"], VOLUMES))
    frame = pl.from_arrow(pa.Table.from_batches(kept["flows"], FLOWS))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    usable = frame.filter(pl.col("protocol_num").is_in([TCP, UDP]), pl.col("android_uid") >= 0).drop_nulls(
        ["local_port", "remote_port"]
    )
    times = usable.with_columns(pl.col("start_time", "end_time").dt.epoch("us"), pl.col("device_uid").cast(pl.String))
    apps = _apps(kept["inventory"], times)
    paths = []
    for device in times["device_uid"].unique().sort().to_list():
        named = device_file(folder, device, ".perfetto-trace")
        path = named.with_name(f"synthetic-{named.name}")
        with path.open("wb") as file:
            _write_device(times.filter(pl.col("device_uid") == device), volumes, apps.get(device, {}), file)
        paths.append(path)
    return paths


def _apps(inventory: list[pa.RecordBatch], flows: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Uid of each package by device: what the system's package list says."""
    columns = ["device_uid", "android_package", "android_uid"]
    rows = [row for part in inventory for row in part.select(columns).to_pylist()]
    rows += flows.select(columns).unique().sort(columns).to_dicts()
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["android_uid"] is not None and row["android_uid"] >= 0 and _NAME.fullmatch(row["android_package"] or ""):
            found.setdefault(row["device_uid"], {}).setdefault(row["android_package"], row["android_uid"])
    return found


def _write_device(flows: pl.DataFrame, volumes: Volumes, apps: dict[str, int], file: BinaryIO) -> None:
    """Every packet of the device, poll by poll."""
    packets: list[tuple[int, int, _Key, int]] = []
    for row in flows.iter_rows(named=True):
        for packet in packets_of(row, volumes.get((row["device_uid"], row["source"], row["flow_id"]), [])):
            packets.append((packet.time, len(packets), _key(row, packet), _length(row["protocol_num"], packet)))
    packets.sort()
    origin = packets[0][0] * 1_000
    file.write(_packet(_SERVICE, _message(6, _reading(6, _UPTIME_NS) + _reading(1, origin))))
    file.write(_packet(_SERVICE, _message(33, _message(22, SESSION))))
    listed = (_message(1, _message(1, name.encode()) + _number(2, uid)) for name, uid in sorted(apps.items()))
    file.write(_packet(_PACKAGES, _message(47, b"".join(listed))))
    interned: dict[_Key, int] = {}
    for poll in _polls(packets):
        for key, members in poll.items():
            file.write(_bundle(key, members, interned, origin))


def _key(row: dict[str, Any], packet: Packet) -> _Key:
    protocol = row["protocol_num"]
    flags = packet.flags if protocol == TCP else 0
    return 2 if packet.sent else 1, row["android_uid"], protocol, flags, row["local_port"], row["remote_port"]


def _length(protocol: int, packet: Packet) -> int:
    return _SYN_HEADERS if protocol == TCP and packet.flags & _SYN else HEADERS[protocol] + packet.size


def _polls(packets: list[tuple[int, int, _Key, int]]) -> Iterator[dict[_Key, list[tuple[int, int]]]]:
    """(time in us, length) of a poll's packets, by their attributes."""
    poll: dict[_Key, list[tuple[int, int]]] = {}
    number = -1
    for time, _, key, length in packets:
        if time // POLL_US != number and poll:
            yield poll
            poll = {}
        number = time // POLL_US
        poll.setdefault(key, []).append((time, length))
    yield poll


def _bundle(key: _Key, members: list[tuple[int, int]], interned: dict[_Key, int], origin: int) -> bytes:
    """One bundle; what it interns stands in the same packet."""
    first = members[0][0]
    flags = _NEEDED if interned else _CLEARED
    content, named = b"", _message(2, _attributes(key))
    if key in interned or len(interned) < INTERNED:
        if key not in interned:
            interned[key] = len(interned) + 1
            content = _message(12, _message(30, _number(1, interned[key]) + named))
        named = _number(1, interned[key])
    times = b"".join(_varint((time - first) * 1_000) for time, _ in members)
    lengths = b"".join(_varint(length) for _, length in members)
    time = _number(8, first * 1_000 - origin + _UPTIME_NS)
    content += _message(92, named + _message(3, times) + _message(4, lengths))
    return _packet(_NETWORK, time + _number(13, flags) + content)


def _attributes(key: _Key) -> bytes:
    direction, uid, protocol, flags, local, remote = key
    numbers = ((4, uid), (6, protocol), (7, flags), (8, local), (9, remote))
    return _number(1, direction) + _message(2, _INTERFACE) + b"".join(_number(*field) for field in numbers)


def _reading(clock: int, nanoseconds: int) -> bytes:
    return _message(1, _number(1, clock) + _number(2, nanoseconds))


def _packet(writer: int, content: bytes) -> bytes:
    return _message(1, _number(10, writer) + content)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
