"""The last 24 hours of `dumpsys usagestats`: what was in front, services, screen, keyguard, touches.

Synthetic: written from AOSP's format (UserUsageStatsService, UsageEvents.Event), of what the given rows hold. Times are
local, in whole seconds; the zone stands in a getprop beside them. Where a CAPTURE says that such events would have been
seen, an event that says nothing else stands at its begin and its end, as phones write some all the time.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.device_files import device_file
from relaywatch.outputs.telemetry.intervals import STILL_SO, merged

DAY_US: Final = 86_400_000_000
USER_UIDS: Final = 100_000
ZONE: Final = "UTC"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ANDROID: Final = "android"
_NOTHING_ELSE: Final = "STANDBY_BUCKET_CHANGED"
_EVENTS: Final = {
    SignalKind.FOREGROUND_UI: ("ACTIVITY_RESUMED", "ACTIVITY_PAUSED"),
    SignalKind.FOREGROUND_SERVICE: ("FOREGROUND_SERVICE_START", "FOREGROUND_SERVICE_STOP"),
    SignalKind.SCREEN_ON: ("SCREEN_INTERACTIVE", "SCREEN_NON_INTERACTIVE"),
    SignalKind.KEYGUARD_LOCKED: ("KEYGUARD_SHOWN", "KEYGUARD_HIDDEN"),
    SignalKind.USER_INTERACTION: ("USER_INTERACTION", ""),
    SignalKind.CAPTURE: (_NOTHING_ELSE, _NOTHING_ELSE),
}
"""What an interval's begin and end are written as."""
_OF_APPS: Final = {SignalKind.FOREGROUND_UI, SignalKind.FOREGROUND_SERVICE, SignalKind.USER_INTERACTION}
_WITH_CLASS: Final = {*_EVENTS[SignalKind.FOREGROUND_UI], *_EVENTS[SignalKind.FOREGROUND_SERVICE]}
_PACKAGE: Final = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_COLUMNS: Final = ("device_uid", "android_package", "android_uid", "kind", "detail", "start_time", "end_time")


class _Subject(NamedTuple):
    """Whose intervals they are; user: of Android, 0 for what is the whole device's."""

    user: int
    package: str
    kind: SignalKind


class _Event(NamedTuple):
    time: int
    user: int
    name: str
    package: str


def write_usagestats(batches: Iterable[Batch], folder: Path) -> list[Path]:
    """`synthetic-<device>/usagestats.txt` and `getprop.txt` per device; signals of apps without a package are left out.

    The events reach 24 hours back from the last one, as a phone's list does.
    """
    subjects: dict[str, dict[_Subject, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for part in batches:
        if part.table == "signals":
            for device, subject, interval in _told(part.rows):
                subjects[device][subject].append(interval)
    written = []
    for device, told in sorted(subjects.items()):
        plain = device_file(folder, device, "")
        inner = plain.with_name(f"synthetic-{plain.name}")
        inner.mkdir(exist_ok=True)
        texts = {"getprop.txt": _properties(device), "usagestats.txt": _dumped(sorted(_events(told)))}
        for name, lines in texts.items():
            (inner / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
            written.append(inner / name)
    return written


def _told(rows: pa.RecordBatch) -> Iterator[tuple[str, _Subject, tuple[int, int]]]:
    """Signals that usagestats has events for: device, subject, begin and end."""
    times = [rows[name].cast(pa.int64()) if name.endswith("_time") else rows[name] for name in _COLUMNS]
    for row in pa.table(times, list(_COLUMNS)).to_pylist():
        kind, of_app = SignalKind(row["kind"]), row["kind"] in _OF_APPS
        package = row["android_package"] or "" if of_app else _ANDROID
        shown = kind is not SignalKind.CAPTURE or SignalKind.FOREGROUND_UI.name in (row["detail"] or "").split(" ")
        if kind in _EVENTS and shown and _PACKAGE.fullmatch(package):
            user = (row["android_uid"] or 0) // USER_UIDS if of_app else 0
            start, end = row["start_time"], row["end_time"]
            instant = start if kind is SignalKind.USER_INTERACTION else STILL_SO
            yield row["device_uid"], _Subject(max(user, 0), package, kind), (start, instant if end is None else end)


def _events(told: dict[_Subject, list[tuple[int, int]]]) -> Iterator[_Event]:
    for (user, package, kind), intervals in told.items():
        begun, ended = _EVENTS[kind]
        for start, end in merged(intervals):
            yield _Event(start, user, begun, package)
            if ended and end < STILL_SO:
                yield _Event(end, user, ended, package)


def _properties(device: str) -> Iterator[str]:
    """The zone, and the device's name as its serial number where getprop can hold it."""
    yield f"[persist.sys.timezone]: [{ZONE}]"
    if device.isascii() and device.isprintable() and len(device) <= 200 and "]" not in device:
        yield f"[ro.serialno]: [{device}]"


def _dumped(events: list[_Event]) -> Iterator[str]:
    """The lists of each user."""
    last = events[-1].time
    since = max(last - DAY_US, 0)
    yield "# synthetic dumpsys usagestats"
    for user in sorted({event.user for event in events}):
        yield f"user={user}"
        yield f'  Last 24 hour events (timeRange="{_heading(since)} – {_heading(last)}" )'
        for event in events:
            if event.user == user and event.time >= since:
                part = f" class={event.package}.Part" if event.name in _WITH_CLASS else ""
                time = f'time="{_moment(event.time):%Y-%m-%d %H:%M:%S}"'
                yield f"    {time} type={event.name} package={event.package}{part} flags=0x0"


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _heading(us: int) -> str:
    moment = _moment(us)
    half = "AM" if moment.hour < 12 else "PM"
    return f"{moment.month}/{moment.day}/{moment.year}, {moment.hour % 12 or 12}:{moment:%M} {half}"
