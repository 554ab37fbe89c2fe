"""What installs contact, asked of all flows of a fleet: only for packages, days and parties that findings name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from relaywatch.detection.spread import party
from relaywatch.engines.installs import Installs, Packaged
from relaywatch.fleet.columns import device, flow_day
from relaywatch.model.schemas import Direction

_ENDS: Final = ("remote_hostname", "remote_ip")
_CONTACTS: Final = "day int, package string, party string, device bigint"
_SCHEMA: Final = pa.schema(
    [("day", pa.int32()), ("package", pa.string()), ("party", pa.string()), ("device", pa.int64())]
)
_WANTED: Final = pa.schema([("day", pa.int32()), ("package", pa.string())])


def installs_of(
    spark: SparkSession, flows: DataFrame, wanted: Mapping[Packaged, set[str]], names: Mapping[int, str]
) -> Installs:
    """The installs of the wanted packages. flows: as columns.canonical gives them; two passes over them.

    names: as `answered`.
    """
    if not wanted:
        return Installs(wanted)
    named = {"day": flow_day(), "package": sql.coalesce("android_package", sql.lit("")), "device": device()}
    own = of_packages(spark, flows.where("fits").withColumns(named), wanted)
    counted = own.groupBy("day", "package").agg(sql.countDistinct("device"))
    dialled = own.where(sql.col("direction_id") != int(Direction.INBOUND))
    reached = dialled.withColumns({"first": sql.col("device"), "last": sql.col("device")})
    return answered(wanted, counted, reached, names)


def of_packages(spark: SparkSession, frame: DataFrame, wanted: Mapping[Packaged, set[str]]) -> DataFrame:
    """The rows of the wanted days and packages."""
    asked = [dict(zip(_WANTED.names, key, strict=True)) for key in wanted]
    known = sql.broadcast(spark.createDataFrame(pa.Table.from_pylist(asked, _WANTED)))
    return frame.join(known, _WANTED.names, "left_semi")


def answered(
    wanted: Mapping[Packaged, set[str]], counted: DataFrame, reached: DataFrame, names: Mapping[int, str]
) -> Installs:
    """The installs of the wanted packages, of frames that hold these alone.

    counted: day, package, devices; reached: day, package, remote_hostname, remote_ip, and two devices that contact it
    by number, `first` and `last`. names: of the devices that findings are of; others are told apart by their numbers,
    which Spark compares several times faster than text.
    """
    installs = Installs(wanted)
    for day, package, devices in counted.collect():
        installs.installed((day, package), devices)
    both = [sql.min("first").alias("first"), sql.max("last").alias("last")]
    distinct = reached.groupBy("day", "package", *_ENDS).agg(*both)
    parties = {who for each in wanted.values() for who in each}
    found = pl.DataFrame(distinct.repartition(*_ENDS).mapInArrow(_followed(parties), _CONTACTS).toArrow())
    who = pl.Series([names.get(number, f"device {number}") for number in found["device"]], dtype=pl.String)
    installs.contacted(found.with_columns(first=who, last=who))
    return installs


def _followed(parties: set[str]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: the contacts that are of these parties, those of one party together."""

    def followed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held = [pl.DataFrame(pa.Table.from_batches([batch])) for batch in batches]
        if not held:
            return
        rows = pl.concat(held)
        ends = rows.select(_ENDS).unique()
        who = [party(name, address or "") for name, address in ends.iter_rows()]
        named = ends.with_columns(pl.Series("party", who, pl.String)).filter(pl.col("party").is_in(parties))
        met = rows.join(named, on=_ENDS, nulls_equal=True)
        both = met.group_by("day", "package", "party").agg(pl.min("first"), pl.max("last"))
        each = both.unpivot(["first", "last"], index=["day", "package", "party"], value_name="device")
        yield from each.select(_SCHEMA.names).unique().to_arrow().cast(_SCHEMA).to_batches()

    return followed
