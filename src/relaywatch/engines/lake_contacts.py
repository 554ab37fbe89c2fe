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
from relaywatch.model.schemas import Direction

_ENDS: Final = ("name", "remote")
_COLUMNS: Final = {
    "device": "device_uid",
    "package": "android_package",
    "name": "remote_hostname",
    "remote": "remote_ip",
}
_HAD: Final = dict.fromkeys(("package", "device"), pl.String)
_KNOWN: Final = dict.fromkeys((*_ENDS, "party"), pl.String)
KNOWN: Final = 262_144
"""Ends of which the party is remembered."""
_MET: Final = dict.fromkeys(("package", *_ENDS, "first", "last"), pl.String)


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
    had, met = [pl.DataFrame(schema=_HAD)], [pl.DataFrame(schema=_MET)]
    for rows in lake.read("flows", *place, (*_COLUMNS.values(), "direction_id"), devices):
        own, ends = _contacts(without_allowed(rows, allowed) if allowed else rows, packages)
        had.append(own)
        met.append(ends)
    day = pl.lit(day_number(place[0]), pl.Int32).alias("day")
    counted = pl.concat(had).group_by("package").agg(pl.n_unique("device").alias("devices"))
    reached = pl.concat(met).group_by("package", *_ENDS).agg(pl.min("first"), pl.max("last"))
    return counted.select(day, pl.all()), reached.select(day, pl.all())


def _contacts(rows: pa.RecordBatch, packages: Collection[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of some rows: which device has which of the packages, as _HAD, and who dialled which end, as _MET."""
    texts = {name: pl.Series(rows[column].dictionary, dtype=pl.String) for name, column in _COLUMNS.items()}
    codes = pl.DataFrame({name: rows[column].indices for name, column in _COLUMNS.items()})
    dialled = pl.Series(rows["direction_id"]).ne(int(Direction.INBOUND))
    wanted = texts["package"].is_in(list(packages)).arg_true().to_list()
    own = codes.with_columns(dialled.alias("dialled")).filter(pl.col("package").is_in(wanted))
    had = own.select(*_HAD).unique()
    # Which device is first is told by the names, not the codes.
    rank, ordered = texts["device"].rank("ordinal"), texts["device"].sort()
    reached = own.filter("dialled").with_columns(rank=rank.gather(own.filter("dialled")["device"]))
    ends = reached.group_by("package", *_ENDS).agg(pl.min("rank").alias("first"), pl.max("rank").alias("last"))
    return (
        had.select(texts[name].gather(had[name]).alias(name) for name in _HAD),
        ends.select(
            *(texts[name].gather(ends[name]).alias(name) for name in ("package", *_ENDS)),
            *(ordered.gather(ends[end] - 1).alias(end) for end in ("first", "last")),
        ),
    )


class Parties:
    """The parties of ends, each worked out once; beyond KNOWN all are forgotten."""

    def __init__(self) -> None:
        self._known = pl.DataFrame(schema=_KNOWN)

    def of(self, ends: pl.DataFrame) -> pl.DataFrame:
        """The ends, which have a name and a remote, with the party of each."""
        if len(self._known) > KNOWN:
            self._known = self._known.clear()
        new = ends.select(_ENDS).unique().join(self._known, on=_ENDS, how="anti", nulls_equal=True)
        parties = [party(host, address or "") for host, address in new.iter_rows()]
        self._known = pl.concat([self._known, new.with_columns(party=pl.Series(parties, dtype=pl.String))])
        return ends.join(self._known, on=_ENDS, nulls_equal=True)
