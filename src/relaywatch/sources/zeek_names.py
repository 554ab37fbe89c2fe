"""Names that Zeek's logs give to connections: ssl.log by connection, dns.log by client, address and time."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

_Whole: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

NAMES_KEPT: Final = 2_000_000
"""Names held of each log; further ones are left out, so that memory stays bounded."""
ONLY_NAMES: Final = "names the flows of a conn.log"
"""What becomes of a sound record that gives no row because it only explains."""
ANSWER_HOLDS_MS: Final = 86_400_000
"""How long an answer explains connections to its address: a day, the usual longest that resolvers cache."""
_MS_BITS: Final = 42
"""Bits for milliseconds within one look-up key: 139 years; 21 bits are left for the pairs, enough for NAMES_KEPT."""


class TlsNames:
    """The host that a client named, by Zeek's connection uid; the first that was added counts.

    Keys are 64-bit hashes: sixteen bytes a connection.
    """

    def __init__(self) -> None:
        self._uids: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        self._names: list[pl.Series] = []
        self._barred: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        self.count = 0

    def bar(self, uids: pl.Series) -> None:
        """Never name these connections: what is asked for through a proxy is not the proxy's name."""
        if sum(map(len, self._barred)) < NAMES_KEPT:
            self._barred.append(uids.drop_nulls().cast(pl.String).hash().to_numpy())

    def add(self, frame: pl.DataFrame) -> None:
        """Take the named connections of a block of ssl.log (columns uid, server_name)."""
        named = frame.select("uid", pl.col("server_name").cast(pl.String)).drop_nulls()
        self._uids.append(named["uid"].cast(pl.String).hash().to_numpy())
        self._names.append(named["server_name"])
        self.count += named.height

    def close(self) -> None:
        """Order the names for look-up; nothing can be added after."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._uids])
        order = np.argsort(keys, kind="stable")
        if self._barred:
            order = order[~np.isin(keys[order], np.concatenate(self._barred))]
        self._keys = keys[order]
        self._ordered = pl.concat([pl.Series("name", [], pl.String), *(s.rename("name") for s in self._names)])[order]
        self._uids, self._names, self._barred = [], [], []

    def of(self, uids: pl.Series) -> pl.Series:
        """The name of each connection; null where there is none."""
        if not len(self._keys):
            return pl.repeat(None, len(uids), dtype=pl.String, eager=True)
        wanted = uids.cast(pl.String).hash().to_numpy()
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        hit = pl.Series(self._keys[at] == wanted) & uids.is_not_null()
        return self._ordered[at].zip_with(hit, pl.repeat(None, len(uids), dtype=pl.String, eager=True))


class DnsNames:
    """The last name that a client had resolved to an address, at a time."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self.count = 0

    def add(self, answers: pl.DataFrame) -> None:
        """Take answers: columns client, address (text), time (microseconds), name."""
        kept = answers.select(
            _pair("client", "address").hash().alias("pair"), (pl.col("time") // 1000).alias("ms"), pl.col("name")
        )
        self._parts.append(kept)
        self.count += kept.height

    def close(self) -> None:
        """Order the answers for look-up; nothing can be added after."""
        schema = {"pair": pl.UInt64, "ms": pl.Int64, "name": pl.String}
        table = pl.concat([pl.DataFrame(schema=schema), *self._parts]).sort("pair", "ms", maintain_order=True)
        self._parts = []
        pairs = table["pair"].to_numpy()
        self._pairs = np.unique(pairs)
        self._first_ms = 0 if table.is_empty() else int(table["ms"].to_numpy().min())
        self._keys = self._key(np.searchsorted(self._pairs, pairs), table["ms"].to_numpy())
        self._names = table["name"]

    def of(self, frame: pl.DataFrame, client: str, address: str, time: str) -> pl.Series:
        """The name for each row's (client, address) at its time (microseconds); null where there is none."""
        none = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
        if not len(self._keys):
            return none
        wanted = frame.select(_pair(client, address).hash().alias("pair"))["pair"].to_numpy()
        index = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        ms = frame[time].to_numpy() // 1000
        at = np.searchsorted(self._keys, self._key(index, ms), side="right") - 1
        lowest = self._key(index, ms - ANSWER_HOLDS_MS)
        found = np.maximum(at, 0)
        hit = (self._pairs[index] == wanted) & (at >= 0) & (ms >= self._first_ms) & (self._keys[found] >= lowest)
        return self._names[found].zip_with(pl.Series(hit), none)

    def _key(self, index: _Whole, ms: _Whole) -> _Whole:
        """(pair, time) as one ordered number."""
        since = np.clip(ms - self._first_ms, 0, (1 << _MS_BITS) - 1)
        return (index.astype(np.int64) << _MS_BITS) + since


def _pair(client: str, address: str) -> pl.Expr:
    return pl.concat_str(pl.col(client), pl.col(address), separator=" ")
