"""Suricata's EVE log: flows with who opened them, names by TLS and DNS, and proxy requests that a device answered.

Format: Suricata's documentation of EVE JSON (event_type flow, netflow, tls, dns, http). A flow event comes when the
flow ends, its names before; a name that comes later than its flow names nothing. netflow events are one direction each
and pair by flow_id. Byte counts are whole frames (Suricata's GET_PKT_LEN), so that an Ethernet header is taken off each
packet. The app is never observable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import polars as pl
import pyarrow as pa

from relaywatch.model.schemas import Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.device_views import capture_batch, device_views, flow_batch, sensed, sound_ends, widen
from relaywatch.sources.json_records import first_records, frames
from relaywatch.sources.reading import Head, Reading

SKEW_BOUND_S: Final = 1.0
NAMES_KEPT: Final = 1_000_000
ETHERNET_HEADER: Final = 14
HALVES_KEPT: Final = 500_000
"""netflow events that wait for their other direction."""
ANSWER_HOLDS_US: Final = 86_400_000_000
DEVICES_KEPT: Final = 100_000
_PROTOCOLS: Final = {
    "TCP": 6,
    "UDP": 17,
    "ICMP": 1,
    "IPV6-ICMP": 58,
    "SCTP": 132,
    "GRE": 47,
    "ESP": 50,
    "AH": 51,
    "IGMP": 2,
}
_ANSWER: Final = pa.struct({"rrname": pa.string(), "rrtype": pa.string(), "rdata": pa.string()})
SCHEMA: Final = pa.schema(
    {
        "timestamp": pa.string(),
        "flow_id": pa.int64(),
        "event_type": pa.string(),
        "src_ip": pa.string(),
        "src_port": pa.int64(),
        "dest_ip": pa.string(),
        "dest_port": pa.int64(),
        "proto": pa.string(),
        "app_proto": pa.string(),
        "flow": pa.struct(
            {
                "pkts_toserver": pa.int64(),
                "pkts_toclient": pa.int64(),
                "bytes_toserver": pa.int64(),
                "bytes_toclient": pa.int64(),
                "start": pa.string(),
                "end": pa.string(),
                "state": pa.string(),
            }
        ),
        "netflow": pa.struct({"pkts": pa.int64(), "bytes": pa.int64(), "start": pa.string(), "end": pa.string()}),
        "tls": pa.struct({"sni": pa.string()}),
        "http": pa.struct({"hostname": pa.string(), "http_method": pa.string(), "url": pa.string()}),
        "dns": pa.struct(
            {
                "type": pa.string(),
                "rrname": pa.string(),
                "rrtype": pa.string(),
                "rdata": pa.string(),
                "answers": pa.list_(_ANSWER),
            }
        ),
    }
)
_USED: Final = ("flow", "netflow", "tls", "dns", "http")


class SuricataEve:
    """One EVE log. The device is named by --device, or is the local address."""

    name: ClassVar[str] = "suricata-eve"

    @staticmethod
    def fits(head: Head) -> bool:
        """A record with an event type, a time and addresses as Suricata names them."""
        return any({"event_type", "timestamp", "flow_id", "src_ip"} <= record.keys() for record in first_records(head))

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows and signals in file order, netflow halves without their other at the end, then what was watched."""
        log = _Log(path, reading)
        for frame in frames(stream, path, SCHEMA, reading):
            yield from log.batches(frame)
        yield from log.rest()


class _Log:
    """One file on its way to rows."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self._path, self._reading = path, reading
        self._by_flow = pl.DataFrame(schema={"flow_id": pl.Int64, "hostname": pl.String})
        self._by_answer = pl.DataFrame(
            schema={"time": pl.Int64, "client": pl.String, "address": pl.String, "answered": pl.String}
        )
        self._halves = pl.DataFrame()
        self._spans: dict[str, tuple[int, int]] = {}

    def batches(self, frame: pl.DataFrame) -> list[Batch]:
        """Rows of a frame of events."""
        kind = pl.col("event_type")
        frame = frame.with_columns(_instant("timestamp").alias("logged"))
        self._reading.tally.left(
            "an event that no table holds", frame.filter(~kind.is_in(_USED) | kind.is_null()).height
        )
        self._take_names(frame)
        flows = [self._flows(frame.filter(kind == "flow")), self._netflow(frame.filter(kind == "netflow"))]
        found = [self._flow_batch(part) for part in flows if part.height]
        found += self._proxied(
            frame.filter((kind == "http") & (pl.col("http").struct.field("http_method") == "CONNECT"))
        )
        self._reading.tally.gave(found)
        if len(self._spans) > DEVICES_KEPT:
            found.append(capture_batch(self._spans, self._path, SKEW_BOUND_S))
            self._spans.clear()
        return found

    def rest(self) -> Iterator[Batch]:
        """What waited, and what was watched."""
        if self._halves.height:
            found = [self._flow_batch(_whole(self._halves))]
            self._reading.tally.gave(found)
            yield from found
        if self._spans:
            yield capture_batch(self._spans, self._path, SKEW_BOUND_S)

    def _flow_batch(self, flows: pl.DataFrame) -> Batch:
        views = device_views(flows, self._reading.device)
        widen(self._spans, views)
        return flow_batch(views, self._path, SKEW_BOUND_S, direction=Observability.OBSERVED)

    def _flows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Flow events as device_views takes them."""
        flow = pl.col("flow").struct
        state = flow.field("state")
        told = _ends(
            frame,
            pl.coalesce(_instant(flow.field("start")), "logged").alias("time"),
            _instant(flow.field("end")).alias("end"),
            _ip_bytes(flow.field("bytes_toserver"), flow.field("pkts_toserver")).alias("src_bytes"),
            _ip_bytes(flow.field("bytes_toclient"), flow.field("pkts_toclient")).alias("dst_bytes"),
            flow.field("pkts_toserver").alias("src_packets"),
            flow.field("pkts_toclient").alias("dst_packets"),
            pl.when(state.is_in(["established", "closed"])).then(flow.field("pkts_toclient") > 0).alias("established"),
        )
        return self._named(sound_ends(told, self._path, self._reading))

    def _netflow(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Netflow events whose both directions are there, as one flow; the others wait."""
        flow = pl.col("netflow").struct
        told = _ends(
            frame,
            pl.coalesce(_instant(flow.field("start")), "logged").alias("time"),
            _instant(flow.field("end")).alias("end"),
            _ip_bytes(flow.field("bytes"), flow.field("pkts")).alias("src_bytes"),
            flow.field("pkts").alias("src_packets"),
            pl.lit(None, pl.Int64).alias("dst_bytes"),
            pl.lit(None, pl.Int64).alias("dst_packets"),
            pl.lit(None, pl.Boolean).alias("established"),
        )
        told = sound_ends(told, self._path, self._reading)
        waiting = pl.concat([self._halves, told]) if self._halves.height else told
        met = waiting.filter(pl.len().over("event_flow") > 1)
        alone = waiting.filter(pl.len().over("event_flow") == 1)
        self._halves = alone.tail(HALVES_KEPT)
        early = alone.head(max(alone.height - HALVES_KEPT, 0))
        whole = _whole(met)
        # The second half is in the first one's row.
        self._reading.tally.left("the other direction of a flow", met.height - whole.height)
        return self._named(pl.concat([whole, _whole(early)]))

    def _named(self, flows: pl.DataFrame) -> pl.DataFrame:
        """The flows with a name: of their own hello or request, else of an earlier answer to the client."""
        own = flows.join(self._by_flow, left_on="event_flow", right_on="flow_id", how="left", maintain_order="left")
        asked = own.with_row_index("row").sort("time")
        answered = asked.join_asof(
            self._by_answer, on="time", by_left=["src_ip", "dst_ip"], by_right=["client", "address"],
            tolerance=ANSWER_HOLDS_US, check_sortedness=False,
        ).sort("row")  # fmt: skip
        seen = (
            pl.when(pl.col("hostname").is_not_null())
            .then(int(Observability.OBSERVED))
            .when(pl.col("answered").is_not_null())
            .then(int(Observability.INFERRED))
            .otherwise(int(Observability.NOT_OBSERVABLE))
        )
        return answered.with_columns(seen.alias("hostname_seen"), pl.coalesce("hostname", "answered").alias("hostname"))

    def _take_names(self, frame: pl.DataFrame) -> None:
        """Keep the names that tls, http and dns events give; they explain flows and give no rows."""
        kind = pl.col("event_type")
        hello = pl.col("tls").struct.field("sni")
        asked = pl.col("http").struct.field("hostname")
        plain = (kind == "http") & (pl.col("http").struct.field("http_method") != "CONNECT").fill_null(value=True)
        named = frame.filter((kind == "tls") | plain)
        self._reading.tally.left("names a flow", named.height)
        told = named.select("flow_id", _host(pl.when(kind == "tls").then(hello).otherwise(asked)).alias("hostname"))
        both = pl.concat([self._by_flow, told.drop_nulls()])
        self._by_flow = both.unique("flow_id", keep="first", maintain_order=True).tail(NAMES_KEPT)
        lookups = frame.filter(kind == "dns")
        self._reading.tally.left("names flows by a look-up", lookups.height)
        if lookups.height:
            self._take_answers(lookups)

    def _take_answers(self, lookups: pl.DataFrame) -> None:
        dns = pl.col("dns").struct
        many = lookups.select(
            "logged", "src_ip", "dest_ip", dns.field("rrname").alias("asked"), dns.field("answers")
        ).explode("answers")
        listed = many.select(
            "logged", "src_ip", "dest_ip", "asked", pl.col("answers").struct.field("rdata").alias("rdata")
        )
        old = lookups.filter(dns.field("type") == "answer").select(
            "logged", "src_ip", "dest_ip", dns.field("rrname").alias("asked"), dns.field("rdata").alias("rdata")
        )
        answers = pl.concat([listed, old]).drop_nulls(["logged", "asked", "rdata"])
        answers = answers.with_columns(canonical_addresses(answers["rdata"]).alias("address")).drop_nulls("address")
        # The server may be written as source or as destination: the client is either.
        both = [
            answers.select(
                pl.col("logged").alias("time"),
                canonical_addresses(answers[end]).alias("client"),
                "address",
                _host(pl.col("asked")).alias("answered"),
            )
            for end in ("src_ip", "dest_ip")
        ]
        held = pl.concat([self._by_answer, *both]).drop_nulls().sort("time", maintain_order=True)
        self._by_answer = held.tail(NAMES_KEPT)

    def _proxied(self, frame: pl.DataFrame) -> list[Batch]:
        """CONNECT requests: the destination is a proxy."""
        told = sound_ends(_ends(frame, pl.col("logged").alias("time")), self._path, self._reading)
        if told.is_empty():
            return []
        wanted = frame.join(told.select("position"), on="position", how="semi", maintain_order="left")
        columns = {
            "device_uid": text(told["dst_ip"]) if not self._reading.device else self._reading.device,
            "kind": int(SignalKind.HTTP_CONNECT),
            "start_time": column(told["time"]),
            "end_time": column(told["time"]),
            "observability": int(Observability.OBSERVED),
            "local_port": column(told["dst_port"]),
            "detail": text(wanted.select(pl.col("http").struct.field("url").str.slice(0, 300).alias("url"))["url"]),
            "position": column(told["position"]),
            **sensed(self._path, SKEW_BOUND_S),
        }
        return [batch("signals", columns, length=told.height)]


def _ends(frame: pl.DataFrame, *columns: pl.Expr) -> pl.DataFrame:
    """What all events say of their ends, with further columns."""
    number = pl.col("proto").str.to_uppercase().replace_strict(_PROTOCOLS, default=None, return_dtype=pl.UInt8)
    return frame.select(
        "position",
        pl.col("flow_id").alias("event_flow"),
        pl.col("src_ip"),
        pl.col("src_port").cast(pl.UInt16, strict=False),
        pl.col("dest_ip").alias("dst_ip"),
        pl.col("dest_port").cast(pl.UInt16, strict=False).alias("dst_port"),
        number.alias("protocol"),
        pl.col("app_proto").alias("app_protocol"),
        *columns,
    )


def _whole(halves: pl.DataFrame) -> pl.DataFrame:
    """One row a flow_id: the direction that begins first opened it, the other's counts come back."""
    ordered = halves.sort("event_flow", "time", "position")
    back = pl.col("src_ip") != pl.col("src_ip").first()
    kept = [
        name
        for name in halves.columns
        if name not in {"event_flow", "end", "src_bytes", "src_packets", "dst_bytes", "dst_packets"}
    ]
    own = {name: pl.col(f"src_{name}").filter(~back).sum().alias(f"src_{name}") for name in ("bytes", "packets")}
    other = {
        name: pl.when(back.any()).then(pl.col(f"src_{name}").filter(back).sum()).alias(f"dst_{name}")
        for name in ("bytes", "packets")
    }
    merged = ordered.group_by("event_flow", maintain_order=True).agg(
        *(pl.col(name).first() for name in kept), pl.col("end").max(), *own.values(), *other.values()
    )
    return merged.select(halves.columns)


def _instant(value: pl.Expr | str) -> pl.Expr:
    """A time with its offset (2024-01-09T15:12:24.540473+0000), us since epoch; null where it is none."""
    written = pl.col(value) if isinstance(value, str) else value
    time = written.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False)
    instant = time.dt.epoch("us")
    return pl.when(instant >= 0).then(instant)


def _host(name: pl.Expr) -> pl.Expr:
    lower = name.str.to_lowercase().str.strip_chars_end(".")
    return pl.when(lower.str.len_bytes().is_between(1, 253)).then(lower)


def _ip_bytes(frames_bytes: pl.Expr, packets: pl.Expr) -> pl.Expr:
    return (frames_bytes - packets * ETHERNET_HEADER).clip(0)
