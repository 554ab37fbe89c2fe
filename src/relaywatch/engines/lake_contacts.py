"""Which ends the installs of some packages contact, out of a lake: what engines.installs is told of it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

import polars as pl
import pyarrow as pa

from relaywatch.detection.spread import party
from relaywatch.engines.intake import without_allowed
from relaywatch.lake.lake import Lake
from relaywatch.lake.layout import day_number
from relaywatch.model.destination_list import DestinationList
from relaywatch.model.schemas import TABLES, Direction

_ENDS: Final = ("name", "remote")
_WHOM: Final = ("device_uid", "android_package", "remote_hostname", "remote_ip")
_ASKED: Final = (*_WHOM, "direction_id")
_SCHEMA: Final = pa.schema([TABLES["flows"].field(name) for name in _ASKED])


def contacts_in(
    lake: Lake,
    place: tuple[date, int],
    devices: frozenset[str] | None,
    packages: Collection[str],
    allowed: DestinationList,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of one partition, day and shard: how many devices have each of the packages, and who contacts which end.

    devices: only these; None: all. The first frame has day, package and devices; the second day, package, name, remote,
    and first and last, which are the first and the last by name of the devices that dialled that end.
    """
    rows = _rows(lake, place, devices, allowed)
    texts = {name: pl.Series(rows[name].chunk(0).dictionary, dtype=pl.String) for name in _WHOM}
    codes = pl.DataFrame({name: rows[name].chunk(0).indices for name in _WHOM}).with_row_index()
    wanted = texts["android_package"].is_in(list(packages)).arg_true().to_list()
    own = codes.filter(pl.col("android_package").is_in(wanted))
    # Devices by the order of their names: several files of a partition are each sorted by themselves.
    rank = texts["device_uid"].rank("ordinal")
    own = own.with_columns(rank=rank.gather(own["device_uid"]))
    counted = own.group_by("android_package").agg(pl.col("device_uid").n_unique().alias("devices"))
    dialled = own.filter(pl.Series(rows["direction_id"]).ne(int(Direction.INBOUND)).gather(own["index"]))
    ends = dialled.group_by(_WHOM[1:]).agg(pl.col("rank").min().alias("first"), pl.col("rank").max().alias("last"))
    ordered = texts["device_uid"].sort()
    day = pl.lit(day_number(place[0]), pl.Int32).alias("day")
    return counted.select(
        day, texts["android_package"].gather(counted["android_package"]).alias("package"), "devices"
    ), ends.select(
        day,
        texts["android_package"].gather(ends["android_package"]).alias("package"),
        texts["remote_hostname"].gather(ends["remote_hostname"]).alias("name"),
        texts["remote_ip"].gather(ends["remote_ip"]).alias("remote"),
        *(ordered.gather(ends[end] - 1).alias(end) for end in ("first", "last")),
    )


def _rows(lake: Lake, place: tuple[date, int], devices: frozenset[str] | None, allowed: DestinationList) -> pa.Table:
    """The partition's flows as a hunt judges them, each column in one piece."""
    batches = list(lake.read("flows", *place, _ASKED, devices))
    left = [without_allowed(batch, allowed) for batch in batches] if allowed else batches
    none = pa.RecordBatch.from_pylist([], _SCHEMA)
    return pa.Table.from_batches([*left, none], _SCHEMA).unify_dictionaries().combine_chunks()


class Parties:
    """The parties of ends, each worked out once."""

    def __init__(self) -> None:
        self._known = pl.DataFrame(schema={**dict.fromkeys(_ENDS, pl.String), "party": pl.String})

    def of(self, ends: pl.DataFrame) -> pl.DataFrame:
        """The ends, which have a name and a remote, with the party of each."""
        new = ends.select(_ENDS).unique().join(self._known, on=_ENDS, how="anti", nulls_equal=True)
        parties = [party(host, address or "") for host, address in new.iter_rows()]
        self._known = pl.concat([self._known, new.with_columns(party=pl.Series(parties, dtype=pl.String))])
        return ends.join(self._known, on=_ENDS, nulls_equal=True)
