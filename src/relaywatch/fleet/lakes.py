"""A hunt of a fleet out of a lake: each task reads its own day and shard, sorted as they are; nothing is moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from relaywatch.detection.settings import Settings
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.engines.lake_contacts import Parties, contacts_in
from relaywatch.engines.lake_sieve import rows_of_apps, sift
from relaywatch.engines.local import Hunt
from relaywatch.engines.open_days import AT_ONCE
from relaywatch.fleet.hunting import FleetResult, account_of, conclude, context_of, told_in
from relaywatch.fleet.sieve import RESULT_SQL, Sifted, Told
from relaywatch.fleet.whole_rows import note_rows, to_judge
from relaywatch.governance.exceptions import Exceptions
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import day_number
from relaywatch.model.schemas import TABLES
from relaywatch.model.tables import TableName

TASKS_A_CORE: Final = 4
_WANTED: Final = {"package": pl.String, "party": pl.String}
_MET: Final = pl.Schema(
    {
        "day": pl.Int32,
        "package": pl.String,
        "party": pl.String,
        "first": pl.String,
        "last": pl.String,
        "devices": pl.Int64,
    }
)
_MET_ARROW: Final = pl.DataFrame(schema=_MET).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
_CONTACTS: Final = "day int, package string, party string, first string, last string, devices bigint"


def hunt_lake(spark: SparkSession, folder: Path, plan: Hunt) -> FleetResult:
    """Judge every app's day in a lake; the folder must be the same on the driver and on all executors.

    Raises LakeError where there is no lake that can be read.
    """
    started = time.monotonic()
    lake = Lake.open(folder)
    parts = sorted({*lake.partitions("flows"), *lake.partitions("volumes")})
    named = [(day.isoformat(), shard) for day, shard in parts]
    tasks = spark.createDataFrame(spark.sparkContext.parallelize(named, _tasks(spark, lake)), "day string, shard int")
    told = tasks.mapInArrow(_sieve(folder, plan), RESULT_SQL).toArrow()
    found = told_in(told)
    signals, inventory = (_table(spark, lake, name) for name in ("signals", "inventory"))
    context, _ = context_of(spark, signals, inventory, found.devices())

    def ask(wanted: Mapping[Packaged, set[str]]) -> Installs:
        met = tasks.mapInArrow(_contacts(folder, wanted, plan.settings), _CONTACTS).toArrow() if wanted else None
        return _installs(wanted, met)

    findings = conclude([*found.rows, *context], found.judged, plan, lake.sources(), ask)
    return FleetResult(findings, account_of(found, started))


def _tasks(spark: SparkSession, lake: Lake) -> int:
    """A task for each AT_ONCE rows, and enough of them for every core to be busy to the end."""
    sizes = lake.sizes()
    rows = sizes["flows"].rows + sizes["volumes"].rows
    return max(rows // AT_ONCE, spark.sparkContext.defaultParallelism * TASKS_A_CORE)


def _table(spark: SparkSession, lake: Lake, name: TableName) -> DataFrame | None:
    """A table of the lake as Spark reads it."""
    paths = [str(path.absolute()) for path in lake.paths(name)]
    return spark.read.parquet(*paths) if paths else None


def _sieve(folder: Path, plan: Hunt) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: days and shards in, sieve.RESULT out."""
    # What only explains findings stays with the driver.
    own = Hunt(plan.settings, Exceptions(()), plan.now, tables=plan.tables)

    def sifted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lake = Lake.open(folder)
        for batch in batches:
            for day, shard in zip(batch["day"].to_pylist(), batch["shard"].to_pylist(), strict=True):
                yield _sift_partition(lake, date.fromisoformat(day), shard, own)

    return sifted


def _sift_partition(lake: Lake, day: date, shard: int, plan: Hunt) -> pa.RecordBatch:
    """What a hunt of the lake sees of one of its partitions, with the rows of the apps that have a case."""
    looked, found = sift(lake, day, shard, None, plan), Sifted()
    found.judged[day_number(day)] = looked.judged
    found.counts.update(
        {
            Told.FLOWS: looked.flows,
            Told.VOLUMES: looked.volumes,
            Told.DUPLICATES: looked.duplicates,
            Told.UNUSED: looked.unmatched,
            Told.SILENT: len(looked.silent),
            Told.COUNTED: len(looked.counted),
        }
    )
    devices = frozenset(key.device for key in looked.cases)
    tables: tuple[tuple[Told, TableName], ...] = ((Told.CASE_FLOWS, "flows"), (Told.CASE_VOLUMES, "volumes"))
    for told, table in tables if devices else ():
        rows = [rows_of_apps(batch, looked.cases) for batch in lake.read(table, day, shard, devices=devices)]
        sound = to_judge(rows, plan.settings) if table == "flows" else rows
        note_rows(found, told, pa.Table.from_batches(sound, TABLES[table]))
    return found.table()


def _contacts(
    folder: Path, wanted: Mapping[Packaged, set[str]], settings: Settings
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: days and shards in, what installs there contact of the wanted parties out.

    Of each party two devices; where the party is null, the number of devices that have the package.
    """

    def met(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lake, parties = Lake.open(folder), Parties()
        for batch in batches:
            for day, shard in zip(batch["day"].to_pylist(), batch["shard"].to_pylist(), strict=True):
                place = date.fromisoformat(day), shard
                asked = {package: each for (on, package), each in wanted.items() if on == day_number(place[0])}
                if asked:
                    counted, ends = contacts_in(lake, place, None, asked, settings.allowed_destinations)
                    yield from _as_met(counted)
                    yield from _as_met(_reached(parties.of(ends), asked))

    return met


def _reached(ends: pl.DataFrame, asked: Mapping[str, set[str]]) -> pl.DataFrame:
    """Of the parties that are asked for, the first and the last device."""
    pairs = [(package, who) for package, each in asked.items() for who in each]
    own = ends.join(pl.DataFrame(pairs, _WANTED, orient="row"), on=list(_WANTED), how="semi")
    return own.group_by("day", *_WANTED).agg(pl.min("first"), pl.max("last"))


def _as_met(found: pl.DataFrame) -> list[pa.RecordBatch]:
    absent = (pl.lit(None, kind).alias(name) for name, kind in _MET.items() if name not in found.columns)
    batches: list[pa.RecordBatch] = (
        found.with_columns(absent).select(_MET.names()).cast(_MET).to_arrow().cast(_MET_ARROW).to_batches()
    )
    return batches


def _installs(wanted: Mapping[Packaged, set[str]], met: pa.Table | None) -> Installs:
    installs = Installs(wanted)
    if met is None:
        return installs
    rows = pl.DataFrame(met)
    for day, package, devices in rows.filter(pl.col("party").is_null()).select("day", "package", "devices").iter_rows():
        installs.installed((day, package), devices)
    installs.contacted(rows.filter(pl.col("party").is_not_null()))
    return installs
