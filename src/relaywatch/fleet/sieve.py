"""The sieve that runs on executors: which days of which apps have a case, and how many were judged.

It judges by the same function as a hunt of files does, of numbers in place of names, and without what only explains a
case. Its word decides nothing but what the driver looks at: the driver judges the rows of each case again, with all
that belongs to them.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Flags, Ints
from relaywatch.detection.settings import Settings
from relaywatch.engines.judging import Part, judge_part
from relaywatch.engines.open_days import AT_ONCE
from relaywatch.engines.records import FLOW, NO_UID, SIGNAL, VOLUME, Codes, Records
from relaywatch.fleet.words import NO_PACKAGE, UNFIT, WORDS
from relaywatch.fleet.words import VOLUME as OF_VOLUME
from relaywatch.model.schemas import Direction

Words = npt.NDArray[np.int64]
"""Rows of WORDS."""
_AT: Final = {name: place for place, name in enumerate(WORDS)}
BUCKETS: Final = 64
"""Files into which a partition goes that is too large for memory, by device and day."""
_DAY: Final = 0xFFFF_FFFF


class Told(StrEnum):
    """What a row of a sieve's result tells."""

    CASE = "case"
    CASE_FLOWS = "case flows"
    CASE_VOLUMES = "case volumes"
    CONTACTS = "contacts"
    INSTALLED = "installed"
    LATE_FLOWS = "late flows"
    LATE_VOLUMES = "late volumes"
    JUDGED = "judged"
    SILENT = "silent"
    COUNTED = "counted"
    FLOWS = "flows"
    VOLUMES = "volumes"
    UNFIT = "unfit"
    DUPLICATES = "duplicates"
    UNUSED = "unused"


RESULT: Final = pa.schema(
    [
        ("told", pa.string()),
        ("day", pa.int32()),
        ("device", pa.int64()),
        ("package", pa.int64()),
        ("uid", pa.int32()),
        ("number", pa.int64()),
        ("content", pa.binary()),
    ]
)
"""CASE: one app's day of which the driver asks for the rows; CASE_FLOWS, CASE_VOLUMES, CONTACTS, LATE_FLOWS,
LATE_VOLUMES: rows themselves, as an Arrow IPC stream in `content`; INSTALLED: devices with a package, by name in
`content`; JUDGED: app-days judged of a day; SILENT: app-days without byte counts; COUNTED: app-days of which only the
whole uid's bytes are known; the others count rows."""
RESULT_SQL: Final = "told string, day int, device bigint, package bigint, uid int, number bigint, content binary"


class AppDay(NamedTuple):
    """One app's day, as RESULT names it."""

    day: int
    device: int
    package: int
    uid: int


@dataclass(slots=True)
class Sifted:
    """What a sieve found."""

    cases: set[AppDay] = field(default_factory=set)
    judged: Counter[int] = field(default_factory=Counter)
    counts: Counter[Told] = field(default_factory=Counter)
    rows: list[tuple[Told, int, int, bytes]] = field(default_factory=list)
    """Of which table, of which day, how many, as an Arrow IPC stream."""

    def count(self, part: Part, flows: Records, volumes: Records) -> None:
        """Count what was judged of these records."""
        self.judged.update(day for _, day in part.told)
        self.counts.update(
            {
                Told.FLOWS: len(flows),
                Told.VOLUMES: len(volumes),
                Told.DUPLICATES: part.duplicates,
                Told.UNUSED: part.unmatched,
                Told.SILENT: len(part.silent),
                Told.COUNTED: len(np.setdiff1d(volumes["app"][volumes["flow_id"] < 0], flows["app"])),
            }
        )

    def table(self) -> pa.RecordBatch:
        """As RESULT."""
        rows: list[tuple[object, ...]] = [(str(Told.CASE), *case, 1, None) for case in sorted(self.cases)]
        rows += [(str(Told.JUDGED), day, 0, 0, 0, number, None) for day, number in self.judged.items()]
        rows += [(str(told), 0, 0, 0, 0, number, None) for told, number in self.counts.items() if number]
        rows += [(str(told), day, 0, 0, 0, number, content) for told, day, number, content in self.rows]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(RESULT)
        return pa.RecordBatch.from_arrays(
            [pa.array(column, kind.type) for column, kind in zip(columns, RESULT, strict=True)], schema=RESULT
        )


def sieve(settings: Settings, tables: Tables) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: rows of WORDS in, all of each device's day; RESULT out."""

    def sifted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = Sifted()
        with tempfile.TemporaryDirectory(prefix="relaywatch-") as folder:
            for rows in _chunks(batches, Path(folder)):
                sift(rows, found, settings, tables)
        yield found.table()

    return sifted


def _chunks(batches: Iterable[pa.RecordBatch], folder: Path) -> Iterator[Words]:
    """The rows, AT_ONCE or so at a time and whole devices' days; by way of files where there are more."""
    held: list[Words] = []
    spilled, rows = False, 0
    for batch in batches:
        held.append(np.stack([column.to_numpy() for column in batch.columns], axis=1))
        rows += len(held[-1])
        if rows > AT_ONCE:
            _spill(held, folder)
            held, rows, spilled = [], 0, True
    if not spilled:
        if held:
            yield np.concatenate(held)
        return
    _spill(held, folder)
    waiting: list[Words] = []
    for path in sorted(folder.iterdir()):
        waiting.append(np.fromfile(path, np.int64).reshape(-1, len(WORDS)))
        path.unlink()
        if sum(map(len, waiting)) > AT_ONCE // 2:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _spill(held: list[Words], folder: Path) -> None:
    for rows in held:
        bucket = _mixed(rows[:, _AT["device"]], rows[:, _AT["uid_day"]] & _DAY) % np.uint64(BUCKETS)
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(BUCKETS + 1, dtype=np.uint64))
        for number in range(BUCKETS):
            part = order[bounds[number] : bounds[number + 1]]
            if len(part):
                with (folder / f"{number:02d}").open("ab") as file:
                    rows[part].tofile(file)


def _mixed(*values: Ints) -> npt.NDArray[np.uint64]:
    """One number of several, as far from those of others as chance puts it (the steps of SplitMix64)."""
    mixed = np.zeros(len(values[0]), np.uint64)
    for value in values:
        mixed = (mixed ^ value.astype(np.uint64)) + np.uint64(0x9E37_79B9_7F4A_7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


class _Coded:
    """Codes of the devices, apps and sources of some rows, as a Registry would give them."""

    def __init__(self, rows: Words) -> None:
        device, package, uid = rows[:, _AT["device"]], rows[:, _AT["package"]], rows[:, _AT["uid_day"]] >> 32
        self.devices, self.device = _numbered(device)
        apps, self.app = _numbered(_mixed(device, package, uid).view(np.int64))
        first = np.empty(len(apps), np.int64)
        first[self.app] = np.arange(len(rows))
        self.packages, self.uids, self._device_of = package[first], uid[first], self.device[first]
        self.sources, self.source = _numbered(rows[:, _AT["source"]])
        self._nobody: Flags = (self.packages == NO_PACKAGE) & (self.uids == NO_UID)

    def app_day(self, app: int, day: int) -> AppDay:
        """One app's day, by what Spark knows it."""
        return AppDay(day, int(self.devices[self._device_of[app]]), int(self.packages[app]), int(self.uids[app]))

    def source_ranks(self) -> Ints:
        """Place of each source among all."""
        return np.arange(len(self.sources))

    def anonymous(self, codes: npt.NDArray[np.uint32], /) -> Flags:
        """Whether nothing is known of the app."""
        return np.asarray(self._nobody[codes])


def _numbered(values: Ints) -> tuple[Ints, Ints]:
    """Distinct values in order, and each one's place among them."""
    distinct = np.sort(pl.Series(values).unique().to_numpy())
    return distinct, np.searchsorted(distinct, values) if len(distinct) > 1 else np.zeros(len(values), np.int64)


def sift(rows: Words, found: Sifted, settings: Settings, tables: Tables) -> None:
    """Judge rows of WORDS, all there are of some devices' days, and note what there is of cases."""
    marks = rows[:, _AT["marks"]]
    unfit = marks == UNFIT
    if unfit.any():
        found.counts[Told.UNFIT] += int(unfit.sum())
        rows, marks = rows[~unfit], marks[~unfit]
    if not len(rows):
        return
    codes, of_volume = _Coded(rows), marks == OF_VOLUME
    flows, volumes = _flows(rows, codes, ~of_volume), _volumes(rows, codes, of_volume)
    part = judge_part(flows, volumes, np.empty(0, SIGNAL), codes, settings, tables)
    found.cases |= {codes.app_day(app, day) for app, day in wanted(part, flows, codes)}
    found.count(part, flows, volumes)


def _flows(rows: Words, codes: _Coded, which: Flags) -> Records:
    own = rows[which]
    out = np.zeros(len(own), FLOW)
    out["device"], out["app"], out["source"] = codes.device[which], codes.app[which], codes.source[which]
    for name in ("start", "bytes_out", "bytes_in", "flow_id", "position"):
        out[name] = own[:, _AT[name]]
    out["end"] = own[:, _AT["until"]]
    out["remote"] = own[:, _AT["remote"]].view(np.uint64)
    marks = own[:, _AT["marks"]]
    out["direction"], out["protocol"] = marks & 0xFF, (marks >> 8) & 0xFF
    out["local_port"], out["remote_port"] = (marks >> 16) & 0xFFFF, (marks >> 32) & 0xFFFF
    return out


def _volumes(rows: Words, codes: _Coded, which: Flags) -> Records:
    own = rows[which]
    out = np.zeros(len(own), VOLUME)
    out["device"], out["app"], out["source"] = codes.device[which], codes.app[which], codes.source[which]
    for name in ("flow_id", "start", "bytes_out", "bytes_in"):
        out[name] = own[:, _AT[name]]
    out["duration"] = own[:, _AT["until"]]
    return out


def wanted(part: Part, flows: Records, codes: Codes) -> set[tuple[int, int]]:
    """App codes and days of the cases; where sessions of nobody are judged with a whole device, all of its day."""
    keys = {(case.app, case.day) for case in part.cases()}
    if not keys:
        return keys
    nobody = codes.anonymous(flows["app"]) & (flows["direction"] == Direction.INBOUND)
    device_of = np.zeros(int(flows["app"].max()) + 1, np.int64)
    device_of[flows["app"]] = flows["device"]
    unlaid = set(np.unique(flows["device"][nobody]).tolist())
    whole = {(device_of[app], day) for app, day in keys if device_of[app] in unlaid}
    return keys | {(app, day) for app, day in part.told if whole and (device_of[app], day) in whole}
