"""What parsers of Android sections share: rows and records of one section, uids, package names and local times.

A record is a line (or the first line of a block) that states a fact. Uids as UserHandle.formatUid writes them
(frameworks/base, core/java/android/os/UserHandle.java).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_section import DumpContext, Fact, Section
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Reading

USER_UIDS: Final = 100_000
LAST_UID: Final = 2**31 - 1
LAST_INSTANT: Final = 253_402_300_800_000_000
"""End of the year 9999, us: no clock of a phone stands later."""
UNKNOWN_ZONE_S: Final = 14 * 3600.0
"""Furthest that a zone lies from UTC: the error of a local time whose zone is not known."""
CLOCK_SKEW_S: Final = 2.0
"""A phone's own clock against the true time, as long as it is set by a network."""
MOST_ROWS: Final = 200_000
"""Rows of one section, many times those of any phone: what is held in memory stays bounded."""
DUMP_TAKES_S: Final = 600.0
"""A bug report states when it began; its last sections are some minutes younger."""
DETAIL_CHARACTERS: Final = 300
TOLD: Final = "told elsewhere in the same dump"
UNDATED: Final = "the dump does not say when it was taken"
_UID: Final = re.compile(r"(?:u(\d{1,5})([asi]))?(\d{1,10})\Z")
_CLOCK_START: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - of the device's clock, before its zone is counted in
_MICROSECOND: Final = timedelta(microseconds=1)
_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US
_KIND_BASE: Final = {"a": 10_000, "s": 0, "i": 99_000}
_SPAN: Final = re.compile(r"[+-]?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,6})s)?(?:(\d{1,6})ms)?\Z")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*\Z")
_PACKAGE_CHARACTERS: Final = 255


def uid_number(text: str) -> int | None:
    """Linux uid of "u0a82" (10082), "u11s1002", "u0i5" or "10082"; None where it is none."""
    found = _UID.match(text)
    if found is None:
        return None
    user, kind, number = found.groups()
    uid = int(number) if kind is None else int(user) * USER_UIDS + _KIND_BASE[kind] + int(number)
    return uid if uid <= LAST_UID else None


def span_us(text: str) -> int | None:
    """Length of "+3h06m26s806ms" in us, without its sign; None where it is none."""
    found = _SPAN.match(text)
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds, millis = (int(part or 0) for part in found.groups())
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000 + millis * 1000


def package_name(text: str | None) -> str | None:
    """The text where it can be a package's name; None for null, placeholders and anything else."""
    if text is None or len(text) > _PACKAGE_CHARACTERS or text == "null" or not _PACKAGE.match(text):
        return None
    return text


def local_us(text: str, layout: str, context: DumpContext) -> int | None:
    """A device's local time written as `layout` (strptime), in us since epoch; None where it is none.

    Of a layout without a year the year is the dump's, or the one before where that would lie after the dump.
    """
    try:
        if "%Y" in layout:
            return _epoch_us(datetime.strptime(text, layout).replace(tzinfo=context.zone))
        if context.taken is None:
            return None
        taken = datetime.fromtimestamp(context.taken / 1e6, context.zone)
        for year in (taken.year, taken.year - 1):
            found = datetime.strptime(f"{year} {text}", f"%Y {layout}").replace(tzinfo=context.zone)
            if found <= taken + timedelta(days=1):
                return _epoch_us(found)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _epoch_us(moment: datetime) -> int | None:
    us = (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return us if 0 <= us < LAST_INSTANT else None


def local_instants(texts: pl.Series, layout: str, context: DumpContext) -> pl.Series:
    """local_us of each text, null where it is none; layout: [%Y-]%m-%d %H:%M:%S[.%f].

    Well-formed times are read together, the others, and those in an hour when the clocks change, one by one.
    """
    clock = _wall_clock(texts, layout, context)
    found = clock - _offsets(clock, context)
    found = found.set((found < 0) | (found >= LAST_INSTANT), None)
    others = found.is_null().arg_true()
    slow = [local_us(text, layout, context) for text in texts.gather(others).to_list()]
    return found.scatter(others, pl.Series(slow, dtype=pl.Int64)) if slow else found


def _wall_clock(texts: pl.Series, layout: str, context: DumpContext) -> pl.Series:
    """What the device's clock showed, us since 1970 began on it; null where the text is not plainly in the layout."""
    if layout.startswith("%Y-"):
        return _read_clock(texts, layout)
    if context.taken is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(texts))
    taken = datetime.fromtimestamp(context.taken / 1e6, context.zone).replace(tzinfo=None)
    latest = (taken + timedelta(days=1) - _CLOCK_START) // _MICROSECOND
    now = _read_clock(f"{taken.year}-" + texts, f"%Y-{layout}")
    later = (now > latest).arg_true()
    before = _read_clock(f"{taken.year - 1}-" + texts.gather(later), f"%Y-{layout}")
    return now.scatter(later, before) if len(later) else now


def _read_clock(texts: pl.Series, layout: str) -> pl.Series:
    fraction = r"\.[0-9]{1,6}" if layout.endswith(".%f") else ""
    plain = texts.str.contains(rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} [0-9]{{2}}:[0-9]{{2}}:[0-5][0-9]{fraction}$")
    read = texts.str.to_datetime(layout.replace(".%f", "%.f"), time_unit="us", strict=False).dt.epoch("us")
    return read.set(~plain | (read < -_DAY_US), None)


def _offsets(clock: pl.Series, context: DumpContext) -> pl.Series:
    """What the device's zone was ahead of UTC then, us; null where that changed within the hour."""
    hours = clock // _HOUR_US
    distinct = hours.drop_nulls().unique().to_list()
    offsets = [_offset(hour, context.zone) for hour in distinct]
    return hours.replace_strict(distinct, offsets, default=None, return_dtype=pl.Int64)


def _offset(hour: int, zone: tzinfo) -> int | None:
    begin = _CLOCK_START + hour * timedelta(hours=1)
    ends = (begin, begin + timedelta(hours=1) - _MICROSECOND)
    first, last = (moment.replace(tzinfo=zone).utcoffset() for moment in ends)
    return first // _MICROSECOND if first is not None and first == last else None


class SectionFacts:
    """Rows of one section with its provenance, and the account of its records. Lines are given by index from 0."""

    def __init__(self, section: Section, context: DumpContext, reading: Reading) -> None:
        self.context = context
        self._section = section
        self._reading = reading
        self._rows = ContextRows(Path(section.source), "device", context.skew_bound_s)
        self._app_ids = {name: app for app, names in context.packages.items() for name in names}
        self._with_rows: set[int] = set()
        self._without: dict[int, str] = {}
        self._signals: list[tuple[Any, ...]] = []
        self._count = 0
        self._elsewhere = context.told.any()
        self._own: set[Fact] = set()

    def local_skew_s(self, stamp_s: float) -> float:
        """Skew bound of a local time that is written to so many seconds."""
        unknown = 0.0 if self.context.zone_known else UNKNOWN_ZONE_S
        return max(self.context.skew_bound_s, unknown) + stamp_s

    def epoch_skew_s(self, stamp_s: float) -> float:
        """Skew bound of a time since epoch, to which the zone does not matter, written to so many seconds."""
        return (self.context.skew_bound_s if self.context.zone_known else CLOCK_SKEW_S) + stamp_s

    def uid(self, package: str | None, user: int = 0) -> int | None:
        """Linux uid of a package for an Android user; None where the dump does not say."""
        app = self._app_ids.get(package) if package is not None else None
        uid = None if app is None else user * USER_UIDS + app
        return uid if uid is not None and 0 <= uid <= LAST_UID else None

    def signal(
        self,
        line: int,
        kind: SignalKind,
        start: int | None,
        *,
        end: int | None = None,
        package: str | None = None,
        uid: int | None = None,
        detail: str | None = None,
        observability: Observability = Observability.OBSERVED,
        skew_s: float | None = None,
    ) -> None:
        """One signal; left where it cannot be dated, or where the dump told it before.

        skew_s: None: what is so when the dump is taken, at any time while the dump runs.
        """
        if start is None:
            self.left(line, UNDATED)
            return
        fact = (int(kind), package, uid, detail, start, end)
        if fact in self._own or (self._elsewhere and self.context.told.hold(self._device, fact)):
            self.left(line, TOLD)
            return
        self._own.add(fact)
        if self._has_room(line):
            bound = self.context.skew_bound_s + DUMP_TAKES_S if skew_s is None else skew_s
            self._signals.append((line, *fact, int(observability), bound))
            self._with_rows.add(line)

    @property
    def _device(self) -> str:
        return self._reading.device or self.context.device

    def capture(self, line: int, start: int, end: int, kinds: Iterable[SignalKind], skew_s: float) -> None:
        """A list covers this span, in which it would have shown these kinds."""
        if end > start:
            detail = " ".join(kind.name for kind in kinds)
            self.signal(line, SignalKind.CAPTURE, start, end=end, detail=detail, skew_s=skew_s)
        else:
            self.left(line, "a list that covers no time")

    def inventory(self, line: int, **values: Any) -> None:  # noqa: ANN401 - any column
        """One row of the inventory."""
        if self._has_room(line):
            self._rows.add("inventory", self._section.first_line + line, self._device, **values)
            self._with_rows.add(line)

    def _has_room(self, line: int) -> bool:
        if self._count < MOST_ROWS:
            self._count += 1
            return True
        self.left(line, f"beyond the {MOST_ROWS} rows that one section may give")
        return False

    def left(self, line: int, reason: str) -> None:
        """The line is a sound record without a row of its own."""
        self._without.setdefault(line, reason)

    def damaged(self, line: int, what: str, value: object) -> None:
        """The line is a record that cannot be read."""
        self._reading.tally.met(1)
        where = f"line {self._section.first_line + line}"
        self._reading.quarantine.add(self._section.source, where, f"{what}: {shown(value)} is not a valid value")

    def batches(self) -> list[Batch]:
        """All rows; counts the section's records."""
        self.context.told.add(self._device, self._own)
        found = [*self._rows.batches(), *self._given_signals()]
        tally = self._reading.tally
        tally.met(len(self._with_rows | self._without.keys()))
        tally.gave(found)
        reasons = Counter(reason for line, reason in self._without.items() if line not in self._with_rows)
        for reason, records in reasons.items():
            tally.left(reason, records)
        return found

    def _given_signals(self) -> Iterator[Batch]:
        if self._signals:
            lines, kinds, packages, uids, details, starts, ends, observed, skews = zip(*self._signals, strict=True)
            columns = {
                "device_uid": self._device,
                "source": self._section.source,
                "clock": "device",
                "position": np.array(lines, np.int64) + self._section.first_line,
                "kind": kinds,
                "start_time": starts,
                "end_time": ends,
                "observability": observed,
                "android_package": packages,
                "android_uid": uids,
                "detail": [detail and detail[:DETAIL_CHARACTERS] for detail in details],
                "clock_skew_bound_s": skews,
            }
            yield batch("signals", columns, length=len(lines))
