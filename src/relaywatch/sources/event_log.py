"""logcat -b events: processes that were started, which activity was resumed, foreground services, the screen.

Lines as logcat -v threadtime writes them, with or without a uid column (-v uid), a year (-v year) or as epoch (-v
epoch). Tags: services/core/java/com/android/server/am/EventLogTags.logtags and wm/EventLogTags.logtags
(frameworks/base); screen_toggled: EventLogTags.logtags there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_facts import (
    LAST_INSTANT,
    LAST_UID,
    USER_UIDS,
    SectionFacts,
    local_instants,
    package_name,
    uid_number,
)
from relaywatch.sources.android_intervals import Intervals, Subject
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.columns import text
from relaywatch.sources.reading import Reading
from relaywatch.sources.section_lines import line_columns

_LINE: Final = (
    r"^[ \t]*(?:(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}|[0-9]{9,11})\.[0-9]{3,6}"
    r"(?:[ \t]+(?:[0-9]+|[a-z_]+|u[0-9]+_[A-Za-z0-9_]+))?[ \t]+[0-9]+[ \t]+[0-9]+ [VDIWEF] "
    r"(?:am_\w+|wm_\w+|screen_toggled)\s*: "
)
_STAMP: Final = r"^[ \t]*([0-9-]+(?: [0-9:]+)?\.[0-9]+)"
_TOLD: Final = " [VDIWEF] [aws]"
"""Before tag and values: often the same again, so that each distinct event is read once."""
_EPOCH: Final = r"^[0-9]+\."
_DATED: Final = r"^[0-9]{4}-"
_RESUMED: Final = {"am_set_resumed_activity", "wm_set_resumed_activity"}
_PAUSED: Final = {"am_pause_activity", "wm_pause_activity"}
_SERVICES: Final = {"am_foreground_service_start", "am_foreground_service_stop"}
_RESTATED: Final = re.compile(r"(?:am|wm)_(?:resume_activity|on_(?:top_)?(?:resume|paused|stop|create|start)\w*)\Z")
_IDLE: Final = re.compile(r"am_uid_\w+\Z")
STAMP_S: Final = 0.001


_Effect: TypeAlias = Callable[[int, int], None]
"""What an event does, given its line and time."""


def event_log(section: Section, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Signals of the activity and window managers' events; lines of other tags and buffers are no records."""
    facts = SectionFacts(section, context, reading)
    found, first = [], 0
    for column in line_columns(section.lines):
        found.append(_lines(column, first, context))
        first += len(column)
    if found:
        lines = pl.concat(found)
        local = not lines["stamp"].str.contains(_EPOCH).all()
        skew_s = facts.local_skew_s(STAMP_S) if local else facts.epoch_skew_s(STAMP_S)
        _give_all(_dated(lines, facts), facts, skew_s)
    yield from facts.batches()


def _lines(lines: pl.Series, first: int, context: DumpContext) -> pl.DataFrame:
    """Line, stamp, time and told of each event among the lines; time is null where it is none."""
    index = lines.str.contains(_LINE).arg_true()
    lines = lines.gather(index)
    stamps = lines.str.extract(_STAMP)
    told = pl.select(pl.lit(lines).str.slice(pl.lit(lines.str.find(_TOLD)) + 3)).to_series()
    columns = {"line": index.cast(pl.Int64) + first, "stamp": stamps, "time": _times(stamps, context)}
    return pl.DataFrame(columns | {"told": told})


def _times(stamps: pl.Series, context: DumpContext) -> pl.Series:
    times = pl.select(pl.repeat(None, len(stamps), dtype=pl.Int64)).to_series()
    epoch, dated = stamps.str.contains(_EPOCH), stamps.str.contains(_DATED)
    for form, read in (
        (epoch, _epochs),
        (dated, lambda texts: local_instants(texts, "%Y-%m-%d %H:%M:%S.%f", context)),
        (~epoch & ~dated, lambda texts: local_instants(texts, "%m-%d %H:%M:%S.%f", context)),
    ):
        if form.any():
            times = times.scatter(form.arg_true(), read(stamps.filter(form)))
    return times


def _epochs(stamps: pl.Series) -> pl.Series:
    """Seconds with a fraction as us."""
    parts = stamps.str.split_exact(".", 1).struct.unnest()
    seconds, fraction = parts.to_series(0).cast(pl.Int64), parts.to_series(1).str.pad_end(6, "0").cast(pl.Int64)
    us = seconds * 1_000_000 + fraction
    return us.set(us >= LAST_INSTANT, None)


def _dated(lines: pl.DataFrame, facts: SectionFacts) -> pl.DataFrame:
    """The events whose time is known; the others are accounted for."""
    for line, stamp in lines.filter(pl.col("time").is_null()).select("line", "stamp").iter_rows():
        year = re.match(_DATED, stamp)
        if facts.context.taken is None and year is None and re.match(_EPOCH, stamp) is None:
            facts.left(line, "its year is not known, as the dump does not say when it was taken")
        else:
            facts.damaged(line, "time", stamp[year.end() :] if year else stamp)
    return lines.filter(pl.col("time").is_not_null())


def _give_all(events: pl.DataFrame, facts: SectionFacts, skew_s: float) -> None:
    """The signals of all events, in the order of their lines."""
    intervals = Intervals(facts, None, lambda: skew_s)
    encoded = text(events["told"])
    told, numbers = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    repeated = (np.bincount(numbers, minlength=len(told)) > 1).tolist()
    tags, effects = set[str](), dict[int, _Effect]()
    lines, times = events["line"].to_list(), events["time"].to_list()
    for line, time, number in zip(lines, times, numbers.tolist(), strict=True):
        effect = effects.get(number)
        if effect is None:
            tag, _, value = told[number].partition(": ")
            effect = _effect(_Event(tag.strip(), _values(value)), facts, intervals, skew_s)
            tags.add(tag.strip())
            if repeated[number]:
                effects[number] = effect
        effect(line, time)
    intervals.finish()
    if lines:
        shown = [SignalKind.PROCESS_START, SignalKind.FOREGROUND_UI]
        # Not every phone writes these: only where one is seen would others have been.
        shown += [SignalKind.FOREGROUND_SERVICE] if tags & _SERVICES else []
        shown += [SignalKind.SCREEN_ON] if "screen_toggled" in tags else []
        facts.capture(lines[0], min(times), max(times), shown, skew_s)


@dataclass(frozen=True, slots=True)
class _Event:
    """One distinct event."""

    tag: str
    values: list[str]


def _values(text: str) -> list[str]:
    """The event's values: "[0,3663,1000,name]" or a single one."""
    return [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",")]


def _effect(event: _Event, facts: SectionFacts, intervals: Intervals, skew_s: float) -> _Effect:
    if event.tag == "am_proc_start":
        return _process_start(event, facts, skew_s)
    if event.tag in _RESUMED or event.tag in _PAUSED:
        return _activity(event, facts, intervals)
    if event.tag in _SERVICES:
        return _service(event, facts, intervals)
    if event.tag == "screen_toggled" and event.values[0] in ("0", "1"):
        change = intervals.begin if event.values[0] == "1" else intervals.end
        return lambda line, time: change(line, Subject(SignalKind.SCREEN_ON), time)
    if _IDLE.match(event.tag):
        return _left(facts, "a uid's idling shows neither what was in front nor a process's start")
    if _RESTATED.match(event.tag):
        return _left(facts, "restates the resumed activity")
    return _left(facts, "an event of another kind")


def _left(facts: SectionFacts, reason: str) -> _Effect:
    return lambda line, _: facts.left(line, reason)


def _damaged(event: _Event, facts: SectionFacts) -> _Effect:
    return lambda line, _: facts.damaged(line, event.tag, ",".join(event.values))


def _process_start(event: _Event, facts: SectionFacts, skew_s: float) -> _Effect:
    """[user, pid, uid, process, what for, component]."""
    values = event.values
    component = values[5] if len(values) > 5 else ""
    started = _started(values[2], values[3], values[4], component) if len(values) >= 5 else None
    if started is None:
        return _damaged(event, facts)
    uid, package, detail = started
    kind = SignalKind.PROCESS_START
    return lambda line, time: facts.signal(line, kind, time, package=package, uid=uid, detail=detail, skew_s=skew_s)


@lru_cache(maxsize=1024)
def _started(uid: str, process: str, purpose: str, component: str) -> tuple[int, str | None, str] | None:
    """Uid, package and detail of a process that was started; None where it has no uid. Only pids differ every time."""
    number, component = uid_number(uid), component.strip("{}")
    if number is None:
        return None
    package = package_name(component.split("/")[0]) if "/" in component else None
    detail = " ".join(part for part in (purpose, component) if part)
    return number, package or package_name(process.split(":")[0]), detail


def _subject(event: _Event, kind: SignalKind, user: str, component: str, facts: SectionFacts) -> Subject | None:
    """Whose interval; None where the event does not say."""
    package = package_name(component.split("/")[0])
    if package is None or not (user.isascii() and user.isdigit()) or int(user[:9]) >= LAST_UID // USER_UIDS:
        return None
    return Subject(kind, package, facts.uid(package, int(user[:9])))


def _activity(event: _Event, facts: SectionFacts, intervals: Intervals) -> _Effect:
    """Resumed [user, component, reason]; paused [user, token, component, ...]. One activity is resumed at a time."""
    at = 1 if event.tag in _RESUMED else 2
    component = event.values[at] if len(event.values) > at else ""
    if event.tag in _RESUMED and component in ("", "null"):
        return _nobody_resumed(facts, intervals)
    subject = _subject(event, SignalKind.FOREGROUND_UI, event.values[0], component, facts)
    if subject is None:
        return _damaged(event, facts)
    if event.tag in _PAUSED:
        return lambda line, time: intervals.end(line, subject, time)

    def resumed(line: int, time: int) -> None:
        others = [other for other in intervals.open_of(SignalKind.FOREGROUND_UI) if other != subject]
        intervals.close(others, time)
        intervals.begin(line, subject, time)

    return resumed


def _nobody_resumed(facts: SectionFacts, intervals: Intervals) -> _Effect:
    def ended(line: int, time: int) -> None:
        facts.left(line, "no activity is resumed any more")
        intervals.close(intervals.open_of(SignalKind.FOREGROUND_UI), time)

    return ended


def _service(event: _Event, facts: SectionFacts, intervals: Intervals) -> _Effect:
    """[user, component, ...]."""
    component = event.values[1] if len(event.values) > 1 else ""
    subject = _subject(event, SignalKind.FOREGROUND_SERVICE, event.values[0], component, facts)
    if subject is None:
        return _damaged(event, facts)
    change = intervals.begin if event.tag.endswith("start") else intervals.end
    return lambda line, time: change(line, subject, time, component)
