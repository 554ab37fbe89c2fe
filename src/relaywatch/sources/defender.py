"""Microsoft Defender for Endpoint, advanced hunting: network events, device information, adapters' addresses.

As streamed ({time, category: "AdvancedHunting-...", properties: {}}), as bare rows of a query, or as the portal's CSV.
A network event is one report, not one measured connection: no bytes, no end. Whether Android devices fill the table is
not documented; a process name is taken as a package only on a device that a record calls Android.
Format: Microsoft's schema reference of DeviceNetworkEvents, DeviceInfo and DeviceNetworkInfo.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, TypeVar, cast

import polars as pl
import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.model.tables import Batch
from relaywatch.sources import csv_records
from relaywatch.sources.columns import LAST_SECOND
from relaywatch.sources.defender_context import Adapters, Devices, device_rows
from relaywatch.sources.defender_events import event_batches
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.lines import typed
from relaywatch.sources.reading import HEAD_BYTES, Head, Reading

_TEXTS: Final = (
    "Timestamp", "TimeGenerated", "DeviceId", "DeviceName", "ActionType", "RemoteIP", "RemoteUrl", "LocalIP",
    "Protocol", "InitiatingProcessFileName", "InitiatingProcessAccountUpn", "AdditionalFields", "OSPlatform",
    "OSVersion", "PublicIP", "LoggedOnUsers", "MachineGroup", "AadDeviceId", "DeviceType", "OnboardingStatus",
    "MacAddress", "IPAddresses", "NetworkAdapterStatus", "NetworkAdapterName",
)  # fmt: skip
_PORTS: Final = ("LocalPort", "RemotePort")
_FIELDS: Final = [*(pa.field(n, pa.string()) for n in _TEXTS), *(pa.field(n, pa.int64()) for n in _PORTS)]
_STREAMED: Final = pa.schema(
    [pa.field("time", pa.string()), pa.field("category", pa.string()), pa.field("properties", pa.struct(_FIELDS))]
)
_EITHER: Final = pa.schema([*_STREAMED, *_FIELDS])
_CATEGORY: Final = "AdvancedHunting-"
_EVENTS, _INFO, _ADAPTERS = "DeviceNetworkEvents", "DeviceInfo", "DeviceNetworkInfo"
_ROWS: Final = 20_000
"""Records taken at once: they are wide, so that a block of text holds few of them."""


class Defender:
    """Advanced hunting rows as JSON lines: streamed or the answer of a query."""

    name: ClassVar[str] = "defender"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record's category is of advanced hunting, or it has the columns of one of the three tables."""
        return any(
            str(record.get("category", "")).startswith(_CATEGORY) or _has_columns(record)
            for record in first_records(head)[:3]
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory, flows and signals by blocks."""
        start = stream.read(HEAD_BYTES)
        bare = any("properties" not in record for record in first_records(Head(path, start)))
        schema = _EITHER if bare else _STREAMED  # each field that no record has costs as one that all have
        flat = (_flat(frame) for frame in frames(cast("BinaryIO", _Rejoined(start, stream)), path, schema, reading))
        parts = (pl.concat(part) for part in _gathered(flat, pl.DataFrame.__len__))
        yield from _all(parts, path, reading)


class _Rejoined(io.BufferedIOBase):
    """A stream whose start was read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def read(self, size: int | None = -1) -> bytes:
        start, self._start = self._start, b""
        return start or self._rest.read(-1 if size is None else size)


class DefenderCsv:
    """Advanced hunting rows as the portal exports them: CSV with the columns' names as header."""

    name: ClassVar[str] = "defender-csv"

    @staticmethod
    def fits(head: Head) -> bool:
        """The header names the columns of one of the three tables."""
        found = csv_records.header(head)
        return found is not None and found[0] == "," and _has_columns(dict.fromkeys(found[1], ""))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory, flows and signals by blocks."""
        rows = (
            {name: record.get(name) or None for name in (*_TEXTS, *_PORTS)} | {"position": number}
            for number, record in csv_records.records(stream, path, reading, ",")
        )
        yield from _all((_from_csv(part, path, reading) for part in _gathered(rows, lambda _: 1)), path, reading)


def _all(parts: Iterable[pl.DataFrame], path: Path, reading: Reading) -> Iterator[Batch]:
    """The rows of all parts, then the addresses that adapters have at the end, or where the damage begins."""
    devices, adapters = Devices(reading.device), Adapters(path)
    try:
        for part in parts:
            yield from _batches(part, path, reading, devices, adapters)
    except SourceError:
        yield from adapters.rest(devices)
        raise
    yield from adapters.rest(devices)


_Part = TypeVar("_Part")


def _gathered(parts: Iterable[_Part], size: Callable[[_Part], int]) -> Iterator[list[_Part]]:
    """The parts in lists of about _ROWS rows; those before damage come before its SourceError."""
    held: list[_Part] = []
    rows = 0
    try:
        for part in parts:
            held.append(part)
            rows += size(part)
            if rows >= _ROWS:
                yield held
                held, rows = [], 0
    except SourceError:
        if held:
            yield held
        raise
    if held:
        yield held


def _has_columns(record: dict[str, Any]) -> bool:
    """Whether these are columns of a table read here; a query may have left any column out but these."""
    if "DeviceId" not in record or not ("Timestamp" in record or "TimeGenerated" in record):
        return False
    return (
        ("ActionType" in record and "RemoteIP" in record)
        or ("IPAddresses" in record and "MacAddress" in record)
        or ("OSPlatform" in record and "DeviceName" in record)
    )


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of a table, whether streamed in `properties` or bare."""
    streamed = frame["properties"].is_not_null().all() or "DeviceId" not in frame.columns
    names = (*_TEXTS, *_PORTS)
    inner = [pl.col("properties").struct.field(name) for name in names]
    if streamed:
        columns = inner
    else:
        columns = [pl.coalesce(one, pl.col(name)).alias(name) for one, name in zip(inner, names, strict=True)]
    return frame.select("time", "category", "position", *columns)


def _from_csv(rows: list[dict[str, Any]], path: Path, reading: Reading) -> pl.DataFrame:
    schema = {**dict.fromkeys((*_TEXTS, *_PORTS), pl.String), "position": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema).with_columns(
        pl.lit(None, pl.String).alias("time"), pl.lit(None, pl.String).alias("category")
    )
    return typed(frame, dict.fromkeys(_PORTS, pl.Int64), path, reading.quarantine, required=())


def _batches(
    frame: pl.DataFrame, path: Path, reading: Reading, devices: Devices, adapters: Adapters
) -> Iterator[Batch]:
    """All rows of one frame, in step with the tally."""
    frame = frame.with_columns(_table().alias("table"))
    other = frame["table"].is_null()
    reading.tally.left("a table of advanced hunting that holds no network, device or address record", int(other.sum()))
    frame = _sound(frame.filter(~other), path, reading)
    parts = {name: frame.filter(pl.col("table") == name) for name in (_INFO, _ADAPTERS, _EVENTS)}
    for rows in (
        device_rows(parts[_INFO], path, devices),
        event_batches(parts[_EVENTS], path, reading, devices),
    ):
        reading.tally.gave(rows)
        yield from rows
    yield from adapters.rows(parts[_ADAPTERS], reading, devices)


def _table() -> pl.Expr:
    """The table a record is of: as its category says, else by the columns that only that table fills."""
    named = pl.when(pl.col("category").str.starts_with(_CATEGORY)).then(
        pl.col("category")
        .str.strip_prefix(_CATEGORY)
        .replace_strict({n: n for n in (_EVENTS, _INFO, _ADAPTERS)}, default="")
    )
    guessed = (
        pl.when(pl.col("ActionType").is_not_null())
        .then(pl.lit(_EVENTS))
        .when(pl.col("IPAddresses").is_not_null() | pl.col("MacAddress").is_not_null())
        .then(pl.lit(_ADAPTERS))
        .when(pl.col("OSPlatform").is_not_null() | pl.col("OnboardingStatus").is_not_null())
        .then(pl.lit(_INFO))
    )
    found = pl.coalesce(named, guessed)
    return pl.when(found != "").then(found)


def _sound(frame: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """The records with a device and a time; the others go to quarantine."""
    stamped = pl.coalesce("Timestamp", "TimeGenerated", "time")
    frame = frame.with_columns(
        _instant(stamped).alias("at"),
        pl.when(pl.col("DeviceId").str.len_bytes() > 0).then("DeviceId").alias("DeviceId"),
    )
    bad = frame["at"].is_null() | frame["DeviceId"].is_null()
    for position, at in frame.filter(bad).select("position", "at").iter_rows():
        missing = "Timestamp is missing or no time" if at is None else "DeviceId is missing"
        reading.quarantine.add(str(path), f"line {position}", missing)
    return frame.filter(~bad)


def _instant(text: pl.Expr) -> pl.Expr:
    """Microseconds of ISO 8601 in UTC, to seven decimals as Defender writes it; null where it is none."""
    plain = text.str.strip_suffix("Z")
    whole = plain.str.slice(0, 19).str.replace(" ", "T", literal=True)
    seconds = whole.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us").cast(pl.Int64)
    rest = plain.str.slice(19)
    digits = rest.str.slice(1).str.pad_end(9, "0")
    fraction = pl.when((rest.str.slice(0, 1) == ".") & (digits.str.len_bytes() == 9)).then(
        digits.cast(pl.UInt32, strict=False)
    )
    us = seconds + pl.when(rest == "").then(0).otherwise(fraction // 1000)
    return pl.when(us.is_between(0, (LAST_SECOND - 1) * 1_000_000)).then(us)
