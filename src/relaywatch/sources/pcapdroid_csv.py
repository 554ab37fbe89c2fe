"""PCAPdroid's connection list as CSV: app, bytes and times of each connection that an app made.

Format: header `connections_csv_fields` of PCAPdroid (since 1.3.0; PackageName since 1.7.4, ISO times since 1.7.0, epoch
milliseconds before; Malicious only if that check is on). Nothing is quoted or escaped, so a comma in App or Info moves
the columns between; the columns before App and after Info are counted from the line's ends. Status is translated text
and not used. Bytes include IP headers. Who opened a connection is not said, and Src is the device's side always: in VPN
mode only connections that apps dial are listed; in root mode also accepted ones, which the use of local ports tells
(judged by blocks of the list, each of some ten thousand connections).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np
import polars as pl
import pyarrow as pa

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses, column, text
from relaywatch.sources.lines import Block, counted_blocks, split_at_once, typed
from relaywatch.sources.listening_ports import accepted
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 0.001
APPS_KEPT: Final = 65_536
"""Apps remembered, so that each gets one inventory row; a phone has some hundreds."""

_LEFT: Final = ("IPProto", "SrcIP", "SrcPort", "DstIp", "DstPort", "UID")
_RIGHT: Final = ("BytesSent", "BytesRcvd", "PktsSent", "PktsRcvd", "FirstSeen", "LastSeen")
_MIDDLE: Final = ("App", "PackageName", "Proto", "Status", "Info")
_PACKAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+|android")
_LAYER7: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.+/-]*")
_HOST: Final = r"^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
_FIVE_TUPLE: Final = {
    "IPProto": "protocol_num",
    "SrcIP": "local_ip",
    "SrcPort": "local_port",
    "DstIp": "remote_ip",
    "DstPort": "remote_port",
}
_KINDS: Final[Mapping[str, type[pl.DataType]]] = {
    "IPProto": pl.UInt8,
    "SrcPort": pl.UInt16,
    "DstPort": pl.UInt16,
    "UID": pl.Int32,
    "BytesSent": pl.Int64,
    "BytesRcvd": pl.Int64,
    "PktsSent": pl.Int64,
    "PktsRcvd": pl.Int64,
}


class PcapdroidCsv:
    """A PCAPdroid connection list. The device is the reading's, else the file's name up to its first dot."""

    name: ClassVar[str] = "pcapdroid-csv"

    @staticmethod
    def fits(head: Head) -> bool:
        """The first line is PCAPdroid's header."""
        return _layout(head.content.partition(b"\n")[0]) is not None

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory of new apps and flows by blocks, then a CAPTURE signal over the whole list."""
        device = reading.device or path.name.partition(".")[0] or path.name
        layout: tuple[str, ...] | None = None
        apps: set[tuple[str | None, str | None, int | None]] = set()
        span: tuple[int, int] | None = None
        for block in counted_blocks(stream, path, reading):
            if layout is None:
                header, _, rest = block.content.partition(b"\n")
                if (layout := _layout(header)) is None:
                    raise SourceError(path, "the first line is not PCAPdroid's CSV header.", position="line 1")
                block = Block(block.first_line + 1, rest)
            frame = _records(block, layout, path, reading)
            if frame.is_empty():
                continue
            new = _new_apps(frame, apps)
            if new.height:
                yield batch("inventory", _inventory_columns(new, device, path), length=new.height)
            flows = batch("flows", _flow_columns(frame, device, path), length=frame.height)
            reading.tally.gave([flows])
            yield flows
            ends = pl.concat([frame["start"], frame["end"].drop_nulls()])
            low, high = int(ends.to_numpy().min()), int(ends.to_numpy().max())
            span = (low, high) if span is None else (min(span[0], low), max(span[1], high))
        if span is not None:
            yield _capture(span, device, path)


def _layout(header: bytes) -> tuple[str, ...] | None:
    """The file's columns; None where the line is not PCAPdroid's header."""
    found = header.decode("utf-8-sig", "replace").rstrip("\r").replace("DstIP", "DstIp").split(",")
    middle = _MIDDLE if "PackageName" in found else tuple(name for name in _MIDDLE if name != "PackageName")
    for end in ((), ("Malicious",)):
        if (layout := (*_LEFT, *middle, *_RIGHT, *end)) == tuple(found):
            return layout
    return None


def _records(block: Block, layout: Sequence[str], path: Path, reading: Reading) -> pl.DataFrame:
    """The block's lines as typed columns; lines whose numbers, times or addresses do not parse go to quarantine."""
    frame = _texts(block, layout, path, reading)
    if "PackageName" not in layout:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("PackageName"))
    frame = frame.with_columns(
        pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in (*_LEFT, *_MIDDLE, *_RIGHT)
    ).with_columns(
        _instant("FirstSeen").alias("start"),
        _instant("LastSeen").alias("end"),
        canonical_addresses(frame["SrcIP"]).alias("SrcIP"),
        canonical_addresses(frame["DstIp"]).alias("DstIp"),
    )
    required = ("IPProto", "SrcIP", "DstIp", "UID", "BytesSent", "BytesRcvd", "PktsSent", "PktsRcvd", "start", "end")
    return _sound(typed(frame, _KINDS, path, reading.quarantine, required=required), path, reading.quarantine)


def _texts(block: Block, layout: Sequence[str], path: Path, reading: Reading) -> pl.DataFrame:
    """The block's lines as text columns, plus `position`; only those with commas within fields are taken one by one."""
    table = split_at_once(block.content, layout, ",")
    if table is not None and table.num_rows == block.content.count(b"\n"):
        reading.tally.met(table.num_rows)
        return _positioned(table, range(block.first_line, block.first_line + table.num_rows))
    regular: list[bytes] = []
    moved: list[Sequence[str | None]] = []
    at: tuple[list[int], list[int]] = [], []
    for number, line in block.lines():
        if not line:
            continue
        reading.tally.met(1)
        found = line.count(b",") + 1
        if found < len(layout):
            reason = f"{found} fields where the header names {len(layout)}"
            reading.quarantine.add(str(path), f"line {number}", reason)
        elif found == len(layout) and b"\r" not in line:
            regular.append(line)
            at[0].append(number)
        else:
            moved.append(_realigned(line.decode("utf-8", "replace").split(","), layout))
            at[1].append(number)
    text_of_all = b"".join(line + b"\n" for line in regular).decode("utf-8", "replace").encode()
    table = split_at_once(text_of_all, layout, ",")
    if table is None or table.num_rows != len(regular):
        raise SourceError(path, "cannot be split into fields.", position=f"line {block.first_line}")
    others = pl.DataFrame(moved, schema=dict.fromkeys(layout, pl.String), orient="row")
    frame = pl.concat([_positioned(table, at[0]), others.with_columns(pl.Series("position", at[1], pl.Int64))])
    return frame.sort("position")


def _positioned(table: pa.Table, positions: Sequence[int]) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    return frame.with_columns(pl.Series("position", np.array(positions, np.int64)))


def _realigned(fields: Sequence[str], layout: Sequence[str]) -> list[str | None]:
    """The fields under their columns where App or Info held commas. What stays ambiguous is null."""
    if len(fields) == len(layout):
        return list(fields)
    right = len(layout) - layout.index("BytesSent")
    middle = fields[len(_LEFT) : -right]
    return [*fields[: len(_LEFT)], *_middle(middle, "PackageName" in layout), *fields[-right:]]


def _middle(fields: Sequence[str], with_package: bool) -> list[str | None]:  # noqa: FBT001 - what the header says
    """App, (PackageName,) Proto, Status and Info: anchored on the package where there is one, else on the protocol."""
    if not with_package:
        at = next((i for i in range(1, len(fields) - 2) if _LAYER7.fullmatch(fields[i])), None)
        return [None] * 4 if at is None else [",".join(fields[:at]), fields[at], None, ",".join(fields[at + 2 :])]
    places = [i for i in range(1, len(fields) - 3) if _LAYER7.fullmatch(fields[i + 1])]
    named = [i for i in places if _PACKAGE.fullmatch(fields[i])]
    at = next(iter(named or [i for i in places if not fields[i]]), None)
    if at is None:
        return [None] * 5
    return [",".join(fields[:at]), fields[at], fields[at + 1], None, ",".join(fields[at + 3 :])]


def _instant(name: str) -> pl.Expr:
    """Microseconds from ISO 8601 with a zone, or from epoch milliseconds; null where it is neither."""
    stamped = pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False).dt.epoch("us")
    counted = pl.col(name).cast(pl.Int64, strict=False)
    counted = pl.when(counted.is_between(0, LAST_SECOND * 1000)).then(counted) * 1000
    return pl.coalesce(counted, pl.when(stamped.is_between(0, LAST_SECOND * 1_000_000)).then(stamped))


def _sound(frame: pl.DataFrame, path: Path, quarantine: Quarantine) -> pl.DataFrame:
    negative = pl.any_horizontal(pl.col(name) < 0 for name in ("BytesSent", "BytesRcvd", "PktsSent", "PktsRcvd"))
    wrong = frame.select((negative | (pl.col("end") < pl.col("start"))).alias("wrong"))["wrong"]
    for position in frame["position"].filter(wrong).to_list():
        quarantine.add(str(path), f"line {position}", "a negative count, or LastSeen before FirstSeen")
    return frame.filter(~wrong).with_columns(pl.when(pl.col("UID") >= 0).then(pl.col("UID")).alias("UID"))


def _new_apps(frame: pl.DataFrame, known: set[tuple[str | None, str | None, int | None]]) -> pl.DataFrame:
    """The first record of each app not met before."""
    apps = frame.select("App", "PackageName", "UID", "position").unique(
        ["App", "PackageName", "UID"], keep="first", maintain_order=True
    )
    fresh = [(a, p, u) not in known and (p is not None or u is not None) for a, p, u, _ in apps.iter_rows()]
    new = apps.filter(pl.Series(fresh, dtype=pl.Boolean))
    if len(known) < APPS_KEPT:
        known.update((a, p, u) for a, p, u, _ in new.iter_rows())
    return new


def _inventory_columns(apps: pl.DataFrame, device: str, path: Path) -> dict[str, Any]:
    return {
        "device_uid": device,
        "android_package": text(apps["PackageName"]),
        "android_uid": column(apps["UID"]),
        "user_id": column(apps["UID"] // 100_000),
        "app_label": text(apps["App"]),
        "position": column(apps["position"]),
        **_provenance(path),
    }


def _flow_columns(frame: pl.DataFrame, device: str, path: Path) -> dict[str, Any]:
    inbound = accepted(frame.select(pl.col(name).alias(part) for name, part in _FIVE_TUPLE.items()))
    tcp, udp = pl.col("IPProto") == 6, pl.col("IPProto") == 17
    overhead = pl.when(tcp).then(40).otherwise(28) + pl.when(pl.col("DstIp").str.contains(":", literal=True)).then(
        20
    ).otherwise(0)
    asks_names = (
        pl.col("Proto").str.to_uppercase().is_in(["DNS", "MDNS", "LLMNR", "DOT", "DNSCRYPT"]).fill_null(value=False)
    )
    # What a client asks of a listener names where it wants to go, not the client.
    named = ~asks_names & ~inbound & pl.col("Info").str.contains(_HOST) & (pl.col("Info").str.len_bytes() <= 253)
    derived = frame.select(
        (pl.col("BytesSent") - pl.col("PktsSent") * overhead).clip(0).alias("out"),
        (pl.col("BytesRcvd") - pl.col("PktsRcvd") * overhead).clip(0).alias("in"),
        pl.when(named).then(pl.col("Info").str.to_lowercase()).alias("host"),
        pl.when(tcp | udp).then(pl.col("SrcPort")).alias("local_port"),
        pl.when(tcp | udp).then(pl.col("DstPort")).alias("remote_port"),
        pl.when(inbound).then(int(Direction.INBOUND)).otherwise(int(Direction.OUTBOUND)).alias("direction"),
    )
    seen = pl.select(
        pl.when(derived["host"].is_not_null())
        .then(int(Observability.OBSERVED))
        .otherwise(int(Observability.NOT_OBSERVABLE))
        .alias("seen")
    )["seen"]
    return {
        "device_uid": device,
        "android_package": text(frame["PackageName"]),
        "android_uid": column(frame["UID"]),
        "flow_id": column(frame["position"]),
        "start_time": column(frame["start"]),
        "end_time": column(frame["end"]),
        "protocol_num": column(frame["IPProto"]),
        "direction_id": column(derived["direction"]),
        "direction_observability": int(Observability.INFERRED),
        "local_ip": text(frame["SrcIP"]),
        "local_port": column(derived["local_port"]),
        "remote_ip": text(frame["DstIp"]),
        "remote_port": column(derived["remote_port"]),
        "remote_hostname": text(derived["host"]),
        "hostname_observability": column(seen),
        "bytes_out": column(derived["out"]),
        "bytes_in": column(derived["in"]),
        "bytes_observability": int(Observability.INFERRED),
        "wire_bytes_out": column(frame["BytesSent"]),
        "wire_bytes_in": column(frame["BytesRcvd"]),
        "packets_out": column(frame["PktsSent"]),
        "packets_in": column(frame["PktsRcvd"]),
        "app_protocol": text(frame["Proto"]),
        "position": column(frame["position"]),
        **_provenance(path),
    }


def _capture(span: tuple[int, int], device: str, path: Path) -> Batch:
    """What the list covers: connections only, so the detail names no other kind of signal."""
    columns = {
        "device_uid": device,
        "kind": int(SignalKind.CAPTURE),
        "start_time": [span[0]],
        "end_time": [span[1]],
        "observability": int(Observability.OBSERVED),
        "detail": "",
        "position": 1,
    }
    return batch("signals", {**columns, **_provenance(path)}, length=1)


def _provenance(path: Path) -> dict[str, Any]:
    return {"source": str(path), "clock": "device", "clock_skew_bound_s": SKEW_BOUND_S}
