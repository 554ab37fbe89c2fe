"""Sockets as successive tables show them: from many sightings of one to one connection or listener, in columns."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from relaywatch.sources.socket_rows import Row

PAUSE_US: Final = 120_000_000
"""A socket not seen for so long is another one when it comes again: the idle time that splits flows elsewhere."""
MOST_SOCKETS: Final = 500_000
"""Sockets of one dump; more do not fit a phone."""
BEYOND: Final = -1
"""In place of a socket's number: one beyond the first MOST_SOCKETS."""
NO_COUNT: Final = -1
"""In place of a byte count that is not shown."""
Numbers = npt.NDArray[np.int64]


class Sightings:
    """All sightings of one section, in the order of its lines. Times in us since epoch."""

    def __init__(self) -> None:
        self.connections: dict[Row, int] = {}
        self.bound: dict[tuple[int, int, int], int] = {}
        """Protocol, port and uid of listeners and raw sockets."""
        self.count = 0
        """Sightings of connections so far."""
        self._connected: list[pl.DataFrame] = []
        self._bound: list[pl.DataFrame] = []
        self._counted: list[pl.DataFrame] = []

    def connection(self, row: Row) -> int:
        """The connection's number."""
        found = self.connections.get(row, BEYOND)
        if found == BEYOND and len(self.connections) < MOST_SOCKETS:
            found = self.connections[row] = len(self.connections)
        return found

    def bound_socket(self, row: Row) -> int:
        """The number of a listener or raw socket."""
        key = (row.protocol, row.local_port, row.uid)
        found = self.bound.get(key, BEYOND)
        if found == BEYOND and len(self.bound) < MOST_SOCKETS:
            found = self.bound[key] = len(self.bound)
        return found

    def see_connections(self, numbers: Numbers, times: Numbers, positions: Numbers) -> None:
        """Sightings of connections; they are numbered from `count` on."""
        self._connected.append(_sightings(numbers, times, positions))
        self.count += len(numbers)

    def see_bound(self, numbers: Numbers, times: Numbers, positions: Numbers, listens: npt.NDArray[np.bool_]) -> None:
        """Sightings of listeners and raw sockets. listens: whether its state says that it takes connections."""
        self._bound.append(_sightings(numbers, times, positions).with_columns(listens=pl.Series(listens)))

    def count_bytes(self, sightings: Numbers, sent: Numbers, received: Numbers) -> None:
        """Byte counts so far of connections, by the number of the sighting; NO_COUNT where there is none."""
        self._counted.append(pl.DataFrame({"sighting": sightings, "bytes_out": sent, "bytes_in": received}))

    def connected(self) -> pl.DataFrame:
        """Each connection: number, first, last, position of its first line, bytes_out and bytes_in as last shown.

        Those that came again after a pause come first, by the place where they did; the others by their first line.
        """
        if not self.count:
            return pl.DataFrame(schema=dict.fromkeys(_CONNECTED, pl.Int64))
        before = pl.col("time").cum_max().shift(1).over("number")
        begins = (pl.col("time") - before > PAUSE_US).fill_null(value=False)
        sightings = pl.concat(self._connected).with_columns(part=begins.cum_sum().over("number"))
        follower = pl.col("position").shift(-1).over("number")
        return (
            self._with_bytes(sightings)
            .group_by("number", "part", maintain_order=True)
            .agg(
                first=pl.col("time").min(),
                last=pl.col("time").max(),
                position=pl.col("position").first(),
                bytes_out=pl.col("bytes_out").drop_nulls().last(),
                bytes_in=pl.col("bytes_in").drop_nulls().last(),
            )
            .with_columns(follower=follower)
            .sort(pl.col("follower").is_null(), pl.coalesce("follower", "position"))
            .select(_CONNECTED)
        )

    def _with_bytes(self, sightings: pl.DataFrame) -> pl.DataFrame:
        if not self._counted:
            return sightings.with_columns(bytes_out=pl.lit(None, pl.Int64), bytes_in=pl.lit(None, pl.Int64))
        counted = pl.concat(self._counted)
        columns = {}
        for name in ("bytes_out", "bytes_in"):
            shown = counted.filter(pl.col(name) != NO_COUNT)
            last = np.full(sightings.height, NO_COUNT, np.int64)
            last[shown["sighting"].to_numpy()] = shown[name].to_numpy()
            columns[name] = pl.when(pl.lit(last) != NO_COUNT).then(pl.lit(last))
        return sightings.with_columns(**columns)

    def listeners(self) -> pl.DataFrame:
        """Each listener and raw socket: number, first, last, position of its first line, listens."""
        if not self._bound:
            return pl.DataFrame(schema={**dict.fromkeys(_BOUND, pl.Int64), "listens": pl.Boolean})
        sightings = pl.concat(self._bound)
        return sightings.group_by("number", maintain_order=True).agg(
            first=pl.col("time").min(),
            last=pl.col("time").max(),
            position=pl.col("position").first(),
            listens=pl.col("listens").any(),
        )

    @property
    def total(self) -> int:
        """All sightings."""
        return self.count + sum(part.height for part in self._bound)


_BOUND: Final = ("number", "first", "last", "position")
_CONNECTED: Final = (*_BOUND, "bytes_out", "bytes_in")


def _sightings(numbers: Numbers, times: Numbers, positions: Numbers) -> pl.DataFrame:
    return pl.DataFrame({"number": numbers, "time": times, "position": positions})
