"""Which local ports of a connection list are listeners, where the list does not say who opened a connection.

An app that dials draws a fresh ephemeral port for nearly every connection, while every session that it accepts carries
the port that it listens on. A local TCP port with several remote endpoints, all on client-like ports, is therefore a
listener, unless so many connections were made that ephemeral ports repeat by chance. One UDP socket may send to
anybody, so UDP tells nothing. What follows from this is inferred, never observed.
"""

from __future__ import annotations

import math
from typing import Final

import polars as pl

FEWEST_REMOTES: Final = 3
CLIENT_PORTS: Final = 1_024
"""Lowest port that a client is expected to dial from (RFC 6335, section 6: user and dynamic ports)."""
EPHEMERAL_PORTS: Final = 14_000
"""Ports that a phone draws from: half of Linux's default range, because vendors narrow it."""
CHANCE: Final = 0.01
"""Listeners found by chance in one list, at the most."""
_SOCKET: Final = ("local_ip", "local_port")
_USED: Final = ("protocol_num", *_SOCKET, "remote_ip", "remote_port")


def accepted(connections: pl.DataFrame) -> pl.Series:
    """Whether each connection was accepted, as far as the use of local ports shows it.

    connections: one row each, with protocol_num, local_ip, local_port, remote_ip, remote_port; a row with a null is not
    accepted.
    """
    tcp = connections.select(_USED).with_row_index("row").filter(pl.col("protocol_num") == 6).drop_nulls()
    sockets = tcp.group_by(_SOCKET).agg(
        pl.struct("remote_ip", "remote_port").n_unique().alias("remotes"),
        pl.col("remote_port").n_unique().alias("remote_ports"),
        pl.col("remote_port").min().alias("lowest"),
    )
    client_like = sockets.filter(pl.col("lowest") >= CLIENT_PORTS)
    needed = fewest_remotes(int(client_like["remotes"].sum()))
    listeners = client_like.filter(pl.col("remotes") >= needed, pl.col("remote_ports") >= FEWEST_REMOTES)
    rows = tcp.join(listeners, on=_SOCKET, how="semi")["row"]
    return pl.int_range(connections.height, dtype=pl.UInt32, eager=True).is_in(rows.implode()).alias("accepted")


def fewest_remotes(connections: int) -> int:
    """Remotes on one port from which it is a listener, in a list of so many connections.

    Dialled connections draw one of EPHEMERAL_PORTS each, so a port's count is Poisson; Chernoff's bound of its tail,
    over all ports together, is at most CHANCE.
    """
    mean = max(connections, 1) / EPHEMERAL_PORTS
    count = max(FEWEST_REMOTES, math.ceil(mean))
    while count * math.log(count / mean) - count + mean < math.log(EPHEMERAL_PORTS / CHANCE):
        count += 1
    return count
