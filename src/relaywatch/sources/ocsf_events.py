"""OCSF events of a security lake: network, tunnel, DNS and HTTP activity, processes, inventories, other findings.

Format: the Open Cybersecurity Schema Framework, classes 4001, 4014, 4003, 4002, 1007, 5001, 5020, 5012 and 2004.
Times are ms since the epoch; seconds are told by their size, as mappings write both. Where an event says in
`unmapped.android` which package and uid a connection is of, or in actor.app_name and app_uid, the app is known.
`traffic` is what one event adds, `cumulative_traffic` what the connection had so far: the events of one connection make
one flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import Direction, IdentifierKind, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses, column, text
from relaywatch.sources.device_views import sensed
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.lines import shown
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.zeek_ends import LOCAL

SKEW_BOUND_S: Final = 2.0
ROWS: Final = 65_536
CONNECTIONS_KEPT: Final = 500_000
SECONDS_BELOW: Final = 100_000_000_000
"""A smaller time is in seconds: as ms it would lie before March 1973."""
NETWORK, TUNNEL, DNS, HTTP, PROCESS, DEVICES, SOFTWARE, SOCKETS, FINDING = (
    4001,
    4014,
    4003,
    4002,
    1007,
    5001,
    5020,
    5012,
    2004,
)
LISTEN: Final = 7
FAILED: Final = (4, 5)
LAUNCH: Final = 1
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "sctp": 132}
_END: Final = pa.struct(
    {"ip": pa.string(), "port": pa.int64(), "hostname": pa.string(), "domain": pa.string(), "mac": pa.string()}
)
_TRAFFIC: Final = pa.struct({name: pa.int64() for name in ("bytes_in", "bytes_out", "packets_in", "packets_out")})
_URL: Final = pa.struct({"url_string": pa.string(), "hostname": pa.string()})
_ANDROID: Final = pa.struct({"package": pa.string(), "uid": pa.int64()})
_DEVICE: Final = pa.struct(
    {
        "uid": pa.string(), "name": pa.string(), "hostname": pa.string(), "ip": pa.string(), "mac": pa.string(),
        "imei_list": pa.list_(pa.string()), "owner": pa.struct({"name": pa.string(), "email_addr": pa.string()}),
        "os": pa.struct({"name": pa.string(), "type_id": pa.int64()}),
    }
)  # fmt: skip
SCHEMA: Final = pa.schema(
    {
        "class_uid": pa.int64(), "activity_id": pa.int64(), "time": pa.int64(), "start_time": pa.int64(),
        "end_time": pa.int64(), "duration": pa.int64(), "severity": pa.string(),
        "app_name": pa.string(), "src_endpoint": _END, "dst_endpoint": _END, "device": _DEVICE,
        "connection_info": pa.struct(
            {"direction_id": pa.int64(), "protocol_num": pa.int64(), "protocol_name": pa.string(), "uid": pa.string()}
        ),
        "traffic": _TRAFFIC, "cumulative_traffic": _TRAFFIC, "initiator_id": pa.int64(),
        "actor": pa.struct({"app_name": pa.string(), "app_uid": pa.string()}),
        "unmapped": pa.struct({"android": _ANDROID}),
        "query": pa.struct({"hostname": pa.string()}),
        "answers": pa.list_(pa.struct({"rdata": pa.string()})),
        "http_request": pa.struct({"http_method": pa.string(), "url": _URL}),
        "process": pa.struct({"name": pa.string()}),
        "package": pa.struct({"name": pa.string(), "version": pa.string()}),
        "finding_info": pa.struct({"title": pa.string()}),
        "metadata": pa.struct({"product": pa.struct({"name": pa.string()}), "uid": pa.string()}),
    }
)  # fmt: skip
_CONNECTION: Final = ("device", "protocol", "local_ip", "local_port", "remote_ip", "remote_port", "connection")
_COUNTS: Final = ("bytes_out", "bytes_in", "packets_out", "packets_in")
_WHOLE: Final = (
    *("position", *_CONNECTION, "package", "uid", "start", "end", "first_seen", "inbound", "direction_known"),
    *("hostname", "established", "app_protocol", *_COUNTS),
)


class OcsfNdjson:
    """OCSF events as JSON lines."""

    name: ClassVar[str] = "ocsf"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with a class and an OCSF version."""
        return any(
            "class_uid" in record and isinstance(meta := record.get("metadata"), dict) and "version" in meta
            for record in first_records(head)
        )

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Inventory and signals as they come, connections at the end."""
        log = _Log(path, reading)
        for frame in frames(stream, path, SCHEMA, reading):
            yield from log.batches(frame)
        yield from log.rest()


class OcsfParquet:
    """OCSF events as Parquet, nested columns as a security lake keeps them."""

    name: ClassVar[str] = "ocsf-parquet"

    @staticmethod
    def fits(head: Head) -> bool:
        """Parquet with a class_uid and a metadata column."""
        if not head.content.startswith(b"PAR1"):
            return False
        try:
            return {"class_uid", "metadata", "time"} <= set(pq.read_schema(head.path).names)
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            return False

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """As OcsfNdjson.read. Raises SourceError where the file is damaged."""
        log, row = _Log(path, reading), 1
        try:
            with pq.ParquetFile(path) as file:
                names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
                for rows in file.iter_batches(ROWS, columns=names):
                    reading.tally.met(rows.num_rows)
                    yield from log.batches(_fitted(rows, row))
                    row += rows.num_rows
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise SourceError(path, f"damaged Parquet ({shown(error)}).", position=f"row {row}") from error
        yield from log.rest()


def _fitted(rows: pa.RecordBatch, first: int) -> pl.DataFrame:
    """The rows in the fields that are used: those that a struct lacks are null."""
    held = pl.from_arrow(pa.Table.from_batches([rows]))
    empty = pl.from_arrow(SCHEMA.empty_table())
    assert isinstance(held, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
    assert isinstance(empty, pl.DataFrame)  # noqa: S101
    columns = [_as(pl.col(name), held.schema.get(name), kind).alias(name) for name, kind in empty.schema.items()]
    return held.select(columns).with_columns(
        pl.int_range(first, first + held.height, dtype=pl.Int64, eager=True).alias("position")
    )


def _as(value: pl.Expr, have: pl.DataType | None, want: pl.DataType) -> pl.Expr:
    """A column in another type: structs field by field, so that further fields do not matter."""
    if have is None:
        return pl.lit(None, want)
    if isinstance(want, pl.Struct) and isinstance(have, pl.Struct):
        held = {field.name: field.dtype for field in have.fields}
        parts = [
            _as(value.struct.field(field.name), held.get(field.name), field.dtype).alias(field.name)  # type: ignore[arg-type]
            for field in want.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    if isinstance(want, pl.List) and isinstance(have, pl.List) and isinstance(want.inner, pl.Struct):
        return value.list.eval(_as(pl.element(), have.inner, want.inner))  # type: ignore[arg-type]
    if isinstance(want, (pl.Struct, pl.List)):
        return value if have == want else pl.lit(None, want)
    if have.is_temporal():
        return value.dt.epoch("ms").cast(want)
    return value.cast(want, strict=False)


class _Log:
    """One file on its way to rows."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._held: list[pl.DataFrame] = []
        self._rows = 0

    def batches(self, frame: pl.DataFrame) -> list[Batch]:
        """Rows of a frame of events; connections are held until they can be put together."""
        kind = pl.col("class_uid")
        frame = self._dated(frame)
        network = kind.is_in([NETWORK, TUNNEL, SOCKETS])
        listening = network & (pl.col("activity_id") == LISTEN).fill_null(value=False)
        proxied = (kind == HTTP) & (pl.col("http_request").struct.field("http_method") == "CONNECT")
        launched = (kind == PROCESS) & (pl.col("activity_id") == LAUNCH)
        flows = self._connections(frame.filter(network & ~listening))
        found = [
            *self._signals(frame.filter(listening), SignalKind.LISTENER, _port("src_endpoint"), pl.lit("tcp")),
            *self._signals(frame.filter(kind == DNS), SignalKind.NAME_LOOKUP, None, _answered()),
            *self._signals(
                frame.filter(proxied), SignalKind.HTTP_CONNECT, _port("dst_endpoint"), _url(), responder=True
            ),
            *self._signals(
                frame.filter(launched), SignalKind.PROCESS_START, None, pl.col("process").struct.field("name")
            ),
            *self._signals(frame.filter(kind == FINDING), SignalKind.THREAT_VERDICT, None, _verdict()),
            *self._inventory(frame.filter(kind.is_in([DEVICES, SOFTWARE]))),
        ]
        used = network | (kind == DNS) | proxied | launched | kind.is_in([FINDING, DEVICES, SOFTWARE])
        self._reading.tally.left(
            "an event of a class or activity that no table holds", frame.filter(~used.fill_null(value=False)).height
        )
        self._reading.tally.gave(found)
        self._held.append(flows)
        self._rows += flows.height
        if self._rows > CONNECTIONS_KEPT:
            found += self._given()
        return found

    def rest(self) -> list[Batch]:
        """The connections that were held."""
        return self._given()

    def _dated(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The events with a time, in us since the epoch; the others go to quarantine."""
        frame = frame.with_columns(_us(pl.col(name)).alias(name) for name in ("time", "start_time", "end_time"))
        good = frame["time"].is_not_null() & frame["class_uid"].is_not_null()
        for position in frame.filter(~good)["position"].to_list():
            self._reading.quarantine.add(
                str(self._path), f"record {position}", "no class, or no time between 1970 and 9999"
            )
        return frame if good.all() else frame.filter(good)

    def _connections(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One row an event, seen from the device; those without both addresses go to quarantine."""
        ends = frame.with_columns(
            *(
                canonical_addresses(frame[f"{end}_endpoint"].struct.field("ip")).alias(f"{end}_ip")
                for end in ("src", "dst")
            )
        )
        info = pl.col("connection_info").struct
        by_name = (
            info.field("protocol_name")
            .str.to_lowercase()
            .replace_strict(_PROTOCOLS, default=None, return_dtype=pl.Int64)
        )
        device_ip = pl.col("device").struct.field("ip")
        direction = info.field("direction_id").fill_null(0)
        swapped = (pl.col("initiator_id") == 2).fill_null(value=False)
        own_dst = (device_ip == pl.col("dst_ip")) | (
            (device_ip != pl.col("src_ip")).fill_null(value=True)
            & (info.field("direction_id") == int(Direction.INBOUND))
        )
        by_range = pl.col("dst_ip").str.contains(LOCAL) & ~pl.col("src_ip").str.contains(LOCAL)
        at_dst = own_dst.fill_null(value=False) | (
            device_ip.is_null() & info.field("direction_id").fill_null(0).is_in([0]) & by_range.fill_null(value=False)
        )
        told = ends.with_columns(
            pl.coalesce(info.field("protocol_num"), by_name).cast(pl.UInt8, strict=False).alias("protocol"),
            at_dst.alias("at_dst"),
            pl.when(direction.is_in([1, 2]))
            .then(direction == int(Direction.INBOUND))
            .otherwise(at_dst != swapped)
            .alias("inbound"),
        )
        good = told["src_ip"].is_not_null() & told["dst_ip"].is_not_null() & told["protocol"].is_not_null()
        for position in told.filter(~good)["position"].to_list():
            self._reading.quarantine.add(
                str(self._path), f"record {position}", "an address or the protocol is missing or none"
            )
        return _seen_from_device(told if good.all() else told.filter(good), self._reading.device)

    def _given(self) -> list[Batch]:
        events = pl.concat(self._held) if self._held else pl.DataFrame()
        self._held, self._rows = [], 0
        if events.is_empty():
            return []
        whole = _whole(events)
        self._reading.tally.left("more of a connection", events.height - whole.height)
        found = [batch("flows", _flow_columns(whole, self._path), length=whole.height)]
        self._reading.tally.gave(found)
        return found

    def _signals(
        self, frame: pl.DataFrame, kind: SignalKind, port: pl.Expr | None, detail: pl.Expr, *, responder: bool = False
    ) -> list[Batch]:
        if frame.is_empty():
            return []
        device = _device("dst_endpoint" if responder else "src_endpoint", self._reading.device)
        rows = frame.select(
            device.alias("device"), _package().alias("package"), _uid().alias("uid"), "time", "position",
            (pl.lit(None, pl.Int64) if port is None else port).cast(pl.UInt16, strict=False).alias("port"),
            detail.str.slice(0, 500).alias("detail"),
        )  # fmt: skip
        columns = {
            "device_uid": text(rows["device"].fill_null("unknown")),
            "android_package": text(rows["package"]),
            "android_uid": column(rows["uid"]),
            "kind": int(kind),
            "start_time": column(rows["time"]),
            "end_time": None if kind is SignalKind.LISTENER else column(rows["time"]),
            "observability": int(Observability.OBSERVED),
            "local_port": column(rows["port"]),
            "detail": text(rows["detail"]),
            "position": column(rows["position"]),
            **sensed(self._path, SKEW_BOUND_S),
        }
        return [batch("signals", columns, length=rows.height)]

    def _inventory(self, frame: pl.DataFrame) -> list[Batch]:
        """Devices with their names, and installed packages."""
        if frame.is_empty():
            return []
        device = pl.col("device").struct
        name = _device("src_endpoint", self._reading.device).fill_null("unknown").alias("device")
        person = pl.coalesce(
            device.field("owner").struct.field("email_addr"), device.field("owner").struct.field("name")
        )
        package = pl.when(pl.col("class_uid") == SOFTWARE).then(pl.col("package").struct.field("name"))
        own = frame.select(
            name,
            "position",
            person.alias("user"),
            package.alias("package"),
            pl.lit(None, pl.String).alias("kind"),
            pl.lit(None, pl.String).alias("value"),
        )
        blank = [pl.lit(None, pl.String).alias(column_name) for column_name in ("user", "package")]
        kinds = {
            IdentifierKind.SENSOR_ID: device.field("uid"),
            IdentifierKind.HOSTNAME: device.field("hostname"),
            IdentifierKind.MAC: device.field("mac").str.to_lowercase(),
        }
        named = [
            frame.select(name, "position", *blank, pl.lit(str(kind)).alias("kind"), value.alias("value")).drop_nulls(
                "value"
            )
            for kind, value in kinds.items()
        ]
        rows = pl.concat([own, *named])
        columns = {
            "device_uid": text(rows["device"]),
            "android_package": text(rows["package"]),
            "user_name": text(rows["user"]),
            "identifier_kind": text(rows["kind"]),
            "identifier": text(rows["value"]),
            "position": column(rows["position"]),
            **sensed(self._path, SKEW_BOUND_S),
        }
        return [batch("inventory", columns, length=rows.height)]


def _us(value: pl.Expr) -> pl.Expr:
    """A time in ms, or in s where it is so small, as us; null outside 1970 to 9999."""
    scaled = (
        pl.when(value < SECONDS_BELOW)
        .then(value.clip(0, LAST_SECOND) * 1_000_000)
        .otherwise(value.clip(0, LAST_SECOND * 1000) * 1000)
    )
    return pl.when(value.is_between(0, LAST_SECOND * 1000)).then(scaled)


def _device(endpoint: str, named: str) -> pl.Expr:
    """The device's name: the user's, its own, or its address."""
    if named:
        return pl.lit(named)
    device = pl.col("device").struct
    return pl.coalesce(
        device.field("uid"),
        device.field("hostname"),
        device.field("name"),
        device.field("ip"),
        pl.col(endpoint).struct.field("ip"),
    )


def _package() -> pl.Expr:
    return pl.coalesce(
        pl.col("unmapped").struct.field("android").struct.field("package"), pl.col("actor").struct.field("app_name")
    )


def _uid() -> pl.Expr:
    stated = pl.col("actor").struct.field("app_uid").cast(pl.Int64, strict=False)
    uid = pl.coalesce(pl.col("unmapped").struct.field("android").struct.field("uid"), stated)
    return pl.when(uid.is_between(0, 2**31 - 1)).then(uid).cast(pl.Int32, strict=False)


def _port(endpoint: str) -> pl.Expr:
    return pl.col(endpoint).struct.field("port")


def _answered() -> pl.Expr:
    addresses = pl.col("answers").list.eval(pl.element().struct.field("rdata")).list.join(" ")
    return pl.concat_str(
        pl.col("query").struct.field("hostname").str.to_lowercase().str.strip_chars_end("."),
        addresses,
        separator=" ",
        ignore_nulls=True,
    )


def _url() -> pl.Expr:
    url = pl.col("http_request").struct.field("url").struct
    return pl.coalesce(url.field("url_string"), url.field("hostname"))


def _verdict() -> pl.Expr:
    product = pl.col("metadata").struct.field("product").struct.field("name").fill_null("a product")
    title = pl.coalesce(pl.col("finding_info").struct.field("title"), pl.lit("a finding"))
    return pl.concat_str(product, pl.lit(": "), title, pl.lit(", "), pl.col("severity").fill_null("no severity"))


def _seen_from_device(told: pl.DataFrame, named: str) -> pl.DataFrame:
    """Events as the device's side has them. OCSF's bytes_out go from source to destination."""

    def at(own: pl.Expr, other: pl.Expr) -> pl.Expr:
        return pl.when("at_dst").then(other).otherwise(own)

    src, dst = pl.col("src_endpoint").struct, pl.col("dst_endpoint").struct
    counts: dict[str, pl.Expr] = {}
    for table, prefix in (("traffic", "added"), ("cumulative_traffic", "so_far")):
        for what in ("bytes", "packets"):
            out, in_ = (pl.col(table).struct.field(f"{what}_{way}") for way in ("out", "in"))
            counts |= {f"{prefix}_{what}_out": at(out, in_), f"{prefix}_{what}_in": at(in_, out)}
    direction = pl.col("connection_info").struct.field("direction_id")
    name = at(
        pl.coalesce(dst.field("hostname"), dst.field("domain")), pl.coalesce(src.field("hostname"), src.field("domain"))
    )
    return told.select(
        "position",
        at(_device("src_endpoint", named), _device("dst_endpoint", named)).alias("device"),
        _package().alias("package"),
        _uid().alias("uid"),
        pl.coalesce("start_time", "time").alias("start"),
        pl.max_horizontal("end_time", "time").alias("end"),
        (pl.col("class_uid") == SOCKETS).alias("first_seen"),
        "protocol",
        "inbound",
        direction.is_in([1, 2]).fill_null(value=False).alias("direction_known"),
        at(pl.col("src_ip"), pl.col("dst_ip")).alias("local_ip"),
        at(src.field("port"), dst.field("port")).cast(pl.UInt16, strict=False).alias("local_port"),
        at(pl.col("dst_ip"), pl.col("src_ip")).alias("remote_ip"),
        at(dst.field("port"), src.field("port")).cast(pl.UInt16, strict=False).alias("remote_port"),
        name.str.to_lowercase().str.strip_chars_end(".").alias("hostname"),
        (~pl.col("activity_id").is_in(FAILED)).alias("established"),
        pl.col("app_name").alias("app_protocol"),
        pl.col("connection_info").struct.field("uid").alias("connection"),
        *(value.alias(column_name) for column_name, value in counts.items()),
    )


def _whole(events: pl.DataFrame) -> pl.DataFrame:
    """One row a connection: what its events add, or the last that it had; events without an id stand alone."""
    alone = events["connection"].is_null()
    single = events.filter(alone).with_columns(
        pl.coalesce(f"so_far_{name}", f"added_{name}").alias(name) for name in _COUNTS
    )
    parts = [single.select(_WHOLE)]
    if not alone.all():
        parts.append(_together(events.filter(~alone)).select(_WHOLE))
    return pl.concat(parts).sort("position")


def _together(events: pl.DataFrame) -> pl.DataFrame:
    counts = []
    for name in _COUNTS:
        added = pl.when(pl.col(f"added_{name}").is_not_null().any()).then(pl.col(f"added_{name}").sum())
        counts.append(pl.coalesce(pl.col(f"so_far_{name}").max(), added).alias(name))
    first = ("package", "uid", "first_seen", "inbound", "direction_known", "hostname", "app_protocol")
    return (
        events.sort("end", "position")
        .group_by(*_CONNECTION, maintain_order=True)
        .agg(
            pl.col("position").min(),
            pl.col("start").min(),
            pl.col("end").max(),
            pl.col("established").any(),
            *(pl.col(name).drop_nulls().first() for name in first),
            *counts,
        )
    )


def _flow_columns(rows: pl.DataFrame, path: Path) -> dict[str, object]:
    """Canonical columns; bytes are taken as IP bytes, and payload estimated from them where packets are counted."""
    headers = pl.when(pl.col("protocol") == 6).then(40).otherwise(28)
    payload = {
        way: (pl.col(f"bytes_{way}") - pl.col(f"packets_{way}").fill_null(0) * headers).clip(0) for way in ("out", "in")
    }
    derived = rows.select(
        pl.when(pl.col("inbound")).then(int(Direction.INBOUND)).otherwise(int(Direction.OUTBOUND)).alias("direction"),
        pl.when(pl.col("direction_known"))
        .then(int(Observability.OBSERVED))
        .otherwise(int(Observability.INFERRED))
        .alias("direction_seen"),
        pl.when(pl.col("bytes_out").is_not_null()).then(int(Observability.INFERRED)).otherwise(0).alias("bytes_seen"),
        pl.when(pl.col("first_seen")).then(int(Observability.INFERRED)).cast(pl.UInt8).alias("start_seen"),
        pl.when(~pl.col("inbound")).then(pl.col("hostname")).alias("hostname"),
        pl.when(~pl.col("inbound") & pl.col("hostname").is_not_null())
        .then(int(Observability.INFERRED))
        .otherwise(0)
        .alias("name_seen"),
        payload["out"].alias("out"),
        payload["in"].alias("in"),
    )
    return {
        "device_uid": text(rows["device"].fill_null("unknown")),
        "android_package": text(rows["package"]),
        "android_uid": column(rows["uid"]),
        "flow_id": column(rows["position"]),
        "start_time": column(rows["start"]),
        "end_time": column(rows["end"]),
        "start_observability": column(derived["start_seen"]),
        "protocol_num": column(rows["protocol"]),
        "direction_id": column(derived["direction"]),
        "direction_observability": column(derived["direction_seen"]),
        "local_ip": text(rows["local_ip"]),
        "local_port": column(rows["local_port"]),
        "remote_ip": text(rows["remote_ip"]),
        "remote_port": column(rows["remote_port"]),
        "remote_hostname": text(derived["hostname"]),
        "hostname_observability": column(derived["name_seen"]),
        "bytes_out": column(derived["out"]),
        "bytes_in": column(derived["in"]),
        "bytes_observability": column(derived["bytes_seen"]),
        "wire_bytes_out": column(rows["bytes_out"]),
        "wire_bytes_in": column(rows["bytes_in"]),
        "packets_out": column(rows["packets_out"]),
        "packets_in": column(rows["packets_in"]),
        "established": column(rows["established"]),
        "app_protocol": text(rows["app_protocol"]),
        "position": column(rows["position"]),
        **sensed(path, SKEW_BOUND_S),
    }
