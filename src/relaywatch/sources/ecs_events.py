"""Network documents of the Elastic Common Schema, nested or with dotted names.

Format: ECS 8, fieldsets source, destination, network, event, host, process, package. Source is who opened the
connection; network.direction says whether the host's view is inbound, where a host is named. Byte counts are IP bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import Observability
from relaywatch.model.tables import Batch
from relaywatch.sources.columns import written_instants
from relaywatch.sources.device_views import device_views, end_views, flow_batch, sound_ends
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 2.0
_INBOUND: Final = ("ingress", "inbound")
_OUTBOUND: Final = ("egress", "outbound")
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "sctp": 132}
_SIDE: Final = {
    "ip": pa.string(),
    "port": pa.int64(),
    "bytes": pa.int64(),
    "packets": pa.int64(),
    "domain": pa.string(),
}
_FIELDS: Final[Mapping[str, Mapping[str, pa.DataType]]] = {
    "source": _SIDE,
    "destination": _SIDE,
    "network": {
        "transport": pa.string(),
        "iana_number": pa.string(),
        "direction": pa.string(),
        "protocol": pa.string(),
    },
    "event": {"start": pa.string(), "end": pa.string(), "duration": pa.int64()},
    "host": {"id": pa.string(), "name": pa.string()},
    "package": {"name": pa.string()},
}
SCHEMA: Final = pa.schema(
    [
        ("@timestamp", pa.string()),
        *((name, pa.struct(list(fields.items()))) for name, fields in _FIELDS.items()),
        *((f"{name}.{field}", kind) for name, fields in _FIELDS.items() for field, kind in fields.items()),
    ]
)


class EcsEvents:
    """ECS documents as JSON lines. The device is --device, host.id, host.name, or the local address."""

    name: ClassVar[str] = "ecs"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with a time, an ECS version and a source or destination."""
        return any(_is_ecs(record) for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows of the network documents; others are left."""
        for frame in frames(stream, path, SCHEMA, reading):
            records = _records(frame)
            network = records["src_ip"].is_not_null() | records["dst_ip"].is_not_null()
            reading.tally.left("a document that is no connection", int((~network).sum()))
            sound = sound_ends(records.filter(network), path, reading)
            found = [part for part in _batches(sound, reading.device, path) if part.rows.num_rows]
            reading.tally.gave(found)
            yield from found


def _is_ecs(record: Mapping[str, Any]) -> bool:
    versioned = "ecs.version" in record or isinstance(record.get("ecs"), dict)
    ended = {"source", "destination", "source.ip", "destination.ip"} & record.keys()
    return "@timestamp" in record and versioned and bool(ended)


def _records(frame: pl.DataFrame) -> pl.DataFrame:
    """The documents under one set of names."""

    def value(name: str, field: str) -> pl.Expr:
        return pl.coalesce(pl.col(name).struct.field(field), pl.col(f"{name}.{field}"))

    times = {"logged": pl.col("@timestamp"), "begun": value("event", "start"), "ended": value("event", "end")}
    frame = frame.with_columns(written_instants(written).alias(name) for name, written in times.items())
    logged, duration = pl.col("logged"), value("event", "duration") // 1000
    start = pl.coalesce("begun", logged - duration.fill_null(0))
    number = value("network", "iana_number").cast(pl.UInt8, strict=False)
    by_name = value("network", "transport").str.to_lowercase()
    host = pl.coalesce(value("host", "id"), value("host", "name"))
    hostname = value("destination", "domain").str.to_lowercase().str.strip_chars_end(".")
    sides = {
        f"{short}_{field}": value(name, field)
        for name, short in (("source", "src"), ("destination", "dst"))
        for field in ("ip", "port", "bytes", "packets")
    }
    return frame.select(
        "position",
        start.alias("time"),
        pl.coalesce("ended", start + duration, logged).alias("end"),
        pl.coalesce(number, by_name.replace_strict(_PROTOCOLS, default=None, return_dtype=pl.UInt8)).alias("protocol"),
        hostname.alias("hostname"),
        pl.when(hostname.is_not_null()).then(int(Observability.INFERRED)).otherwise(0).alias("hostname_seen"),
        value("network", "protocol").alias("app_protocol"),
        host.alias("host"),
        value("network", "direction").is_in(_INBOUND).fill_null(value=False).alias("inbound"),
        value("network", "direction").is_in([*_INBOUND, *_OUTBOUND]).fill_null(value=False).alias("told"),
        value("package", "name").alias("package"),
        *(side.alias(name) for name, side in sides.items()),
    )


def _batches(records: pl.DataFrame, device: str, path: Path) -> Iterator[Batch]:
    """Flows by what is known of whose view they are: a named host's own end, else the local end."""
    hosted = records["host"].is_not_null() & records["told"] & (not device)
    views = [device_views(records.filter(~hosted), device)]
    own = records.filter(hosted)
    for end, inbound in (("src", False), ("dst", True)):
        seen = end_views(own.filter(own["inbound"] == inbound), end)
        hosts = seen.select("position").join(
            own.select("position", "host"), on="position", how="left", maintain_order="left"
        )
        views.append(seen.with_columns(hosts["host"].alias("device")))
    for part in views:
        if part.height:
            yield flow_batch(part, path, SKEW_BOUND_S, direction=Observability.OBSERVED)
