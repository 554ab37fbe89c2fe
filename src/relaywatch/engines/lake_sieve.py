"""The first look at a lake: which apps of a partition have a case, from the few columns that scoring needs.

A lake's files are sorted as a judgement wants its flows, so most apps are scored as they stand, without names and
without a sort; days of several stretches are parted into these. What is not so plain (flows that begin together,
volumes, sessions of nobody, more than one file) is judged as a hunt of files judges it. Either way the rows of the apps
that have a case are then judged with all that belongs to them, so the first look decides only what the second one sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.detection.calibration import FEWEST_BRIDGES
from relaywatch.detection.columns import Flags, FlowColumns, Ints, Keys, client_sides
from relaywatch.detection.sieving import may_have_case
from relaywatch.engines.arrangement import LOOKUP_PORTS, SECOND, US
from relaywatch.engines.intake import without_allowed
from relaywatch.engines.judging import Part, judge_part
from relaywatch.engines.local import ROWS_AT_ONCE, Hunt
from relaywatch.engines.names import text_keys
from relaywatch.engines.records import (
    FLOW,
    NO_UID,
    SIGNAL,
    VOLUME,
    AppKey,
    Records,
    Registry,
    flow_records,
    volume_records,
)
from relaywatch.engines.stretches import MOST_FLOWS
from relaywatch.engines.texts import Texts
from relaywatch.lake.lake import Lake
from relaywatch.model.schemas import Direction
from relaywatch.model.tables import Batch

COLUMNS: Final = (
    "device_uid",
    "android_package",
    "android_uid",
    "start_time",
    "end_time",
    "protocol_num",
    "direction_id",
    "local_port",
    "remote_ip",
    "remote_port",
    "bytes_out",
    "bytes_in",
)
NOT_KNOWN: Final = -1
PORTS: Final = 65_536
LOOKUPS: Final = np.isin(np.arange(PORTS), LOOKUP_PORTS)
MOST_BYTES: Final = 2**43
"""Bytes of a flow up to which sums over a stretch are exact in floating point."""


@dataclass(slots=True)
class Sifted:
    """What the first look at a partition found.

    cases: apps that have one, or may have; judged: app-days; apps, devices: hashes of those with flows; silent: apps
    without byte counts; counted: apps of which only the whole uid's bytes are known; the others count rows.
    """

    cases: set[AppKey] = field(default_factory=set)
    judged: int = 0
    apps: list[Keys] = field(default_factory=list)
    devices: list[Keys] = field(default_factory=list)
    silent: set[AppKey] = field(default_factory=set)
    counted: set[AppKey] = field(default_factory=set)
    flows: int = 0
    volumes: int = 0
    duplicates: int = 0
    unmatched: int = 0


def sift(lake: Lake, day: date, shard: int, devices: frozenset[str] | None, plan: Hunt) -> Sifted:
    """Look at one partition. devices: only these; None: all. Raises LakeError where a file is missing or damaged."""
    found = Sifted()
    plain = lake.is_one_run("flows", day, shard) and not lake.rows("volumes", day, shard)
    if not plain or plan.settings.allowed_destinations:
        for names in _bounded(lake, day, shard, devices):
            _judge(lake, day, shard, names, found, plan)
        return found
    special: set[str] = set()
    for rows in _whole_devices(lake.read("flows", day, shard, COLUMNS, devices)):
        special |= _score(rows, found, plan)
    for names in _bounded(lake, day, shard, frozenset(special)) if special else ():
        _judge(lake, day, shard, names, found, plan)
    return found


def _whole_devices(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in pieces that each hold all of their devices."""
    held: list[pa.RecordBatch] = []  # all of one device
    for batch in batches:
        codes = batch.column("device_uid").indices.to_numpy()
        earlier = np.flatnonzero(codes != codes[-1])
        begins = int(earlier[-1]) + 1 if len(earlier) else 0
        if begins:
            yield pa.Table.from_batches([*held, batch.slice(0, begins)])
            held = []
        elif held and held[-1].column("device_uid")[0].as_py() != batch.column("device_uid")[0].as_py():
            yield pa.Table.from_batches(held)
            held = []
        held.append(batch.slice(begins))
    if held:
        yield pa.Table.from_batches(held)


class _Rows:
    """Flows of whole devices in a lake's order, as arrays; groups are apps."""

    def __init__(self, rows: pa.Table) -> None:
        self._table = rows.unify_dictionaries()
        self.device, self.package = self._codes("device_uid"), self._codes("android_package")
        self.uid = self._numbers("android_uid", NO_UID)
        self.start = self._numbers("start_time")
        change = np.ones(len(self.start), np.bool_)
        change[1:] = np.diff(self.device) != 0
        change[1:] |= (np.diff(self.package) != 0) | (np.diff(self.uid) != 0)
        self.first = np.flatnonzero(change)
        self.offsets = np.append(self.first, len(change)).astype(np.int64)
        self.inbound: Flags = self._numbers("direction_id") == Direction.INBOUND
        self.order = np.arange(len(change))
        self.unsettled = self._by_stretch()

    def _codes(self, name: str) -> Ints:
        """Places in the column's values; NOT_KNOWN for null."""
        indices = pa.chunked_array([chunk.indices for chunk in self._table[name].chunks])
        return np.asarray(pc.fill_null(indices, NOT_KNOWN).to_numpy(), np.int64)

    def _values(self, name: str) -> pa.Array:
        return self._table[name].chunk(0).dictionary

    def _numbers(self, name: str, missing: int = NOT_KNOWN) -> Ints:
        column = self._table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        if column.null_count:
            column = pc.fill_null(column.cast(pa.int64()), missing)
        return np.asarray(column.to_numpy(), np.int64)

    def unplain(self) -> Flags:
        """Groups that cannot be scored as they stand: of equal starts, nobody's sessions, no one order, huge counts."""
        tied = np.append(False, np.diff(self.start) == 0)
        tied[self.first] = False
        nobody = (self.package == NOT_KNOWN) & (self.uid == NO_UID) & self.inbound
        huge = (self._numbers("bytes_out") > MOST_BYTES) | (self._numbers("bytes_in") > MOST_BYTES)
        return np.asarray(np.logical_or.reduceat(tied | nobody | huge, self.first) | self.unsettled)

    def _by_stretch(self) -> Flags:
        """Bring rows of groups with several stretches into their order; groups where equal ends leave that open."""
        unsettled = np.zeros(len(self.first), np.bool_)
        large = np.flatnonzero(np.diff(self.offsets) > MOST_FLOWS).tolist()
        written = np.maximum(self.start, self._numbers("end_time")) if large else self.start
        for group in large:
            a, b = self.offsets[group], self.offsets[group + 1]
            order = np.argsort(written[a:b], kind="stable")
            stretch = np.empty(b - a, np.int64)
            stretch[order] = np.arange(b - a) // MOST_FLOWS
            self.order[a:b] = a + np.argsort(stretch, kind="stable")
            edges = order[MOST_FLOWS::MOST_FLOWS], order[MOST_FLOWS - 1 : -1 : MOST_FLOWS]
            unsettled[group] = (written[a + edges[0]] == written[a + edges[1]]).any()
        return unsettled

    def stretches(self, groups: Ints) -> Ints:
        """How many stretches each of the groups has."""
        return np.asarray(-(-np.diff(self.offsets)[groups] // MOST_FLOWS))

    def columns(self, groups: Ints) -> FlowColumns:
        """Stretches of the groups as detection sees them: arrangement.flow_columns, but for the names of sides."""
        sizes, counts = np.diff(self.offsets), self.stretches(groups)
        keep = np.zeros(len(self.first), np.bool_)
        keep[groups] = True
        rows = self.order[np.repeat(keep, sizes)] if (counts > 1).any() or not keep.all() else slice(None)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        lengths = np.minimum(np.repeat(sizes[groups], counts) - place * MOST_FLOWS, MOST_FLOWS)
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        start, until = self.start[rows], self._numbers("end_time")[rows]
        origin = np.repeat(start[offsets[:-1]] // SECOND * SECOND, lengths)
        begin = (start - origin).astype(np.float64) * US
        inbound, port = self.inbound[rows], self._numbers("remote_port", 0)[rows]
        protocol = self._numbers("protocol_num")[rows]
        local = self._numbers("local_port", 0)[rows].astype(np.uint16)
        # A column's values are distinct, so their places stand for them here; ports stand below, where none is known.
        remote = self._codes("remote_ip")[rows]
        dialled = np.where(remote == NOT_KNOWN, port, remote + PORTS).astype(np.uint64)
        return FlowColumns(
            offsets=offsets,
            start=begin,
            end=np.where(until < start, begin, (until - origin) * US),
            bytes_out=self._numbers("bytes_out")[rows].astype(np.float64),
            bytes_in=self._numbers("bytes_in")[rows].astype(np.float64),
            inbound=inbound,
            side=client_sides(inbound, local, protocol.astype(np.uint8), dialled),
            lookup=LOOKUPS[port] & ~inbound,
            protocol=protocol,
        )

    def keys(self, groups: Ints) -> set[AppKey]:
        """Who the groups are."""
        devices, packages = self._values("device_uid"), self._values("android_package")
        rows = self.first[groups]
        return {
            AppKey(devices[device].as_py(), "" if package < 0 else packages[package].as_py(), uid)
            for device, package, uid in zip(
                self.device[rows].tolist(), self.package[rows].tolist(), self.uid[rows].tolist(), strict=True
            )
        }

    def hashes(self) -> tuple[Keys, Keys]:
        """A number for each group's app and for each device."""
        devices = text_keys(pl.Series(self._values("device_uid"))) if len(self.device) else np.empty(0, np.uint64)
        packages = np.append(text_keys(pl.Series(self._values("android_package"), dtype=pl.String)), np.uint64(0))
        device, package = devices[self.device[self.first]], packages[self.package[self.first]]
        return _hashed(device, package, self.uid[self.first]), np.unique(device)


def _score(rows: pa.Table, found: Sifted, plan: Hunt) -> set[str]:
    """Score what is plain of the rows; the devices of which something is not."""
    held = _Rows(rows)
    unplain = held.unplain()
    special = np.isin(held.device[held.first], held.device[held.first][unplain])
    groups = np.flatnonzero(~special)
    if len(groups):
        columns, counts = held.columns(groups), held.stretches(groups)
        begins = np.cumsum(counts) - counts
        uplink = float(plan.settings.uplink_bytes_threshold)
        likely = may_have_case(columns, plan.settings.time_window_s, FEWEST_BRIDGES, uplink, plan.tables)
        found.cases |= held.keys(groups[np.logical_or.reduceat(likely, begins)])
        known = (columns.bytes_out >= 0) & (columns.bytes_in >= 0)
        found.silent |= held.keys(groups[~np.logical_or.reduceat(known, columns.offsets[begins])])
        found.flows += len(columns.start)
    found.judged += len(groups)
    apps, devices = held.hashes()
    found.apps.append(apps[~special])
    found.devices.append(devices)
    return {key.device for key in held.keys(np.flatnonzero(special))}


def _bounded(lake: Lake, day: date, shard: int, devices: frozenset[str] | None) -> Iterator[frozenset[str]]:
    """The devices of a partition, so many at a time as hold about ROWS_AT_ONCE rows."""
    counts: Counter[str] = Counter()
    for table in ("flows", "volumes"):
        for batch in lake.read(table, day, shard, ["device_uid"], devices):
            told = batch.column(0).value_counts()
            counts.update(dict(zip(told.field(0).to_pylist(), told.field(1).to_pylist(), strict=True)))
    held: list[str] = []
    rows = 0
    for device, count in sorted(counts.items()):
        held.append(device)
        rows += count
        if rows > ROWS_AT_ONCE:
            yield frozenset(held)
            held, rows = [], 0
    if held:
        yield frozenset(held)


def _judge(lake: Lake, day: date, shard: int, devices: frozenset[str], found: Sifted, plan: Hunt) -> None:
    """Judge devices of a partition by all that is known of their flows and volumes."""
    registry, texts = Registry(), Texts()
    flows = [np.empty(0, FLOW)]
    for rows in lake.read("flows", day, shard, devices=devices):
        allowed = plan.settings.allowed_destinations
        left = without_allowed(rows, allowed) if allowed else rows
        flows.append(flow_records(Batch("flows", left), registry, texts))
    volumes = [
        volume_records(Batch("volumes", rows), registry) for rows in lake.read("volumes", day, shard, devices=devices)
    ]
    own, counted = np.concatenate(flows), np.concatenate([np.empty(0, VOLUME), *volumes])
    part = judge_part(own, counted, np.empty(0, SIGNAL), registry, plan.settings, plan.tables)
    found.cases |= _wanted(part, own, registry)
    found.judged += len(part.told)
    found.silent |= set(registry.app_keys(part.silent.astype(np.uint32)).values())
    only_counted = np.setdiff1d(counted["app"][counted["flow_id"] < 0], own["app"])
    found.counted |= set(registry.app_keys(only_counted).values())
    found.flows += len(own)
    found.volumes += len(counted)
    found.duplicates += part.duplicates
    found.unmatched += part.unmatched
    met = list(registry.app_keys(np.unique(own["app"])).values())
    found.apps.append(app_hashes(met))
    found.devices.append(np.unique(text_keys(pl.Series([key.device for key in met], dtype=pl.String))))


def rows_of_apps(rows: pa.RecordBatch, apps: set[AppKey]) -> pa.RecordBatch:
    """The rows of these apps."""
    who = pl.DataFrame(
        {
            "device": pl.Series(rows["device_uid"].cast(pa.string())),
            "package": pl.Series(rows["android_package"].cast(pa.string())).fill_null(""),
            "uid": pl.Series(rows["android_uid"]).cast(pl.Int64).fill_null(NO_UID),
        }
    ).with_row_index()
    wanted = pl.DataFrame(list(apps), {"device": pl.String, "package": pl.String, "uid": pl.Int64}, orient="row")
    chosen = who.join(wanted, on=["device", "package", "uid"], how="semi")["index"].sort()
    return rows.take(chosen.to_arrow())


def app_hashes(apps: Sequence[AppKey]) -> Keys:
    """A number for each app, the same wherever it is met."""
    devices, packages = (pl.Series([key[place] for key in apps], dtype=pl.String) for place in (0, 1))
    package = np.where(packages.to_numpy() == "", np.uint64(0), text_keys(packages))
    return _hashed(text_keys(devices), package, np.array([key.uid for key in apps], np.int64))


def _hashed(device: Keys, package: Keys, uid: Ints) -> Keys:
    columns = pl.DataFrame({"device": device, "package": package, "uid": uid})
    return np.asarray(columns.hash_rows(seed=1).to_numpy())


def _wanted(part: Part, flows: Records, registry: Registry) -> set[AppKey]:
    """The apps that have a case; where sessions of nobody are judged with a whole device, all apps of the device."""
    cases = part.cases()
    keys = registry.app_keys(np.array([case.app for case in cases], np.uint32))
    unknown = {key.device for key in keys.values() if not key.package and key.uid == NO_UID}
    every = registry.app_keys(np.unique(flows["app"])).values() if unknown else ()
    return {*keys.values(), *(key for key in every if key.device in unknown)}
