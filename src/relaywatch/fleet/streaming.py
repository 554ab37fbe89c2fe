"""A fleet's stream on Spark Structured Streaming: each day is judged when it is over, and its cases go to a table.

A shard's state is the log of its open days (fleet.days). What days come to is written once a micro-batch, under its
number, so that a batch done again after a crash replaces what it had written. `conclude` makes findings of the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.streaming.query import StreamingQuery

from relaywatch.engines.installs import Installs, Packaged
from relaywatch.engines.local import Hunt
from relaywatch.fleet import columns
from relaywatch.fleet.days import CONTACT, DRAIN, INSTALL, PIECE, Days, pieces
from relaywatch.fleet.hunting import FleetResult, account_of, conclude, context_of, told_in
from relaywatch.fleet.installs import answered, of_packages
from relaywatch.fleet.sieve import RESULT_SQL, Told
from relaywatch.fleet.whole_rows import from_bytes
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import TableName

LAG_S: Final = 86_400.0
SHARDS: Final = 64
_PLAN: Final = "shards int, lag_s double"
_LATE: Final = (Told.LATE_FLOWS, Told.LATE_VOLUMES)
_ASIDE: Final = (Told.CONTACTS, Told.INSTALLED, *_LATE)


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's place and plan, which stay what they were when it was first started.

    out: folder of its checkpoint and of what it found, on any file system that Spark knows; shards: of the state;
    lag_s: how long after its end a day is judged, s of event time.
    """

    out: str
    shards: int = SHARDS
    lag_s: float = LAG_S

    def place(self, name: str) -> str:
        """A folder of the stream."""
        return f"{self.out.rstrip('/')}/{name}"

    def settle(self, spark: SparkSession) -> None:
        """Make the folder, or see that it is of a stream like this one. Raises RelaywatchError where it is not."""
        try:
            known = spark.read.schema(_PLAN).json(self.place("plan")).collect()
        except AnalysisException:
            spark.createDataFrame([], PIECE).write.mode("append").parquet(self.place("drain"))
            spark.createDataFrame([(self.shards, self.lag_s)], _PLAN).coalesce(1).write.json(self.place("plan"))
            return
        if [tuple(row) for row in known] != [(self.shards, self.lag_s)]:
            told = ", ".join(f"{row.shards} shards and a lag of {row.lag_s:g} s" for row in known) or "nothing readable"
            raise RelaywatchError(f"{self.out}: holds a stream with {told}. Give the same, or another folder.")


def start(
    spark: SparkSession, flows: DataFrame, volumes: DataFrame | None, plan: Hunt, stream: Stream, *, once: bool
) -> StreamingQuery:
    """Start the stream, or go on where it was. flows, volumes: streaming frames in the canonical schema.

    once: end when everything that is there now is taken in. The session needs what session.CONF sets. Raises
    RelaywatchError where the folder is another stream's, or a required column is missing.
    """
    stream.settle(spark)
    parts = [_pieces(flows, "flows", stream.shards)]
    if volumes is not None:
        parts.append(_pieces(volumes, "volumes", stream.shards))
    parts.append(spark.readStream.schema(PIECE).parquet(stream.place("drain")))
    together = parts[0]
    for part in parts[1:]:
        together = together.unionByName(part)
    days = Days(plan.settings, plan.tables, int(stream.lag_s * 1e6))
    told = together.groupBy("shard").transformWithState(days, RESULT_SQL, "Append", "None")
    writer = told.writeStream.foreachBatch(_written(stream)).outputMode("append")
    writer = writer.option("checkpointLocation", stream.place("checkpoint"))
    return (writer.trigger(availableNow=True) if once else writer).start()


def _pieces(frame: DataFrame, table: TableName, shards: int) -> DataFrame:
    rows = columns.canonical(frame, table).select(TABLES[table].names)
    return rows.mapInArrow(pieces(table, shards), PIECE)


def _written(stream: Stream) -> Callable[[DataFrame, int], None]:
    def write(told: DataFrame, batch: int) -> None:
        told.write.mode("overwrite").parquet(stream.place(f"candidates/batch={batch}"))

    return write


def end(spark: SparkSession, stream: Stream) -> None:
    """No more rows come: the next run judges all days that are open."""
    rows = [(shard, 0, 0, DRAIN, 0, None) for shard in range(stream.shards)]
    spark.createDataFrame(rows, PIECE).coalesce(1).write.mode("append").parquet(stream.place("drain"))


def conclude_stream(
    spark: SparkSession,
    stream: Stream,
    plan: Hunt,
    signals: DataFrame | None = None,
    inventory: DataFrame | None = None,
) -> FleetResult:
    """The findings of all days that the stream has judged. signals, inventory: canonical tables with their context.

    Raises RelaywatchError where the stream has judged nothing.
    """
    started = time.monotonic()
    try:
        told = spark.read.schema(RESULT_SQL).parquet(stream.place("candidates"))
    except AnalysisException as error:
        raise RelaywatchError(
            f"{stream.out}: no stream has judged anything here. Run relaywatch spark stream."
        ) from error
    found = told_in(told.where(~sql.col("told").isin(*_ASIDE)).toArrow().select(list(_names())))
    late = told.where(sql.col("told").isin(*_LATE)).groupBy("told").agg(sql.sum("number")).collect()
    found.counts.update(dict(late))
    context, names = context_of(spark, signals, inventory, found.devices())

    def ask(wanted: Mapping[Packaged, set[str]]) -> Installs:
        return _installs(spark, told, wanted, names) if wanted else Installs(wanted)

    findings = conclude([*found.rows, *context], found.judged, plan, {}, ask)
    return FleetResult(findings, account_of(found, started))


def _names() -> Iterable[str]:
    return (column.split()[0] for column in RESULT_SQL.split(", "))


def _installs(
    spark: SparkSession, told: DataFrame, wanted: Mapping[Packaged, set[str]], names: Mapping[int, str]
) -> Installs:
    def unpacked(kind: Told, schema: str) -> DataFrame:
        rows = told.where(sql.col("told") == kind).select("content").mapInArrow(_unpacked, schema)
        return of_packages(spark, rows, wanted)

    counted = unpacked(Told.INSTALLED, INSTALL).groupBy("day", "package").agg(sql.sum("devices"))
    contacts = unpacked(Told.CONTACTS, CONTACT)
    numbers = {name: sql.xxhash64(sql.col(name)) for name in ("first", "last")}
    first, last = numbers["first"], numbers["last"]
    ends = {"first": sql.least(first, last), "last": sql.greatest(first, last)}
    return answered(wanted, counted, contacts.withColumns(ends), names)


def _unpacked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for content in batch["content"].to_pylist():
            yield from from_bytes(content).to_batches()
