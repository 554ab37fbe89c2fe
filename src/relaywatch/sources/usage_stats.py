"""dumpsys usagestats: which app was in front, whose services were in the foreground, screen, keyguard and touches.

Lists the last 24 hours of events of each user, in the device's local time, and with -c in ms since epoch. Format:
UserUsageStatsService.java (frameworks/base, services/usage); event numbers: android.app.usage.UsageEvents.Event.
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
)
from relaywatch.sources.android_intervals import Intervals, Subject
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading

_USER: Final = re.compile(r"\s*user=(\d{1,4})\s*\Z")
_SPAN: Final = re.compile(
    r"\s*Last 24 hour events \((?:timeRange=\"(.*?)\s[–-]\s.*|beginTime=(\d{1,17}) endTime=(\d{1,17}).*)"
)
_EVENT: Final = re.compile(r"\s*time=(?:\"([^\"]*)\"|(\S+)) type=(\S+) package=(\S+)(.*)")
_FIELD: Final = re.compile(r" (class|instanceId)=(\S+)")
_HEADING: Final = ("%m/%d/%Y, %I:%M %p", "%d/%m/%Y, %H:%M", "%Y-%m-%d %H:%M")
_BEGINS: Final = {
    "ACTIVITY_RESUMED": SignalKind.FOREGROUND_UI,
    "MOVE_TO_FOREGROUND": SignalKind.FOREGROUND_UI,
    "1": SignalKind.FOREGROUND_UI,
    "FOREGROUND_SERVICE_START": SignalKind.FOREGROUND_SERVICE,
    "19": SignalKind.FOREGROUND_SERVICE,
    "SCREEN_INTERACTIVE": SignalKind.SCREEN_ON,
    "15": SignalKind.SCREEN_ON,
    "KEYGUARD_SHOWN": SignalKind.KEYGUARD_LOCKED,
    "17": SignalKind.KEYGUARD_LOCKED,
}
_ENDS: Final = {
    "ACTIVITY_PAUSED": SignalKind.FOREGROUND_UI,
    "ACTIVITY_STOPPED": SignalKind.FOREGROUND_UI,
    "ACTIVITY_DESTROYED": SignalKind.FOREGROUND_UI,
    "MOVE_TO_BACKGROUND": SignalKind.FOREGROUND_UI,
    "2": SignalKind.FOREGROUND_UI,
    "23": SignalKind.FOREGROUND_UI,
    "24": SignalKind.FOREGROUND_UI,
    "FOREGROUND_SERVICE_STOP": SignalKind.FOREGROUND_SERVICE,
    "20": SignalKind.FOREGROUND_SERVICE,
    "SCREEN_NON_INTERACTIVE": SignalKind.SCREEN_ON,
    "16": SignalKind.SCREEN_ON,
    "KEYGUARD_HIDDEN": SignalKind.KEYGUARD_LOCKED,
    "18": SignalKind.KEYGUARD_LOCKED,
}
_DEVICE_WIDE: Final = {SignalKind.SCREEN_ON, SignalKind.KEYGUARD_LOCKED}
_INTERACTIONS: Final = {"USER_INTERACTION", "7"}
_SHUTDOWNS: Final = {"DEVICE_SHUTDOWN", "26"}
_STARTUPS: Final = {"DEVICE_STARTUP", "27"}
_BEFORE_ANDROID_10: Final = {"MOVE_TO_FOREGROUND", "MOVE_TO_BACKGROUND"}
PRETTY_STAMP_S: Final = 1.0
CHECKIN_STAMP_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class _Event:
    line: int
    time: int
    kind: str
    package: str
    part: str


@dataclass(slots=True)
class _List:
    """Events of one user. heading: line of "Last 24 hour events"; start, end: the span that it states."""

    user: int
    heading: int | None
    start: int | None
    events: list[_Event]
    end: int = 0
    local: bool = True


def usage_stats(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Signals of the events listed: intervals, touches, and a CAPTURE over the listed span."""
    facts = SectionFacts(section, context, reading)
    for found in _lists(section, context, facts):
        _give(found, facts)
    yield from facts.batches()


def _lists(section: Section, context: DumpContext, facts: SectionFacts) -> list[_List]:
    """The lists of events, those of one user after each other."""
    current = _List(0, None, None, [])
    found, seen = [current], set[tuple[object, ...]]()
    for line, text in enumerate(section.lines):
        if (user := _USER.match(text)) is not None:
            current = _List(int(user[1]), None, None, [])
            found.append(current)
        elif (span := _SPAN.match(text)) is not None:
            if current.heading is not None:
                current = _List(current.user, None, None, [])
                found.append(current)
            current.heading, current.start = line, _stated_start(span, context)
            current.end = _millis(span[3]) or 0
        elif (match := _EVENT.match(text)) is not None:
            event = _event(line, match, context, facts, current)
            if event is None:
                continue
            same = (current.user, event.time, event.kind, event.package, match[5])
            if same in seen:
                facts.left(line, "listed twice")
            else:
                seen.add(same)
                current.events.append(event)
    for empty in found:
        if empty.heading is not None and not empty.events:
            facts.left(empty.heading, "a list without events")
    return [one for one in found if one.events]


def _millis(text: str | None) -> int | None:
    """An epoch time in ms as us; None where it is none."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 15:
        return None
    us = int(text) * 1000
    return us if us < LAST_INSTANT else None


def _stated_start(span: re.Match[str], context: DumpContext) -> int | None:
    if span[2] is not None:
        return _millis(span[2])
    # The heading is written in the device's own language: only the layouts known here are read.
    text = span[1].replace("\u202f", " ")
    return next((us for layout in _HEADING if (us := local_us(text, layout, context)) is not None), None)


def _event(line: int, match: re.Match[str], context: DumpContext, facts: SectionFacts, into: _List) -> _Event | None:
    """The line's event; None, and in quarantine, where its time or package cannot be."""
    pretty, millis, kind, package, rest = match.groups()
    if pretty is not None:
        time = local_us(pretty, "%Y-%m-%d %H:%M:%S", context)
    else:
        into.local = False
        time = _millis(millis)
    if time is None:
        facts.damaged(line, "time", pretty if pretty is not None else millis)
        return None
    if package_name(package) is None:
        facts.damaged(line, "package", package)
        return None
    fields = dict(_FIELD.findall(rest))
    return _Event(line, time, kind, package, f"{fields.get('class', '')} {fields.get('instanceId', '')}")


def _give(found: _List, facts: SectionFacts) -> None:
    """The signals of one list."""
    events = sorted(found.events, key=lambda event: event.time)
    skew_s = facts.local_skew_s(PRETTY_STAMP_S) if found.local else facts.epoch_skew_s(CHECKIN_STAMP_S)
    start = found.start if found.start is not None else events[0].time
    intervals = Intervals(facts, min(start, events[0].time), lambda: skew_s)
    previous = events[0].time
    for event in events:
        if event.kind in _SHUTDOWNS or event.kind in _STARTUPS:
            # A start without a shutdown is a crash: nothing lasted longer than the last event before it.
            intervals.close_all(event.time if event.kind in _SHUTDOWNS else previous)
            facts.left(event.line, "the device shut down or started")
        elif event.kind in _INTERACTIONS:
            facts.signal(
                event.line, SignalKind.USER_INTERACTION, event.time, package=event.package,
                uid=facts.uid(event.package, found.user), skew_s=skew_s,
            )  # fmt: skip
        else:
            _interval(event, found.user, facts, intervals)
        previous = event.time
    intervals.finish()
    _give_capture(found, facts, events[0].time, previous, skew_s)


def _give_capture(found: _List, facts: SectionFacts, first: int, last: int, skew_s: float) -> None:
    """What the list covers: from its first event, as events before it may have been dropped, to its end."""
    if found.heading is not None:
        end = max(found.end or facts.context.taken or 0, last)
        facts.capture(found.heading, first, end, _shown_kinds({event.kind for event in found.events}), skew_s)


def _interval(event: _Event, user: int, facts: SectionFacts, intervals: Intervals) -> None:
    """An event that begins or ends something, or neither."""
    kind = _BEGINS.get(event.kind) or _ENDS.get(event.kind)
    if kind is None:
        facts.left(event.line, "an event of another kind")
        return
    wide = kind in _DEVICE_WIDE
    package = None if wide else event.package
    subject = Subject(kind, package, facts.uid(package, user))
    change = intervals.begin if event.kind in _BEGINS else intervals.end
    change(event.line, subject, event.time, "" if wide else event.part)


def _shown_kinds(kinds: set[str]) -> list[SignalKind]:
    """What the list would have shown: Android 10 added services, Android 9 the screen and the keyguard."""
    shown = [SignalKind.FOREGROUND_UI, SignalKind.USER_INTERACTION]
    old = bool(kinds & _BEFORE_ANDROID_10)
    if not old:
        shown.append(SignalKind.FOREGROUND_SERVICE)
    if not old or any(_BEGINS.get(kind, _ENDS.get(kind)) in _DEVICE_WIDE for kind in kinds):
        shown += sorted(_DEVICE_WIDE)
    return shown
