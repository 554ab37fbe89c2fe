"""Socket tables of a phone: netstat, ss and /proc/net, one table or many polled ones, as flows and listeners.

Formats: toybox and net-tools netstat (-npWae and the old form without owner), iproute2 ss (-eionptu), the kernel's
proc_net_tcp. A table says who owns a socket and that it was open then. An established connection whose local port the
same uid listens on was accepted; who opened the others is inferred too. In a polled log, each table comes after a line
with the time; a socket in successive tables is one connection, from when it was first seen until it was last seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.columns import LAST_SECOND, canonical_address
from relaywatch.sources.reading import Reading

PAUSE_US: Final = 120_000_000
"""A socket not seen for so long is another one when it comes again: the idle time that splits flows elsewhere."""
MOST_SOCKETS: Final = 500_000
"""Sockets of one dump; more do not fit a phone."""
_PROTOCOLS: Final = {"tcp": 6, "tcp6": 6, "udp": 17, "udp6": 17, "udplite": 136, "raw": 255, "raw6": 255, "icmp": 1}
_OPEN: Final = frozenset(
    [
        "ESTABLISHED",
        "ESTAB",
        "CLOSE_WAIT",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "LAST_ACK",
        "CLOSING",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "CLOSE-WAIT",
        "LAST-ACK",
    ]
)
_TRIED: Final = frozenset({"SYN_SENT", "SYN-SENT", "SYN_RECV", "SYN-RECV"})
_BOUND: Final = frozenset({"LISTEN", "UNCONN", "CLOSE", ""})
_KERNEL_STATES: Final = {
    1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE",
    8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING",
}  # fmt: skip
_NETSTAT: Final = re.compile(
    r"(tcp6?|udp6?|udplite|raw6?|icmp)\s+\d+\s+\d+\s+(\S+)\s+(\S+)"
    r"(?:\s+([A-Z][A-Z_0-9]+|\d{1,2}(?=\s+\w+\s+\d+\s)))?(?:\s+(\w+)\s+\d+\s+\S.*)?\s*",
    re.ASCII,
)
_SS: Final = re.compile(
    r"(?:(tcp|udp|raw|icmp6?)\s+)?(ESTAB|LISTEN|UNCONN|SYN-SENT|SYN-RECV|FIN-WAIT-[12]|TIME-WAIT|CLOSE-WAIT|LAST-ACK|CLOSING)"
    r"\s+\d+\s+\d+\s+(\S+)\s+(\S+)(.*)",
    re.ASCII,
)
_PROC: Final = re.compile(
    r"\s*\d+: ([0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}):([0-9A-Fa-f]{4}) ([0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}):([0-9A-Fa-f]{4})"
    r" ([0-9A-Fa-f]{2}) \S+ \S+ \S+\s+(\d+)\s+\d+\s+\d+.*"
)
_RECORD: Final = re.compile(r"\s*(?:tcp6?|udp6?|udplite|raw6?|icmp6?|ESTAB|LISTEN|UNCONN|SYN-|TIME-WAIT|\d+: )")
_TIME: Final = re.compile(
    r"(?:[#>=* -]*)(\d{9,10}(?:\.\d+)?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?Z| ?[+-]\d\d:?\d\d)?)\s*"
)
_OWNER: Final = re.compile(r"uid:(\d+)")
_SENT: Final = re.compile(r"bytes_acked:(\d+)")
_RECEIVED: Final = re.compile(r"bytes_received:(\d+)")
_NAMED: Final = re.compile(r"u(\d+)_a(\d+)")
_SYSTEM: Final = {"root": 0, "system": 1000, "radio": 1001, "shell": 2000}
USER_ID_UIDS: Final = 100_000
FIRST_APP_ID: Final = 10_000
LAST_UID: Final = 2**31 - 1


class Row(NamedTuple):
    """One line of a table. remote_port 0: any; uid -1: not shown; bytes None: not shown."""

    protocol: int
    state: str
    local_ip: str | None
    local_port: int
    remote_ip: str | None
    remote_port: int
    uid: int


@dataclass(slots=True)
class _Seen:
    """A socket as the tables show it. first, last: us; position: line of the first."""

    first: int
    last: int
    position: int
    bytes_out: int | None = None
    bytes_in: int | None = None


@dataclass(slots=True)
class _Tables:
    """Everything that the tables of one section show."""

    connections: dict[Row, _Seen] = field(default_factory=dict)
    ended: list[tuple[Row, _Seen]] = field(default_factory=list)
    bound: dict[tuple[int, int, int], _Seen] = field(default_factory=dict)
    listening: set[tuple[int, int]] = field(default_factory=set)
    times: list[int] = field(default_factory=list)


def parse_sockets(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Flows of connected sockets, LISTENER and RAW_SOCKET signals, and a CAPTURE over the time of polled tables."""
    tables = _Tables()
    now, row = context.taken, None
    for number, line in enumerate(section.lines, section.first_line):
        stamp = _TIME.fullmatch(line)
        if stamp is not None:
            now, row = _instant(stamp[1], context), None
            if now is not None:
                tables.times.append(now)
        elif row is not None and line[:1] in " \t" and _PROC.fullmatch(line) is None:
            _add_bytes(tables, row, line)
        elif _RECORD.match(line):
            reading.tally.met(1)
            row = parse_row(line, section.name)
            if row is None:
                reading.quarantine.add(
                    section.source, f"line {number}", "no socket as netstat, ss or the kernel writes it"
                )
            elif now is None:
                reading.quarantine.add(section.source, f"line {number}", "a socket table without a time before it")
                row = None
            else:
                row = _taken(tables, row, now, number, reading)
                if row is not None:
                    _add_bytes(tables, row, line)
    yield from _batches(tables, section, context, reading)


def parse_row(line: str, name: str = "") -> Row | None:
    """One line of a table; None where it is none. name: the table's file for /proc/net, which does not name it."""
    row = _parsed(line, name)
    return row if row is not None and row.uid <= LAST_UID else None


def _parsed(line: str, name: str) -> Row | None:
    if (found := _NETSTAT.fullmatch(line)) is not None:
        return _row(_PROTOCOLS[found[1]], found[4] or "", found[2], found[3], _uid(found[5]))
    if (found := _SS.fullmatch(line)) is not None:
        owner = _OWNER.search(found[5])
        protocol = _PROTOCOLS.get((found[1] or "tcp").removesuffix("6"), 6)
        # ss leaves the owner out where it is root.
        return _row(protocol, found[2], found[3], found[4], int(owner[1]) if owner else 0)
    if (found := _PROC.fullmatch(line)) is not None:
        protocol = _PROTOCOLS.get(name.rpartition("/")[2], 6)
        state = _KERNEL_STATES.get(int(found[5], 16), "")
        local, remote = _kernel_address(found[1]), _kernel_address(found[3])
        return Row(protocol, state, local, int(found[2], 16), remote, int(found[4], 16), int(found[6]))
    return None


def _row(protocol: int, state: str, local: str, remote: str, uid: int) -> Row | None:
    ends = _endpoint(local), _endpoint(remote)
    if ends[0] is None or ends[1] is None:
        return None
    return Row(protocol, state, *ends[0], *ends[1], uid)


def _endpoint(text: str) -> tuple[str | None, int] | None:
    """Address and port of "1.2.3.4:80", "[::1]:80", "::1:80", "*:*", "fe80::1%wlan0:80"; None where it is none."""
    host, _, port = text.rpartition(":")
    if port != "*" and not (port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        return None
    number = 0 if port == "*" else int(port)
    if host in {"*", "", "::", "[::]", "0.0.0.0"}:  # noqa: S104 - the unspecified address, read and not bound
        return None, number
    address = canonical_address(host.strip("[]"))
    return None if address is None else (address, number)


def _kernel_address(text: str) -> str | None:
    """The kernel's hexadecimal address, 32-bit words in the phone's byte order (little-endian); None: unspecified."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    packed = b"".join(words)
    if not any(packed):
        return None
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return canonical_address(":".join(packed[at : at + 2].hex() for at in range(0, 16, 2)))


def _uid(owner: str | None) -> int:
    """A uid as a number, or as Android names it (u10_a351); -1 where it is not shown."""
    if owner is None:
        return -1
    if owner.isdigit():
        return int(owner) if len(owner) <= 9 else -1
    named = _NAMED.fullmatch(owner)
    if named is not None and len(owner) <= 12:
        return int(named[1]) * USER_ID_UIDS + FIRST_APP_ID + int(named[2])
    return _SYSTEM.get(owner, -1)


def _instant(text: str, context: DumpContext) -> int | None:
    """A poll's time, us since epoch; a local time is in the device's zone."""
    try:
        if text.replace(".", "").isdigit():
            seconds = float(text)
        else:
            moment = datetime.fromisoformat(text.replace(",", ".").replace(" Z", "Z"))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=context.zone)).timestamp()
    except (ValueError, OverflowError):
        return None
    return round(seconds * 1_000_000) if 0 <= seconds <= LAST_SECOND else None


def _taken(tables: _Tables, row: Row, now: int, number: int, reading: Reading) -> Row | None:
    """Put a row where it belongs; the row where it is a connection."""
    if row.protocol == _PROTOCOLS["raw"] or (row.state in _BOUND and row.remote_ip is None):
        _extend(tables.bound, (row.protocol, row.local_port, row.uid), now, number, reading)
        if row.state == "LISTEN":
            tables.listening.add((row.uid, row.local_port))
        return None
    if row.state not in _OPEN | _TRIED and row.protocol == _PROTOCOLS["tcp"]:
        reading.tally.left("a closed socket without an owner", 1)
        return None
    if row.remote_ip is None or _loopback(row.remote_ip):
        reading.tally.left("a socket between programs of the phone", 1)
        return None
    held = tables.connections.get(row)
    if held is not None and now - held.last > PAUSE_US:
        tables.ended.append((row, tables.connections.pop(row)))
    _extend(tables.connections, row, now, number, reading)
    return row if row in tables.connections else None


def _extend(held: dict[Any, _Seen], key: object, now: int, number: int, reading: Reading) -> None:
    seen = held.get(key)
    if seen is not None:
        seen.first, seen.last = min(seen.first, now), max(seen.last, now)
        reading.tally.left("seen again in a later table", 1)
    elif len(held) < MOST_SOCKETS:
        held[key] = _Seen(now, now, number)
    else:
        reading.tally.left(f"a socket beyond the first {MOST_SOCKETS}", 1)


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _add_bytes(tables: _Tables, row: Row, line: str) -> None:
    """Byte counts that ss gives on the line below."""
    seen = tables.connections.get(row)
    if seen is not None:
        sent, received = _SENT.search(line), _RECEIVED.search(line)
        seen.bytes_out = int(sent[1][:15]) if sent else seen.bytes_out
        seen.bytes_in = int(received[1][:15]) if received else seen.bytes_in


def _batches(tables: _Tables, section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    found = [*tables.ended, *tables.connections.items()]
    batches = []
    if found:
        batches.append(_flows(found, tables, section, context))
    if tables.bound:
        batches.append(_signals(tables, section, context))
    reading.tally.gave(batches)
    yield from batches
    if len(tables.times) > 1:
        columns = _common(section, context) | {
            "kind": int(SignalKind.CAPTURE),
            "start_time": [min(tables.times)],
            "end_time": [max(tables.times)],
            "observability": int(Observability.OBSERVED),
            "detail": "LISTENER RAW_SOCKET",
            "position": section.first_line,
        }
        yield batch("signals", columns, length=1)


def _flows(found: list[tuple[Row, _Seen]], tables: _Tables, section: Section, context: DumpContext) -> Batch:
    rows, seen = [row for row, _ in found], [times for _, times in found]
    accepted = [(row.uid, row.local_port) in tables.listening for row in rows]
    sees_bytes = [times.bytes_out is not None and times.bytes_in is not None for times in seen]
    columns = _common(section, context) | {
        "android_package": [context.package(row.uid) if row.uid >= 0 else None for row in rows],
        "android_uid": [row.uid if row.uid >= 0 else None for row in rows],
        "flow_id": [times.position for times in seen],
        "start_time": [times.first for times in seen],
        "end_time": [times.last if times.last > times.first else None for times in seen],
        "start_observability": int(Observability.INFERRED),
        "protocol_num": [row.protocol for row in rows],
        "direction_id": [int(Direction.INBOUND if inbound else Direction.OUTBOUND) for inbound in accepted],
        "direction_observability": int(Observability.INFERRED),
        "local_ip": [row.local_ip for row in rows],
        "local_port": [row.local_port for row in rows],
        "remote_ip": [row.remote_ip for row in rows],
        "remote_port": [row.remote_port for row in rows],
        "bytes_out": [times.bytes_out if whole else None for times, whole in zip(seen, sees_bytes, strict=True)],
        "bytes_in": [times.bytes_in if whole else None for times, whole in zip(seen, sees_bytes, strict=True)],
        "bytes_observability": [int(whole) for whole in sees_bytes],
        "established": [row.state in _OPEN if row.protocol == _PROTOCOLS["tcp"] else None for row in rows],
        "position": [times.position for times in seen],
    }
    return batch("flows", columns, length=len(rows))


def _signals(tables: _Tables, section: Section, context: DumpContext) -> Batch:
    keys, seen = list(tables.bound), list(tables.bound.values())
    raw = _PROTOCOLS["raw"]
    names = {6: "tcp", 17: "udp", raw: "raw"}
    columns = _common(section, context) | {
        "android_package": [context.package(uid) if uid >= 0 else None for _, _, uid in keys],
        "android_uid": [uid if uid >= 0 else None for _, _, uid in keys],
        "kind": [int(SignalKind.RAW_SOCKET if key[0] == raw else SignalKind.LISTENER) for key in keys],
        "start_time": [times.first for times in seen],
        "end_time": [times.last for times in seen],
        "observability": int(Observability.OBSERVED),
        "local_port": [None if key[0] == raw else key[1] for key in keys],
        "detail": [names.get(key[0], str(key[0])) for key in keys],
        "position": [times.position for times in seen],
    }
    return batch("signals", columns, length=len(keys))


def _common(section: Section, context: DumpContext) -> dict[str, Any]:
    return {
        "device_uid": context.device,
        "source": section.source,
        "clock": "device",
        "clock_skew_bound_s": context.skew_bound_s,
    }
