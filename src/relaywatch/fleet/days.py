"""A stream's state on executors: the days of a shard as a log of Arrow pieces, judged when they are over.

What comes is only appended, as it came, so a micro-batch costs its own rows and not those of the day; what a day comes
to is judged once, by the same function as a hunt of files.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from relaywatch.detection.calibration import Tables
from relaywatch.detection.columns import Ints
from relaywatch.detection.settings import Settings
from relaywatch.engines.open_days import AT_ONCE
from relaywatch.engines.stretches import DAY_US
from relaywatch.fleet.sieve import Sifted, Told
from relaywatch.fleet.whole_rows import Rows, from_bytes, sift_rows, to_bytes, to_judge
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES, Direction
from relaywatch.model.tables import TableName
from relaywatch.sources.canonical import fitted

PIECE: Final = "shard int, day int, clock bigint, what string, number bigint, content binary"
"""Rows of one table, shard and day; what: a table, UNFIT or DRAIN; clock: us since epoch of the middle flow of those
that came together, 0 where that is not known."""
_PIECE: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("day", pa.int32()),
        ("clock", pa.int64()),
        ("what", pa.string()),
        ("number", pa.int64()),
        ("content", pa.binary()),
    ]
)
UNFIT: Final = "unfit"
DRAIN: Final = "drain"
"""No more rows come: all days are over."""
CONTACT: Final = "day int, package string, remote_hostname string, remote_ip string, first string, last string"
INSTALL: Final = "day int, package string, devices bigint"
_LATE: Final = {"flows": Told.LATE_FLOWS, "volumes": Told.LATE_VOLUMES}
_NEVER: Final = -1


def pieces(table: TableName, shards: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: canonical rows in, PIECE out."""

    def parted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = fitted(table, batch, 1, Path(table), Quarantine()).rows
            found = list(_parted(table, rows, shards)) if rows.num_rows else []
            if batch.num_rows > rows.num_rows:
                found.append((0, 0, 0, UNFIT, batch.num_rows - rows.num_rows, None))
            if found:
                columns = zip(zip(*found, strict=True), _PIECE, strict=True)
                yield pa.RecordBatch.from_arrays([pa.array(c, kind.type) for c, kind in columns], schema=_PIECE)

    return parted


def _parted(table: TableName, rows: pa.RecordBatch, shards: int) -> Iterator[tuple[Any, ...]]:
    start = rows["start_time"].view(pa.int64()).to_numpy()
    written = start
    if table == "flows":
        end = rows["end_time"].view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        written = np.maximum(start, end)
    clock = min(int(np.median(written)), time.time_ns() // 1_000) if table == "flows" else 0
    day = written // DAY_US
    key = day * shards + _shard(rows, shards)
    order = np.argsort(key, kind="stable")
    cuts = np.flatnonzero(np.append(True, np.diff(key[order]) != 0))
    for begin, end in zip(cuts, np.append(cuts[1:], len(order)), strict=True):
        own = rows.take(pa.array(order[begin:end]))
        at, shard = divmod(int(key[order[begin]]), shards)
        yield shard, at, clock, table, own.num_rows, to_bytes(_lean(own))


def _lean(rows: pa.RecordBatch) -> pa.Table:
    """The rows with the text that they use, and none that their neighbours used."""
    columns = [c.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(c.type) else c for c in rows.columns]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _shard(rows: pa.RecordBatch, shards: int) -> Ints:
    devices = rows["device_uid"]
    of = np.array([zlib.crc32(name.encode()) % shards for name in devices.dictionary.to_pylist()], np.int64)
    return np.asarray(of[devices.indices.to_numpy()])


class Clock(NamedTuple):
    """How far a shard's time has come, us since epoch, and the last day that is over."""

    at: int = 0
    closed: int = _NEVER


class Days(StatefulProcessor):
    """The state of one shard."""

    def __init__(self, settings: Settings, tables: Tables, lag_us: int) -> None:
        self._settings, self._tables, self._lag = settings, tables, lag_us

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Name the state: pieces by day and number, how many of each day, and the clock."""
        self._log = handle.getMapState("log", "day int, number int", "what string, content binary")
        self._held = handle.getMapState("days", "day int", "pieces int")
        self._clock = handle.getValueState("clock", "at bigint, closed int")

    def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:  # noqa: N802, N803, ANN401  Spark's own signature
        """Take pieces in; what has become of days that are over, as RESULT."""
        clock = Clock(*(self._clock.get() or ()))
        found, at, drained = Sifted(), clock.at, False
        for _, day, when, what, number, content in rows:
            drained |= what == DRAIN
            at = max(at, when)
            if what == UNFIT:
                found.counts[Told.UNFIT] += number
            elif what in _LATE and day <= clock.closed:
                found.rows.append((_LATE[what], day, number, bytes(content)))
            elif what in _LATE:
                self._append(day, what, bytes(content))
        closed = clock.closed
        for day in sorted(int(day) for (day,) in self._held.keys()):  # noqa: SIM118  a state, not a dict
            if drained or (day + 1) * DAY_US + self._lag <= at:
                self._close(day, found)
                closed = day
        self._clock.update((at, max(closed, clock.closed)))
        for row in found.table().to_pylist():
            yield Row(**row)

    def close(self) -> None:
        """Nothing is held beside the state."""

    def _append(self, day: int, what: str, content: bytes) -> None:
        number = self._pieces(day)
        self._log.updateValue((day, number), (what, content))
        self._held.updateValue((day,), (number + 1,))

    def _pieces(self, day: int) -> int:
        held = self._held.getValue((day,))
        return int(held[0]) if held else 0

    def _close(self, day: int, found: Sifted) -> None:
        held: dict[TableName, list[pa.Table]] = {"flows": [], "volumes": []}
        for number in range(self._pieces(day)):
            for what, content in filter(None, [self._log.getValue((day, number))]):
                held[what].append(from_bytes(bytes(content)))
            self._log.removeKey((day, number))
        self._held.removeKey((day,))
        flows, volumes = (_whole(name, parts) for name, parts in held.items())
        for own, intervals in _by_devices(flows, volumes):
            sound = to_judge(own.to_batches(), self._settings)
            sift_rows(sound, intervals.to_batches(), found, self._settings, self._tables)
            if sound:
                _note_contacts(day, sound, found)


def _whole(name: TableName, parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([TABLES[name].empty_table(), *parts]).unify_dictionaries().combine_chunks()


def _by_devices(flows: pa.Table, volumes: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The rows in parts of AT_ONCE flows or so, whole devices each."""
    parts = flows.num_rows // AT_ONCE + 1
    if parts == 1:
        yield flows, volumes
        return
    of_flows, of_volumes = _part(flows, parts), _part(volumes, parts)
    for number in range(parts):
        yield flows.filter(pa.array(of_flows == number)), volumes.filter(pa.array(of_volumes == number))


def _part(table: pa.Table, parts: int) -> Ints:
    # Not by the hash itself, whose remainder is the shard.
    names = table["device_uid"].cast(pa.string())
    return np.asarray(pl.Series(names).hash(seed=2).to_numpy() % np.uint64(parts)).astype(np.int64)


def _note_contacts(day: int, flows: Rows, found: Sifted) -> None:
    """Whom the installs of each package contact: of each destination two devices, and the devices of each package."""
    names = ["device_uid", "android_package", "remote_hostname", "remote_ip"]
    rows = pl.DataFrame(pa.Table.from_batches([batch.select([*names, "direction_id"]) for batch in flows]))
    known = rows.with_columns(pl.col(names).cast(pl.String)).filter(pl.col("android_package").is_not_null())
    own = known.rename({"android_package": "package"}).with_columns(pl.lit(day, pl.Int32).alias("day"))
    dialled = own.filter(pl.col("direction_id") != int(Direction.INBOUND))
    ends = [pl.col("device_uid").min().alias("first"), pl.col("device_uid").max().alias("last")]
    reached = dialled.group_by("day", "package", "remote_hostname", "remote_ip").agg(ends)
    counted = own.group_by("day", "package").agg(pl.col("device_uid").n_unique().cast(pl.Int64).alias("devices"))
    for told, table in ((Told.CONTACTS, reached), (Told.INSTALLED, counted)):
        found.rows.append((told, day, table.height, to_bytes(table.to_arrow())))
