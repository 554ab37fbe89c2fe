"""Zeek's socks.log and tunnel.log: requests that a proxy on a device answered, and proxies that Zeek met.

A line of socks.log is one request. tunnel.log has one line for the first request of a client to a proxy (action
Tunnel::DISCOVER), so the requests behind it are inferred, and what ends or is no proxy gives no row.
Format: Zeek's documentation of base/protocols/socks and base/frameworks/tunnels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.zeek_ends import ORIG, RESP, RESP_PORT, proxy_signals, with_ends
from relaywatch.sources.zeek_log import log_kind, text_frames

_SOCKS: Final = ("ts", "version", "status", "request.host", "request.name", "request_p", RESP_PORT, ORIG, RESP)
_TUNNEL: Final = ("ts", "tunnel_type", "action", RESP_PORT, ORIG, RESP)
_PROXIES: Final = {"Tunnel::SOCKS": SignalKind.SOCKS_REQUEST, "Tunnel::HTTP": SignalKind.HTTP_CONNECT}


class ZeekSocks:
    """One socks.log given by itself."""

    name: ClassVar[str] = "zeek-socks"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path socks header, or a JSON record with socks.log's keys."""
        return log_kind(head) == "socks"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """The SOCKS requests that devices answered."""
        yield from socks_signals(path, stream, reading)


class ZeekTunnel:
    """One tunnel.log given by itself."""

    name: ClassVar[str] = "zeek-tunnel"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path tunnel header, or a JSON record with tunnel.log's keys."""
        return log_kind(head) == "tunnel"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """The proxies that clients found on devices."""
        yield from tunnel_signals(path, stream, reading)


def socks_signals(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """SOCKS requests that a device answered: direct proof of a proxy on it."""
    kinds = {RESP_PORT: pl.UInt16, "request_p": pl.UInt16, "version": pl.UInt8}
    for frame in text_frames(stream, path, _SOCKS, reading, counts=tuple(kinds)):
        frame = with_ends(frame, kinds, path, reading)
        if frame.is_empty():
            continue
        said = pl.format(
            "SOCKS{} {}:{} {}",
            pl.col("version").cast(pl.String).fill_null(""),
            pl.coalesce("request.name", "request.host", pl.lit("?")),
            pl.col("request_p").cast(pl.String).fill_null("?"),
            pl.col("status").fill_null(""),
        )
        signals = proxy_signals(frame, said, SignalKind.SOCKS_REQUEST, Observability.OBSERVED, path, reading)
        reading.tally.gave([signals])
        yield signals


def tunnel_signals(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """A signal for each proxy that a client found."""
    for frame in text_frames(stream, path, _TUNNEL, reading, counts=(RESP_PORT,)):
        frame = with_ends(frame, {RESP_PORT: pl.UInt16}, path, reading, required=("tunnel_type",))
        ended = (pl.col("action") != "Tunnel::DISCOVER").fill_null(value=False)
        begun = frame.filter(~ended)
        reading.tally.left("says when a tunnel ended", frame.height - begun.height)
        others = begun.filter(~pl.col("tunnel_type").is_in(list(_PROXIES)))
        reading.tally.left("a tunnel that is no proxy", others.height)
        for tunnel, kind in _PROXIES.items():
            met = begun.filter(pl.col("tunnel_type") == tunnel)
            if met.height:
                said = pl.lit(f"{tunnel} found")
                signals = proxy_signals(met, said, kind, Observability.INFERRED, path, reading)
                reading.tally.gave([signals])
                yield signals
