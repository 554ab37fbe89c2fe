"""A hunt of a fleet out of a lake: each task reads its own day and shard, sorted as they are; nothing is moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from relaywatch.detection.calibration import Tables
from relaywatch.detection.settings import Settings
from relaywatch.engines.local import Hunt
from relaywatch.engines.open_days import AT_ONCE
from relaywatch.fleet import columns
from relaywatch.fleet.hunting import Fleet, FleetResult, account_of, conclude, context_of, told_in
from relaywatch.fleet.installs import installs_of
from relaywatch.fleet.sieve import RESULT_SQL, Sifted, Told
from relaywatch.fleet.whole_rows import device_pieces, sift_rows, to_judge
from relaywatch.lake.lake import Lake
from relaywatch.model.tables import TableName

TASKS_A_CORE: Final = 4


def hunt_lake(spark: SparkSession, folder: Path, plan: Hunt) -> FleetResult:
    """Judge every app's day in a lake; the folder must be the same on the driver and on all executors.

    Raises LakeError where there is no lake that can be read.
    """
    started = time.monotonic()
    lake = Lake.open(folder)
    parts = sorted({*lake.partitions("flows"), *lake.partitions("volumes")})
    fleet = _fleet(spark, lake).canonical(plan.settings.allowed_destinations)
    named = [(day.isoformat(), shard) for day, shard in parts]
    tasks = spark.createDataFrame(spark.sparkContext.parallelize(named, _tasks(spark, lake)), "day string, shard int")
    told = tasks.mapInArrow(_sieve(folder, plan.settings, plan.tables), RESULT_SQL).toArrow()
    found = told_in(told)
    context, devices = context_of(spark, fleet.signals, fleet.inventory, found.devices())
    ask = partial(installs_of, spark, fleet.flows, names=devices)
    findings = conclude([*found.rows, *context], found.judged, plan, lake.sources(), ask)
    return FleetResult(findings, account_of(found, started))


def _tasks(spark: SparkSession, lake: Lake) -> int:
    """A task for each AT_ONCE rows, and enough of them for every core to be busy to the end."""
    sizes = lake.sizes()
    rows = sizes["flows"].rows + sizes["volumes"].rows
    return max(rows // AT_ONCE, spark.sparkContext.defaultParallelism * TASKS_A_CORE)


def _fleet(spark: SparkSession, lake: Lake) -> Fleet:
    """The lake's tables as Spark reads them."""

    def table(name: TableName) -> DataFrame:
        paths = [str(path.absolute()) for path in lake.paths(name)]
        return spark.read.parquet(*paths) if paths else columns.empty(spark, name)

    return Fleet(table("flows"), None, table("signals"), table("inventory"))


def _sieve(
    folder: Path, settings: Settings, tables: Tables
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: days and shards in, sieve.RESULT out."""

    def sifted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lake = Lake.open(folder)
        for batch in batches:
            for day, shard in zip(batch["day"].to_pylist(), batch["shard"].to_pylist(), strict=True):
                yield _sift_partition(lake, date.fromisoformat(day), shard, settings, tables)

    return sifted


def _sift_partition(lake: Lake, day: date, shard: int, settings: Settings, tables: Tables) -> pa.RecordBatch:
    found = Sifted()
    with_volumes = lake.rows("volumes", day, shard)
    for flows in device_pieces(lake.runs("flows", day, shard)):
        devices = {name for rows in flows for name in rows["device_uid"].unique().to_pylist()}
        volumes = list(lake.read("volumes", day, shard, devices=devices)) if with_volumes else []
        sift_rows(to_judge(flows, settings), volumes, found, settings, tables)
    # Volumes of devices without a flow on this day can be of no use.
    found.counts[Told.UNUSED] += with_volumes - found.counts[Told.VOLUMES]
    found.counts[Told.VOLUMES] = with_volumes
    return found.table()
