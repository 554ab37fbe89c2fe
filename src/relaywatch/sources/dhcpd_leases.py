"""ISC DHCP's lease files: dhcpd.leases and dhcpd6.leases, with the history that they hold until they are rewritten.

Format: dhcpd.leases(5). Times are UTC, or epoch seconds where db-time-format is local. Each change of a lease is
written as a block of its own; a block of a lease that is over tells when it ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from relaywatch.model.tables import Batch
from relaywatch.sources.context_feed import DamagedRecord
from relaywatch.sources.device_names import host_name, instant, mac_address
from relaywatch.sources.lease_fields import leased_address, mac_of_duid, numbered_lines
from relaywatch.sources.lease_intervals import Assignments, Holder, read_assignments
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading


class DhcpdLeases:
    """dhcpd.leases or dhcpd6.leases of ISC DHCP: the history that it holds until it is rewritten."""

    name: ClassVar[str] = "dhcpd-leases"

    @staticmethod
    def fits(head: Head) -> bool:
        """A lease's first line is among the content."""
        return _DHCPD.search(head.content) is not None

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each interval, and its holder's names."""
        leases = ((lease.number, lease) for lease in _dhcpd_leases(path, stream, reading))
        yield from read_assignments(path, reading, leases, _dhcpd)


_DHCPD: Final = re.compile(rb'(?m)^(?:lease \d{1,3}(?:\.\d{1,3}){3} \{|ia-[nt]a "(?:[^"\\\n]|\\.){0,1024}" \{)')
_BEGINS: Final = re.compile(r'(lease|iaaddr|ia-[ntp][ad]|iaprefix) +("(?:[^"\\]|\\.)*"|\S+) *\{')
_TIME: Final = re.compile(r"(?:\d (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)|epoch (\d{1,11})\b.*)")
_KEPT: Final = frozenset({"starts", "ends", "cltt", "binding", "hardware", "client-hostname", "valid-life", "max-life"})
_OTHER_BLOCKS: Final = re.compile(r"(?:failover|host|class|subclass|group|subnet6?|shared-network|pool|zone|key) ?")


@dataclass(slots=True)
class _Lease:
    """A block: its first line, its address, the statements that are used."""

    number: int
    address: str
    statements: dict[str, str]


def _dhcpd_leases(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[_Lease]:
    """Each lease, with an ia-na's statements in its iaaddr.

    Leases that are not closed, and lines outside of blocks that are no statement, go to quarantine.
    """
    outer: dict[str, str] | None = None
    lease: _Lease | None = None
    depth = 0
    for number, raw in numbered_lines(path, stream, reading):
        line = raw.strip()
        if line.startswith("#"):
            continue
        if begins := _BEGINS.match(line):
            if lease is not None:
                _damaged(lease.number, "a lease that is not closed", path, reading)
            lease, depth = None, 0
            if begins[1] in ("lease", "iaaddr"):
                lease = _Lease(number, begins[2], dict(outer or {}) if begins[1] == "iaaddr" else {})
            else:
                outer = {"duid": begins[2]} if begins[1] == "ia-na" else {}
        elif line == "}":
            if depth:
                depth -= 1
            elif lease is not None:
                reading.tally.met(1)
                yield lease
                lease = None
            else:
                outer = None
        elif depth or lease is not None or outer is not None:
            depth += line.endswith("{")
            if not depth:
                _keep(line, lease.statements if lease is not None else outer or {})
        elif line.endswith("{") and _OTHER_BLOCKS.match(line):
            depth += 1
        elif not line.endswith(";"):
            _damaged(number, "neither a lease nor a statement", path, reading)
    if lease is not None:
        _damaged(lease.number, "a lease that is not closed", path, reading)


def _damaged(number: int, what: str, path: Path, reading: Reading) -> None:
    reading.tally.met(1)
    reading.quarantine.add(str(path), f"line {number}", what)


def _keep(line: str, statements: dict[str, str]) -> None:
    word, _, value = line.partition(" ")
    if word in _KEPT:
        statements[word] = value.removesuffix(";")


def _dhcpd(lease: _Lease, position: int, assignments: Assignments) -> str | None:
    held, said_of = leased_address(lease.address), lease.statements
    state = said_of.get("binding", "state active").removeprefix("state ").strip()
    if state in ("abandoned", "backup", "reset"):
        return "an address that no device holds"
    hardware = said_of.get("hardware", "").rpartition(" ")[2]
    host = host_name(said_of.get("client-hostname", "").strip('"'))
    holder = Holder(mac=mac_address(hardware) or mac_of_duid(_octets(said_of.get("duid", ""))), hostname=host)
    if not holder.uid:
        return "a lease that names no device"
    begin = _dhcpd_time(said_of.get("starts") or said_of.get("cltt"))
    end = _dhcpd_time(said_of.get("ends"))
    if begin is not None and end is not None and end < begin:
        raise DamagedRecord("ends before it starts")
    assignments.granted(held, holder, begin, end, position)
    return None


def _dhcpd_time(text: str | None) -> int | None:
    """Microseconds of `4 2023/11/14 22:13:20` (UTC) or `epoch 1700000000; # ...`; None for never, or not told."""
    if text is None or text.strip() == "never":
        return None
    match = _TIME.match(text.strip())
    at = instant((match[1] or "").replace("/", "-") or match[2]) if match is not None else None
    if at is None:
        raise DamagedRecord(f"{shown(text)} is no time")
    return at.us


def _octets(text: str) -> str:
    """The hexadecimal of a string as dhcpd quotes it (octal escapes), without an ia-na's leading IAID of four bytes."""
    body = text.strip('"').encode("latin-1", "replace")
    raw = re.sub(rb"\\([0-7]{3})|\\(.)", lambda m: bytes([int(m[1], 8) & 255]) if m[1] else m[2], body)
    return raw[4:].hex()
