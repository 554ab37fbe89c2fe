"""Which destinations other installs of an app contact on a day: a second look, only for apps with findings.

Memory follows the destinations that findings bridged, MOST_PARTIES a package and day.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from heapq import nsmallest
from typing import Final

import numpy as np
import polars as pl

from relaywatch.detection.spread import OtherInstalls, party
from relaywatch.engines.names import Names

MOST_PARTIES: Final = 16_384
"""Destinations followed for one package. Up to it counts are exact; beyond it those with the smallest hashes are
followed, the same ones on every run: a random sample, whose share is off by 0.4 % (one deviation) at the most."""
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
        self._devices = dict.fromkeys(wanted, 0)
        self._parties = {package: set(_sampled(set(parties))) for package, parties in wanted.items()}
        rows = [(*package, who) for package, parties in self._parties.items() for who in parties]
        self._followed = pl.DataFrame(rows, _ASKED, orient="row")
        # Of the devices that contact a party the first and last by name: two of them tell any third it is not alone.
        self._held = [pl.DataFrame(schema={**_ASKED, **_ENDS})]
        self._contacts: dict[Packaged, dict[str, tuple[str, str]]] | None = None

    def installed(self, package: Packaged, devices: int) -> None:
        """So many devices more have the package; packages that nobody asked for are passed over."""
        if package in self._devices:
            self._devices[package] += devices

    def contacted(self, contacts: pl.DataFrame) -> None:
        """Take in contacts: day, package, party, and the first and last of devices that contact it, by name.

        Those that nobody asked for are passed over.
        """
        self._held.append(_together(contacts.join(self._followed, on=list(_ASKED), how="semi")))
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
        return OtherInstalls(self._devices.get(package, 0), len(compared), alone)

    def _merge(self) -> pl.DataFrame:
        self._held = [_together(pl.concat(self._held))]
        return self._held[0]


def _together(contacts: pl.DataFrame) -> pl.DataFrame:
    return contacts.group_by(*_ASKED).agg(pl.min("first"), pl.max("last"))


def _sampled(parties: Collection[str]) -> Collection[str]:
    """The parties, of more than MOST_PARTIES those with the smallest hashes."""
    return nsmallest(MOST_PARTIES, parties, key=_hash) if len(parties) > MOST_PARTIES else parties


def _hash(who: str) -> int:
    return int.from_bytes(blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def followed(contacts: pl.DataFrame, names: Names, wanted: Mapping[Packaged, Iterable[str]]) -> pl.DataFrame:
    """The party of each (name, remote) of the contacts, where any package's findings bridged it."""
    ends = contacts.select("name", "remote").unique()
    texts = names.texts(np.concatenate([ends["name"].to_numpy(), ends["remote"].to_numpy()])) if len(ends) else {}
    parties = [party(texts.get(name), texts.get(remote, "")) for name, remote in ends.iter_rows()]
    bridged = {who for parties in wanted.values() for who in parties}
    held = ends.with_columns(party=pl.Series(parties, dtype=pl.String))
    return held.filter(pl.Series([who in bridged for who in parties], dtype=pl.Boolean))
