"""The results folder of MVT (Mobile Verification Toolkit): what its modules found on a phone, read and never run.

`mvt-android check-androidqf`, `check-bugreport` and `check-intrusion-logs` with -o write info.json, a JSON file for
each module with results, and timeline.csv. The dumps themselves hold more; where they are at hand, read those.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import IdentifierKind, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_events import EventNames
from relaywatch.sources.android_section import DumpContext, Section
from relaywatch.sources.android_sections import SECTION_LINES, ContextScan
from relaywatch.sources.androidqf import AndroidQfPackages
from relaywatch.sources.compression import open_content
from relaywatch.sources.intrusion_logs import read_events
from relaywatch.sources.json_records import frames
from relaywatch.sources.lines import LINE_BYTES
from relaywatch.sources.mvt_results import (
    PACKAGES,
    PROPERTIES,
    RESULTS,
    Numbered,
    Result,
    package_lines,
    property_lines,
)
from relaywatch.sources.mvt_timeline import MvtTimeline
from relaywatch.sources.reading import Head, Reading

INFO: Final = "info.json"
INFO_BYTES: Final = 1 << 20
TIMELINE: Final = "timeline.csv"
EVENTS: Final = ("dns_event", "connect_event", "security_event")
"""Modules of check-intrusion-logs; look-ups first, as they name the connects."""
_PROPERTY_FILES: Final = ("aqf_get_prop", "dumpsys_get_prop", "getprop")
_UNREAD: Final = (
    "alerts", "urls", "aqf_processes", "processes", "aqf_files", "aqf_log_timestamps", "root_binaries", "mounts",
     "dumpsys_accessibility", "dumpsys_activities", "dumpsys_battery_daily", "dbinfo", "dumpsys_dbinfo",
    "dumpsys_platform_compat", "dumpsys_receivers", "dumpsys_adb_state", "bugreport_timestamps", "tombstones", "sms",
)  # fmt: skip
_BESIDE: Final = ("alerts_timeline.csv", "command.log")
UNREAD: Final = "a result of MVT that is not read"
RESTATED: Final = "restates the results beside it"
NOTHING: Final = "gives no row of its own"


class MvtOutput:
    """A folder that MVT wrote its results to: reading.device, else the serial number, else the folder's name."""

    name: ClassVar[str] = "mvt-output"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The files of MVT's modules, where info.json says that MVT was here."""
        if not _is_mvt(folder / INFO):
            return frozenset()
        known = {*EVENTS, *_PROPERTY_FILES, *RESULTS, *_UNREAD, "aqf_packages"}
        names = {f"{name}{end}" for name in known for end in (".json", "_detected.json")}
        return frozenset(path for path in _files(folder) if path.name in {INFO, TIMELINE, *_BESIDE} | names)

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """FLOWS of connects, SIGNALS and INVENTORY: what the parsers of dumps and logs make of the results."""
        paths = {path.stem: path for path in sorted(self.members(folder))}
        reading.progress(sum(path.stat().st_size for path in paths.values()))
        scan = ContextScan()
        for name in (*_PROPERTY_FILES, "dumpsys_packages", "aqf_packages"):
            if name in paths:
                _gather(paths[name], name, scan)
        context = scan.context(reading.device, folder.name)
        names = EventNames()
        for name in sorted(
            paths, key=lambda name: (name not in EVENTS, EVENTS.index(name) if name in EVENTS else 0, name)
        ):
            try:
                yield from _result(name, paths, context, names, reading)
            except SourceError as damage:
                reading.tally.met(1)
                reading.quarantine.add(str(paths[name]), damage.position or "file", damage.reason)
        yield from _named(scan, context, paths, reading)


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.is_symlink() and path.is_file()]
    except OSError:
        return []


def _is_mvt(info: Path) -> bool:
    try:
        if info.is_symlink() or not info.is_file() or info.stat().st_size > INFO_BYTES:
            return False
        stated = json.loads(info.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stated, dict) and "mvt_version" in stated


def _gather(path: Path, name: str, scan: ContextScan) -> None:
    """Learn the zone, the serial number and the uids; what is damaged is told when its rows are read."""
    aside = Reading(Quarantine())
    schema = PROPERTIES if name in _PROPERTY_FILES else PACKAGES
    listed = name == "aqf_packages"
    if listed:
        schema = pa.schema({"name": pa.string(), "uid": pa.int64()})
    try:
        with open_content(path) as stream:
            for frame in frames(stream, path, schema, aside):
                records = frame.to_dicts()
                if listed:
                    lines = [f"package:{record['name']} uid:{record['uid']}" for record in records]
                else:
                    make = property_lines if name in _PROPERTY_FILES else package_lines
                    lines = [line for _, line in make(records)]
                for line in lines:
                    scan.take(line)
    except SourceError:
        return


def _named(scan: ContextScan, context: DumpContext, paths: dict[str, Path], reading: Reading) -> Iterator[Batch]:
    """The properties as records: they give the serial number, or only explain the others."""
    for name in _PROPERTY_FILES:
        if name not in paths:
            continue
        reading.tally.met(1)
        if not scan.serial:
            reading.tally.left(NOTHING, 1)
            continue
        columns = {"device_uid": context.device, "identifier_kind": str(IdentifierKind.SERIAL), "position": 1}
        columns |= {"identifier": scan.serial, "source": str(paths[name]), "clock": "device"}
        found = [batch("inventory", columns, length=1)]
        reading.tally.gave(found)
        yield from found


def _result(
    name: str, paths: dict[str, Path], context: DumpContext, names: EventNames, reading: Reading
) -> Iterator[Batch]:
    """Rows of one file."""
    path = paths[name]
    inner = Reading(reading.quarantine, context.device, tally=reading.tally)
    with open_content(path) as stream:
        if name in EVENTS:
            yield from read_events(path, cast("BinaryIO", _Wrapped(stream, name)), context.device, names, inner)
        elif name == "aqf_packages":
            yield from AndroidQfPackages().read(path, stream, inner)
        elif name in RESULTS:
            yield from _through(RESULTS[name], path, stream, context, inner)
        elif name == "timeline" and not any(event in paths for event in EVENTS) and MvtTimeline.fits(_head(path)):
            yield from MvtTimeline().read(path, stream, inner)
        elif name not in _PROPERTY_FILES:
            reading.tally.met(1)
            reading.tally.left(RESTATED if name in {"timeline", "info"} else UNREAD, 1)


def _head(path: Path) -> Head:
    with open_content(path) as stream:
        return Head(path, stream.read(4_096))


def _through(result: Result, path: Path, stream: BinaryIO, context: DumpContext, reading: Reading) -> Iterator[Batch]:
    """Rows that a parser of dumps makes of a module's results; a record of MVT's is one record."""
    records: Numbered = []
    damage: SourceError | None = None
    try:
        for frame in frames(stream, path, result.schema, reading):
            room = max(SECTION_LINES - len(records), 0)
            records += frame.head(room).to_dicts()
            reading.tally.left(f"beyond the {SECTION_LINES} records that are read", max(frame.height - room, 0))
    except SourceError as error:
        damage = error  # the records before it count
    made = [entry for _, entry in zip(range(SECTION_LINES), result.lines(records), strict=False)]
    owners = np.array([position for position, _ in made], np.int64)
    aside = Reading(Quarantine(), reading.device)
    section = Section(result.section, "", str(path), 1, [line for _, line in made])
    told: set[int] = set()
    for part in result.parser(section, context, aside):
        told |= set(owners[part.rows["position"].to_numpy(zero_copy_only=False) - 1].tolist())
        yield _owned(_kept(part, result), owners)
    damaged: dict[int, str] = {}
    for record in aside.quarantine.records:
        damaged.setdefault(int(owners[int(record.position.partition(" ")[2]) - 1]), record.reason)
    known = {record["position"] for record in records}
    for position in sorted((damaged.keys() - told) & known):
        reading.quarantine.add(str(path), f"record {position}", damaged[position])
    reading.tally.with_rows += len(told & known)
    reading.tally.left(NOTHING, len(known - told - damaged.keys()))
    if damage is not None:
        raise damage


def _kept(part: Batch, result: Result) -> Batch:
    """The rows, where a CAPTURE does not promise what MVT left out of its results."""
    if part.table != "signals" or not result.left_out:
        return part
    at = part.rows.schema.get_field_index("detail")
    said = part.rows["detail"].cast(pa.string())
    less = pc.utf8_trim_whitespace(pc.replace_substring(said, result.left_out, ""))
    details = pc.if_else(pc.equal(part.rows["kind"], int(SignalKind.CAPTURE)), less, said).dictionary_encode()
    return Batch(part.table, part.rows.set_column(at, part.rows.schema.field(at), details))


def _owned(part: Batch, owners: Any) -> Batch:  # noqa: ANN401 - an array of record numbers
    """The rows with their records' numbers for those of the lines."""
    at = part.rows.schema.get_field_index("position")
    numbers = pa.array(owners[part.rows["position"].to_numpy(zero_copy_only=False) - 1], pa.int64())
    return Batch(part.table, part.rows.set_column(at, part.rows.schema.field(at), numbers))


class _Wrapped(io.RawIOBase):
    """Lines of MVT's records of one kind of event as lines of the log that they were read from."""

    def __init__(self, lines: Sequence[bytes] | BinaryIO, kind: str) -> None:
        self._lines = cast("BinaryIO", lines)
        self._begin = b'{"%s": ' % kind.encode()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """About `size` bytes of whole lines; empty at the end."""
        taken, have = [], 0
        while size < 0 or have < max(size, 1):
            line = self._lines.readline(LINE_BYTES)
            if not line:
                break
            taken.append(self._begin + line.rstrip(b"\r\n") + b"}\n")
            have += len(taken[-1])
        return b"".join(taken)
