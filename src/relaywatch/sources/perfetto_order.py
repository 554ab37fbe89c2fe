"""Perfetto's packets in the order of their times, with what their neighbours tell: a packet's own app, and its headers.

A poll's packets come bundled by equal attributes, in no order; a SYN may stand behind the answer to it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from relaywatch.sources.capture_columns import PACKET, Records
from relaywatch.sources.capture_decode import TCP, UDP
from relaywatch.sources.capture_flows import RST, SYN
from relaywatch.sources.perfetto_packets import ROW

HELD: Final = 1 << 19
"""Packets held for ordering."""
WINDOW_NS: Final = 120_000_000_000
"""How much later than a newer packet a packet may be written: two of the longest polls."""
NEAR_NS: Final = 120_000_000_000
"""Between packets of one connection, one of which has no socket."""
_BARE: Final = {40: 40, 60: 60, 72: 72}
"""IP and TCP headers of a packet without payload: IPv4 and IPv6, the smaller ones without timestamps."""
_USUAL: Final = 52
"""IPv4 with TCP timestamps, which phones send by default."""
_DATAGRAM: Final = 28
_OTHER: Final = 20
_SYN_RST: Final = SYN | RST
_NONE: Final = 1 << 40


class Order:
    """Holds packets until no earlier one is to be expected; at most HELD and what comes at once."""

    def __init__(self) -> None:
        self._parts: list[Records] = []
        self._held = 0

    def take(self, rows: Records) -> Records:
        """Rows in; what is due comes out, in order of time."""
        self._parts.append(rows)
        self._held += len(rows)
        return self._due(everything=False) if self._held >= HELD else rows[:0]

    def end(self) -> Records:
        """All that is held."""
        return self._due(everything=True)

    def _due(self, *, everything: bool) -> Records:
        rows = np.concatenate([np.empty(0, ROW), *self._parts])
        rows = rows[np.argsort(rows["time"], kind="stable")]
        # Before the cut: a packet's neighbours may be due before it.
        rows["uid"] = _uids(rows, *_connections(rows))
        cut = len(rows)
        if not everything and cut:
            # Times that lie wide apart must not hold back everything: half of it is let go in any case.
            newest = int(rows["time"][-1]) - WINDOW_NS
            cut = max(int(np.searchsorted(rows["time"], newest)), cut // 2)
        self._parts, self._held = [rows[cut:].copy()], len(rows) - cut
        return rows[:cut]


def packets(rows: Records) -> Records:
    """PACKET records of rows as Order gives them; lengths of headers are estimated."""
    found = np.zeros(len(rows), PACKET)
    order, begins = _connections(rows)
    uid = rows["uid"]
    sent = rows["direction"] == 2
    for end, mine in (("src", sent), ("dst", ~sent)):
        # The phone's end is told by its app and interface, the other one by nothing but its port.
        found[f"{end}_high"] = np.where(mine, uid.astype(np.uint64) + np.uint64(1 << 32), 0)
        found[f"{end}_low"] = np.where(mine, rows["interface"], 0)
        found[f"{end}_port"] = np.where(mine, rows["local_port"], rows["remote_port"])
    found["data"] = rows["position"]
    found["time"], found["uid"] = rows["time"] // 1_000, uid
    found["protocol"], found["flags"], found["heading"] = rows["protocol"], rows["flags"], rows["direction"]
    found["wire_bytes"], found["packets"] = rows["length"], rows["packets"]
    found["payload_bytes"] = np.maximum(rows["length"] - rows["packets"] * _headers(rows, order, begins), 0)
    found["payload_bytes"][(rows["protocol"] == TCP) & ((rows["flags"] & _SYN_RST) > 0)] = 0
    return found


def _connections(rows: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by interface, protocol and ports, each in order of time; where each such group begins."""
    ports = rows["local_port"].astype(np.uint64) << np.uint64(16) | rows["remote_port"]
    key = rows["interface"] * np.uint64(0x9E37_79B9_7F4A_7C15) ^ (rows["protocol"].astype(np.uint64) << np.uint64(32))
    key ^= ports
    order = np.argsort(key, kind="stable")
    changes = np.flatnonzero(key[order][1:] != key[order][:-1]) + 1
    return order, np.concatenate([[0], changes]).astype(np.int64)[: len(rows)]


def _uids(rows: Records, order: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """The uid of each row. One without a socket (uid 0) is that of its nearest neighbour on the same ports.

    The answer to a SYN, and what comes after a close, have no socket of the app's; the kernel's hook then gives 0.
    """
    uid = rows["uid"].astype(np.int64)
    if not len(rows) or uid.all():
        return uid
    own, time = uid[order], rows["time"][order]
    group = np.zeros(len(rows), np.int64)
    group[begins] = 1
    group = np.cumsum(group)
    place = np.arange(len(rows))
    before = np.maximum.accumulate(np.where(own > 0, place, -1))
    after = np.minimum.accumulate(np.where(own > 0, place, len(rows))[::-1])[::-1]
    chosen = own.copy()
    best: NDArray[Any] = np.full(len(rows), NEAR_NS + 1)
    for neighbour in (before, after):
        there = np.clip(neighbour, 0, len(rows) - 1)
        sound = (neighbour >= 0) & (neighbour < len(rows)) & (group[there] == group)
        apart = np.where(sound, np.abs(time[there] - time), NEAR_NS + 1)
        nearer = (own == 0) & (apart < best)
        chosen[nearer], best = own[there[nearer]], np.where(nearer, apart, best)
    uid[order] = chosen
    return uid


def _headers(rows: Records, order: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Header bytes of each packet: of a TCP connection by its smallest packets, which are bare acknowledgements."""
    if not len(rows):
        return np.zeros(0, np.int64)
    mean = rows["length"] // np.maximum(rows["packets"], 1)
    plain = (rows["protocol"] == TCP) & ((rows["flags"] & _SYN_RST) == 0)
    smallest = np.minimum.reduceat(np.where(plain, mean, _NONE)[order], begins)
    bare = np.where(np.isin(smallest, list(_BARE)), smallest, np.minimum(_USUAL, smallest))
    counts = np.diff(np.append(begins, len(rows)))
    headers = np.empty(len(rows), np.int64)
    headers[order] = np.repeat(bare, counts)
    return np.where(rows["protocol"] == TCP, headers, np.where(rows["protocol"] == UDP, _DATAGRAM, _OTHER))
