"""dumpsys usagestats: which app was in front, whose services were in the foreground, screen, keyguard and touches.

Lists the last 24 hours of events of each user, in the device's local time, and with -c in ms since epoch. Format:
UserUsageStatsService.java (frameworks/base, services/usage); event numbers: android.app.usage.UsageEvents.Event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

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
from relaywatch.sources.columns import text
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import line_columns

_USER: Final = re.compile(r"\s*user=(\d{1,4})\s*\Z")
_SPAN: Final = re.compile(
    r"\s*Last 24 hour events \((?:timeRange=\"(.*?)\s[–-]\s.*|beginTime=(\d{1,17}) endTime=(\d{1,17}).*)"
)
_HEAD: Final = r"^\s*(?:user=\d|Last 24 hour events \()"
"""Lines that may begin a list; the patterns above decide."""
_PRETTY: Final = r"^\s*time=\"([^\"]*)\" (type=.*)$"
_CHECKIN: Final = r"^\s*time=([^ \t\r\f\v]+) (type=.*)$"
"""An event's time, and what is told of it: the same again and again, so that each distinct one is read once."""
_TOLD: Final = r"^type=(?P<kind>\S+) package=(?P<package>\S+)(?P<rest>.*)"
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
    lists, lines, first = [_List(0)], [], 0
    for column in line_columns(section.lines):
        lines.append(_timed(column, first, lists, context))
        first += len(column)
    if lines:
        events, told = _events(pl.concat(lines), lists)
        _give_lists(lists, _once(_sound(events, told, facts), lists, facts), told, facts)
    yield from facts.batches()


def _timed(lines: pl.Series, first: int, lists: list[_List], context: DumpContext) -> pl.DataFrame:
    """Lines that may be events: line, list, stamp, time, told, local.

    list: its number in `lists`, which those that begin are added to; local: whether the stamp is a local time.
    """
    begins, numbers = [0], [len(lists) - 1]
    heads = lines.str.contains(_HEAD).arg_true()
    for at, line in zip(heads.to_list(), lines.gather(heads).to_list(), strict=True):
        if _begins(line, first + at, lists, context):
            begins.append(at)
            numbers.append(len(lists) - 1)
    numbered = lines.alias("text").to_frame().with_columns(line=pl.int_range(first, first + len(lines), dtype=pl.Int64))
    local, rest = _of_form(numbered, _PRETTY)
    epoch, _ = _of_form(rest, _CHECKIN)
    events = pl.concat(
        [
            local.with_columns(
                time=local_instants(local["stamp"], "%Y-%m-%d %H:%M:%S", context), local=pl.lit(value=True)
            ),
            epoch.with_columns(time=_epochs(epoch["stamp"]), local=pl.lit(value=False)),
        ]
    ).sort("line")
    within = np.array(numbers)[np.searchsorted(begins, events["line"].to_numpy() - first, side="right") - 1]
    return events.with_columns(list=pl.Series(within, dtype=pl.Int64))


def _of_form(lines: pl.DataFrame, form: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Line, stamp and told of the lines of this form, and the other lines."""
    parts = lines["text"].str.extract_groups(form).struct.rename_fields(["stamp", "told"]).struct.unnest()
    found = parts["told"].is_not_null()
    return parts.with_columns(lines["line"]).filter(found), lines.filter(~found)


def _epochs(texts: pl.Series) -> pl.Series:
    """_millis of each."""
    us = texts.set(~texts.str.contains(_MILLIS), None).cast(pl.Int64) * 1000
    return us.set(us >= LAST_INSTANT, None)


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


def _events(lines: pl.DataFrame, lists: list[_List]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lines that are events, with `told` as a row of the second frame: kind, package, part of each distinct one."""
    encoded = text(lines["told"])
    fields = pl.Series(encoded.dictionary, dtype=pl.String).str.extract_groups(_TOLD).struct.unnest()
    part = pl.format("{} {}", *(pl.col("rest").str.extract(field).fill_null("") for field in (_CLASS, _INSTANCE)))
    told = fields.select("kind", "package", part=part)
    numbers = pl.Series(encoded.indices, dtype=pl.Int64)
    events = lines.with_columns(told=numbers).filter(told["kind"].is_not_null().gather(numbers))
    for number in events.filter(~pl.col("local"))["list"].unique().to_list():
        lists[number].local = False
    return events, told


def _sound(events: pl.DataFrame, told: pl.DataFrame, facts: SectionFacts) -> pl.DataFrame:
    """The events without those whose time or package cannot be, which go to quarantine."""
    named = pl.Series([package_name(name) is not None for name in told["package"].to_list()], dtype=pl.Boolean)
    sound = events["time"].is_not_null() & named.gather(events["told"])
    packages = told["package"]
    for line, stamp, time, number in events.filter(~sound).select("line", "stamp", "time", "told").iter_rows():
        if time is None:
            facts.damaged(line, "time", stamp)
        else:
            facts.damaged(line, "package", packages[number])
    return events.filter(sound)


def _once(events: pl.DataFrame, lists: list[_List], facts: SectionFacts) -> pl.DataFrame:
    """The events without those that a user's lists hold twice."""
    users = pl.Series("user", [one.user for one in lists], dtype=pl.Int64).gather(events["list"])
    first = events.select(pl.struct(users, "time", "told").is_first_distinct()).to_series()
    for line in events.filter(~first)["line"].to_list():
        facts.left(line, "listed twice")
    return events.filter(first)


def _give_lists(lists: list[_List], events: pl.DataFrame, told: pl.DataFrame, facts: SectionFacts) -> None:
    """The signals of all lists."""
    parts = {part["list"][0]: part for part in events.partition_by("list", maintain_order=True)}
    for number, found in enumerate(lists):
        if number in parts:
            _give(found, parts[number].sort("time", maintain_order=True), told, facts)
        elif found.heading is not None:
            facts.left(found.heading, "a list without events")


def _give(found: _List, events: pl.DataFrame, told: pl.DataFrame, facts: SectionFacts) -> None:
    """The signals of one list; its events are in order of time."""
    skew_s = facts.local_skew_s(PRETTY_STAMP_S) if found.local else facts.epoch_skew_s(CHECKIN_STAMP_S)
    lines, times, numbers = (events[name].to_list() for name in ("line", "time", "told"))
    first = previous = times[0]
    intervals = Intervals(facts, first if found.start is None else min(found.start, first), lambda: skew_s)
    kinds = set[str]()
    effects: dict[int, _Effect] = {}
    for line, time, number in zip(lines, times, numbers, strict=True):
        effect = effects.get(number)
        if effect is None:
            kind, package, part = told.row(number)
            effect = effects[number] = _effect(kind, package, part, found.user, intervals, facts)
            kinds.add(effect.kind)
        if effect.change is not None:
            effect.change(line, effect.subject, time, effect.part)
        elif effect.kind in _INTERACTIONS:
            _, package, uid, _ = effect.subject
            facts.signal(line, SignalKind.USER_INTERACTION, time, package=package, uid=uid, skew_s=skew_s)
        elif effect.kind in _SHUTDOWNS or effect.kind in _STARTUPS:
            # A start without a shutdown is a crash: nothing lasted longer than the last event before it.
            intervals.close_all(time if effect.kind in _SHUTDOWNS else previous)
            facts.left(line, "the device shut down or started")
        else:
            facts.left(line, "an event of another kind")
        previous = time
    intervals.finish()
    _give_capture(found, facts, first, previous, kinds, skew_s)


class _Effect(NamedTuple):
    """What events of one kind, package and part do. change: begins or ends the subject's interval; None: neither."""

    kind: str
    change: Callable[[int, Subject, int, str], None] | None
    subject: Subject
    part: str


def _effect(kind: str, package: str, part: str, user: int, intervals: Intervals, facts: SectionFacts) -> _Effect:
    signal = _CHANGES.get(kind, SignalKind.USER_INTERACTION)
    wide = signal in _DEVICE_WIDE
    owner = None if wide else package
    change = (intervals.begin if kind in _BEGINS else intervals.end) if kind in _CHANGES else None
    return _Effect(kind, change, Subject(signal, owner, facts.uid(owner, user)), "" if wide else part)


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
