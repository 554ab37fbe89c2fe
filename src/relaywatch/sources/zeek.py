"""Zeek conn.log with its siblings dns.log, ssl.log, http.log, socks.log, tunnel.log, dhcp.log. No app is observable.

A connection between two local addresses is two views, one of each endpoint; a connection between two others is its
originator's. Bytes are payload by sequence numbers, wire bytes are IP bytes. Times are the sensor's.
Format: Zeek's documentation of base/protocols/conn (conn_state, history) and of the sibling logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.compression import open_content, read_head
from relaywatch.sources.lines import Piece
from relaywatch.sources.reading import Head, Reading, Tally
from relaywatch.sources.zeek_dhcp import leases
from relaywatch.sources.zeek_ends import LOCAL, ORIG, RESP, host_name, provenance, with_ends
from relaywatch.sources.zeek_http import http_signals
from relaywatch.sources.zeek_log import instants, log_kind, text_frames
from relaywatch.sources.zeek_macs import Macs
from relaywatch.sources.zeek_names import NAMES_KEPT, ONLY_NAMES, DnsNames, TlsNames
from relaywatch.sources.zeek_tunnel import socks_signals, tunnel_signals

SNIFFED_BYTES: Final = 16_384
DEVICES_KEPT: Final = 100_000
"""Devices whose span is held before it is written out; a device can then have several CAPTURE signals."""

_KINDS: Final[Mapping[str, type[pl.DataType]]] = {
    "id.orig_p": pl.UInt16,
    "id.resp_p": pl.UInt16,
    "duration": pl.Float64,
    "orig_bytes": pl.Int64,
    "resp_bytes": pl.Int64,
    "missed_bytes": pl.Int64,
    "orig_pkts": pl.Int64,
    "orig_ip_bytes": pl.Int64,
    "resp_pkts": pl.Int64,
    "resp_ip_bytes": pl.Int64,
    "ip_proto": pl.UInt8,
}
_COUNTS: Final = ("duration", "orig_bytes", "resp_bytes", "missed_bytes", "orig_pkts", "orig_ip_bytes", "resp_pkts")
_TEXTS: Final = ("ts", "uid", ORIG, RESP, "proto", "service", "conn_state", "history", "local_orig", "local_resp")
_MACS: Final = ("orig_l2_addr", "resp_l2_addr")
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132, "unknown_transport": 255}
"""255 is IANA's reserved number: a transport that Zeek does not know and older versions do not number."""
_ESTABLISHED: Final = {
    "SF": True, "S1": True, "S2": True, "S3": True, "RSTO": True, "RSTR": True,
    "S0": False, "REJ": False, "RSTOS0": False, "SH": False,
}  # fmt: skip
"""RSTRH, SHR and OTH are left out: the originator's part was not seen, so whether it was accepted is not known."""


class ZeekFolder:
    """A folder with Zeek logs: every conn.log in it (rotated, compressed) and the siblings that explain it."""

    name: ClassVar[str] = "zeek"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The Zeek logs of the folder by content, if one of them is a conn.log."""
        logs = _logs(folder)
        return frozenset(path for paths in logs.values() for path in paths) if logs.get("conn") else frozenset()

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """What the siblings say, then flows of each conn.log by name, then what was watched."""
        logs = _logs(folder)
        tls = TlsNames()
        yield from _each(logs.get("http", []), reading, partial(http_signals, names=tls))
        names = _names(logs, tls, reading)
        for kind, read in (("socks", socks_signals), ("tunnel", tunnel_signals), ("dhcp", leases)):
            yield from _each(logs.get(kind, []), reading, read)
        yield from _each(logs.get("conn", []), reading, partial(_connections, names=names))


class ZeekConn:
    """One conn.log given by itself; its dns.log and ssl.log beside it name its flows."""

    name: ClassVar[str] = "zeek-conn"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path conn header, or a JSON record with conn.log's keys."""
        return log_kind(head) == "conn"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows of this conn.log, then what was watched. Of a piece of a growing log the siblings are not read."""
        logs, tls = {} if isinstance(stream, Piece) else _logs(path.parent), TlsNames()
        beside, aside = replace(reading, tally=Tally()), reading.quarantine.total
        for _ in _each(logs.get("http", []), beside, partial(http_signals, names=tls)):
            pass
        names = _names(logs, tls, beside)
        reading.tally.met(reading.quarantine.total - aside)  # of the siblings only what is damaged counts here
        yield from _connections(path, stream, reading, names)


class ZeekNames:
    """A dns.log or ssl.log given by itself: it holds no flows, it names those of a conn.log beside it."""

    name: ClassVar[str] = "zeek-names"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path dns or ssl header, or a JSON record with the keys of either."""
        return log_kind(head) in ("dns", "ssl")

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """No rows: the conn.log's reader takes the names. The tally says so."""
        for frame in text_frames(stream, path, ("ts",), reading):
            reading.tally.left(ONLY_NAMES, frame.height)
        return iter(())


def _logs(folder: Path) -> dict[str, list[Path]]:
    """The Zeek logs of a folder by kind, in name order; none where it cannot be listed."""
    found: dict[str, list[Path]] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return found
    for path in entries:
        if path.name.startswith(".") or path.is_symlink() or not path.is_file():
            continue
        try:
            kind = log_kind(read_head(path, SNIFFED_BYTES))
        except SourceError:
            continue
        if kind is not None:
            found.setdefault(kind, []).append(path)
    return found


def _each(
    paths: Iterable[Path], reading: Reading, read: Callable[[Path, BinaryIO, Reading], Iterator[Batch]]
) -> Iterator[Batch]:
    """Rows of each log; a damaged one costs only itself, and counts as one record more."""
    for path in paths:
        try:
            with open_content(path, reading.progress) as stream:
                yield from read(path, stream, reading)
        except SourceError as damage:
            reading.tally.met(1)
            reason = f"{damage.reason} {damage.remedy}".strip()
            reading.quarantine.add(damage.path, damage.position or "file", reason)


def _names(logs: Mapping[str, Sequence[Path]], tls: TlsNames, reading: Reading) -> tuple[TlsNames, DnsNames]:
    """Names from ssl.log and dns.log, after those that are known."""
    dns = DnsNames()
    for kind, take in (("ssl", partial(_take_tls, names=tls)), ("dns", partial(_take_dns, names=dns))):
        for _ in _each(logs.get(kind, []), reading, take):
            pass
    tls.close()
    dns.close()
    return tls, dns


def _take_tls(path: Path, stream: BinaryIO, reading: Reading, names: TlsNames) -> Iterator[Batch]:
    """No rows; the log's names go to `names`, as far as it has room."""
    for frame in text_frames(stream, path, ("uid", "server_name"), reading):
        named = frame.with_columns(host_name("server_name"))
        names.add(named.head(NAMES_KEPT - names.count))
        reading.tally.left(ONLY_NAMES, frame.height)
    return iter(())


def _take_dns(path: Path, stream: BinaryIO, reading: Reading, names: DnsNames) -> Iterator[Batch]:
    """No rows; the log's answers go to `names`, as far as it has room."""
    for frame in text_frames(stream, path, ("ts", ORIG, "query", "answers"), reading):
        time = instants("ts", frame["ts"].dtype).alias("time")
        name = host_name("query").alias("name")
        table = frame.select(time, pl.col(ORIG).alias("client"), name, "answers", "position")
        timeless = table.filter(pl.col("time").is_null())["position"].to_list()
        for position in timeless:
            reading.quarantine.add(str(path), f"line {position}", "ts is missing or no time")
        reading.tally.left(ONLY_NAMES, frame.height - len(timeless))
        answers = table.drop_nulls().with_columns(pl.col("answers").str.split(",")).explode("answers")
        answers = answers.with_columns(
            canonical_addresses(answers["client"]).alias("client"),
            canonical_addresses(answers["answers"]).alias("address"),
        ).drop_nulls()
        names.add(answers.head(NAMES_KEPT - names.count))
    return iter(())


def _connections(path: Path, stream: BinaryIO, reading: Reading, names: tuple[TlsNames, DnsNames]) -> Iterator[Batch]:
    """Flows of one conn.log, then a CAPTURE signal and the hardware addresses of each device."""
    spans: dict[str, tuple[int, int]] = {}
    macs = Macs()
    local_seen: Counter[str] = Counter()
    counts = tuple(name for name in _KINDS if name != "duration")
    for frame in text_frames(stream, path, (*_TEXTS, *_MACS, *_KINDS), reading, counts=counts):
        frame = _sound(frame, path, reading)
        if frame.is_empty():
            continue
        views = _device_views(_with_local(frame), reading.device, local_seen)
        views = _with_names(views, *names)
        _widen(spans, views)
        macs.see(views)
        flows = batch("flows", _flow_columns(views, path), length=views.height)
        reading.tally.gave([flows])
        yield flows
        if len(spans) > DEVICES_KEPT:
            yield _captures(spans, path)
            spans.clear()
    if spans:
        yield _captures(spans, path)
    if (identifiers := macs.rows(path)) is not None:
        yield identifiers


def _sound(frame: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """The records with a time, two addresses, a known protocol and counts that fit; the others go to quarantine."""
    protocol = pl.col("proto").replace_strict(_PROTOCOLS, default=None, return_dtype=pl.UInt8)
    frame = with_ends(frame.with_columns(protocol.alias("protocol")), _KINDS, path, reading, required=("protocol",))
    negative = pl.any_horizontal((pl.col(name) < 0).fill_null(value=False) for name in (*_COUNTS, "resp_ip_bytes"))
    late = (pl.col("duration") > _LONGEST_S).fill_null(value=False)
    wrong = frame.select((negative | late).alias("wrong"))["wrong"]
    for position in frame["position"].filter(wrong).to_list():
        reading.quarantine.add(str(path), f"line {position}", "a negative count or an impossible duration")
    return frame.filter(~wrong)


_LONGEST_S: Final = 100 * 365 * 86_400


def _with_local(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds which ends are local: as the sensor's own network list says, or by address range."""
    return frame.with_columns(
        ((pl.col("local_orig") == "T").fill_null(value=False) | pl.col(ORIG).str.contains(LOCAL)).alias("orig_local"),
        ((pl.col("local_resp") == "T").fill_null(value=False) | pl.col(RESP).str.contains(LOCAL)).alias("resp_local"),
    )


def _device_views(frame: pl.DataFrame, device: str, local_seen: Counter[str]) -> pl.DataFrame:
    """One row per local endpoint, seen from it: local_*, remote_*, *_out and *_in columns and `inbound`."""
    orig, resp = frame["orig_local"], frame["resp_local"]
    as_orig, as_resp = orig | ~resp, resp
    if device:
        # One named device cannot be both ends: it is the local end that the log shows most often.
        as_resp = resp & (~orig | _more_seen(frame, local_seen))
        as_orig = ~as_resp
    views = [_view(frame.filter(as_orig), "orig", "resp"), _view(frame.filter(as_resp), "resp", "orig")]
    table = pl.concat(views).sort("position", maintain_order=True)
    return table.with_columns(pl.lit(device).alias("device") if device else pl.col("local_ip").alias("device"))


def _more_seen(frame: pl.DataFrame, local_seen: Counter[str]) -> pl.Series:
    """Whether the responder was a local end more often than the originator so far."""
    for end, flag in ((ORIG, "orig_local"), (RESP, "resp_local")):
        counted = frame.filter(pl.col(flag))[end].value_counts()
        local_seen.update(dict(counted.iter_rows()))
    if len(local_seen) > DEVICES_KEPT:
        kept = local_seen.most_common(DEVICES_KEPT // 2)
        local_seen.clear()
        local_seen.update(dict(kept))
    both = frame.select(ORIG, RESP)
    return pl.Series([local_seen[r] > local_seen[o] for o, r in both.iter_rows()], dtype=pl.Boolean)


def _view(frame: pl.DataFrame, device: str, other: str) -> pl.DataFrame:
    return frame.select(
        "position",
        "time",
        "duration",
        "uid",
        "protocol",
        "ip_proto",
        "service",
        "conn_state",
        "history",
        "missed_bytes",
        pl.lit(device == "resp").alias("inbound"),
        pl.col(f"{device}_local").alias("is_local"),
        pl.col(f"{device}_l2_addr").alias("mac"),
        pl.col(f"id.{device}_h").alias("local_ip"),
        pl.col(f"id.{device}_p").alias("local_port"),
        pl.col(f"id.{other}_h").alias("remote_ip"),
        pl.col(f"id.{other}_p").alias("remote_port"),
        pl.col(f"{device}_bytes").alias("bytes_out"),
        pl.col(f"{other}_bytes").alias("bytes_in"),
        pl.col(f"{device}_ip_bytes").alias("wire_bytes_out"),
        pl.col(f"{other}_ip_bytes").alias("wire_bytes_in"),
        pl.col(f"{device}_pkts").alias("packets_out"),
        pl.col(f"{other}_pkts").alias("packets_in"),
    )


def _with_names(views: pl.DataFrame, tls: TlsNames, dns: DnsNames) -> pl.DataFrame:
    """Adds the name of a server that the device dialled, from its own TLS hello, else from its earlier DNS answer."""
    dialled = pl.Series(~views["inbound"])
    hello = tls.of(views["uid"])
    answered = dns.of(views, "local_ip", "remote_ip", "time")
    return views.with_columns(
        pl.when(dialled).then(pl.coalesce(hello, answered)).otherwise(None).alias("hostname"),
        pl.when(dialled & hello.is_not_null())
        .then(int(Observability.OBSERVED))
        .when(dialled & answered.is_not_null())
        .then(int(Observability.INFERRED))
        .otherwise(int(Observability.NOT_OBSERVABLE))
        .alias("hostname_observability"),
    )


def _flow_columns(views: pl.DataFrame, path: Path) -> dict[str, Any]:
    tcp, portless = pl.col("protocol") == 6, pl.col("protocol").is_in([1, 58, 255])
    history = pl.col("history").fill_null("")
    sure = tcp & ~history.str.contains("^", literal=True) & history.str.contains("^[Sh]")
    counted = pl.col("bytes_out").is_not_null() & pl.col("bytes_in").is_not_null()
    derived = views.select(
        (pl.col("position") * 2 + pl.col("inbound").cast(pl.Int64)).alias("flow_id"),
        (pl.col("time") + (pl.col("duration") * 1_000_000).round().cast(pl.Int64)).alias("end"),
        _protocol().alias("protocol"),
        pl.when("inbound").then(int(Direction.INBOUND)).otherwise(int(Direction.OUTBOUND)).alias("direction"),
        pl.when(sure).then(int(Observability.OBSERVED)).otherwise(int(Observability.INFERRED)).alias("direction_from"),
        pl.when(~portless).then(pl.col("local_port")).alias("local_port"),
        pl.when(~portless).then(pl.col("remote_port")).alias("remote_port"),
        pl.when(~counted).then(int(Observability.NOT_OBSERVABLE)).when(_gap()).then(int(Observability.INFERRED))
        .otherwise(int(Observability.OBSERVED)).alias("bytes_from"),
        pl.when(tcp).then(pl.col("conn_state").replace_strict(_ESTABLISHED, default=None, return_dtype=pl.Boolean))
        .alias("established"),
    )  # fmt: skip
    same = ("bytes_out", "bytes_in", "wire_bytes_out", "wire_bytes_in", "packets_out", "packets_in", "position")
    return {
        **{name: column(views[name]) for name in same},
        "device_uid": text(views["device"]),
        "flow_id": column(derived["flow_id"]),
        "start_time": column(views["time"]),
        "end_time": column(derived["end"]),
        "protocol_num": column(derived["protocol"]),
        "direction_id": column(derived["direction"]),
        "direction_observability": column(derived["direction_from"]),
        "local_ip": text(views["local_ip"]),
        "local_port": column(derived["local_port"]),
        "remote_ip": text(views["remote_ip"]),
        "remote_port": column(derived["remote_port"]),
        "remote_hostname": text(views["hostname"]),
        "hostname_observability": column(views["hostname_observability"]),
        "bytes_observability": column(derived["bytes_from"]),
        "established": column(derived["established"]),
        "app_protocol": text(views["service"].cast(pl.String)),
        **provenance(path),
    }


def _protocol() -> pl.Expr:
    """The IANA number: Zeek's own where it logs one, else by name; icmp over IPv6 is 58."""
    by_name = pl.when((pl.col("protocol") == 1) & pl.col("local_ip").str.contains(":", literal=True)).then(
        pl.lit(58, pl.UInt8)
    )
    return pl.coalesce(pl.col("ip_proto"), by_name, pl.col("protocol"))


def _gap() -> pl.Expr:
    """Packets were missed, so bytes are by sequence numbers only; or those jumped, so they exceed the packets seen."""
    missed = (pl.col("missed_bytes") > 0).fill_null(value=False)
    jumps = [
        ((pl.col(f"bytes_{way}") > pl.col(f"wire_bytes_{way}")) & (pl.col(f"packets_{way}") > 0)).fill_null(value=False)
        for way in ("out", "in")
    ]
    return pl.any_horizontal(missed, *jumps)


def _widen(spans: dict[str, tuple[int, int]], views: pl.DataFrame) -> None:
    """Extends each device's span by these flows."""
    last = pl.col("time") + (pl.col("duration").fill_null(0) * 1_000_000).round().cast(pl.Int64)
    found = views.group_by("device").agg(pl.col("time").min().alias("first"), last.max().alias("last"))
    for device, first, end in found.sort("device").iter_rows():
        before = spans.get(device, (first, end))
        spans[device] = (min(before[0], first), max(before[1], end))


def _captures(spans: Mapping[str, tuple[int, int]], path: Path) -> Batch:
    """What the sensor watched: flows only, so the detail names no other kind of signal."""
    columns = {
        "device_uid": list(spans),
        "kind": int(SignalKind.CAPTURE),
        "start_time": [first for first, _ in spans.values()],
        "end_time": [last for _, last in spans.values()],
        "observability": int(Observability.OBSERVED),
        "detail": "",
        "position": 1,
    }
    return batch("signals", {**columns, **provenance(path)}, length=len(spans))
