"""Who had which address by session: RADIUS accounting, and lists of VPN or NAC assignments as CSV.

RADIUS: the `detail` files of FreeRADIUS (and of GNU Radius): a dated line, then indented `Attribute = value` lines. The
time is Event-Timestamp where its zone is UTC, else Timestamp (epoch, when the server took the record, less
Acct-Delay-Time), else the dated line, whose zone is not told. CSV: headers by synonyms (csv_columns.SYNONYMS).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from relaywatch.model.tables import Batch
from relaywatch.sources import csv_records
from relaywatch.sources.context_feed import DamagedRecord, known_id
from relaywatch.sources.csv_columns import known_columns, known_records
from relaywatch.sources.device_names import UNZONED_S, Instant, host_name, imei, instant, mac_address, said
from relaywatch.sources.lease_fields import leased_address, numbered_lines
from relaywatch.sources.lease_intervals import Assignments, Holder, read_assignments
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading


class RadiusDetail:
    """Accounting records: sessions that begin, go on and end, each with the address that the device had."""

    name: ClassVar[str] = "radius-detail"

    @staticmethod
    def fits(head: Head) -> bool:
        """The first line is a date, the next an indented attribute."""
        lines = head.content.lstrip(b"\r\n").split(b"\n", 2)
        return len(lines) > 1 and _DATED.fullmatch(_plain(lines[0])) is not None and bool(_PAIR.match(_plain(lines[1])))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each session, and its device's names."""
        records = ((record.number, record) for record in _radius_records(path, stream, reading))
        yield from read_assignments(path, reading, records, _radius)


ATTRIBUTES_KEPT: Final = 200
_DATED: Final = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})\s*")
_STAMPED: Final = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d{4}) (\d\d:\d\d:\d\d) (\S{1,10})")
_PAIR: Final = re.compile(r"\s+([A-Za-z0-9._-]{1,100})(?::\d+)? (?:=|:=|\+=|==) (.*)")
_MONTH_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS: Final = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_GOES_ON: Final = frozenset({"start", "alive", "interim-update", "1", "3"})
_STOPS: Final = frozenset({"stop", "2"})


@dataclass(slots=True)
class _Record:
    """One accounting request: the number and text of its dated line, its attributes (the first of each name)."""

    number: int
    dated: str
    values: dict[str, str] = field(default_factory=dict)


def _plain(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "replace")


def _radius_records(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[_Record]:
    """The records in order; a line that is neither a date nor an attribute goes to quarantine."""
    record: _Record | None = None
    for number, line in numbered_lines(path, stream, reading):
        pair = _PAIR.fullmatch(line.rstrip())
        if pair is not None and record is not None:
            if len(record.values) < ATTRIBUTES_KEPT:
                record.values.setdefault(pair[1], _unquoted(pair[2]))
        elif _DATED.fullmatch(line):
            if record is not None:
                reading.tally.met(1)
                yield record
            record = _Record(number, line)
        else:
            reading.tally.met(1)
            reading.quarantine.add(str(path), f"line {number}", "neither a date nor an attribute")
    if record is not None:
        reading.tally.met(1)
        yield record


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _radius(record: _Record, position: int, assignments: Assignments) -> str | None:
    values = record.values
    status = values.get("Acct-Status-Type", "").lower()
    if status not in _GOES_ON and status not in _STOPS:
        return "a RADIUS record of no session"
    addresses = [a for n in ("Framed-IP-Address", "Framed-IPv6-Address") if (a := _framed(values.get(n))) is not None]
    if not addresses:
        return "a session's record before it has an address"
    caller = mac_address(values.get("Calling-Station-Id"))
    detail = f"also {addresses[1]}" if len(addresses) > 1 else None
    holder = Holder(mac=caller, user=said(values.get("User-Name")), detail=detail)
    if not holder.uid:
        return "a session that names neither device nor user"
    at = _radius_time(record)
    lasted = _count(values.get("Acct-Session-Time"))
    begin = at.us - lasted * 1_000_000 if lasted is not None else None if status in _STOPS else at.us
    if begin is not None and begin < 0:
        raise DamagedRecord("a session longer than time")
    bound = None if at.zoned else UNZONED_S
    if status in _STOPS:
        assignments.ended(addresses[0], holder, at.us, position, begin=begin, skew_bound_s=bound)
    else:
        assignments.granted(addresses[0], holder, begin, None, position, skew_bound_s=bound)
    return None


def _framed(text: str | None) -> str | None:
    """An address given; None for none, and for the two values that leave the choice to others (RFC 2865)."""
    if text is None or text in ("0.0.0.0", "255.255.255.255", "255.255.255.254", "::"):  # noqa: S104 - no bind
        return None
    return leased_address(text)


def _radius_time(record: _Record) -> Instant:
    values = record.values
    stamped = _stamped(values.get("Event-Timestamp", ""))
    taken = instant(values.get("Timestamp"))
    if stamped is not None and stamped.zoned:
        return stamped
    if taken is not None and taken.zoned:
        return Instant(taken.us - (_count(values.get("Acct-Delay-Time")) or 0) * 1_000_000, zoned=True)
    found = stamped or _date(_DATED.fullmatch(record.dated), (1, 2, 4, 3), zoned=False)
    if found is None:
        raise DamagedRecord(f"{shown(record.dated)} is no time")
    return found


def _stamped(text: str) -> Instant | None:
    """`Nov 14 2023 22:13:20 UTC` or epoch seconds; other names of zones are ambiguous."""
    match = _STAMPED.fullmatch(text)
    if match is None:
        return instant(text)
    return _date(match, (1, 2, 3, 4), zoned=match[5] in ("UTC", "GMT", "Z"))


def _date(match: re.Match[str] | None, order: tuple[int, int, int, int], *, zoned: bool) -> Instant | None:
    if match is None or match[order[0]] not in _MONTHS:
        return None
    month, day, year, clock = (match[index] for index in order)
    found = instant(f"{year}-{_MONTHS[month]:02d}-{int(day):02d}T{clock}Z")
    return Instant(found.us, zoned) if found is not None else None


def _count(text: str | None) -> int | None:
    """Seconds as a number; None where there are none."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


class AssignmentsCsv:
    """Addresses that a VPN gateway or a network access control gave, one line an assignment."""

    name: ClassVar[str] = "address-assignments-csv"

    @staticmethod
    def fits(head: Head) -> bool:
        """The header names a begin, an address and a holder, and nothing of a log of events or a list of apps."""
        found = csv_records.header(head)
        columns = known_columns(found[1]) if found is not None else None
        if columns is None or any(name in columns for name in ("package", "app", "uid")):
            return False
        return {"begin", "ip"} <= columns.keys() and any(name in columns for name in _HOLDERS)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """An inventory row of kind ip for each interval, and its holder's names."""
        yield from read_assignments(
            path, reading, known_records(csv_records.records(stream, path, reading, None)), _assigned
        )


_HOLDERS: Final = ("device", "serial", "imei", "mac", "user", "hostname")


def _assigned(record: Mapping[str, str], position: int, assignments: Assignments) -> None:
    device = known_id(record.get("device")) or known_id(record.get("serial")) or imei(record.get("imei")) or ""
    holder = Holder(
        device=device,
        mac=mac_address(record.get("mac")),
        hostname=host_name(record.get("hostname")),
        user=said(record.get("user")),
    )
    if not holder.uid:
        raise DamagedRecord("names no holder of the address")
    address = leased_address(record.get("ip") or "")
    begin, end = (_time(record.get(name), name) for name in ("begin", "end"))
    if begin is None:
        raise DamagedRecord("begin is missing")
    if end is not None and end.us < begin.us:
        raise DamagedRecord("ends before it starts")
    bound = None if begin.zoned and (end is None or end.zoned) else UNZONED_S
    assignments.granted(address, holder, begin.us, end.us if end is not None else None, position, skew_bound_s=bound)


def _time(text: str | None, name: str) -> Instant | None:
    if said(text) is None:
        return None
    found = instant(text)
    if found is None:
        raise DamagedRecord(f"{name}: {shown(text)} is no time")
    return found
