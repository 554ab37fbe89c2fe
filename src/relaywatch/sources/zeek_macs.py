"""Which hardware address used which local address, from the columns that Zeek's policy/protocols/conn/mac-logging adds.

The only tie between a phone's IPv6 addresses, which no lease names. Behind a router every device shows the router's
address: one that had several IPv4 addresses, or very many in all, is nobody's and is not stated.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import polars as pl

from relaywatch.model.schemas import IdentifierKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.zeek_ends import provenance

PAIRS_KEPT: Final = 200_000
"""Pairs of hardware and local address held of one log; further ones are not stated."""
MOST_ADDRESSES: Final = 64
"""A phone has one IPv4 address and draws a few IPv6 addresses a day."""
MAC: Final = r"^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$"


class Macs:
    """The hardware addresses of one log's local ends, each with the time from its first to its last connection."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], tuple[int, int, int]] = {}

    def see(self, views: pl.DataFrame) -> None:
        """Take in flows: columns device, local_ip, mac (null where not logged), is_local, time (us), position."""
        if views["mac"].null_count() == views.height:
            return
        named = views.with_columns(pl.col("mac").str.to_lowercase()).filter("is_local", pl.col("mac").str.contains(MAC))
        ends = (pl.col("time").min().alias("first"), pl.col("time").max().alias("last"), pl.col("position").min())
        found = named.group_by("mac", "local_ip", "device", maintain_order=True).agg(*ends)
        for mac, address, device, first, last, position in found.iter_rows():
            key = mac, address, device
            if key in self._seen or len(self._seen) < PAIRS_KEPT:
                before = self._seen.get(key, (first, last, position))
                self._seen[key] = min(before[0], first), max(before[1], last), before[2]

    def rows(self, path: Path) -> Batch | None:
        """An inventory row for each device and its hardware address; None where none can be stated."""
        addresses: defaultdict[str, set[str]] = defaultdict(set)
        for mac, address, _ in self._seen:
            addresses[mac].add(address)
        own = {m for m, held in addresses.items() if len(held) <= MOST_ADDRESSES and sum("." in a for a in held) <= 1}
        said = [(key[2], key[0], *times) for key, times in self._seen.items() if key[0] in own]
        if not said:
            return None
        columns = {
            "device_uid": [row[0] for row in said],
            "identifier_kind": str(IdentifierKind.MAC),
            "identifier": [row[1] for row in said],
            "valid_from": [row[2] for row in said],
            "valid_to": [row[3] for row in said],
            "position": [row[4] for row in said],
        }
        return batch("inventory", {**columns, **provenance(path)}, length=len(said))
