"""MVT's timeline.csv by itself: the events that its text still tells apart.

Columns (mvt-project/mvt, src/mvt/common/module.py, save_timeline): "UTC Timestamp" or "Device Local Timestamp",
"Plugin", "Event", "Description". Descriptions are written for people; the JSON results beside it say more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.android_events import (
    SKEW_BOUND_S,
    EventNames,
    connect_batches,
    instants_batches,
    lookup_batches,
)
from relaywatch.sources.android_facts import LAST_INSTANT, UNKNOWN_ZONE_S
from relaywatch.sources.csv_records import header, records
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading

AT_ONCE: Final = 20_000
NOTHING: Final = "an event that no table holds"
_COLUMNS: Final = ["Plugin", "Event", "Description"]
_STAMPS: Final = {"UTC Timestamp": SKEW_BOUND_S, "Device Local Timestamp": SKEW_BOUND_S + UNKNOWN_ZONE_S}
"""Bounds of the two kinds of time: a local one does not say its zone, and is taken as UTC."""
_CONNECT: Final = re.compile(r"Connection to (\S{1,100}):(\d{1,5}) by (\S{1,255})(?: \[.*)?")
_LOOKUP: Final = re.compile(r"DNS query for (\S{1,255}) by (\S{1,255})(?: \[(?:Matched )?IPs: (.{1,4000})\])?")
_START: Final = re.compile(r"Process started: (\S{1,255}) \(UID: .*")


class MvtTimeline:
    """One timeline.csv: connects, name look-ups and process starts. The device: --device, or the file's stem."""

    name: ClassVar[str] = "mvt-timeline"

    @staticmethod
    def fits(head: Head) -> bool:
        """Its header."""
        found = header(head)
        return found is not None and found[1][:1] != [] and found[1][0] in _STAMPS and found[1][1:] == _COLUMNS

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and signals, AT_ONCE events at a time."""
        device, names = reading.device or path.name.partition(".")[0], EventNames()
        found = records(stream, path, reading, ",")
        while part := list(islice(found, AT_ONCE)):
            yield from _rows(part, device, path, names, reading)


def _rows(
    part: list[tuple[int, Mapping[str, str]]], device: str, path: Path, names: EventNames, reading: Reading
) -> Iterator[Batch]:
    kinds: dict[str, list[dict[str, Any]]] = {"connect": [], "lookup": [], "start": []}
    skew = SKEW_BOUND_S
    for position, record in part:
        stamp, _, event, text = record.values()
        skew = _STAMPS.get(next(iter(record)), skew)
        kind, values = _event(event, text)
        if not kind:
            reading.tally.left(NOTHING, 1)
            continue
        time = _microseconds(stamp)
        if time is None:
            reading.quarantine.add(str(path), f"line {position}", f"its time is missing or no time: {shown(stamp)}")
            continue
        kinds[kind].append({"position": position, "device": device, "time": time, **values})
    found = []
    if kinds["lookup"]:
        found += lookup_batches(_frame(kinds["lookup"]), path, names)
    if kinds["connect"]:
        frame = _frame(kinds["connect"]).with_columns(
            pl.struct("time", "package", "address", "port").hash().alias("key")
        )
        found += connect_batches(frame, path, reading, names)
    if kinds["start"]:
        found += instants_batches(_frame(kinds["start"]), SignalKind.PROCESS_START, path)
    reading.tally.gave(found)
    yield from (_bounded(one, skew) for one in found)


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    kinds: dict[str, pl.DataType | type[pl.DataType]] = {
        "addresses": pl.List(pl.String),
        "position": pl.Int64,
        "time": pl.Int64,
        "port": pl.Int64,
    }
    return pl.DataFrame(rows, schema={name: kinds.get(name, pl.String) for name in rows[0]})


def _event(event: str, text: str) -> tuple[str, dict[str, Any]]:
    """The kind of event, and what it says; empty: one that no table holds."""
    if event == "network_connection" and (found := _CONNECT.fullmatch(text)) is not None:
        return "connect", {"address": found[1], "port": int(found[2]), "package": found[3]}
    if event == "dns_query" and (found := _LOOKUP.fullmatch(text)) is not None:
        return "lookup", {"hostname": found[1], "package": found[2], "addresses": (found[3] or "").split(", ")}
    if event == "app_process_start" and (found := _START.fullmatch(text)) is not None:
        return "start", {"package": found[1].partition(":")[0], "detail": found[1]}
    return "", {}


def _microseconds(stamp: str) -> int | None:
    try:
        moment = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
        us = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    except (ValueError, OverflowError):
        return None
    return us if 0 <= us < LAST_INSTANT else None


def _bounded(part: Batch, skew: float) -> Batch:
    """The rows with the bound of their times."""
    at = part.rows.schema.get_field_index("clock_skew_bound_s")
    bounds = pa.repeat(pa.scalar(skew, pa.float32()), part.rows.num_rows)
    return Batch(part.table, part.rows.set_column(at, part.rows.schema.field(at), bounds))
