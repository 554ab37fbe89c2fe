"""From a sensor's source and destination to the device's side: which end is a device, and what left it.

A connection between two local addresses is two views, one of each end; one between two others is its source's. Where
the user names the one device, it is the local end. Wire bytes are IP bytes; payload is estimated from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.reading import Reading
from relaywatch.sources.zeek_ends import LOCAL

TCP_HEADERS: Final = 40
UDP_HEADERS: Final = 28
IPV6_MORE: Final = 20
_PLAIN: Final = (
    *("time", "end", "protocol", "established", "app_protocol", "hostname", "hostname_seen", "flow_id", "package"),
)


def sound_ends(frame: pl.DataFrame, path: Path, reading: Reading, *, place: str = "line") -> pl.DataFrame:
    """The records with a time, two addresses and a protocol; the others go to quarantine.

    frame: position, time (us since epoch), protocol (IANA number), src_ip and dst_ip as text.
    """
    frame = frame.with_columns(canonical_addresses(frame[name]).alias(name) for name in ("src_ip", "dst_ip"))
    needed = {
        "time": "a time",
        "src_ip": "a source address",
        "dst_ip": "a destination address",
        "protocol": "a protocol",
    }
    if not any(frame[name].null_count() for name in needed):
        return frame
    missing = pl.coalesce(pl.when(pl.col(name).is_null()).then(pl.lit(what)) for name, what in needed.items())
    told = frame.select("position", missing.alias("missing")).drop_nulls().unique("position", maintain_order=True)
    for position, what in told.iter_rows():
        reading.quarantine.add(str(path), f"{place} {position}", f"{what} is missing or not valid")
    return frame.join(told, on="position", how="anti", maintain_order="left")


def device_views(frame: pl.DataFrame, device: str) -> pl.DataFrame:
    """One row a device end: local_*, remote_*, *_out, *_in and `inbound`, `device`.

    frame: sound_ends' columns with src_* and dst_* of port, bytes (IP bytes sent by that end), packets and, where the
    sensor knows it, payload; src is the end that opened the connection. Missing columns are null.
    """
    frame = _completed(frame)
    src, dst = _local(frame["src_ip"]), _local(frame["dst_ip"])
    as_src, as_dst = src | ~dst, dst
    if device:
        as_dst = dst & ~src
        as_src = ~as_dst
    views = [_view(frame.filter(as_src), "src", "dst"), _view(frame.filter(as_dst), "dst", "src")]
    table = pl.concat(views).sort("position", maintain_order=True)
    return table.with_columns(pl.lit(device).alias("device") if device else pl.col("local_ip").alias("device"))


def _local(addresses: pl.Series) -> pl.Series:
    distinct = addresses.unique()
    return addresses.is_in(distinct.filter(distinct.str.contains(LOCAL)).implode())


def end_views(frame: pl.DataFrame, end: str) -> pl.DataFrame:
    """One row a record, seen from one end, "src" or "dst", whatever its address: device_views without `device`."""
    return _view(_completed(frame), end, "dst" if end == "src" else "src")


def _completed(frame: pl.DataFrame) -> pl.DataFrame:
    """All columns that a view takes, of one type each."""
    kinds: dict[str, Any] = {"time": pl.Int64, "end": pl.Int64, "protocol": pl.UInt8, "established": pl.Boolean}
    kinds |= {"app_protocol": pl.String, "hostname": pl.String, "hostname_seen": pl.UInt8, "flow_id": pl.Int64}
    kinds |= {"package": pl.String}
    for end in ("src", "dst"):
        kinds |= {f"{end}_ip": pl.String, f"{end}_port": pl.UInt16}
        kinds |= {f"{end}_{name}": pl.Int64 for name in ("bytes", "packets", "payload")}
    made = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind, strict=False).alias(name)
        for name, kind in kinds.items()
    ]
    return frame.select("position", *made)


def _view(frame: pl.DataFrame, own: str, other: str) -> pl.DataFrame:
    headers = (
        pl.when(pl.col("protocol") == 6)
        .then(TCP_HEADERS)
        .when(pl.col("protocol") == 17)
        .then(UDP_HEADERS)
        .otherwise(20)
    ) + pl.when(pl.col("src_ip").str.contains(":", literal=True)).then(IPV6_MORE).otherwise(0)
    estimated = {
        end: (pl.col(f"{end}_bytes") - pl.col(f"{end}_packets") * headers).clip(0).alias(f"{end}_estimate")
        for end in (own, other)
    }
    return frame.with_columns(estimated.values()).select(
        "position",
        *_PLAIN,
        pl.lit(own == "dst").alias("inbound"),
        *(pl.col(f"{own}_{name}").alias(f"local_{name}") for name in ("ip", "port")),
        *(pl.col(f"{other}_{name}").alias(f"remote_{name}") for name in ("ip", "port")),
        pl.col(f"{own}_bytes").alias("wire_out"),
        pl.col(f"{other}_bytes").alias("wire_in"),
        pl.col(f"{own}_packets").alias("packets_out"),
        pl.col(f"{other}_packets").alias("packets_in"),
        pl.coalesce(f"{own}_payload", f"{own}_estimate").alias("bytes_out"),
        pl.coalesce(f"{other}_payload", f"{other}_estimate").alias("bytes_in"),
        (pl.col(f"{own}_payload").is_not_null() & pl.col(f"{other}_payload").is_not_null()).alias("payload_known"),
    )


def flow_batch(views: pl.DataFrame, path: Path, skew_bound_s: float, *, direction: Observability) -> Batch:
    """Flows of the views; direction: how the source knows who opened a connection."""
    bytes_seen = (
        pl.when(pl.col("payload_known"))
        .then(int(Observability.OBSERVED))
        .when(pl.col("bytes_out").is_not_null() | pl.col("bytes_in").is_not_null())
        .then(int(Observability.INFERRED))
        .otherwise(int(Observability.NOT_OBSERVABLE))
    )
    ported = pl.col("protocol").is_in([6, 17, 132])
    derived = views.select(
        pl.when(pl.col("inbound")).then(int(Direction.INBOUND)).otherwise(int(Direction.OUTBOUND)).alias("direction"),
        bytes_seen.alias("bytes_seen"),
        pl.when(~pl.col("inbound")).then(pl.col("hostname")).alias("hostname"),
        pl.when(~pl.col("inbound")).then(pl.col("hostname_seen")).otherwise(0).alias("hostname_seen"),
        pl.when(ported).then(pl.col("local_port")).alias("local_port"),
        pl.when(ported).then(pl.col("remote_port")).alias("remote_port"),
        pl.coalesce("flow_id", "position").alias("flow_id"),
    )
    columns = {
        "device_uid": text(views["device"]),
        "android_package": text(views["package"]),
        "flow_id": column(derived["flow_id"]),
        "start_time": column(views["time"]),
        "end_time": column(views["end"]),
        "protocol_num": column(views["protocol"]),
        "direction_id": column(derived["direction"]),
        "direction_observability": int(direction),
        "local_ip": text(views["local_ip"]),
        "local_port": column(derived["local_port"]),
        "remote_ip": text(views["remote_ip"]),
        "remote_port": column(derived["remote_port"]),
        "remote_hostname": text(derived["hostname"]),
        "hostname_observability": column(derived["hostname_seen"]),
        "bytes_out": column(views["bytes_out"]),
        "bytes_in": column(views["bytes_in"]),
        "bytes_observability": column(derived["bytes_seen"]),
        "wire_bytes_out": column(views["wire_out"]),
        "wire_bytes_in": column(views["wire_in"]),
        "packets_out": column(views["packets_out"]),
        "packets_in": column(views["packets_in"]),
        "established": column(views["established"]),
        "app_protocol": text(views["app_protocol"]),
        "position": column(views["position"]),
        **sensed(path, skew_bound_s),
    }
    return batch("flows", columns, length=views.height)


def capture_batch(spans: dict[str, tuple[int, int]], path: Path, skew_bound_s: float, detail: str = "") -> Batch:
    """A CAPTURE signal a device over its span (us); detail: kinds of signal that the source would have shown."""
    columns = {
        "device_uid": list(spans),
        "kind": int(SignalKind.CAPTURE),
        "start_time": [first for first, _ in spans.values()],
        "end_time": [last for _, last in spans.values()],
        "observability": int(Observability.OBSERVED),
        "detail": detail,
        "position": 1,
        **sensed(path, skew_bound_s),
    }
    return batch("signals", columns, length=len(spans))


def widen(spans: dict[str, tuple[int, int]], views: pl.DataFrame) -> None:
    """Take the times of the views into each device's span."""
    last = pl.max_horizontal("time", "end").max().alias("last")
    for device, first, until in views.group_by("device").agg(pl.col("time").min(), last).iter_rows():
        known = spans.get(device, (first, until))
        spans[device] = min(known[0], first), max(known[1], until)


def sensed(path: Path, skew_bound_s: float) -> dict[str, object]:
    """The columns that say where a sensor's record is from."""
    return {"source": str(path), "clock": "sensor", "clock_skew_bound_s": skew_bound_s}
