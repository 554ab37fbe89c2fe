"""Canonical tables as Spark DataFrames, and the WORDS of them that a sieve needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from relaywatch.engines.records import NO_UID, NOT_KNOWN
from relaywatch.engines.stretches import DAY_US
from relaywatch.fleet.words import UNFIT, VOLUME, WORDS
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import TABLES, TEXT
from relaywatch.model.tables import TableName
from relaywatch.sources.canonical import COUNTS, MEANINGS
from relaywatch.sources.columns import LAST_SECOND

_KINDS: Final = {
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.float32(): "float",
    pa.bool_(): "boolean",
}
_MOST: Final = {pa.uint8(): 255, pa.uint16(): 65_535}
_PLAIN: Final = {"byte": "tinyint", "short": "smallint", "integer": "int", "long": "bigint"}
_JUDGED: Final[Mapping[str, tuple[str, ...]]] = {
    "flows": (
        "device_uid",
        "flow_id",
        "start_time",
        "end_time",
        "protocol_num",
        "direction_id",
        "local_port",
        "remote_port",
        "bytes_out",
        "bytes_in",
        "source",
        "position",
    ),
    "volumes": ("device_uid", "flow_id", "start_time", "duration_us", "bytes_out", "bytes_in", "source"),
}
"""The columns by which a row is found unfit before it is judged."""


def canonical(frame: DataFrame, table: TableName) -> DataFrame:
    """The frame with the columns of a canonical table and their types, and `fits`: whether the judged ones are sound.

    Missing nullable columns are null, other columns are left out, values that cannot be cast are null. Raises
    RelaywatchError where a required column is missing.
    """
    schema = TABLES[table]
    missing = [field.name for field in schema if not field.nullable and field.name not in frame.columns]
    if missing:
        raise RelaywatchError(f"{table}: the columns {', '.join(missing)} are missing. Name them as the schema does.")
    judged = [_fit(frame, schema.field(name)) for name in _JUDGED.get(table, ())]
    fits = sql.lit(True)  # noqa: FBT003  Spark's own signature
    for condition in judged:
        fits = fits & condition
    return frame.select(*(_cast(frame, field).alias(field.name) for field in schema), fits.alias("fits"))


def schema_of(table: TableName) -> str:
    """A canonical table's columns with Spark's types, for sources that do not say theirs."""
    return ", ".join(f"{field.name} {_kind(field)}" for field in TABLES[table])


def empty(spark: SparkSession, table: TableName) -> DataFrame:
    """A canonical table without rows."""
    return spark.createDataFrame([], schema_of(table))


def _kind(field: pa.Field) -> str:
    if pa.types.is_timestamp(field.type):
        return "timestamp"
    return "string" if field.type == TEXT else _KINDS[field.type]


def _cast(frame: DataFrame, field: pa.Field) -> Column:
    if field.name not in frame.columns:
        return sql.lit(None).cast(_kind(field))
    held = frame.schema[field.name].dataType.typeName()
    name: Column = frame[field.name]
    return name if _PLAIN.get(held, held) == _kind(field) else name.try_cast(_kind(field))


def _fit(frame: DataFrame, field: pa.Field) -> Column:
    """Whether a value is one that the canonical readers take, too."""
    value = _cast(frame, field)
    if field.name not in frame.columns:
        return sql.lit(True)  # noqa: FBT003
    sound = value.isNotNull() | frame[field.name].isNull() if field.nullable else value.isNotNull()
    if pa.types.is_timestamp(field.type):
        inside = sql.unix_micros(value).between(0, LAST_SECOND * 1_000_000)
    elif field.name in MEANINGS:
        inside = value.isin([int(member) for member in MEANINGS[field.name]])
    elif field.name in COUNTS:
        inside = value >= 0
    elif field.type in _MOST:
        inside = value.between(0, _MOST[field.type])
    else:
        return sound
    return sound & (inside | value.isNull())


def device() -> Column:
    """A device's number."""
    return _hashed("device_uid")


def package() -> Column:
    """A package's number."""
    return _hashed("android_package")


def uid() -> Column:
    """The uid, NO_UID where it is not known."""
    return sql.coalesce(sql.col("android_uid"), sql.lit(NO_UID))


def source() -> Column:
    """A source's number."""
    return _hashed("source")


def flow_day() -> Column:
    """Day since epoch in which a flow was written, as engines.stretches says it."""
    start, end = sql.unix_micros("start_time"), sql.unix_micros("end_time")
    return sql.floor(sql.greatest(start, sql.coalesce(end, start)) / sql.lit(DAY_US)).cast("int")


def _hashed(name: str) -> Column:
    return sql.xxhash64(sql.coalesce(sql.col(name), sql.lit("")))


def packed(flows: DataFrame, volumes: DataFrame | None) -> DataFrame:
    """Flows and volumes, as `canonical` gives them, as one frame of WORDS."""
    start, end = sql.unix_micros("start_time"), sql.unix_micros("end_time")
    marks = (
        sql.col("direction_id").cast("bigint")
        + _shifted("protocol_num", 8)
        + _shifted("local_port", 16)
        + _shifted("remote_port", 32)
    )
    rows = _words(flows, flow_day(), _known(end), _hashed("remote_ip"), marks)
    if volumes is None:
        return rows
    day = sql.floor(start / sql.lit(DAY_US)).cast("int")
    nothing = sql.lit(0).cast("bigint")
    return rows.unionAll(_words(volumes, day, sql.col("duration_us"), nothing, sql.lit(VOLUME)))


def _words(frame: DataFrame, day: Column, until: Column, remote: Column, marks: Column) -> DataFrame:
    values = {
        "device": device(),
        "package": package(),
        "uid_day": sql.shiftleft(uid().cast("bigint"), 32).bitwiseOR(sql.coalesce(day, sql.lit(0)).cast("bigint")),
        "source": source(),
        "flow_id": _known(sql.col("flow_id")),
        "position": _known(sql.col("position")),
        "start": _known(sql.unix_micros("start_time")),
        "until": _known(until),
        "bytes_out": _known(sql.col("bytes_out")),
        "bytes_in": _known(sql.col("bytes_in")),
        "remote": remote,
        "marks": sql.when(sql.col("fits"), marks).otherwise(sql.lit(UNFIT)),
    }
    return frame.select(*(values[name].alias(name) for name in WORDS))


def _known(value: Column) -> Column:
    return sql.coalesce(value.cast("bigint"), sql.lit(NOT_KNOWN).cast("bigint"))


def _shifted(name: str, bits: int) -> Column:
    return sql.shiftleft(sql.coalesce(sql.col(name), sql.lit(0)).cast("bigint"), bits)
