"""Writes small databases in MaxMind's format (specification 2.0), so that no test needs a real one."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

MARKER = b"\xab\xcd\xefMaxMind.com"
EMPTY = None


def encoded(value: object) -> bytes:
    """A value of the data section: map, text, whole number, list; bytes stand for themselves, whatever they say."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(encoded(k) + encoded(v) for k, v in value.items())
    if isinstance(value, str):
        return _control(2, len(value.encode())) + value.encode()
    if isinstance(value, int):
        raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return _control(9, len(raw)) + raw
    assert isinstance(value, list)
    return _control(11, len(value)) + b"".join(map(encoded, value))


def _control(kind: int, size: int) -> bytes:
    head = size if size < 29 else 29
    more = b"" if size < 29 else bytes([size - 29])
    return (bytes([kind << 5 | head]) if kind <= 7 else bytes([head, kind - 7])) + more


def database(networks: Mapping[str, object], *, version: int = 4, kind: str = "GeoLite2-ASN") -> bytes:
    """The file's bytes; networks: record by prefix, of the same IP version (IPv4 within ::/96 in version 6)."""
    nodes: list[list[int | bytes | None]] = [[EMPTY, EMPTY]]
    data = b""
    for text, record in networks.items():
        net = ipaddress.ip_network(text)
        width = 128 if version == 6 else 32
        skipped = width - net.max_prefixlen
        bits = f"{int(net.network_address):0{width}b}"[: skipped + net.prefixlen]
        node = 0
        for bit in bits[:-1]:
            if nodes[node][int(bit)] is EMPTY:
                nodes.append([EMPTY, EMPTY])
                nodes[node][int(bit)] = len(nodes) - 1
            node = nodes[node][int(bit)]  # type: ignore[assignment]
        nodes[node][int(bits[-1])] = len(data).to_bytes(4, "big")
        data += encoded(record)
    tree = b"".join(_place(side, len(nodes)).to_bytes(3, "big") for node in nodes for side in node)
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_772_528_400,
        "database_type": kind,
        "description": {"en": "for a test"},
        "ip_version": version,
        "languages": ["en"],
        "node_count": len(nodes),
        "record_size": 24,
    }
    return tree + bytes(16) + data + MARKER + encoded(about)


def _place(side: int | bytes | None, count: int) -> int:
    if isinstance(side, bytes):
        return count + 16 + int.from_bytes(side, "big")
    return count if side is EMPTY else side


def nested(levels: int) -> bytes:
    """Lists within lists."""
    return b"\x01\x04" * levels + encoded("end")


def fanned_out(levels: int) -> bytes:
    """Lists of eight pointers to the next list: a small file that would give 8 ** levels values. For a first record."""
    lists = [
        bytes([8, 4]) + (b"\x38" + (42 * (level + 1)).to_bytes(4, "big")) * 8  # 2 bytes, and 8 times 5
        for level in range(levels)
    ]
    return b"".join(lists) + encoded("end")


def holder(number: int, organisation: str) -> dict[str, object]:
    """A record as GeoLite2-ASN has it."""
    return {"autonomous_system_number": number, "autonomous_system_organization": organisation}
