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
from relaywatch.fleet.columns import flow_day
from relaywatch.model.schemas import Direction

_CONTACTS: Final = "day int, package string, party string, device string"
_SCHEMA: Final = pa.schema(
    [("day", pa.int32()), ("package", pa.string()), ("party", pa.string()), ("device", pa.string())]
)
_WANTED: Final = pa.schema([("day", pa.int32()), ("package", pa.string())])


def installs_of(spark: SparkSession, flows: DataFrame, wanted: Mapping[Packaged, set[str]]) -> Installs:
    """The installs of the wanted packages. flows: as columns.canonical gives them; two passes over them."""
    installs = Installs(wanted)
    if not wanted:
        return installs
    asked = spark.createDataFrame(pa.Table.from_pylist([dict(zip(_WANTED.names, key)) for key in wanted], _WANTED))
    own = (
        flows.where("fits")
        .withColumns({"day": flow_day(), "package": sql.coalesce("android_package", sql.lit(""))})
        .join(sql.broadcast(asked), on=["day", "package"], how="left_semi")
    )
    counted = own.groupBy("day", "package").agg(sql.countDistinct("device_uid"))
    for day, package, devices in counted.collect():
        installs.installed_on((day, package), devices)
    ends = [sql.min("device_uid").alias("first"), sql.max("device_uid").alias("last")]
    dialled = own.where(sql.col("direction_id") != int(Direction.INBOUND))
    reached = dialled.groupBy("day", "package", "remote_hostname", "remote_ip").agg(*ends)
    parties = {who for each in wanted.values() for who in each}
    found = reached.mapInArrow(_followed(parties), _CONTACTS).toArrow()
    contacts = pl.from_arrow(found)
    assert isinstance(contacts, pl.DataFrame)  # noqa: S101  from_arrow of a Table is a frame; for the type checker
    installs.contacted(contacts)
    return installs


def _followed(parties: set[str]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: the contacts that are of these parties, those of one party together."""

    def followed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(rows, pl.DataFrame)  # noqa: S101  as above
            who = [party(name, address or "") for name, address in rows.select("remote_hostname", "remote_ip").rows()]
            named = rows.with_columns(pl.Series("party", who, pl.String)).filter(pl.col("party").is_in(parties))
            ends = named.group_by("day", "package", "party").agg(pl.min("first"), pl.max("last"))
            both = ends.unpivot(["first", "last"], index=["day", "package", "party"], value_name="device")
            yield from both.select(_SCHEMA.names).to_arrow().cast(_SCHEMA).to_batches()

    return followed
