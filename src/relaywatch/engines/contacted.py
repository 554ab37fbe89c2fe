"""Whom apps contact, day by day, as far as it must be known to tell what only one install of an app contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from relaywatch.detection.columns import Ints
from relaywatch.engines.installs import Installs, Packaged, followed
from relaywatch.engines.names import Names
from relaywatch.engines.records import NO_APP, Records, Registry
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
HELD: Final = 500_000
MOST_HELD: Final = 256
"""Contacts gathered before they are merged, and of how many batches."""


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
        rows = np.flatnonzero(known & (flows["direction"] != Direction.INBOUND))
        met = flows[rows]
        columns = {
            "day": (written_at(met) // DAY_US).astype(np.int32),
            "package": packages[rows],
            **{name: met[name] for name in ("name", "remote")},
            "first": met["device"],
            "last": met["device"],
        }
        if len(rows):
            self._held.append(pl.DataFrame(columns, SCHEMA))
        self._waiting += len(rows)
        if self._waiting > HELD or len(self._held) > MOST_HELD:
            self.table()

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
        days = {day for day, _ in wanted}
        codes = {self._registry.packages[package]: package for _, package in wanted}
        for day in days:
            packages, _ = self._registry.app_parts(apps[day].astype(np.uint32))
            devices = self._registry.app_devices(apps[day].astype(np.uint32))
            for code, package in codes.items():
                installs.installed_on((day, package), len(np.unique(devices[packages == code])))
        asked = pl.col("day").is_in(days) & pl.col("package").is_in(list(codes))
        own = _merged([frame.filter(asked) for frame in (self._merged, *self._held)])
        reached = own.join(followed(own, names, wanted), on=["name", "remote"])
        named = reached.with_columns(pl.col("package").replace_strict(codes, return_dtype=pl.String))
        who = {end: list(map(self._registry.device_name, named[end])) for end in ("first", "last")}
        # Which of them is first is told by the names, not the codes.
        ends = [(min(pair), max(pair)) for pair in zip(who["first"], who["last"], strict=True)]
        both = pl.DataFrame(ends, {"first": pl.String, "last": pl.String}, orient="row")
        installs.contacted(pl.concat([named.select("day", "package", "party"), both], how="horizontal"))
        return installs


def _merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    keys = ["day", "package", "name", "remote"]
    return pl.concat(frames).group_by(keys).agg(pl.col("first").min(), pl.col("last").max())
