"""Which destinations other installs of an app contact on a day: a second look, only for apps with findings.

Memory follows the destinations that findings bridged, MOST_PARTIES a package and day, and the devices with the app.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from heapq import nsmallest
from typing import Final

import numpy as np
import polars as pl

from relaywatch.detection.spread import OtherInstalls, party
from relaywatch.engines.names import Names
from relaywatch.engines.records import AppKey, Records, Registry
from relaywatch.engines.stretches import DAY_US, written_at
from relaywatch.model.schemas import Direction

MOST_PARTIES: Final = 16_384
"""Destinations followed for one package. Up to it counts are exact; beyond it those with the smallest hashes are
followed, the same ones on every run: a random sample, whose share is off by 0.4 % (one deviation) at the most."""
HELD_CONTACTS: Final = 1_000_000
"""Contacts gathered before their names are looked up: 20 MB."""


MERGED_AT: Final = 8
"""Pieces of contacts that are held before they are merged."""
_ASKED: Final = {"day": pl.Int32, "package": pl.String, "party": pl.String}
_ENDS: Final = {"first": pl.String, "last": pl.String}
Packaged = tuple[int, str]
"""Day since epoch, and package."""


class Installs:
    """For some packages and days: the devices that have them, and which of the destinations asked for each contacts."""

    def __init__(self, wanted: Mapping[Packaged, Iterable[str]]) -> None:
        """wanted: the parties to follow, by day and package."""
        self._devices: dict[Packaged, set[int]] = {package: set() for package in wanted}
        self._counted: dict[Packaged, int] = {}
        self._parties = {package: set(_sampled(set(parties))) for package, parties in wanted.items()}
        rows = [(*package, who) for package, parties in self._parties.items() for who in parties]
        self._followed = pl.DataFrame(rows, _ASKED, orient="row")
        # Of the devices that contact a party the first and last by name: two of them tell any third it is not alone.
        self._held = [pl.DataFrame(schema={**_ASKED, **_ENDS})]
        self._contacts: dict[Packaged, dict[str, tuple[str, str]]] | None = None

    def installed(self, package: Packaged, devices: Iterable[int]) -> None:
        """These devices, by code, have the package; packages that nobody asked for are passed over."""
        if package in self._devices:
            self._devices[package].update(devices)

    def installed_on(self, package: Packaged, devices: int) -> None:
        """So many devices have the package, where they were counted elsewhere and not given by name."""
        self._counted[package] = devices

    def contacted(self, contacts: pl.DataFrame) -> None:
        """Take in contacts: day, package, party, and the first and last of devices that contact it, by name.

        Those that nobody asked for are passed over.
        """
        self._held.append(contacts.join(self._followed, on=list(_ASKED), how="semi").select(*_ASKED, *_ENDS))
        self._contacts = None
        if len(self._held) > MERGED_AT:
            self._merge()

    def beside(self, package: Packaged, device: str, parties: Iterable[str]) -> OtherInstalls:
        """What installs on other devices contact of the parties; nothing is known of packages that nobody asked for."""
        if self._contacts is None:
            self._contacts = {}
            for day, name, who, first, last in self._merge().iter_rows():
                self._contacts.setdefault((day, name), {})[who] = first, last
        contacts = self._contacts.get(package, {})
        compared = [contacts.get(who, ()) for who in self._parties.get(package, set()).intersection(parties)]
        alone = sum(not set(devices) - {device} for devices in compared)
        devices = self._counted.get(package, len(self._devices.get(package, ())))
        return OtherInstalls(devices, len(compared), alone)

    def _merge(self) -> pl.DataFrame:
        both = pl.concat(self._held).group_by(*_ASKED).agg(pl.min("first"), pl.max("last"))
        self._held = [both]
        return both


def _sampled(parties: Collection[str]) -> Collection[str]:
    """The parties, of more than MOST_PARTIES those with the smallest hashes."""
    return nsmallest(MOST_PARTIES, parties, key=_hash) if len(parties) > MOST_PARTIES else parties


def _hash(who: str) -> int:
    return int.from_bytes(blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def installs_of(
    shards: Iterable[Records], registry: Registry, names: Names, wanted: Mapping[Packaged, Iterable[str]]
) -> Installs:
    """Go through the flows for the contacts of the packages. shards: all FLOW records in parts; wanted: as Installs."""
    installs = Installs(wanted)
    for apps, met, contacts in _gathered(shards if wanted else (), registry, {package for _, package in wanted}):
        for code, day in met.iter_rows():
            installs.installed((day, apps[code].package), [registry.devices[apps[code].device]])
        who = [(code, app.package, app.device) for code, app in apps.items()]
        identities = pl.DataFrame(who, {"app": pl.UInt32, "package": pl.String, "device": pl.String}, orient="row")
        reached = contacts.join(followed(contacts, names, wanted), on=["name", "remote"])
        device = pl.col("device")
        installs.contacted(reached.join(identities, on="app").with_columns(first=device, last=device))
    return installs


def followed(contacts: pl.DataFrame, names: Names, wanted: Mapping[Packaged, Iterable[str]]) -> pl.DataFrame:
    """The party of each (name, remote) of the contacts, where any package's findings bridged it."""
    ends = contacts.select("name", "remote").unique()
    texts = names.texts(np.concatenate([ends["name"].to_numpy(), ends["remote"].to_numpy()])) if len(ends) else {}
    parties = [party(texts.get(name), texts.get(remote, "")) for name, remote in ends.iter_rows()]
    bridged = {who for parties in wanted.values() for who in parties}
    held = ends.with_columns(party=pl.Series(parties, dtype=pl.String))
    return held.filter(pl.Series([who in bridged for who in parties], dtype=pl.Boolean))


def _gathered(
    shards: Iterable[Records], registry: Registry, wanted: Collection[str]
) -> Iterator[tuple[dict[int, AppKey], pl.DataFrame, pl.DataFrame]]:
    """The packages' apps, distinct (app, day), and distinct (app, day, name, remote) of the flows that they dialled.

    HELD_CONTACTS or a little more at a time.
    """
    held: list[pl.DataFrame] = []
    met: list[pl.DataFrame] = []
    apps: dict[int, AppKey] = {}
    for flows in shards:
        own = {code: key for code, key in _apps(flows, registry).items() if key.package in wanted}
        rows = np.flatnonzero(np.isin(flows["app"], list(own)))
        apps |= own
        reached = pl.DataFrame(
            {
                "app": flows["app"][rows],
                "day": (written_at(flows[rows]) // DAY_US).astype(np.int32),
                "name": flows["name"][rows],
                "remote": flows["remote"][rows],
                "dialled": flows["direction"][rows] != Direction.INBOUND,
            }
        )
        met.append(reached.select("app", "day").unique())
        dialled = reached.filter("dialled").drop("dialled")
        held.append(dialled.group_by(pl.all()).agg())  # as unique(), in less time
        if sum(map(len, held)) > HELD_CONTACTS:
            yield apps, pl.concat(met), pl.concat(held)
            held, met, apps = [], [], {}
    if held:
        yield apps, pl.concat(met), pl.concat(held)


def _apps(flows: Records, registry: Registry) -> dict[int, AppKey]:
    return registry.app_keys(np.flatnonzero(np.bincount(flows["app"])).astype(np.uint32)) if len(flows) else {}
