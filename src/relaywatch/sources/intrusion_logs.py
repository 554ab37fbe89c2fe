"""Android's intrusion logs (Advanced Protection): connects, name look-ups and security events as JSON lines.

Format: {"connect_event": {…}}, {"dns_event": {…}} with times in ms, {"security_event": {…}} with times in ns, as
AndroidQF collects them to intrusion_logs/*.txt and MVT's check-intrusion-logs reads them. Daily files overlap: an event
that another file of the folder repeats meets its twin again at the join, and in one file it is taken once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_events import (
    EventNames,
    connect_batches,
    instants_batches,
    lookup_batches,
    sound_times,
)
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

REMEMBERED: Final = 2_000_000
"""Events remembered by hash, so that a repeated one is taken once."""
_PROCESS: Final = pa.struct({"process": pa.string(), "uid": pa.int64(), "pid": pa.int64()})
SCHEMA: Final = pa.schema(
    {
        "connect_event": pa.struct(
            {"event_time": pa.int64(), "ip_address": pa.string(), "port": pa.int64(), "package_name": pa.string()}
        ),
        "dns_event": pa.struct(
            {
                "event_time": pa.int64(),
                "hostname": pa.string(),
                "ip_addresses": pa.list_(pa.string()),
                "package_name": pa.string(),
            }
        ),
        "security_event": pa.struct(
            {"event_id": pa.int64(), "event_time": pa.int64(), "app_process_start": _PROCESS, "tag": pa.string()}
        ),
    }
)
_KINDS: Final = frozenset(SCHEMA.names)


class IntrusionLogs:
    """One file of intrusion logs. The device is named by --device, or by the file's stem."""

    name: ClassVar[str] = "intrusion-logs"

    @staticmethod
    def fits(head: Head) -> bool:
        """A JSON object whose only key is one of the three kinds of event."""
        return any(len(record) == 1 and _KINDS & record.keys() for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and signals in file order."""
        device = reading.device or path.name.partition(".")[0]
        yield from read_events(path, stream, device, EventNames(), reading)


def read_events(path: Path, stream: BinaryIO, device: str, names: EventNames, reading: Reading) -> Iterator[Batch]:
    """Rows of JSON lines of events; names: of what was looked up before, and what is looked up here is added."""
    seen = pl.Series("seen", [], pl.UInt64)
    for frame in frames(stream, path, SCHEMA, reading):
        frame, seen = _fresh(frame.with_columns(pl.lit(device).alias("device")), seen, reading)
        batches = [*_lookups(frame, path, reading, names), *_security(frame, path, reading)]
        batches += _connects(frame, path, reading, names)
        nothing = pl.all_horizontal(pl.col(kind).is_null() for kind in _KINDS)
        reading.tally.left("no event of a known kind", frame.filter(nothing).height)
        reading.tally.gave(batches)
        yield from batches


def _fresh(frame: pl.DataFrame, seen: pl.Series, reading: Reading) -> tuple[pl.DataFrame, pl.Series]:
    """The events that were not met before."""
    keys = frame.select(pl.struct(sorted(_KINDS)).hash().alias("key"))["key"]
    again = keys.is_in(seen.implode()) | ~keys.is_first_distinct()
    reading.tally.left("an event that is listed twice", int(again.sum()))
    fresh = frame.with_columns(keys).filter(~again)
    return fresh, pl.concat([seen, fresh["key"].rename("seen")]).tail(REMEMBERED)


def _connects(frame: pl.DataFrame, path: Path, reading: Reading, names: EventNames) -> list[Batch]:
    event = pl.col("connect_event").struct
    rows = frame.filter(pl.col("connect_event").is_not_null()).select(
        "position",
        "device",
        (event.field("event_time") * 1_000).alias("time"),
        event.field("package_name").alias("package"),
        event.field("ip_address").alias("address"),
        event.field("port").alias("port"),
        "key",
    )
    return connect_batches(sound_times(rows, path, reading), path, reading, names)


def _lookups(frame: pl.DataFrame, path: Path, reading: Reading, names: EventNames) -> list[Batch]:
    event = pl.col("dns_event").struct
    rows = frame.filter(pl.col("dns_event").is_not_null()).select(
        "position",
        "device",
        (event.field("event_time") * 1_000).alias("time"),
        event.field("package_name").alias("package"),
        event.field("hostname").alias("hostname"),
        event.field("ip_addresses").alias("addresses"),
    )
    return lookup_batches(sound_times(rows, path, reading), path, names)


def _security(frame: pl.DataFrame, path: Path, reading: Reading) -> list[Batch]:
    """Process starts; other security events are sound and left."""
    event = pl.col("security_event").struct
    rows = frame.filter(pl.col("security_event").is_not_null()).select(
        "position",
        "device",
        (event.field("event_time") // 1_000).alias("time"),
        event.field("app_process_start").struct.field("process").alias("process"),
        event.field("app_process_start").struct.field("uid").alias("uid"),
    )
    rows = sound_times(rows, path, reading)
    starts = rows.filter(pl.col("process").is_not_null())
    reading.tally.left("a security event that no table holds", rows.height - starts.height)
    package = pl.col("process").str.split(":").list.first()
    told = starts.select("position", "device", "time", package.alias("package"), pl.col("process").alias("detail"))
    return instants_batches(told, SignalKind.PROCESS_START, path)
