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

    names: of the devices that findings are of, by number; others are told apart by their numbers, which Spark compares
    several times faster than text.
    """
    installs = Installs(wanted)
    if not wanted:
        return installs
    asked = [dict(zip(_WANTED.names, key, strict=True)) for key in wanted]
    own = (
        flows.where("fits")
        .withColumns({"day": flow_day(), "package": sql.coalesce("android_package", sql.lit("")), "device": device()})
        .join(sql.broadcast(spark.createDataFrame(pa.Table.from_pylist(asked, _WANTED))), ["day", "package"], "left_semi")
    )
    counted = own.groupBy("day", "package").agg(sql.countDistinct("device"))
    for day, package, devices in counted.collect():
        installs.installed_on((day, package), devices)
    ends = [sql.min("device").alias("first"), sql.max("device").alias("last")]
    dialled = own.where(sql.col("direction_id") != int(Direction.INBOUND))
    reached = dialled.groupBy("day", "package", *_ENDS).agg(*ends)
    parties = {who for each in wanted.values() for who in each}
    found = pl.DataFrame(reached.repartition(*_ENDS).mapInArrow(_followed(parties), _CONTACTS).toArrow())
    who = [names.get(number, f"device {number}") for number in found["device"]]
    installs.contacted(found.with_columns(pl.Series("device", who, pl.String)))
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
