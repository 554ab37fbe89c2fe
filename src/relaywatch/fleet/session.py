"""The Spark session that commands run in, and tables that Spark reads from paths."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from relaywatch.fleet import columns
from relaywatch.fleet.hunting import Fleet
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.tables import TableName
from relaywatch.sources.canonical import table_of

CONF: Final[Mapping[str, str]] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    "spark.sql.adaptive.enabled": "true",
    "spark.log.level": "ERROR",
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
}
"""What a hunt runs with unless it is told otherwise: larger batches to Python, and a stream's state on disk."""
_ONE_MACHINE: Final[Mapping[str, str]] = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "64",
}


def session(master: str | None, conf: Mapping[str, str]) -> SparkSession:
    """The session of spark-submit where it runs this, else a new one. master: None for all cores of this machine.

    Raises RelaywatchError where Spark cannot start, as without Java.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    settled = dict(CONF)
    builder = SparkSession.builder.appName("relaywatch")
    if not submitted:
        where = master or "local[*]"
        builder = builder.master(where)
        if where.startswith("local"):
            settled |= _ONE_MACHINE
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    settled["spark.ui.showConsoleProgress"] = str(sys.stderr.isatty()).lower()
    for name, value in {**settled, **conf}.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise RelaywatchError(
            f"Spark cannot start: {error}. It needs Java 17 or later, and a master it can reach."
        ) from error


def fleet_at(spark: SparkSession, paths: Sequence[str]) -> Fleet:
    """The canonical tables under some paths: Parquet files and folders, each of one table, or local folders of such.

    Raises RelaywatchError where a path cannot be read or holds no canonical table, or where there are no flows.
    """
    found: dict[TableName, list[str]] = defaultdict(list)
    for path in _each(paths):
        table = table_of(frozenset(_columns(spark, path)))
        if table is None:
            raise RelaywatchError(f"{path}: holds no canonical table. Name its columns as the schema does.")
        found[table].append(path)
    if "flows" not in found:
        raise RelaywatchError(f"{', '.join(paths)}: no table of flows. Give Parquet files in the canonical schema.")
    tables = {name: read(spark, held) for name, held in found.items()}
    return Fleet(tables["flows"], tables.get("volumes"), tables.get("signals"), tables.get("inventory"))


def _each(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        folder = Path(path)
        if folder.is_dir() and not any(folder.glob("_*")):
            yield from sorted(str(entry) for entry in folder.iterdir() if entry.suffix == ".parquet" or entry.is_dir())
        else:
            yield path


def _columns(spark: SparkSession, path: str) -> Sequence[str]:
    """The columns of what stands at a path; a file of this machine is asked without Spark, as there may be many."""
    if Path(path).is_file():
        try:
            return list(pq.read_schema(path).names)
        except (OSError, pa.ArrowException) as error:
            raise RelaywatchError(f"{path}: damaged, or no Parquet. Write the file again.") from error
    return read(spark, [path]).columns


def read(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """Parquet of one table. Raises RelaywatchError where Spark cannot read it."""
    try:
        return spark.read.parquet(*paths)
    except AnalysisException as error:
        raise RelaywatchError(f"{', '.join(paths)}: Spark cannot read this as Parquet. Check the path.") from error


def files_of(spark: SparkSession, folder: str, table: TableName) -> DataFrame:
    """A stream of the Parquet files that come into a folder, all of one table with the canonical column types."""
    return spark.readStream.schema(columns.schema_of(table)).parquet(folder)


def topic_of(spark: SparkSession, servers: str, topic: str, table: TableName) -> DataFrame:
    """A stream of a Kafka topic whose messages are a table's rows as JSON objects, as relaywatch writes NDJSON.

    Needs Spark's package spark-sql-kafka. Raises RelaywatchError where the session lacks it.
    """
    from pyspark.sql import functions as sql

    reader = spark.readStream.format("kafka").option("kafka.bootstrap.servers", servers).option("subscribe", topic)
    try:
        messages = reader.option("startingOffsets", "earliest").load()
    except AnalysisException as error:
        raise RelaywatchError(
            "Kafka: Spark's connector is not here. Start with --conf spark.jars.packages="
            "org.apache.spark:spark-sql-kafka-0-10_2.13:VERSION, the version of Spark."
        ) from error
    row = sql.from_json(sql.col("value").cast("string"), columns.schema_of(table))
    return messages.select(row.alias("row")).select("row.*")
