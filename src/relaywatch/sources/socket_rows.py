"""One line of a socket table: netstat, ss or the kernel's, as what it says of a socket.

Formats: toybox and net-tools netstat (-npWae and the old form without owner), iproute2 ss (-eionptu), the kernel's
proc_net_tcp.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from relaywatch.sources.columns import canonical_address

PROTOCOLS: Final = {"tcp": 6, "tcp6": 6, "udp": 17, "udp6": 17, "udplite": 136, "raw": 255, "raw6": 255, "icmp": 1}
OPEN: Final = frozenset(
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
_LIVE: Final = OPEN | _TRIED
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
_OWNER: Final = re.compile(r"uid:(\d+)")
_NAMED: Final = re.compile(r"u(\d+)_a(\d+)")
_SYSTEM: Final = {"root": 0, "system": 1000, "radio": 1001, "shell": 2000}
ENDPOINT_CHARACTERS: Final = 100
"""An IPv6 address with its interface and port has less."""
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


class Place(IntEnum):
    """What a row is taken for."""

    BOUND = 1
    CLOSED = 2
    OF_THE_PHONE = 3
    CONNECTION = 4


def place(row: Row) -> Place:
    """A listener or raw socket, a closed one without an owner, one between programs of the phone, or a connection."""
    if row.protocol == PROTOCOLS["raw"] or (row.state in _BOUND and row.remote_ip is None):
        return Place.BOUND
    if row.state not in _LIVE and row.protocol == PROTOCOLS["tcp"]:
        return Place.CLOSED
    if row.remote_ip is None or row.remote_ip.startswith("127.") or row.remote_ip == "::1":
        return Place.OF_THE_PHONE
    return Place.CONNECTION


def is_kernels(line: str) -> bool:
    """Whether the line is one of /proc/net, which are indented."""
    return _PROC.fullmatch(line) is not None


def parse_row(line: str, name: str = "") -> Row | None:
    """One line of a table; None where it is none. name: the table's file for /proc/net, which does not name it."""
    row = _parsed(line, name)
    return row if row is not None and row.uid <= LAST_UID else None


def _parsed(line: str, name: str) -> Row | None:
    if (found := _NETSTAT.fullmatch(line)) is not None:
        return _row(PROTOCOLS[found[1]], found[4] or "", found[2], found[3], _uid(found[5]))
    if (found := _SS.fullmatch(line)) is not None:
        owner = _OWNER.search(found[5])
        protocol = PROTOCOLS.get((found[1] or "tcp").removesuffix("6"), 6)
        # ss leaves the owner out where it is root.
        return _row(protocol, found[2], found[3], found[4], int(owner[1]) if owner else 0)
    if (found := _PROC.fullmatch(line)) is not None:
        protocol = PROTOCOLS.get(name.rpartition("/")[2], 6)
        state = _KERNEL_STATES.get(int(found[5], 16), "")
        local, remote = _kernel_address(found[1]), _kernel_address(found[3])
        return Row(protocol, state, local, int(found[2], 16), remote, int(found[4], 16), int(found[6]))
    return None


def _row(protocol: int, state: str, local: str, remote: str, uid: int) -> Row | None:
    ends = _endpoint(local), _endpoint(remote)
    if ends[0] is None or ends[1] is None:
        return None
    return Row(protocol, state, *ends[0], *ends[1], uid)


@lru_cache(maxsize=4096)
def _endpoint(text: str) -> tuple[str | None, int] | None:
    """Address and port of "1.2.3.4:80", "[::1]:80", "::1:80", "*:*", "fe80::1%wlan0:80"; None where it is none."""
    if len(text) > ENDPOINT_CHARACTERS:
        return None
    host, _, port = text.rpartition(":")
    if port != "*" and not (port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        return None
    number = 0 if port == "*" else int(port)
    if host in {"*", "", "::", "[::]", "0.0.0.0"}:  # noqa: S104 - the unspecified address, read and not bound
        return None, number
    address = canonical_address(host.strip("[]"))
    return None if address is None else (address, number)


@lru_cache(maxsize=4096)
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
