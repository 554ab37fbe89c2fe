"""The two ends of what a Zeek log records, as all its logs have them: addresses, the time, and which end is a device's.

Format: Zeek's documentation of the id record that its logs share. Times are the sensor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.lines import typed
from relaywatch.sources.reading import Reading
from relaywatch.sources.zeek_log import instants

SKEW_BOUND_S: Final = 1.0
"""A sensor's clock under NTP, and the time that packets wait to be stamped."""
SAID_CHARACTERS: Final = 300
ORIG: Final = "id.orig_h"
RESP: Final = "id.resp_h"
RESP_PORT: Final = "id.resp_p"
LOCAL: Final = (
    r"^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\."
    r"|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)"
)
"""RFC 1918, RFC 6598 (carrier NAT), RFC 4193, IPv6 link-local; on canonical text."""


def with_ends(
    frame: pl.DataFrame,
    kinds: Mapping[str, type[pl.DataType]],
    path: Path,
    reading: Reading,
    *,
    required: Sequence[str] = (),
) -> pl.DataFrame:
    """The records with `time` (microseconds) and canonical addresses, `kinds` cast; the others go to quarantine."""
    frame = frame.with_columns(
        instants("ts", frame["ts"].dtype).alias("time"),
        canonical_addresses(frame[ORIG]).alias(ORIG),
        canonical_addresses(frame[RESP]).alias(RESP),
    )
    return typed(frame, kinds, path, reading.quarantine, required=("time", ORIG, RESP, *required))


def host_name(column_name: str) -> pl.Expr:
    """A host name, lower case without the final dot; null where it is too long for one."""
    name = pl.col(column_name).str.to_lowercase().str.strip_chars_end(".")
    return pl.when(name.str.len_bytes().is_between(1, 253)).then(name).alias(column_name)


def proxy_signals(
    rows: pl.DataFrame, said: pl.Expr, kind: SignalKind, seen: Observability, path: Path, reading: Reading
) -> Batch:
    """A signal a row (as with_ends gives them): the responder is a proxy. `said`: the detail.

    A named device is the responder, unless a local client asks one outside: that is the outside one's.
    """
    outside = pl.col(ORIG).str.contains(LOCAL) & ~pl.col(RESP).str.contains(LOCAL)
    device = pl.when(outside | pl.lit(not reading.device)).then(pl.col(RESP)).otherwise(pl.lit(reading.device))
    shortened = said.str.strip_chars().str.head(SAID_CHARACTERS)
    found = rows.select("time", "position", RESP_PORT, device.alias("device"), shortened.alias("said"))
    columns = {
        "device_uid": text(found["device"]),
        "kind": int(kind),
        "start_time": column(found["time"]),
        "end_time": column(found["time"]),
        "observability": int(seen),
        "local_port": column(found[RESP_PORT]),
        "detail": text(found["said"]),
        "position": column(found["position"]),
    }
    return batch("signals", {**columns, **provenance(path)}, length=found.height)


def provenance(path: Path) -> dict[str, Any]:
    """Source and clock of a row."""
    return {"source": str(path), "clock": "sensor", "clock_skew_bound_s": SKEW_BOUND_S}
