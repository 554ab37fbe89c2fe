"""PCAPdroid's capture with app trailer, with synthetic packets: their times and payload sizes tell the flows' volumes.

Format: pcap with link type Ethernet, zero addresses, the IP packet, zero padding to four bytes, then 32 bytes: magic
0x01072021 and uid in network order, the app's name (20 bytes, zero-ended), CRC-32 of the frame before it.
Payload is zeros. Flows and volumes are held in memory until the packets are in order of time.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import dns.exception
import dns.message
import dns.rrset
import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import FLOWS, VOLUMES, Direction
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file
from relaywatch.outputs.telemetry.synthetic_packets import TCP, UDP, Packet, Volumes, packets_of, volumes_by_flow

MAGIC: Final = 0x01072021
RESOLVERS: Final = {4: "192.0.2.53", 6: "2001:db8::53"}
"""Addresses for documentation (RFC 5737, RFC 3849): the resolver of synthetic answers."""

_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)


@dataclass(frozen=True, slots=True)
class _Ends:
    """Whose packets these are."""

    protocol: int
    local: ipaddress.IPv4Address | ipaddress.IPv6Address
    local_port: int
    remote: ipaddress.IPv4Address | ipaddress.IPv6Address
    remote_port: int
    trailer: bytes


def write_pcapdroid_pcap(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """A `<device>.pcap` per device. Only TCP and UDP flows with both addresses and ports are carried."""
    kept: dict[str, list[pa.RecordBatch]] = {"flows": [], "volumes": [], "inventory": []}
    for part in batches:
        if part.table in kept:
            kept[part.table].append(part.rows)
    labels = _labels(kept["inventory"])
    volumes = volumes_by_flow(pa.Table.from_batches(kept["volumes"], VOLUMES))
    flows = pa.Table.from_batches(kept["flows"], FLOWS)
    frame = pl.from_arrow(flows)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    usable = frame.filter(pl.col("protocol_num").is_in([TCP, UDP])).drop_nulls(
        ["local_ip", "remote_ip", "local_port", "remote_port"]
    )
    times = usable.with_columns(pl.col("start_time", "end_time").dt.epoch("us"), pl.col("device_uid").cast(pl.String))
    paths = []
    for device in times["device_uid"].unique().sort().to_list():
        path = device_file(folder, device, ".pcap")
        with path.open("wb") as file:
            file.write(_HEADER)
            _write_device(times.filter(pl.col("device_uid") == device), volumes, labels, file)
        paths.append(path)
    return paths


def _labels(inventory: list[pa.RecordBatch]) -> dict[tuple[str, str | None, int | None], str]:
    columns = ["device_uid", "android_package", "android_uid", "app_label"]
    rows = (row for part in inventory for row in part.select(columns).to_pylist() if row["app_label"])
    return {(r["device_uid"], r["android_package"], r["android_uid"]): r["app_label"] for r in rows}


def _write_device(
    flows: pl.DataFrame,
    volumes: Volumes,
    labels: dict[tuple[str, str | None, int | None], str],
    file: BinaryIO,
) -> None:
    """Every packet of the device in order of time."""
    ends: list[_Ends] = []
    packets: list[tuple[int, int, int, Packet, bytes]] = []
    answered: set[tuple[str, str]] = set()
    for row in flows.iter_rows(named=True):
        app = (row["device_uid"], row["android_package"], row["android_uid"])
        trailer = _trailer(row["android_uid"], labels.get(app) or row["android_package"] or "")
        ends.append(_ends(row, trailer))
        key = (row["device_uid"], row["source"], row["flow_id"])
        for packet in packets_of(row, volumes.get(key, [])):
            packets.append((packet.time, len(ends) - 1, len(packets), packet, b""))
        name = row["remote_hostname"]
        if name and row["direction_id"] != Direction.INBOUND and (name, row["remote_ip"]) not in answered:
            answered.add((name, row["remote_ip"]))
            for packet, content, resolver in _resolution(row, trailer, len(answered)):
                ends.append(resolver)
                packets.append((packet.time, len(ends) - 1, len(packets), packet, content))
    packets.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
    for _, index, _, packet, content in packets:
        frame = _frame(packet, ends[index], content or bytes(packet.size))
        file.write(struct.pack("<IIII", *divmod(packet.time, 1_000_000), len(frame), len(frame)) + frame)


def _ends(row: dict[str, Any], trailer: bytes) -> _Ends:
    local, remote = ipaddress.ip_address(row["local_ip"]), ipaddress.ip_address(row["remote_ip"])
    return _Ends(row["protocol_num"], local, row["local_port"], remote, row["remote_port"], trailer)


def _resolution(row: dict[str, Any], trailer: bytes, number: int) -> Iterator[tuple[Packet, bytes, _Ends]]:
    """A DNS question and its answer just before the flow, so that the capture shows the name."""
    local, remote = ipaddress.ip_address(row["local_ip"]), ipaddress.ip_address(row["remote_ip"])
    kind = "A" if remote.version == 4 else "AAAA"
    try:
        question = dns.message.make_query(row["remote_hostname"], kind, id=number % 65_536)
        answer = dns.message.make_response(question)
        answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", kind, str(remote)))
        asked, said = question.to_wire(), answer.to_wire()
    except (dns.exception.DNSException, ValueError):
        return
    ends = _Ends(UDP, local, 20_000 + number % 40_000, ipaddress.ip_address(RESOLVERS[local.version]), 53, trailer)
    time = max(row["start_time"] - 2_000, 0)
    yield Packet(time, True, 0, 0, 0, len(asked)), asked, ends  # noqa: FBT003 - a field of the record
    yield Packet(time + 1_000, False, 0, 0, 0, len(said)), said, ends  # noqa: FBT003 - a field of the record


def _trailer(uid: int | None, name: str) -> bytes:
    """Magic, uid and name; the frame's check sum follows."""
    return struct.pack(">Ii20s", MAGIC, -1 if uid is None else uid, name.encode()[:19])


def _frame(packet: Packet, ends: _Ends, content: bytes) -> bytes:
    source, target = (ends.local, ends.remote) if packet.sent else (ends.remote, ends.local)
    ports = (ends.local_port, ends.remote_port) if packet.sent else (ends.remote_port, ends.local_port)
    if ends.protocol == TCP:
        segment = struct.pack(">HHIIBBHHH", *ports, packet.seq, packet.ack, 0x50, packet.flags, 65_535, 0, 0)
    else:
        segment = struct.pack(">HHHH", *ports, 8 + len(content), 0)
    segment += content
    if source.version == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, ends.protocol, 0)
        header += source.packed + target.packed
        network = header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + segment
        kind = 0x0800
    else:
        network = (
            struct.pack(">IHBB", 0x6000_0000, len(segment), ends.protocol, 64) + source.packed + target.packed + segment
        )
        kind = 0x86DD
    frame = bytes(12) + struct.pack(">H", kind) + network
    frame += bytes(-len(frame) % 4) + ends.trailer
    return frame + struct.pack("<I", zlib.crc32(frame))


def _checksum(header: bytes) -> int:
    """The Internet check sum (RFC 1071) of a header of whole 16-bit words."""
    total: int = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
