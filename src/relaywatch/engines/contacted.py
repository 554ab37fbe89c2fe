"""Whom apps contact, day by day, as far as it must be known to tell what only one install of an app contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.detection.columns import Ints
from relaywatch.engines import shards
from relaywatch.engines.cores import on_all_cores
from relaywatch.engines.installs import Installs, Packaged, followed
from relaywatch.engines.names import Names
from relaywatch.engines.records import NO_APP, Records, Registry
from relaywatch.engines.shards import ShardedTable
from relaywatch.engines.stretches import DAY_US, written_at
from relaywatch.model.schemas import Direction

SCHEMA: Final = {
    "day": pl.Int32,
    "package": pl.UInt32,
    "name": pl.UInt64,
    "remote": pl.UInt64,
    "first": pl.UInt32,
    "last": pl.UInt32,
}
"""Of each (day, package, name, remote) two devices that contact it: who is neither is not alone."""
HELD: Final = 250_000
MOST_HELD: Final = 256
"""Contacts gathered before they are merged, and of how many batches. A hunt looks up HELD of them in one go."""


class Contacted:
    """Contacts of all apps by day; grows with the distinct destinations of apps, not with devices or flows."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._merged = pl.DataFrame(schema=SCHEMA)
        self._held: list[pl.DataFrame] = []
        self._waiting = 0

    def add(self, flows: Records) -> None:
        """Take the contacts of some flows in."""
        packages, _ = self._registry.app_parts(flows["app"])
        known = packages != self._registry.packages.get(NO_APP, 2**32 - 1)
        self.take(_dialled(flows, np.flatnonzero(known), written_at(flows)[known] // DAY_US, packages[known]))

    def take(self, contacts: pl.DataFrame) -> None:
        """Take contacts in, as SCHEMA."""
        if len(contacts):
            self._held.append(contacts)
        self._waiting += len(contacts)
        if self._waiting > HELD or len(self._held) > MOST_HELD:
            self.table()

    @property
    def merged_rows(self) -> int:
        """How many contacts are held once each; the latest aside."""
        return len(self._merged)

    def table(self) -> pl.DataFrame:
        """All contacts, as SCHEMA."""
        if self._held:
            self._merged, self._held, self._waiting = _merged([self._merged, *self._held]), [], 0
        return self._merged

    def restore(self, table: pl.DataFrame) -> None:
        """Take the contacts that `table` gave."""
        self._merged, self._held, self._waiting = table, [], 0

    def forget(self, day: int) -> None:
        """Let go of a day that is over."""
        self._merged = self.table().filter(pl.col("day") != day)

    def installs(self, names: Names, wanted: Mapping[Packaged, set[str]], apps: Mapping[int, Ints]) -> Installs:
        """What installs contact of the wanted parties. apps: codes of the apps that had flows, by day."""
        installs = Installs(wanted)
        if not wanted:
            return installs
        for day in {day for day, _ in wanted}:
            codes = apps[day].astype(np.uint32)
            packages, devices = self._registry.app_parts(codes)[0], self._registry.app_devices(codes)
            for package in {package for _, package in wanted}:
                own = packages == self._registry.packages[package]
                installs.installed((day, package), len(np.unique(devices[own])))
        installs.contacted(self.reached(names, wanted))
        return installs

    def reached(self, names: Names, wanted: Mapping[Packaged, set[str]]) -> pl.DataFrame:
        """The contacts of the wanted packages that are of any wanted party, as Installs.contacted takes them."""
        codes = {self._registry.packages[package]: package for _, package in wanted}
        asked = pl.col("day").is_in({day for day, _ in wanted}) & pl.col("package").is_in(list(codes))
        own = _merged([frame.filter(asked) for frame in (self._merged, *self._held)])
        named = own.join(followed(own, names, wanted), on=["name", "remote"])
        codes_met = np.union1d(named["first"], named["last"])
        devices = pl.Series([self._registry.device_name(code) for code in codes_met.tolist()], dtype=pl.String)
        # Which of them is first is told by the names, not the codes.
        one, other = (devices.gather(np.searchsorted(codes_met, named[end])) for end in ("first", "last"))
        swapped = one > other
        return named.select(
            "day",
            pl.col("package").replace_strict(codes, return_dtype=pl.String),
            "party",
            other.zip_with(swapped, one).alias("first"),
            one.zip_with(swapped, other).alias("last"),
        )


def _dialled(flows: Records, rows: Ints, days: Ints, packages: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """The contacts of some rows of the flows, as SCHEMA. days, packages: of each of the rows, the latter as codes."""
    dialled = flows["direction"][rows] != Direction.INBOUND
    own = rows[dialled]
    columns = {
        "day": days[dialled].astype(np.int32),
        "package": packages[dialled],
        **{name: flows[name][own] for name in ("name", "remote")},
        "first": flows["device"][own],
        "last": flows["device"][own],
    }
    return pl.DataFrame(columns, SCHEMA)


def installs_of(flows: ShardedTable, registry: Registry, names: Names, wanted: Mapping[Packaged, set[str]]) -> Installs:
    """Go through all FLOW records for what installs contact of the wanted parties."""
    installs, contacted = Installs(wanted), Contacted(registry)
    if not wanted:
        return installs
    codes = {registry.packages[package]: package for _, package in wanted}
    of_app, _ = registry.app_parts(np.arange(registry.apps, dtype=np.uint32))
    asked, days = np.isin(of_app, list(codes)), list({day for day, _ in wanted})

    def look(shard: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Devices that have the packages, and their contacts: all of a device are in one shard."""
        records = flows.read(shard)
        day = written_at(records) // DAY_US
        rows = np.flatnonzero(asked[records["app"]] & np.isin(day, days))
        packages = of_app[records["app"][rows]]
        had = {"day": day[rows], "package": packages, "device": records["device"][rows]}
        counted = pl.DataFrame(had).group_by("day", "package").agg(pl.n_unique("device"))
        return counted, _merged([_dialled(records, rows, day[rows], packages)])

    for counted, contacts in on_all_cores(look, range(shards.SHARDS)):
        for day, package, devices in counted.iter_rows():
            installs.installed((day, codes[package]), devices)
        contacted.take(contacts)
        if contacted.merged_rows > HELD:
            installs.contacted(contacted.reached(names, wanted))
            contacted = Contacted(registry)
    installs.contacted(contacted.reached(names, wanted))
    return installs


def _merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    keys = ["day", "package", "name", "remote"]
    return pl.concat(frames).group_by(keys).agg(pl.col("first").min(), pl.col("last").max())
