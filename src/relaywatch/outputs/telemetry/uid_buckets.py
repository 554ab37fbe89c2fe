"""What Android's netstats would count of the given rows: bytes of each uid in buckets of two hours, by set.

A device's whole-uid volumes are taken as they are. Where it has none, its flows' volumes are added up, and flows
without volumes count whole when they ended. Bytes are those of IP packets: payload, and HEADER_BYTES a packet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from relaywatch.model.schemas import TABLES, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.outputs.telemetry.intervals import STILL_SO, Interval, merged

BUCKET_US: Final = 7_200_000_000
HEADER_BYTES: Final = 40
_COUNTS: Final = ("bytes_in", "packets_in", "bytes_out", "packets_out")
_WHO: Final = ("device_uid", "android_uid")
_ROW: Final = (*_WHO, "android_set", "duration_us", "start_time", *_COUNTS)
_COLUMNS: Final = {
    "volumes": (*_ROW, "flow_id", "source"),
    "flows": (*_WHO, "start_time", "end_time", "flow_id", "source", *_COUNTS),
    "signals": (*_WHO, "kind", "start_time", "end_time"),
}


def uid_buckets(batches: Iterable[Batch]) -> pl.DataFrame:
    """A row a bucket, in order: device_uid, android_uid, android_set, duration_us, start_time (us), and the counts.

    Rows without a uid are left out. A set that is not known is foreground while a FOREGROUND_UI of the uid lasts, else
    background.
    """
    tables = _tables(batches)
    in_front = _in_front(tables["signals"])
    whole = tables["volumes"].filter(pl.col("flow_id").is_null()).select(_ROW)
    of_flows = tables["volumes"].filter(pl.col("flow_id").is_not_null())
    totals = tables["flows"].join(of_flows, on=["source", "flow_id"], how="anti")
    totals = totals.with_columns(pl.col("end_time").fill_null(pl.col("start_time")).alias("start_time"))
    parts = pl.concat([of_flows.select(*_WHO, "start_time", *_COUNTS), totals.select(*_WHO, "start_time", *_COUNTS)])
    parts = parts.join(whole, on="device_uid", how="anti").with_columns(
        pl.lit(BUCKET_US).alias("duration_us"), pl.lit(None, pl.String).alias("android_set")
    )
    begin = pl.col("start_time") // BUCKET_US * BUCKET_US
    parts = _with_set(parts, in_front).with_columns(begin.alias("start_time"))
    counted = pl.concat([_with_set(whole, in_front).select(_ROW), parts.select(_ROW)]).with_columns(
        pl.col(_COUNTS).fill_null(0)
    )
    wire = (
        (pl.col(f"bytes_{way}") + HEADER_BYTES * pl.col(f"packets_{way}")).alias(f"bytes_{way}")
        for way in ("in", "out")
    )
    return counted.with_columns(wire).group_by(_ROW[:5]).agg(pl.col(_COUNTS).sum()).sort(_ROW[:5])


def _tables(batches: Iterable[Batch]) -> dict[str, pl.DataFrame]:
    """What is needed of volumes, flows and signals of uids."""
    held: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    for part in batches:
        if part.table in _COLUMNS:
            rows = part.rows.select(_COLUMNS[part.table])
            held[part.table].append(rows.filter(pc.is_valid(rows["android_uid"])))
    return {name: _frame(held[name], TABLES[name], names) for name, names in _COLUMNS.items()}


def _frame(parts: list[pa.RecordBatch], schema: pa.Schema, names: Iterable[str]) -> pl.DataFrame:
    fields = pa.schema([schema.field(name) for name in names])
    plain = pa.schema([field.with_type(_plain(field.type)) for field in fields])
    found = pl.from_arrow(pa.Table.from_batches(parts, fields).cast(plain))
    assert isinstance(found, pl.DataFrame)  # noqa: S101  from_arrow of a table is a frame; for the type checker
    return found


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return pa.string()
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _in_front(signals: pl.DataFrame) -> pl.DataFrame:
    """When each uid was in front: device_uid, android_uid, since, until."""
    times: dict[tuple[str, int], list[Interval]] = defaultdict(list)
    shown = signals.filter(pl.col("kind") == int(SignalKind.FOREGROUND_UI)).drop("kind")
    for device, uid, start, end in shown.iter_rows():
        times[device, uid].append((start, STILL_SO if end is None else end))
    rows = [(*who, *interval) for who, intervals in times.items() for interval in merged(intervals)]
    schema = {"device_uid": pl.String, "android_uid": pl.Int32, "since": pl.Int64, "until": pl.Int64}
    return pl.DataFrame(rows, schema, orient="row").sort("since")


def _with_set(frame: pl.DataFrame, in_front: pl.DataFrame) -> pl.DataFrame:
    """The rows with a set where they had none."""
    placed = frame.sort("start_time").join_asof(
        in_front, left_on="start_time", right_on="since", by=list(_WHO), check_sortedness=False
    )
    seen = pl.when(pl.col("start_time") < pl.col("until")).then(pl.lit("foreground")).otherwise(pl.lit("background"))
    return placed.with_columns(pl.col("android_set").fill_null(seen))
