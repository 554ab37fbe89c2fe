"""dumpsys batterystats: which app was on top or visible and when the screen was on, since the battery was last full.

The pretty "Battery History" counts from its begin and states the local time now and then (newer phones: a local time
on each line); the checkin form ("9,h,…") counts from line to line and states ms since epoch, its names by number
("9,hsp,…"). Format: HistoryPrinter in BatteryStats.java (frameworks/base, core/java/android/os).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import (
    LAST_INSTANT,
    SectionFacts,
    local_us,
    package_name,
    span_us,
    uid_number,
)
from relaywatch.sources.android_intervals import Intervals, Subject
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading

_HEADING: Final = re.compile(r"\s*Battery History[ (\[]")
_PRETTY: Final = re.compile(r"\s+(?:(\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})|(0|\+[\dhdms]+)) (?:\(\d+\) )?(.*)")
_TIME: Final = re.compile(r"(?:RESET:)?TIME: (\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)")
_CHECKIN: Final = re.compile(r"\d+,h,(-?\d{1,15})(?::((?:RESET:)?TIME:(\d{1,17})|SHUTDOWN|START\S*|\S*))?(?:,(.*))?\Z")
_POOL: Final = re.compile(r'\d+,hsp,(\d{1,9}),(-?\d{1,10}),"(.*)"')
_PRETTY_STATE: Final = re.compile(r'(?<!\S)([+-]?)(?:(top|fg)=([^\s:]+):"([^"]*)"|(screen)(?!\S))')
_CHECKIN_STATE: Final = re.compile(r"([+-]?)(?:(Etp|Efg)=(\d{1,9})|(S))\Z")
_DETAIL: Final = {"top": "top", "fg": "visible", "Etp": "top", "Efg": "visible"}
CLOCK_WAS_SET: Final = 1_230_768_000_000_000
"""2009: before it there was no phone with Android 1.5; an earlier time is that of a clock not set yet."""
PRETTY_STAMP_S: Final = 1.0
CHECKIN_STAMP_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class _Change:
    """One state that a line changes. offset: since the history's begin, us, or the time where absolute."""

    line: int
    offset: int
    begins: bool
    subject: Subject


@dataclass(frozen=True, slots=True)
class _Clock:
    """The time of an offset. us: None where the clock was not set. ends: the device shut down or started here."""

    line: int
    offset: int
    us: int | None
    ends: bool = False


def battery_history(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Signals of the history: FOREGROUND_UI and SCREEN_ON. Lines of other states are no records."""
    facts = SectionFacts(section, context, reading)
    checkin = any(_CHECKIN.match(text) for text in section.lines)
    marks = _checkin(section, facts) if checkin else _pretty(section, context, facts)
    skew_s = facts.epoch_skew_s(CHECKIN_STAMP_S) if checkin else facts.local_skew_s(PRETTY_STAMP_S)
    dated = _dated(marks, facts)
    intervals = Intervals(facts, dated[0][1] if dated else None, lambda: skew_s)
    previous = 0
    for mark, time in dated:
        if isinstance(mark, _Clock):
            intervals.close_all(max(time, previous))
        else:
            change = intervals.begin if mark.begins else intervals.end
            change(mark.line, mark.subject, time)
        previous = time
    intervals.finish()
    if dated:
        times, shown = [time for _, time in dated], [SignalKind.FOREGROUND_UI, SignalKind.SCREEN_ON]
        facts.capture(dated[0][0].line, min(times), max(times), shown, skew_s)
    yield from facts.batches()


def _pretty(section: Section, context: DumpContext, facts: SectionFacts) -> list[_Change | _Clock]:
    marks: list[_Change | _Clock] = []
    within = False
    for line, text in enumerate(section.lines):
        within = within or _HEADING.match(text) is not None
        found = _PRETTY.match(text) if within else None
        if found is None:
            continue
        absolute, relative, rest = found.groups()
        states = list(_PRETTY_STATE.finditer(rest))
        clock = _TIME.match(rest)
        stops = rest.startswith(("SHUTDOWN", "START"))
        if not (states or clock or stops):
            continue
        offset = local_us(absolute, "%m-%d %H:%M:%S.%f", context) if absolute else _offset(relative)
        if offset is None:
            facts.damaged(line, "time", absolute or relative)
            continue
        if absolute or clock or stops:
            stated = local_us(clock[1], "%Y-%m-%d-%H-%M-%S", context) if clock else offset if absolute else None
            if clock or stops:
                facts.left(line, "states the clock or a restart")
            if stated is not None or not stops:
                marks.append(_Clock(line, offset, stated))
            if stops:
                marks.append(_Clock(line, offset, None, ends=True))
        for state in states:
            sign, kind, uid, package, _ = state.groups()
            change = _change(line, offset, sign, kind, uid_number(uid or ""), package, facts)
            if change is not None:
                marks.append(change)
    return marks


def _offset(text: str) -> int | None:
    return 0 if text == "0" else span_us(text)


def _checkin(section: Section, facts: SectionFacts) -> list[_Change | _Clock]:
    pool = {}
    for text in section.lines:
        if (named := _POOL.match(text)) is not None:
            pool[int(named[1])] = (uid_number(named[2]), named[3])
    marks: list[_Change | _Clock] = []
    offset = 0
    for line, text in enumerate(section.lines):
        found = _CHECKIN.match(text)
        if found is None:
            continue
        delta, command, millis, rest = found.groups()
        offset += int(delta) * 1000
        if command:
            us = int(millis) * 1000 if millis else None
            ends = millis is None and command.startswith(("SHUTDOWN", "START"))
            marks.append(_Clock(line, offset, us if us is not None and us < LAST_INSTANT else None, ends=ends))
            facts.left(line, "states the clock or a restart")
        for state in filter(None, map(_CHECKIN_STATE.match, (rest or "").split(","))):
            sign, kind, number, _ = state.groups()
            uid, package = pool.get(int(number), (None, "")) if number else (None, "")
            change = _change(line, offset, sign, kind, uid, package, facts)
            if change is not None:
                marks.append(change)
    return marks


def _change(
    line: int, offset: int, sign: str, kind: str | None, uid: int | None, package: str | None, facts: SectionFacts
) -> _Change | None:
    """A state's change; None where its package cannot be one."""
    if kind is None:
        return _Change(line, offset, sign != "-", Subject(SignalKind.SCREEN_ON))
    if package_name(package) is None:
        facts.left(line, "names no package")
        return None
    subject = Subject(SignalKind.FOREGROUND_UI, package, uid, _DETAIL[kind])
    return _Change(line, offset, sign != "-", subject)


def _dated(marks: list[_Change | _Clock], facts: SectionFacts) -> list[tuple[_Change | _Clock, int]]:
    """Changes and restarts with their times. Until a clock is set, times count back from when it is."""
    dated: list[tuple[_Change | _Clock, int]] = []
    waiting: list[_Change | _Clock] = []
    base: int | None = None
    for mark in marks:
        if isinstance(mark, _Clock) and not mark.ends:
            base = mark.us - mark.offset if mark.us is not None and mark.us >= CLOCK_WAS_SET else None
            if base is not None:
                _give(waiting, base, dated, facts)
                waiting.clear()
        elif base is None:
            waiting.append(mark)
        else:
            _give([mark], base, dated, facts)
    for mark in waiting:
        facts.left(mark.line, "the clock was not set yet")
    return dated


def _give(
    marks: list[_Change | _Clock], base: int, into: list[tuple[_Change | _Clock, int]], facts: SectionFacts
) -> None:
    for mark in marks:
        time = base + mark.offset
        if 0 <= time < LAST_INSTANT:
            into.append((mark, time))
        else:
            facts.left(mark.line, "its time lies outside of any clock")
