"""Leases of DHCP servers: Kea's memfile, dnsmasq.leases, the audit log of Windows Server.

Formats: Kea's ARM, "Memfile" (kea-leases4.csv, kea-leases6.csv; epoch seconds, a deletion is written with a lifetime
of 0); dnsmasq's lease file (expiry mac address name client-id); Microsoft's DhcpSrvLog-*.log, in local time without its
zone. The server's clock stamps all. A device is named by its MAC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from relaywatch.model.tables import Batch
from relaywatch.sources import csv_records
from relaywatch.sources.context_feed import DamagedRecord
from relaywatch.sources.device_names import UNZONED_S, host_name, instant, mac_address, said
from relaywatch.sources.lease_fields import (
    epoch_seconds,
    leased_address,
    mac_of_duid,
    numbered_lines,
    whole_number,
)
from relaywatch.sources.lease_intervals import Assignments, Holder, read_assignments
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading

_FOREVER: Final = 0xFFFF_FFFF
"""A lifetime without end (RFC 2131)."""
_HEAD: Final = 16_384


class KeaLeases:
    """kea-leases4.csv or kea-leases6.csv, with the history that it holds until it is cleaned up."""

    name: ClassVar[str] = "kea-leases"

    @staticmethod
    def fits(head: Head) -> bool:
        """The header is Kea's of either family."""
        return head.content.startswith((b"address,hwaddr,client_id,valid_lifetime,", b"address,duid,valid_lifetime,"))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each interval, and its holder's names."""
        yield from read_assignments(path, reading, csv_records.records(stream, path, reading, ","), _kea)


def _kea(record: Mapping[str, str], position: int, assignments: Assignments) -> str | None:
    address = leased_address(record.get("address") or "")
    lifetime, expire = (whole_number(record, name) for name in ("valid_lifetime", "expire"))
    mac = mac_address(record.get("hwaddr")) or mac_of_duid(record.get("duid"))
    holder = Holder(mac=mac, hostname=host_name((record.get("hostname") or "").replace("&#x2c", ",")))
    if record.get("lease_type") == "2":
        return "a delegated prefix, which is no device's address"
    if lifetime == 0:
        return "a deletion, whose time is not told"
    if record.get("state", "0") == "1":
        return "an address that was declined"
    if not holder.uid:
        return "a lease that names no device"
    end = None if lifetime == _FOREVER else expire
    assignments.granted(address, holder, epoch_seconds(expire - lifetime), epoch_seconds(end), position)
    return None


class DnsmasqLeases:
    """dnsmasq.leases: what is leased now. When a lease began is not told."""

    name: ClassVar[str] = "dnsmasq-leases"

    @staticmethod
    def fits(head: Head) -> bool:
        """The first line is a lease, or the server's DUID with a lease after it."""
        lines = [line for line in head.content[:_HEAD].split(b"\n")[:8] if line.strip()]
        leases = [_DNSMASQ.fullmatch(line) is not None for line in lines]
        return any(leases) and (leases[0] or lines[0].startswith(b"duid "))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each lease, and its holder's names."""
        yield from read_assignments(path, reading, _dnsmasq_lines(path, stream, reading), _dnsmasq)


_DNSMASQ: Final = re.compile(
    rb"\d{1,11} (?:(?:[0-9a-fA-F]{2}-)?[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5,19}|T?\d{1,10}) "
    rb"[0-9a-fA-F:.]{3,45} \S{1,255} \S{1,600}\r?"
)
_OLDEST_EXPIRY: Final = 100_000_000
"""Built for machines without a clock, dnsmasq writes a lease's length instead of its end."""


def _dnsmasq_lines(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, str]]:
    """The leases; the server's own DUID is no record."""
    for position, line in numbered_lines(path, stream, reading):
        if not line.startswith("duid "):
            reading.tally.met(1)
            yield position, line


def _dnsmasq(line: str, position: int, assignments: Assignments) -> str | None:
    parts = line.split(" ")
    if len(parts) != 5:
        raise DamagedRecord(f"{len(parts)} fields where a lease has 5")
    expiry, hardware, address, host, client = parts
    if not re.fullmatch(r"\d{1,11}", expiry, re.ASCII):
        raise DamagedRecord(f"{shown(expiry)} is no time")
    mac = mac_address(re.sub(r"^[0-9a-fA-F]{2}-", "", hardware)) or mac_of_duid(client)
    holder = Holder(mac=mac, hostname=None if host == "*" else host_name(host))
    if not holder.uid:
        return "a lease that names no device"
    end = int(expiry) if int(expiry) >= _OLDEST_EXPIRY else None
    assignments.granted(leased_address(address), holder, None, epoch_seconds(end), position)
    return None


class WindowsDhcp:
    """DhcpSrvLog-*.log of Windows Server: leases given, renewed, released, expired. How long one lasts is not told."""

    name: ClassVar[str] = "windows-dhcp"

    @staticmethod
    def fits(head: Head) -> bool:
        """The log's header of columns is among the first lines."""
        return any(_WINDOWS.match(line) for line in head.content[:_HEAD].decode("latin-1").split("\n"))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each interval, and its holder's names."""
        lines = _windows_lines(path, stream, reading)
        yield from read_assignments(path, reading, lines, _windows, skew_bound_s=UNZONED_S)


_WINDOWS: Final = re.compile(r"\s*ID,\s?Date,\s?Time,\s?Description,\s?IP Address,\s?Host Name,\s?MAC Address", re.I)
_GRANTS: Final = frozenset({10, 11, 20, 21})
_ENDS: Final = frozenset({12, 16, 17, 18})


def _windows_lines(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, str]]:
    """The events; the preamble that explains codes and columns is no record."""
    begun = False
    for position, line in numbered_lines(path, stream, reading):
        if _WINDOWS.match(line):
            begun = True
        elif begun:
            reading.tally.met(1)
            yield position, line


def _windows(line: str, position: int, assignments: Assignments) -> str | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) < 7 or not re.fullmatch(r"\d{1,5}", parts[0], re.ASCII):
        raise DamagedRecord("no line of a DHCP audit log")
    code = int(parts[0])
    if code not in _GRANTS and code not in _ENDS:
        return "an event that gives or ends no lease"
    at = instant(f"{parts[1]} {parts[2]}")
    if at is None:
        raise DamagedRecord(f"{shown(f'{parts[1]} {parts[2]}')} is no time")
    user = said(parts[7]) if len(parts) > 7 else None
    holder = Holder(mac=mac_address(parts[6]), hostname=host_name(parts[5]), user=user)
    address = leased_address(parts[4])
    if code in _ENDS:
        assignments.ended(address, holder, at.us, position)
    elif holder.uid:
        assignments.granted(address, holder, at.us, None, position)
    else:
        return "a lease that names no device"
    return None
