"""Usage logs of the Android Management API: security and network events of managed devices, by batches.

Format: BatchUsageLogEvents of the API's discovery document, in Pub/Sub envelopes or bare, or single UsageLogEvents.
Batches come late, out of order and twice: an event counts once by device and eventId. One record is one event, numbered
through the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, cast

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.android_events import (
    EventNames,
    connect_batches,
    instants_batches,
    lookup_batches,
    provenance,
    sound_times,
)
from relaywatch.sources.columns import column, text
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.management_envelope import Opened, inside
from relaywatch.sources.reading import Head, Reading

REMEMBERED: Final = 5_000_000
"""Events remembered by hash, so that a repeated one is taken once."""
KEYGUARD_KEPT: Final = 1_000_000
"""Keyguard and logging events held for the end, where they become intervals."""
_EVENT: Final = pa.struct(
    {
        "eventId": pa.string(),
        "eventTime": pa.string(),
        "eventType": pa.string(),
        "connectEvent": pa.struct(
            {"destinationIpAddress": pa.string(), "destinationPort": pa.int64(), "packageName": pa.string()}
        ),
        "dnsEvent": pa.struct(
            {"hostname": pa.string(), "ipAddresses": pa.list_(pa.string()), "packageName": pa.string()}
        ),
        "appProcessStartEvent": pa.struct(
            {"processInfo": pa.struct({"processName": pa.string(), "packageNames": pa.list_(pa.string())})}
        ),
    }
)
SCHEMA: Final = pa.schema(
    {"device": pa.string(), "usageLogEvents": pa.list_(_EVENT), **{f.name: f.type for f in _EVENT}}
)
_FIELDS: Final = tuple(field.name for field in _EVENT)
_STATES: Final = {
    "KEYGUARD_SECURED": SignalKind.KEYGUARD_LOCKED,
    "LOGGING_STOPPED": SignalKind.LOGGING_GAP,
}
"""Events that begin a state, and the kind of it; _ENDS end it."""
_ENDS: Final = {"KEYGUARD_DISMISSED": "KEYGUARD_SECURED", "LOGGING_STARTED": "LOGGING_STOPPED"}
_USED: Final = ("CONNECT", "DNS", "APP_PROCESS_START", "LOG_BUFFER_SIZE_CRITICAL", *_STATES, *_ENDS)
_SHOWN: Final = {
    "DNS": SignalKind.NAME_LOOKUP,
    "APP_PROCESS_START": SignalKind.PROCESS_START,
    "KEYGUARD_SECURED": SignalKind.KEYGUARD_LOCKED,
    "KEYGUARD_DISMISSED": SignalKind.USER_INTERACTION,
}


class ManagementUsageLogs:
    """Usage logs in any of their wrappings. The device is the resource name's last part, unless --device names it."""

    name: ClassVar[str] = "management-api-usage-logs"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record, or what its envelope holds, that lists usageLogEvents or is an event with a type and an object."""
        return any(_is_log(inside(record) or record) for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and signals as they come; keyguard intervals, gaps and what was watched at the end."""
        log = _Log(path, reading)
        for frame in frames(cast("BinaryIO", Opened(stream)), path, SCHEMA, reading):
            yield from log.batches(frame)
        yield from log.rest()


def _is_log(record: dict[str, object]) -> bool:
    listed = record.get("usageLogEvents")
    return isinstance(listed, list) or {"eventId", "eventTime", "eventType"} <= record.keys()


class _Log:
    """One file on its way to rows."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._names = EventNames()
        self._seen = pl.Series("seen", [], pl.UInt64)
        self._met = 0
        self._states: list[pl.DataFrame] = []
        self._spans: list[pl.DataFrame] = []

    def batches(self, frame: pl.DataFrame) -> list[Batch]:
        """Rows of a frame of lines."""
        events = self._fresh(self._timed(self._events(frame)))
        self._spans.append(
            events.group_by("device", "eventType").agg(pl.col("time").min().alias("first"), pl.col("time").max())
        )
        if sum(map(len, self._states)) < KEYGUARD_KEPT:
            self._states.append(
                events.filter(pl.col("eventType").is_in([*_STATES, *_ENDS])).select(
                    "position", "device", "time", "eventType"
                )
            )
        found = [
            *lookup_batches(self._lookups(events), self._path, self._names),
            *connect_batches(self._connects(events), self._path, self._reading, self._names, place="event"),
            *instants_batches(_starts(events), SignalKind.PROCESS_START, self._path),
            *instants_batches(_alone(events, "KEYGUARD_DISMISSED"), SignalKind.USER_INTERACTION, self._path),
            *instants_batches(_alone(events, "LOG_BUFFER_SIZE_CRITICAL"), SignalKind.LOGGING_GAP, self._path),
        ]
        others = events.filter(~pl.col("eventType").is_in(_USED) | pl.col("eventType").is_null())
        self._reading.tally.left("an event that no table holds", others.height)
        ends = events.filter(pl.col("eventType") == "LOGGING_STARTED").height
        self._reading.tally.left("the end of a state", ends)
        self._reading.tally.gave(found)
        return found

    def rest(self) -> Iterator[Batch]:
        """States as intervals, and what was watched."""
        states = pl.concat(self._states) if self._states else pl.DataFrame()
        if not states.is_empty():
            intervals = _intervals(states)
            if intervals.height:
                found = [self._state_batch(intervals)]
                self._reading.tally.gave(found)
                yield from found
        spans = pl.concat(self._spans) if self._spans else pl.DataFrame()
        if not spans.is_empty():
            yield self._captures(spans)

    def _events(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One row an event, numbered on; lines without any are left with the reason."""
        listed = frame.filter(pl.col("usageLogEvents").list.len() > 0)
        single = frame.filter(pl.col("usageLogEvents").is_null() & pl.col("eventTime").is_not_null())
        many = listed.select("position", "device", pl.col("usageLogEvents").alias("event")).explode("event")
        unnested = many.select("position", "device", *(pl.col("event").struct.field(name) for name in _FIELDS))
        events = pl.concat([unnested, single.select("position", "device", *_FIELDS)]).sort(
            "position", maintain_order=True
        )
        self._reading.tally.met(unnested.height - listed.height)
        self._reading.tally.left(
            "a notification without usage log events", frame.height - listed.height - single.height
        )
        device = (
            pl.lit(self._reading.device)
            if self._reading.device
            else pl.coalesce(pl.col("device").str.split("/").list.last(), pl.lit(self._path.name.partition(".")[0]))
        )
        first, self._met = self._met + 1, self._met + events.height
        return events.with_columns(
            device.alias("device"), pl.int_range(first, first + events.height, dtype=pl.Int64).alias("position")
        )

    def _timed(self, events: pl.DataFrame) -> pl.DataFrame:
        time = pl.col("eventTime").str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False).dt.epoch("us")
        return sound_times(events.with_columns(time.alias("time")), self._path, self._reading, place="event")

    def _fresh(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events that were not met before, by device, id and time."""
        what = pl.struct("device", "eventId", "time", "eventType", "connectEvent", "dnsEvent")
        keys = events.select(what.hash().alias("key"))["key"]
        again = keys.is_in(self._seen.implode()) | ~keys.is_first_distinct()
        self._reading.tally.left("an event that came before", int(again.sum()))
        fresh = events.with_columns(keys).filter(~again)
        self._seen = pl.concat([self._seen, fresh["key"].rename("seen")]).tail(REMEMBERED)
        return fresh

    def _lookups(self, events: pl.DataFrame) -> pl.DataFrame:
        event = pl.col("dnsEvent").struct
        return events.filter(pl.col("eventType") == "DNS").select(
            "position",
            "device",
            "time",
            event.field("packageName").alias("package"),
            event.field("hostname").alias("hostname"),
            event.field("ipAddresses").alias("addresses"),
        )

    def _connects(self, events: pl.DataFrame) -> pl.DataFrame:
        event = pl.col("connectEvent").struct
        return events.filter(pl.col("eventType") == "CONNECT").select(
            "position",
            "device",
            "time",
            event.field("packageName").alias("package"),
            event.field("destinationIpAddress").alias("address"),
            event.field("destinationPort").alias("port"),
            "key",
        )

    def _state_batch(self, intervals: pl.DataFrame) -> Batch:
        columns = {
            "device_uid": text(intervals["device"]),
            "kind": column(intervals["kind"]),
            "start_time": column(intervals["time"]),
            "end_time": column(intervals["until"]),
            "observability": int(Observability.OBSERVED),
            "detail": text(intervals["eventType"]),
            "position": column(intervals["position"]),
            **provenance(self._path),
        }
        return batch("signals", columns, length=intervals.height)

    def _captures(self, spans: pl.DataFrame) -> Batch:
        """What each device's log showed, from its first event to its last."""
        shown = {name: kind.name for name, kind in _SHOWN.items()}
        whole = (
            spans.group_by("device")
            .agg(
                pl.col("first").min(),
                pl.col("time").max(),
                pl.col("eventType")
                .replace_strict(shown, default=None, return_dtype=pl.String)
                .drop_nulls()
                .unique()
                .sort(),
            )
            .sort("device")
        )
        columns = {
            "device_uid": text(whole["device"]),
            "kind": int(SignalKind.CAPTURE),
            "start_time": column(whole["first"]),
            "end_time": column(whole["time"]),
            "observability": int(Observability.OBSERVED),
            "detail": text(whole["eventType"].list.join(" ")),
            "position": 1,
            **provenance(self._path),
        }
        return batch("signals", columns, length=whole.height)


def _starts(events: pl.DataFrame) -> pl.DataFrame:
    """Process starts, by package where there is one."""
    process = pl.col("appProcessStartEvent").struct.field("processInfo").struct
    names = process.field("packageNames")
    of_process = process.field("processName").str.split(":").list.first()
    return events.filter(pl.col("eventType") == "APP_PROCESS_START").select(
        "position",
        "device",
        "time",
        pl.when(names.list.len() == 1).then(names.list.first()).otherwise(of_process).alias("package"),
        process.field("processName").alias("detail"),
    )


def _alone(events: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Events of the whole device."""
    return events.filter(pl.col("eventType") == kind).select(
        "position", "device", "time", pl.lit(None, pl.String).alias("package"), pl.col("eventType").alias("detail")
    )


def _intervals(states: pl.DataFrame) -> pl.DataFrame:
    """States from the event that begins each to the next that ends it: with columns until and kind."""
    family = pl.col("eventType").replace(_ENDS)
    ordered = states.with_columns(family.alias("family")).sort("device", "family", "time", "position")
    ends = pl.when(pl.col("eventType").is_in(list(_ENDS))).then(pl.col("time"))
    until = ends.backward_fill().over("device", "family").alias("until")
    begun = ordered.with_columns(until).filter(pl.col("eventType").is_in(list(_STATES)))
    kinds = {name: int(kind) for name, kind in _STATES.items()}
    return begun.with_columns(pl.col("eventType").replace_strict(kinds, return_dtype=pl.UInt8).alias("kind"))
