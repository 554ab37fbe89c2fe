"""The text of an Android dump cut into its sections, and what holds for all of them.

Wrappings: a bug report's "------ TITLE (command) ------", dumpsys' "DUMP OF SERVICE name:", and the output of one
command, told by its first lines (AOSP frameworks/native cmds/dumpstate and cmds/dumpsys).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.section_lines import Lines, line_columns

SECTION_LINES: Final = 2_000_000
MOST_PACKAGES: Final = 100_000
UNKNOWN_ZONE_S: Final = 14 * 3600.0
SKEW_BOUND_S: Final = 2.0
_TITLE: Final = re.compile(r"------ ([^(]{1,200}?) \((.{1,500})\) ------")
_SERVICE: Final = re.compile(r"DUMP OF SERVICE (?:CRITICAL |HIGH |NORMAL )?(\S{1,200}):")
_END: Final = re.compile(
    r"-{6,9} [\d.]+s was the duration of (?:dumpsys )?(.{1,200}?)(?:, ending at: (.{19}))?(?: ------)?"
)
_TAKEN: Final = re.compile(r"== dumpstate: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")
_PROPERTY: Final = re.compile(r"\[([\w.\-]{1,200})\]: \[(.{0,500}?)\]\s*")
_PACKAGE: Final = re.compile(r"\s*Package \[([\w.]{1,255})\] \(\w+\):")
_PACKAGE_ID: Final = re.compile(r"\s*(?:userId|appId)=(\d{1,9})\b")
_LISTED: Final = re.compile(r"package:([\w.]{1,255}) uid:(\d{1,9})(?:,\d+)*\s*")
_TIME_LINE: Final = re.compile(r"[#>=* -]*(?:\d{9,10}(?:\.\d+)?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*.{0,8})\s*")
_FIRST_LINES: Final = (
    (re.compile(r"\[[\w.\-]+\]: \["), "getprop"),
    (re.compile(r"Active Internet connections|Proto +Recv-Q +Send-Q"), "netstat"),
    (re.compile(r"(?:Netid +)?State +Recv-Q +Send-Q"), "ss"),
    (re.compile(r"\s*sl\s+local_address\s+rem(?:ote)?_address"), "tcp"),
    (re.compile(r"package:\S+.* uid:\d+"), "pm"),
    (re.compile(r"Current AppOps Service state:"), "appops"),
    (re.compile(r"Battery History \("), "batterystats"),
    (re.compile(r"VPNs:"), "vpn_management"),
    (re.compile(r"ACCESSIBILITY MANAGER"), "accessibility"),
    (re.compile(r"Verifiers:|Database versions:"), "package"),
    (re.compile(r"Active (?:UID )?interfaces:|Dev stats:|Xt stats:|UID stats:|Uid stats:|mAppUidStatsMap"), "netstats"),
    (re.compile(r"NetworkAgentInfo|NetworkProviders for:|NetworkFactories for:"), "connectivity"),
    (re.compile(r"USER +PID +PPID"), "ps"),
    (re.compile(r"ACTIVITY MANAGER"), "activity"),
    (re.compile(r"user=\d+$|In-memory daily stats|Flushed usagestats"), "usagestats"),
    (re.compile(r"Current Device Policy Manager state:"), "device_policy"),
    (re.compile(r"System ready: (?:true|false)"), "netpolicy"),
    (re.compile(r"Users:$|  UserInfo\{"), "user"),
    (re.compile(r"  Settings:$|  Whitelist (?:\(except idle\) )?(?:system|user) apps:"), "deviceidle"),
    (re.compile(r"9,\d+,[il],(?:vers|uid),"), "batterystats"),
    (re.compile(r"(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} .*\b[IDWEV] (?:am|wm)_\w+ *:"), "logcat events"),
    (re.compile(r"adb_enabled=|airplane_mode_on=|_id:\d+ name:"), "settings"),
)
"""How the output of one command or service begins."""
PROBED_LINES: Final = 60
_MARK: Final = "^(?:-{6}|DUMP OF SERVICE )"
"""Lines that may be a heading or an end; the patterns above decide."""
_SAYING: Final = r"^(?:\[|== dumpstate:|-{6}|package:| [\s\x1c-\x1f]*(?:Package \[|userId=|appId=))"
"""Lines that may say what holds for all sections; ContextScan.take decides."""


def section_name(title: str, command: str) -> str:
    """A section's name: the service of a dumpsys, else the command's own word, "logcat events" for a log buffer."""
    words = [word for word in command.split() if not word.startswith("-")]
    word = words[0].rpartition("/")[2].lower() if words else ""
    if word == "dumpsys":
        return next((arg for arg in words[1:] if not arg.isdigit()), "dumpsys")
    if word == "logcat":
        buffer = re.search(r"-b (\w+)", command)
        return f"logcat {buffer[1]}" if buffer else "logcat"
    return word or title.lower()


def name_of(first_lines: Iterable[str]) -> str | None:
    """The section that a file without headings is, by its first lines; None where it is none that is known."""
    for line in first_lines:
        if not line.strip() or line.startswith("#") or _TIME_LINE.fullmatch(line):
            continue
        return next((name for begin, name in _FIRST_LINES if begin.match(line)), None)
    return None


def is_dump(text: str) -> bool:
    """Whether the text begins an Android dump, in one of its wrappings."""
    lines = text.split("\n")[:PROBED_LINES]
    if any(_TAKEN.match(line) or _SERVICE.match(line) or _TITLE.match(line) for line in lines):
        return True
    return name_of(lines) is not None


@dataclass(slots=True)
class _Open:
    """A section that is being read."""

    name: str
    command: str
    first_line: int
    columns: list[pl.Series] = field(default_factory=list)
    count: int = 0

    def take(self, column: pl.Series) -> None:
        """Its next lines; those beyond SECTION_LINES are dropped."""
        taken = column.head(SECTION_LINES - self.count)
        if len(taken):
            self.columns.append(taken)
            self.count += len(taken)

    def closed(self, source: str) -> Iterator[Section]:
        """The section, if it has lines."""
        if self.count:
            lines = Lines(self.columns)
            name = self.name or name_of(islice(lines, PROBED_LINES)) or ""
            yield Section(name, self.command, source, self.first_line, lines)


def sections(lines: Iterable[str], source: str) -> Iterator[Section]:
    """The sections of one file, in order. A file without headings is one section, if its first lines are known."""
    held = _Open("", "", 1)
    title, number = "", 1
    for column in line_columns(lines):
        begin = 0
        marks = column.str.contains(_MARK).arg_true()
        for at, line in zip(marks.to_list(), column.gather(marks).to_list(), strict=True):
            heading = _TITLE.match(line) or _SERVICE.match(line)
            if heading is None and _END.fullmatch(line) is None:
                continue
            held.take(column[begin:at])
            yield from held.closed(source)
            begin = at + 1
            if heading is None:
                held = _Open("", "", number + begin)
                continue
            service = heading.re is _SERVICE
            title = title if service else heading[2]
            name = heading[1] if service else section_name(heading[1], heading[2])
            held = _Open(name, f"dumpsys {name}" if service else heading[2], number + begin)
        held.take(column[begin:])
        number += len(column)
    yield from held.closed(source)


@dataclass(slots=True)
class ContextScan:
    """Gathers, line by line over all files of a dump, what holds for all its sections."""

    properties: dict[str, str] = field(default_factory=dict)
    packages: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    local_time: str | None = None
    _package: str | None = None

    def read(self, columns: Iterable[pl.Series]) -> None:
        """The lines of one file."""
        for column in columns:
            for line in column.filter(column.str.contains(_SAYING)).to_list():
                self.take(line)

    def take(self, line: str) -> None:
        """One line of any file."""
        first = line[:1]
        if first == "[":
            found = _PROPERTY.fullmatch(line)
            if found is not None:
                self.properties.setdefault(found[1], found[2])
        elif first == "=" and (found := _TAKEN.match(line)) is not None:
            self.local_time = self.local_time or found[1]
        elif first == "-" and self.local_time is None and (found := _END.fullmatch(line)) is not None:
            self.local_time = found[2]
        elif first == "p" and (found := _LISTED.fullmatch(line)) is not None:
            self._add(int(found[2]), found[1])
        elif first == " ":
            self._package_line(line)

    def _package_line(self, line: str) -> None:
        """Dumpsys package: a package's heading, then its uid."""
        if "Package [" in line and (found := _PACKAGE.match(line)) is not None:
            self._package = found[1]
        elif self._package is not None and (found := _PACKAGE_ID.match(line)) is not None:
            self._add(int(found[1]), self._package)
            self._package = None

    def _add(self, uid: int, package: str) -> None:
        if len(self.packages) < MOST_PACKAGES:
            self.packages[uid % 100_000].add(package)

    def context(self, device: str, name: str) -> DumpContext:
        """What was gathered. device: the user's word for it; name: used where the dump names none."""
        zone = _zone(self.properties.get("persist.sys.timezone", ""))
        return DumpContext(
            device=device or self.serial or name,
            taken=_local(self.local_time, zone or UTC),
            zone=zone or UTC,
            zone_known=zone is not None,
            packages={app: tuple(sorted(names)) for app, names in self.packages.items()},
            skew_bound_s=SKEW_BOUND_S if zone is not None else UNKNOWN_ZONE_S,
        )

    @property
    def serial(self) -> str:
        """The phone's serial number; empty where the dump does not say."""
        found = (self.properties.get(name, "") for name in ("ro.serialno", "ro.boot.serialno"))
        return next((serial for serial in found if serial and serial != "unknown"), "")


def _zone(name: str) -> tzinfo | None:
    """An IANA zone by name; None where it is none."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+\-]*(?:/[A-Za-z0-9_+\-]+){0,2}", name) or len(name) > 64:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _local(text: str | None, zone: tzinfo) -> int | None:
    """A dump's local time, us since epoch."""
    try:
        moment = datetime.strptime(text or "", "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
        return round(moment.timestamp() * 1_000_000) if moment.year >= 1971 else None
    except (ValueError, OverflowError):
        return None
