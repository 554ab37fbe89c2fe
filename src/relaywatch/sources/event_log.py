"""logcat -b events: processes that were started, which activity was resumed, foreground services, the screen.

Lines as logcat -v threadtime writes them, with or without a uid column (-v uid), a year (-v year) or as epoch (-v
epoch). Tags: services/core/java/com/android/server/am/EventLogTags.logtags and wm/EventLogTags.logtags
(frameworks/base); screen_toggled: EventLogTags.logtags there.
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
    LAST_UID,
    USER_UIDS,
    SectionFacts,
    local_us,
    package_name,
    uid_number,
)
from relaywatch.sources.android_intervals import Intervals, Subject
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.reading import Reading

_LINE: Final = re.compile(
    r"\s*(?:(?P<year>\d{4}-)?(?P<date>\d\d-\d\d \d\d:\d\d:\d\d\.\d{3,6})|(?P<epoch>\d{9,11}\.\d{3,6}))"
    r"(?:\s+(?:\d+|[a-z_]+|u\d+_\w+))?\s+\d+\s+\d+ [VDIWEF] (?P<tag>am_\w+|wm_\w+|screen_toggled)\s*: (?P<value>.*)"
)
_RESUMED: Final = {"am_set_resumed_activity", "wm_set_resumed_activity"}
_PAUSED: Final = {"am_pause_activity", "wm_pause_activity"}
_SERVICES: Final = {"am_foreground_service_start", "am_foreground_service_stop"}
_RESTATED: Final = re.compile(r"(?:am|wm)_(?:resume_activity|on_(?:top_)?(?:resume|paused|stop|create|start)\w*)\Z")
_IDLE: Final = re.compile(r"am_uid_\w+\Z")
STAMP_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class _Event:
    line: int
    time: int
    tag: str
    values: list[str]


def event_log(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Signals of the activity and window managers' events; lines of other tags and buffers are no records."""
    facts = SectionFacts(section, context, reading)
    local = False
    events = []
    for line, text in enumerate(section.lines):
        found = _LINE.match(text)
        if found is None:
            continue
        local = local or found["epoch"] is None
        time = _time(found, context)
        if time is not None:
            events.append(_Event(line, time, found["tag"], _values(found["value"])))
        elif found["epoch"] is None and found["year"] is None and context.taken is None:
            facts.left(line, "its year is not known, as the dump does not say when it was taken")
        else:
            facts.damaged(line, "time", found["date"] or found["epoch"])
    skew_s = facts.local_skew_s(STAMP_S) if local else facts.epoch_skew_s(STAMP_S)
    intervals = Intervals(facts, None, lambda: skew_s)
    for event in events:
        _give(event, facts, intervals, skew_s)
    intervals.finish()
    if events:
        times, tags = [event.time for event in events], {event.tag for event in events}
        shown = [SignalKind.PROCESS_START, SignalKind.FOREGROUND_UI]
        # Not every phone writes these: only where one is seen would others have been.
        shown += [SignalKind.FOREGROUND_SERVICE] if tags & _SERVICES else []
        shown += [SignalKind.SCREEN_ON] if "screen_toggled" in tags else []
        facts.capture(events[0].line, min(times), max(times), shown, skew_s)
    yield from facts.batches()


def _time(found: re.Match[str], context: DumpContext) -> int | None:
    if found["epoch"] is not None:
        seconds, fraction = found["epoch"].split(".")
        us = int(seconds) * 1_000_000 + int(fraction.ljust(6, "0"))
        return us if us < LAST_INSTANT else None
    if found["year"] is not None:
        return local_us(found["year"] + found["date"], "%Y-%m-%d %H:%M:%S.%f", context)
    return local_us(found["date"], "%m-%d %H:%M:%S.%f", context)


def _values(text: str) -> list[str]:
    """The event's values: "[0,3663,1000,name]" or a single one."""
    return [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",")]


def _give(event: _Event, facts: SectionFacts, intervals: Intervals, skew_s: float) -> None:
    if event.tag == "am_proc_start":
        _process_start(event, facts, skew_s)
    elif event.tag in _RESUMED or event.tag in _PAUSED:
        _activity(event, facts, intervals)
    elif event.tag in _SERVICES:
        _service(event, facts, intervals)
    elif event.tag == "screen_toggled" and event.values[0] in ("0", "1"):
        change = intervals.begin if event.values[0] == "1" else intervals.end
        change(event.line, Subject(SignalKind.SCREEN_ON), event.time)
    elif _IDLE.match(event.tag):
        facts.left(event.line, "a uid's idling shows neither what was in front nor a process's start")
    elif _RESTATED.match(event.tag):
        facts.left(event.line, "restates the resumed activity")
    else:
        facts.left(event.line, "an event of another kind")


def _process_start(event: _Event, facts: SectionFacts, skew_s: float) -> None:
    """[user, pid, uid, process, what for, component]."""
    values = event.values
    uid = uid_number(values[2]) if len(values) >= 5 else None
    if uid is None:
        facts.damaged(event.line, "am_proc_start", ",".join(values))
        return
    component = values[5].strip("{}") if len(values) > 5 else ""
    package = package_name(component.split("/")[0]) if "/" in component else None
    detail = " ".join(part for part in (values[4], component) if part)
    facts.signal(
        event.line,
        SignalKind.PROCESS_START,
        event.time,
        package=package or package_name(values[3].split(":")[0]),
        uid=uid,
        detail=detail,
        skew_s=skew_s,
    )


def _subject(event: _Event, kind: SignalKind, user: str, component: str, facts: SectionFacts) -> Subject | None:
    """Whose interval; the event goes to quarantine where it does not say."""
    package = package_name(component.split("/")[0])
    if package is None or not (user.isascii() and user.isdigit()) or int(user[:9]) >= LAST_UID // USER_UIDS:
        facts.damaged(event.line, event.tag, ",".join(event.values))
        return None
    return Subject(kind, package, facts.uid(package, int(user[:9])))


def _activity(event: _Event, facts: SectionFacts, intervals: Intervals) -> None:
    """Resumed [user, component, reason]; paused [user, token, component, ...]. One activity is resumed at a time."""
    at = 1 if event.tag in _RESUMED else 2
    component = event.values[at] if len(event.values) > at else ""
    if event.tag in _RESUMED and component in ("", "null"):
        facts.left(event.line, "no activity is resumed any more")
        intervals.close(intervals.open_of(SignalKind.FOREGROUND_UI), event.time)
        return
    subject = _subject(event, SignalKind.FOREGROUND_UI, event.values[0], component, facts)
    if subject is None:
        return
    if event.tag in _PAUSED:
        intervals.end(event.line, subject, event.time)
        return
    others = [other for other in intervals.open_of(SignalKind.FOREGROUND_UI) if other != subject]
    intervals.close(others, event.time)
    intervals.begin(event.line, subject, event.time)


def _service(event: _Event, facts: SectionFacts, intervals: Intervals) -> None:
    """[user, component, ...]."""
    component = event.values[1] if len(event.values) > 1 else ""
    subject = _subject(event, SignalKind.FOREGROUND_SERVICE, event.values[0], component, facts)
    if subject is not None:
        change = intervals.begin if event.tag.endswith("start") else intervals.end
        change(event.line, subject, event.time, component)
