"""dumpsys usagestats: which app was in front, whose services were in the foreground, screen, keyguard and touches.

Lists the last 24 hours of events of each user, in the device's local time, and with -c in ms since epoch. Format:
UserUsageStatsService.java (frameworks/base, services/usage); event numbers: android.app.usage.UsageEvents.Event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import (
    LAST_INSTANT,
    SectionFacts,
    local_instants,
    local_us,
    package_name,
)
from relaywatch.sources.android_intervals import Intervals, Subject
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import line_columns

_USER: Final = re.compile(r"\s*user=(\d{1,4})\s*\Z")
_SPAN: Final = re.compile(
    r"\s*Last 24 hour events \((?:timeRange=\"(.*?)\s[–-]\s.*|beginTime=(\d{1,17}) endTime=(\d{1,17}).*)"
)
_HEAD: Final = r"^\s*(?:user=\d|Last 24 hour events \()"
"""Lines that may begin a list; the patterns above decide."""
_EVENT: Final = (
    r"^\s*time=(?:\"(?P<pretty>[^\"]*)\"|(?P<millis>\S+)) type=(?P<kind>\S+) package=(?P<package>\S+)(?P<rest>.*)"
)
_CLASS: Final = r"^.* class=(\S+)"
_INSTANCE: Final = r"^.* instanceId=(\S+)"
_MILLIS: Final = "^[0-9]{1,15}$"
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
_CHANGES: Final = _BEGINS | _ENDS
_DEVICE_WIDE: Final = {SignalKind.SCREEN_ON, SignalKind.KEYGUARD_LOCKED}
_INTERACTIONS: Final = {"USER_INTERACTION", "7"}
_SHUTDOWNS: Final = {"DEVICE_SHUTDOWN", "26"}
_STARTUPS: Final = {"DEVICE_STARTUP", "27"}
_BEFORE_ANDROID_10: Final = {"MOVE_TO_FOREGROUND", "MOVE_TO_BACKGROUND"}
PRETTY_STAMP_S: Final = 1.0
CHECKIN_STAMP_S: Final = 0.001


@dataclass(slots=True)
class _List:
    """A list of one user's events. heading: line of "Last 24 hour events"; start, end: the span that it states."""

    user: int
    heading: int | None = None
    start: int | None = None
    end: int = 0
    local: bool = True


def usage_stats(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Signals of the events listed: intervals, touches, and a CAPTURE over the listed span."""
    facts = SectionFacts(section, context, reading)
    lists, events = [_List(0)], []
    first = 0
    for column in line_columns(section.lines):
        events.append(_sound(_listed(column, first, lists, context), context, facts))
        first += len(column)
    if events:
        _give_lists(lists, _once(pl.concat(events), lists, facts), facts)
    yield from facts.batches()


def _listed(lines: pl.Series, first: int, lists: list[_List], context: DumpContext) -> pl.DataFrame:
    """The events among the lines: fields, line, and which of the lists; those that begin are added."""
    begins, numbers = [0], [len(lists) - 1]
    heads = lines.str.contains(_HEAD).arg_true()
    for at, text in zip(heads.to_list(), lines.gather(heads).to_list(), strict=True):
        if _begins(text, first + at, lists, context):
            begins.append(at)
            numbers.append(len(lists) - 1)
    at = np.arange(len(lines))
    within = np.array(numbers)[np.searchsorted(begins, at, side="right") - 1]
    fields = lines.str.extract_groups(_EVENT).struct.unnest()
    events = fields.with_columns(line=pl.Series(at + first), list=pl.Series(within)).filter(
        pl.col("kind").is_not_null()
    )
    for number in events.filter(pl.col("pretty").is_null())["list"].unique().to_list():
        lists[number].local = False
    return events


def _begins(text: str, line: int, lists: list[_List], context: DumpContext) -> bool:
    """Whether the line says whose the list is that begins, or its span, which are noted."""
    if (user := _USER.match(text)) is not None:
        lists.append(_List(int(user[1])))
    elif (span := _SPAN.match(text)) is not None:
        if lists[-1].heading is not None:
            lists.append(_List(lists[-1].user))
        lists[-1].heading, lists[-1].start = line, _stated_start(span, context)
        lists[-1].end = _millis(span[3]) or 0
    else:
        return False
    return True


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


def _sound(events: pl.DataFrame, context: DumpContext, facts: SectionFacts) -> pl.DataFrame:
    """The events, with time and part; those whose time or package cannot be go to quarantine."""
    local = events["pretty"].is_not_null()
    time = events["millis"].set(~events["millis"].str.contains(_MILLIS), None).cast(pl.Int64) * 1000
    time = time.set(time >= LAST_INSTANT, None)
    pretty = local_instants(events["pretty"].filter(local), "%Y-%m-%d %H:%M:%S", context)
    time = time.scatter(local.arg_true(), pretty)
    names = events["package"].unique()
    wrong = names.filter(pl.Series([package_name(name) is None for name in names.to_list()], dtype=pl.Boolean))
    nameless = events["package"].is_in(wrong.implode())
    events = events.with_columns(time=time)
    for event in events.filter(time.is_null() | nameless).iter_rows(named=True):
        if event["time"] is not None:
            facts.damaged(event["line"], "package", event["package"])
        else:
            facts.damaged(event["line"], "time", event["millis"] if event["pretty"] is None else event["pretty"])
    part = pl.format("{} {}", *(pl.col("rest").str.extract(field).fill_null("") for field in (_CLASS, _INSTANCE)))
    return events.with_columns(part=part).filter(time.is_not_null() & ~nameless)


def _once(events: pl.DataFrame, lists: list[_List], facts: SectionFacts) -> pl.DataFrame:
    """The events without those that a user's lists hold twice."""
    users = pl.Series([one.user for one in lists], dtype=pl.Int64).gather(events["list"])
    first = events.select(pl.struct(users, "time", "kind", "package", "rest").is_first_distinct()).to_series()
    for line in events.filter(~first)["line"].to_list():
        facts.left(line, "listed twice")
    return events.filter(first)


def _give_lists(lists: list[_List], events: pl.DataFrame, facts: SectionFacts) -> None:
    """The signals of all lists."""
    parts = {part["list"][0]: part for part in events.partition_by("list", maintain_order=True)}
    for number, found in enumerate(lists):
        if number in parts:
            _give(found, parts[number].sort("time", maintain_order=True), facts)
        elif found.heading is not None:
            facts.left(found.heading, "a list without events")


def _give(found: _List, events: pl.DataFrame, facts: SectionFacts) -> None:
    """The signals of one list; its events are in order of time."""
    skew_s = facts.local_skew_s(PRETTY_STAMP_S) if found.local else facts.epoch_skew_s(CHECKIN_STAMP_S)
    first = previous = int(events["time"][0])
    intervals = Intervals(facts, first if found.start is None else min(found.start, first), lambda: skew_s)
    subjects = _Subjects(found.user, facts)
    for line, time, kind, package, part in events.select("line", "time", "kind", "package", "part").iter_rows():
        if kind in _CHANGES:
            subject = subjects.of(kind, package)
            change = intervals.begin if kind in _BEGINS else intervals.end
            change(line, subject, time, "" if subject.package is None else part)
        elif kind in _INTERACTIONS:
            uid = facts.uid(package, found.user)
            facts.signal(line, SignalKind.USER_INTERACTION, time, package=package, uid=uid, skew_s=skew_s)
        elif kind in _SHUTDOWNS or kind in _STARTUPS:
            # A start without a shutdown is a crash: nothing lasted longer than the last event before it.
            intervals.close_all(time if kind in _SHUTDOWNS else previous)
            facts.left(line, "the device shut down or started")
        else:
            facts.left(line, "an event of another kind")
        previous = time
    intervals.finish()
    _give_capture(found, facts, first, previous, set(events["kind"].unique().to_list()), skew_s)


class _Subjects:
    """Whose intervals one user's events begin and end."""

    def __init__(self, user: int, facts: SectionFacts) -> None:
        self._user = user
        self._facts = facts
        self._known: dict[tuple[str, str], Subject] = {}

    def of(self, event: str, package: str) -> Subject:
        """Of an event of _CHANGES; without a package where it is the whole device's."""
        found = self._known.get((event, package))
        if found is None:
            kind = _CHANGES[event]
            owner = None if kind in _DEVICE_WIDE else package
            found = self._known[event, package] = Subject(kind, owner, self._facts.uid(owner, self._user))
        return found


def _give_capture(found: _List, facts: SectionFacts, first: int, last: int, kinds: set[str], skew_s: float) -> None:
    """What the list covers: from its first event, as events before it may have been dropped, to its end."""
    if found.heading is not None:
        end = max(found.end or facts.context.taken or 0, last)
        facts.capture(found.heading, first, end, _shown_kinds(kinds), skew_s)


def _shown_kinds(kinds: set[str]) -> list[SignalKind]:
    """What the list would have shown: Android 10 added services, Android 9 the screen and the keyguard."""
    shown = [SignalKind.FOREGROUND_UI, SignalKind.USER_INTERACTION]
    old = bool(kinds & _BEFORE_ANDROID_10)
    if not old:
        shown.append(SignalKind.FOREGROUND_SERVICE)
    if not old or any(_CHANGES.get(kind) in _DEVICE_WIDE for kind in kinds):
        shown += sorted(_DEVICE_WIDE)
    return shown
