"""Zeek's http.log: CONNECT requests that a proxy on a device answered, and the hosts of plain HTTP connections.

A CONNECT that the device answers is direct proof of a proxy on it. Other requests name their connection by the Host
that the client sent, unless the request went to a proxy (its target is a whole URL), whose Host names a third party.
Format: Zeek's documentation of base/protocols/http.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.zeek_ends import ORIG, RESP, RESP_PORT, host_name, proxy_signals, with_ends
from relaywatch.sources.zeek_log import log_kind, text_frames
from relaywatch.sources.zeek_names import NAMES_KEPT, ONLY_NAMES, TlsNames

_COLUMNS: Final = ("ts", "uid", ORIG, RESP, RESP_PORT, "method", "host", "uri", "status_code")
_NAME: Final = r"^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?$"
_NO_NAME: Final = r"^[0-9.]+$"
_TO_PROXY: Final = r"^(?i:[a-z][a-z0-9+.-]*://)"


class ZeekHttp:
    """One http.log given by itself; the names that it holds are for the flows of a conn.log."""

    name: ClassVar[str] = "zeek-http"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path http header, or a JSON record with http.log's keys."""
        return log_kind(head) == "http"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """The CONNECT requests that devices answered."""
        yield from http_signals(path, stream, reading, TlsNames())


def http_signals(path: Path, stream: BinaryIO, reading: Reading, names: TlsNames) -> Iterator[Batch]:
    """CONNECT requests as signals; the hosts of the other requests go to `names`."""
    kinds = {RESP_PORT: pl.UInt16, "status_code": pl.UInt16}
    for frame in text_frames(stream, path, _COLUMNS, reading, counts=tuple(kinds)):
        frame = with_ends(frame, kinds, path, reading)
        connects = (pl.col("method").str.to_uppercase() == "CONNECT").fill_null(value=False)
        asked = frame.filter(connects)
        direct = frame.filter(~connects)
        reading.tally.left(ONLY_NAMES, direct.height)
        names.add(_hosts(direct).head(NAMES_KEPT - names.count))
        names.bar(frame.filter(connects | _to_proxy())["uid"])
        if asked.height:
            target = pl.coalesce("uri", "host", pl.lit("?"))
            said = pl.format("CONNECT {} {}", target, pl.col("status_code").cast(pl.String).fill_null(""))
            signals = proxy_signals(asked, said, SignalKind.HTTP_CONNECT, Observability.OBSERVED, path, reading)
            reading.tally.gave([signals])
            yield signals


def _to_proxy() -> pl.Expr:
    return pl.col("uri").fill_null("").str.contains(_TO_PROXY)


def _hosts(requests: pl.DataFrame) -> pl.DataFrame:
    """The connection and the host of each request to an origin server."""
    named = requests.filter(~_to_proxy()).select("uid", pl.col("host").str.replace(r":\d{1,5}$", ""))
    named = named.with_columns(host_name("host"))
    sound = pl.col("host").str.contains(_NAME) & ~pl.col("host").str.contains(_NO_NAME)
    return named.filter(sound).select("uid", pl.col("host").alias("server_name"))
