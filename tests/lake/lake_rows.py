"""Rows for lakes, written as canonical Parquet, and the lake's order said again without the lake's code."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.lake.compacting import compact
from relaywatch.lake.importing import ImportAccount, import_telemetry
from relaywatch.lake.lake import Lake
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import TABLES
from relaywatch.sources.discovery import discover
from relaywatch.sources.reading import Reading

DAY_S = 86_400
BEGIN_S = 1_767_225_600
"""2026-01-01 00:00:00 UTC."""
APP = ("device_uid", "android_package", "android_uid")
LEADING = {
    "flows": (*APP, "start_time"),
    "volumes": (*APP, "flow_id", "start_time"),
    "signals": ("device_uid", "start_time"),
    "inventory": APP,
}


class Quiet:
    """A watcher that counts what it was told."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()

    def reading(self, total_bytes: int) -> None:
        self.told["to read"] += total_bytes

    def read(self, stored_bytes: int) -> None:
        self.told["read"] += stored_bytes

    def writing(self, parts: int) -> None:
        self.told["to write"] += parts

    def written(self) -> None:
        self.told["written"] += 1


def instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(BEGIN_S + seconds, UTC)


def flow(device: str = "phone-1", start: float = 0.0, end: float | None = None, **more: Any) -> dict[str, Any]:
    return {
        "device_uid": device,
        "android_package": "org.example.app",
        "android_uid": 10_100,
        "flow_id": 1,
        "start_time": instant(start),
        "end_time": None if end is None else instant(end),
        "protocol_num": 6,
        "direction_id": 2,
        "direction_observability": 1,
        "bytes_observability": 1,
        "source": "a.pcap",
        "position": 1,
        "clock": "device",
        **more,
    }


def volume(device: str = "phone-1", start: float = 0.0, **more: Any) -> dict[str, Any]:
    kept = flow(device, start, position=7)
    names = [*APP, "flow_id", "start_time", "source", "position", "clock"]
    return {name: kept[name] for name in names} | {"duration_us": 1, "bytes_out": 3, "bytes_in": 4, **more}


def signal(device: str = "phone-1", start: float = 0.0, **more: Any) -> dict[str, Any]:
    kept = flow(device, start, position=8)
    return {name: kept[name] for name in (*APP, "start_time", "source", "position", "clock")} | {
        "kind": 1,
        "observability": 1,
        **more,
    }


def inventory(device: str = "phone-1", **more: Any) -> dict[str, Any]:
    kept = flow(device, position=9)
    return {name: kept[name] for name in (*APP, "source", "position", "clock")} | more


def write(path: Path, table: str, rows: Sequence[dict[str, Any]]) -> Path:
    """A canonical Parquet file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = [{name: row.get(name) for name in TABLES[table].names} for row in rows]
    plain = pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in TABLES[table]])
    pq.write_table(pa.Table.from_pylist(whole, plain), path)
    return path


def take(lake: Path, *paths: Path, device: str = "") -> ImportAccount:
    return import_telemetry(paths, lake, device, Quiet())


def compacted(lake: Path) -> Lake:
    compact(lake, Quiet())
    return Lake.open(lake)


def as_read(*paths: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows that the readers give, by table, as a multiset."""
    rows: dict[str, Counter[tuple[Any, ...]]] = {table: Counter() for table in TABLES}
    for unit in discover(paths).units:
        for batch in unit.read(Reading(Quarantine())):
            rows[batch.table].update(tuples([batch.rows]))
    return rows


def in_lake(lake: Lake) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows of a lake, by table, as a multiset."""
    rows = {
        table: Counter(row for part in lake.partitions(table) for row in tuples(lake.read(table, *part)))
        for table in ("flows", "volumes")
    }
    signals = Counter(row for shard in lake.shards("signals") for row in tuples(lake.signals(shard)))
    return {**rows, "signals": signals, "inventory": Counter(tuples(lake.inventory().to_batches()))}


def in_order(lake: Lake) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a lake by partition, in the order of its files."""
    rows = {
        f"{table} {day} {shard}": tuples(lake.read(table, day, shard))
        for table in ("flows", "volumes")
        for day, shard in lake.partitions(table)
    }
    rows |= {f"signals {shard}": tuples(lake.signals(shard)) for shard in lake.shards("signals")}
    return {**rows, "inventory": tuples(lake.inventory().to_batches())}


def tuples(batches: Iterable[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    """Rows as values that compare: times as microseconds, floats as their bits."""
    return [row for batch in batches for row in zip(*map(_values, batch.columns), strict=True)]


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if value is None else struct.pack(">f", value) for value in values]
    return values


def place(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a row's place in the lake's order depends on: null first, text by its UTF-8 bytes."""
    names = TABLES[table].names
    first = [*LEADING[table], "source", "position"]
    return tuple(_place(row[names.index(name)]) for name in [*first, *(name for name in names if name not in first)])


def _place(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    if isinstance(value, bytes):
        bits = int.from_bytes(value, "big")
        return (1, bits ^ (0xFFFFFFFF if bits >> 31 else 1 << 31))
    return (1, value.encode() if isinstance(value, str) else value)
