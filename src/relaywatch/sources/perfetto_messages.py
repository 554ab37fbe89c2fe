"""Perfetto's rare messages, field by field: clock snapshots, package lists, loss counters; and how a trace begins.

Wire format: protobuf.dev/programming-guides/encoding. Field numbers: protos/perfetto/trace (trace_packet.proto,
clock_snapshot.proto, android/packages_list.proto, common/trace_stats.proto) of google/perfetto. Packets of the network
data source are read by perfetto_packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LONGEST: Final = 4 << 20
"""Bytes of one such message: a list of 100,000 packages has less."""
REALTIME: Final = 1
BOOTTIME: Final = 6
LAST_BUILTIN: Final = 63
"""Clocks up to this hold for the whole trace; further ones only for the sequence that defined them."""

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

_SERVICE_FIELDS: Final = {3: VARINT, 10: VARINT, 6: LENGTH, 33: LENGTH, 36: LENGTH, 50: LENGTH, 89: LENGTH, 133: LENGTH}
"""What the tracing service puts into packets: producer, sequence, clocks, configuration, marker, compression, uuid."""
_COMPRESSED: Final = {50 << 3 | LENGTH: b"\x78", 133 << 3 | LENGTH: b"\x28\xb5\x2f\xfd"}
"""Fields of compressed packets, with how their content begins (RFC 1950, RFC 8878)."""
_AFTER: Final = 64
"""Bytes of the service's own numbers behind them."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises ValueError where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & (2**64 - 1), at
    raise ValueError("a number without an end")


def fields(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(number, wire type, value, content) of each field: one of value and content is meant, the other empty.

    Raises ValueError at the first that is damaged.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        value, content = 0, b""
        if wire == VARINT:
            value, at = varint(data, at)
        elif wire == LENGTH:
            length, at = varint(data, at)
            content, at = data[at : at + length], at + length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if at > len(data) or not 0 < number < 1 << 29:
            raise ValueError("a field that does not fit")
        yield number, wire, value, content


def is_trace(head: bytes) -> bool:
    """Whether the content begins as Trace does: repeated field 1, the first ones sound packets of the service."""
    known, at = False, 0
    for _ in range(4):
        if at >= len(head):
            break
        if head[at] != 1 << 3 | LENGTH:
            return False
        try:
            length, begin = varint(head, at + 1)
        except ValueError:
            break
        at = begin + length
        if at > len(head):
            return known or _begins_compressed(head[begin:], length)
        try:
            met = [(number, wire) for number, wire, _, _ in fields(head[begin:at])]
        except ValueError:
            return known
        if any(_SERVICE_FIELDS.get(number, wire) != wire for number, wire in met):
            return known
        known = known or any(number in _SERVICE_FIELDS for number, _ in met)
    return known


def _begins_compressed(packet: bytes, length: int) -> bool:
    """Whether a packet of which only the start is at hand is nothing but one block of compressed packets."""
    try:
        tag, at = varint(packet, 0)
        inner, at = varint(packet, at)
    except ValueError:
        return False
    magic = _COMPRESSED.get(tag)
    return magic is not None and packet.startswith(magic, at) and 0 <= length - at - inner <= _AFTER


def clocks(snapshot: bytes) -> dict[int, int]:
    """A ClockSnapshot's readings in ns by clock id, builtin clocks only. Raises ValueError where it is damaged."""
    found = {}
    for number, wire, _, content in fields(snapshot):
        if (number, wire) != (1, LENGTH):
            continue
        clock, reading, unit = 0, 0, 1
        for part, _, value, _ in fields(content):
            clock = value if part == 1 else clock
            reading = value if part == 2 else reading
            unit = value or 1 if part == 4 else unit
        if 0 < clock <= LAST_BUILTIN:
            found[clock] = reading * unit
    return found


def packages(listed: bytes) -> list[tuple[str, int]]:
    """(name, uid) of each package of a PackagesList; what is no UTF-8 as U+FFFD. Raises ValueError at damage."""
    found = []
    for number, wire, _, content in fields(listed):
        if (number, wire) != (1, LENGTH):
            continue
        name, uid = "", -1
        for part, kind, value, text in fields(content):
            name = text.decode("utf-8", "replace") if (part, kind) == (1, LENGTH) else name
            uid = value if (part, kind) == (2, VARINT) else uid
        found.append((name, uid))
    return found


def losses(stats: bytes) -> int:
    """Chunks that TraceStats says were discarded or never made it into a buffer. Raises ValueError at damage.

    Chunks overwritten in a ring buffer (chunks_overwritten) are older than the trace and no loss within it.
    """
    lost = 0
    for number, wire, value, content in fields(stats):
        if (number, wire) == (8, VARINT):
            lost += value
        elif (number, wire) == (1, LENGTH):
            lost += sum(part for inner, _, part, _ in fields(content) if inner in (18, 19))
    return lost
