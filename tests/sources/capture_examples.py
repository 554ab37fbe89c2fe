"""Makes small captures: packets, classic pcap, pcapng, PCAPdroid's trailer and uid map; and reads them."""

from __future__ import annotations

import io
import socket
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import dpkt

from relaywatch.model.quarantine import Quarantine
from relaywatch.sources.pcap import Pcap
from relaywatch.sources.reading import Reading, Tally

ETHERNET = b"\2\0\0\0\0\1\2\0\0\0\0\2"
SYN, SYN_ACK, ACK, PUSH, FIN, RST = 2, 18, 16, 24, 17, 4
T0 = 1_700_000_000_000_000


def ip(source: str, target: str, body: bytes, protocol: int) -> bytes:
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + ends + body
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + ends + body


def tcp(
    source: str, sport: int, target: str, dport: int, seq: int, flags: int, data: bytes = b"", ack: int = 0
) -> bytes:
    head = struct.pack(">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, 0)
    return ip(source, target, head + data, 6)


def udp(source: str, sport: int, target: str, dport: int, data: bytes) -> bytes:
    return ip(source, target, struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data, 17)


def ethernet(packet: bytes, tags: int = 0) -> bytes:
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return ETHERNET + b"\x81\x00\x00\x05" * tags + kind + packet


def classic(
    frames: list[tuple[int, bytes]], link: int = 1, order: str = "<", units: int = 1, snaplen: int = 262144
) -> bytes:
    """units: of the fraction of a second, in a microsecond: 1, or 1000 for the nanosecond form."""
    magic = {1: 0xA1B2C3D4, 1000: 0xA1B23C4D}[units]
    content = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)
    for time, frame in frames:
        kept = frame[:snaplen]
        content += struct.pack(order + "IIII", time // 10**6, time % 10**6 * units, len(kept), len(frame)) + kept
    return content


def block(kind: int, content: bytes, order: str = "<") -> bytes:
    content += bytes(-len(content) % 4)
    length = struct.pack(order + "I", len(content) + 12)
    return struct.pack(order + "I", kind) + length + content + length


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<", options: bytes = b"") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order)


def interface(link: int = 1, order: str = "<", options: bytes = b"", snaplen: int = 0) -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def enhanced(ticks: int, frame: bytes, number: int = 0, order: str = "<", options: bytes = b"") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, head + frame + bytes(-len(frame) % 4) + options, order)


def trailed(packet: bytes, uid: int, label: str) -> bytes:
    """A packet as PCAPdroid writes it with its extensions on."""
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    frame = bytes(12) + kind + packet
    frame += bytes(-len(frame) % 4) + struct.pack(">Ii20s", 0x01072021, uid, label.encode()[:19])
    return frame + struct.pack("<I", zlib.crc32(frame))


def uid_map(uid: int, package: str, label: str, order: str = "<") -> bytes:
    names = package.encode() + label.encode()
    head = struct.pack(order + "IBBiBB", 62652, 1, 1, uid, len(package.encode()), len(label.encode()))
    return block(0x00000BAD, head + names, order)


def dns_answer(name: str, *addresses: str) -> bytes:
    message = dpkt.dns.DNS(id=7, op=0x8180, qd=[dpkt.dns.DNS.Q(name=name)])
    for address in addresses:
        six = ":" in address
        wire = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
        message.an.append(dpkt.dns.DNS.RR(name=name, type=28 if six else 1, cls=1, ttl=60, rdata=wire))
    return bytes(message)


def client_hello(name: str, padding: int = 0) -> bytes:
    """A TLS ClientHello that asks for `name`, with `padding` bytes of another extension before it."""
    host = name.encode()
    entry = struct.pack(">HBH", len(host) + 3, 0, len(host)) + host
    extensions = struct.pack(">HH", 21, padding) + bytes(padding) + struct.pack(">HH", 0, len(entry)) + entry
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\0"
        + b"\x00\x02\x13\x01"
        + b"\x01\x00"
        + struct.pack(">H", len(extensions))
        + extensions
    )
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(hello)) + hello


def connection(
    client: tuple[str, int], server: tuple[str, int], sent: list[bytes], received: list[bytes], isn: int = 1000
) -> list[bytes]:
    """IP packets of a whole connection, in order; each side's payload in the given segments."""
    up, down = (*client, *server), (*server, *client)
    packets = [tcp(*up, isn, SYN), tcp(*down, isn + 500, SYN_ACK, ack=isn + 1)]
    here, there = isn + 1, isn + 501
    for data in sent:
        packets.append(tcp(*up, here, PUSH, data))
        here += len(data)
    for data in received:
        packets.append(tcp(*down, there, PUSH, data))
        there += len(data)
    return [*packets, tcp(*up, here, FIN), tcp(*down, there, FIN)]


def timed(packets: list[bytes], start: int = T0, step: int = 1000) -> list[tuple[int, bytes]]:
    return [(start + i * step, packet) for i, packet in enumerate(packets)]


class Result:
    """The rows of each table as dictionaries, the quarantine and the tally."""

    def __init__(
        self, content: bytes | BinaryIO, device: str = "", name: str = "lab.pcap", reader: Pcap | None = None
    ) -> None:
        self.quarantine, self.tally = Quarantine(), Tally()
        reading = Reading(self.quarantine, device, tally=self.tally)
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        self.tables: dict[str, list[dict[str, Any]]] = {"flows": [], "volumes": [], "signals": [], "inventory": []}
        for part in (reader or Pcap()).read(Path(name), cast("BinaryIO", stream), reading):
            part.rows.validate(full=True)
            self.tables[part.table] += part.rows.to_pylist()
        self.flows = sorted(self.tables["flows"], key=lambda row: row["flow_id"])
        self.volumes = self.tables["volumes"]

    @property
    def reasons(self) -> list[str]:
        return [f"{record.position}: {record.reason}" for record in self.quarantine.records]
