"""Zeek conn.log with its siblings dns.log, ssl.log and socks.log, TSV or JSON. The app is never observable.

A connection between two local addresses is two views, one of each endpoint; a connection between two others is its
originator's. Bytes are payload by sequence numbers, wire bytes are IP bytes. Times are the sensor's.
Format: Zeek's documentation of base/protocols/conn (conn_state, history) and of the sibling logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import polars as pl

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.compression import open_content, read_head
from relaywatch.sources.lines import typed
from relaywatch.sources.reading import Head, Reading
from relaywatch.sources.zeek_log import instants, log_kind, text_frames
from relaywatch.sources.zeek_names import NAMES_KEPT, DnsNames, TlsNames

SKEW_BOUND_S: Final = 1.0
"""A sensor's clock under NTP, and the time that packets wait to be stamped."""
SNIFFED_BYTES: Final = 16_384
DEVICES_KEPT: Final = 100_000
"""Devices whose span is held before it is written out; a device can then have several CAPTURE signals."""

_ORIG, _RESP = "id.orig_h", "id.resp_h"
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
_TEXTS: Final = ("ts", "uid", _ORIG, _RESP, "proto", "service", "conn_state", "history", "local_orig", "local_resp")
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132, "unknown_transport": 255}
"""255 is IANA's reserved number: a transport that Zeek does not know and older versions do not number."""
_ESTABLISHED: Final = {
    "SF": True, "S1": True, "S2": True, "S3": True, "RSTO": True, "RSTR": True,
    "S0": False, "REJ": False, "RSTOS0": False, "SH": False,
}  # fmt: skip
"""RSTRH, SHR and OTH are left out: the originator's part was not seen, so whether it was accepted is not known."""
_LOCAL: Final = (
    r"^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\."
    r"|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)"
)
"""RFC 1918, RFC 6598 (carrier NAT), RFC 4193, IPv6 link-local; on canonical text."""


class ZeekFolder:
    """A folder with Zeek logs: every conn.log in it (rotated, compressed) and the siblings that explain it."""

    name: ClassVar[str] = "zeek"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The Zeek logs of the folder by content, if one of them is a conn.log."""
        logs = _logs(folder)
        return frozenset(path for paths in logs.values() for path in paths) if logs.get("conn") else frozenset()

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """Signals from socks.log, then flows of each conn.log by name, then what was watched."""
        logs = _logs(folder)
        names = _names(logs, reading)
        yield from _each(logs.get("socks", []), reading, _socks_signals)
        for path in logs.get("conn", []):
            try:
                with open_content(path, reading.progress) as stream:
                    yield from _connections(path, stream, reading, names)
            except SourceError as damage:
                _put_aside(damage, reading.quarantine)


class ZeekConn:
    """One conn.log given by itself; its dns.log and ssl.log beside it name its flows."""

    name: ClassVar[str] = "zeek-conn"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path conn header, or a JSON record with conn.log's keys."""
        return log_kind(head) == "conn"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """Flows of this conn.log, then what was watched."""
        logs = _logs(path.parent)
        names = _names(logs, reading)
        yield from _connections(path, stream, reading, names)


class ZeekSocks:
    """One socks.log given by itself."""

    name: ClassVar[str] = "zeek-socks"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path socks header, or a JSON record with socks.log's keys."""
        return log_kind(head) == "socks"

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """The SOCKS requests that devices answered."""
        yield from _socks_signals(path, stream, reading)


class ZeekNames:
    """A dns.log or ssl.log given by itself: it holds no flows, it names those of a conn.log beside it."""

    name: ClassVar[str] = "zeek-names"

    @staticmethod
    def fits(head: Head) -> bool:
        """A #path dns or ssl header, or a JSON record with the keys of either."""
        return log_kind(head) in ("dns", "ssl")

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """No rows: the conn.log's reader takes the names. Says so where there is no conn.log."""
        if not _logs(path.parent).get("conn"):
            reading.quarantine.add(str(path), "file", "only names the flows of a conn.log, and none is beside it")
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


def _put_aside(damage: SourceError, quarantine: Quarantine) -> None:
    quarantine.add(damage.path, damage.position or "file", f"{damage.reason} {damage.remedy}".strip())


def _each(
    paths: Iterable[Path], reading: Reading, read: Callable[[Path, BinaryIO, Reading], Iterator[Batch]]
) -> Iterator[Batch]:
    """Rows of each sibling; a damaged one costs only itself."""
    for path in paths:
        try:
            with open_content(path, reading.progress) as stream:
                yield from read(path, stream, reading)
        except SourceError as damage:
            _put_aside(damage, reading.quarantine)


def _names(logs: Mapping[str, Sequence[Path]], reading: Reading) -> tuple[TlsNames, DnsNames]:
    """Names from ssl.log and dns.log."""
    tls, dns = TlsNames(), DnsNames()
    for kind, take in (("ssl", partial(_take_tls, tls)), ("dns", partial(_take_dns, dns))):
        for path in logs.get(kind, []):
            try:
                with open_content(path, reading.progress) as stream:
                    take(path, stream, reading.quarantine)
            except SourceError as damage:
                _put_aside(damage, reading.quarantine)
    tls.close()
    dns.close()
    return tls, dns


def _take_tls(names: TlsNames, path: Path, stream: BinaryIO, quarantine: Quarantine) -> None:
    for frame in text_frames(stream, path, ("uid", "server_name"), quarantine):
        names.add(frame.with_columns(_name("server_name")))
        if names.count >= NAMES_KEPT:
            quarantine.add(str(path), "file", f"names beyond the first {NAMES_KEPT} are not used")
            return


def _take_dns(names: DnsNames, path: Path, stream: BinaryIO, quarantine: Quarantine) -> None:
    for frame in text_frames(stream, path, ("ts", _ORIG, "query", "answers"), quarantine, numbers=("ts",)):
        time = instants("ts", frame["ts"].dtype).alias("time")
        table = frame.select(time, pl.col(_ORIG).alias("client"), _name("query").alias("name"), "answers", "position")
        for position in table.filter(pl.col("time").is_null())["position"].to_list():
            quarantine.add(str(path), f"line {position}", "ts is missing or no time")
        answers = table.drop_nulls().with_columns(pl.col("answers").str.split(",")).explode("answers")
        answers = answers.with_columns(
            canonical_addresses(answers["client"]).alias("client"),
            canonical_addresses(answers["answers"]).alias("address"),
        ).drop_nulls()
        names.add(answers.head(NAMES_KEPT - names.count))
        if names.count >= NAMES_KEPT:
            quarantine.add(str(path), "file", f"names beyond the first {NAMES_KEPT} are not used")
            return


def _name(column_name: str) -> pl.Expr:
    """A host name, lower case without the final dot; null where it is too long for one."""
    name = pl.col(column_name).str.to_lowercase().str.strip_chars_end(".")
    return pl.when(name.str.len_bytes().is_between(1, 253)).then(name).alias(column_name)


def _connections(path: Path, stream: BinaryIO, reading: Reading, names: tuple[TlsNames, DnsNames]) -> Iterator[Batch]:
    """Flows of one conn.log, then a CAPTURE signal per device."""
    spans: dict[str, tuple[int, int]] = {}
    local_seen: Counter[str] = Counter()
    columns = (*_TEXTS, *_KINDS)
    for frame in text_frames(stream, path, columns, reading.quarantine, numbers=("ts", *_KINDS)):
        frame = _sound(frame, path, reading.quarantine)
        if frame.is_empty():
            continue
        views = _device_views(_with_local(frame), reading.device, local_seen)
        views = _with_names(views, *names)
        _widen(spans, views)
        yield batch("flows", _flow_columns(views, path), length=views.height)
        if len(spans) > DEVICES_KEPT:
            yield _captures(spans, path)
            spans.clear()
    if spans:
        yield _captures(spans, path)


def _sound(frame: pl.DataFrame, path: Path, quarantine: Quarantine) -> pl.DataFrame:
    """The records with a time, two addresses, a known protocol and counts that fit; the others go to quarantine."""
    frame = frame.with_columns(
        instants("ts", frame["ts"].dtype).alias("time"),
        canonical_addresses(frame[_ORIG]).alias(_ORIG),
        canonical_addresses(frame[_RESP]).alias(_RESP),
        pl.col("proto").replace_strict(_PROTOCOLS, default=None, return_dtype=pl.UInt8).alias("protocol"),
    )
    frame = typed(frame, _KINDS, path, quarantine, required=("time", _ORIG, _RESP, "protocol"))
    negative = pl.any_horizontal((pl.col(name) < 0).fill_null(value=False) for name in (*_COUNTS, "resp_ip_bytes"))
    late = (pl.col("duration") > _LONGEST_S).fill_null(value=False)
    wrong = frame.select((negative | late).alias("wrong"))["wrong"]
    for position in frame["position"].filter(wrong).to_list():
        quarantine.add(str(path), f"line {position}", "a negative count or an impossible duration")
    return frame.filter(~wrong)


_LONGEST_S: Final = 100 * 365 * 86_400


def _with_local(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds which ends are local: as the sensor's own network list says, or by address range."""
    return frame.with_columns(
        ((pl.col("local_orig") == "T").fill_null(value=False) | pl.col(_ORIG).str.contains(_LOCAL)).alias("orig_local"),
        ((pl.col("local_resp") == "T").fill_null(value=False) | pl.col(_RESP).str.contains(_LOCAL)).alias("resp_local"),
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
    for end, flag in ((_ORIG, "orig_local"), (_RESP, "resp_local")):
        counted = frame.filter(pl.col(flag))[end].value_counts()
        local_seen.update(dict(counted.iter_rows()))
    if len(local_seen) > DEVICES_KEPT:
        kept = local_seen.most_common(DEVICES_KEPT // 2)
        local_seen.clear()
        local_seen.update(dict(kept))
    both = frame.select(_ORIG, _RESP)
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
        **_provenance(path),
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


def _provenance(path: Path) -> dict[str, Any]:
    return {"source": str(path), "clock": "sensor", "clock_skew_bound_s": SKEW_BOUND_S}


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
    return batch("signals", {**columns, **_provenance(path)}, length=len(spans))


_SOCKS_COLUMNS: Final = (
    "ts",
    "version",
    "status",
    "request.host",
    "request.name",
    "request_p",
    "id.resp_p",
    _ORIG,
    _RESP,
)


def _socks_signals(path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
    """SOCKS requests that a device answered: direct proof of a proxy on it."""
    numbers = ("ts", "version", "request_p", "id.resp_p")
    for frame in text_frames(stream, path, _SOCKS_COLUMNS, reading.quarantine, numbers=numbers):
        frame = frame.with_columns(
            instants("ts", frame["ts"].dtype).alias("time"),
            canonical_addresses(frame[_ORIG]).alias(_ORIG),
            canonical_addresses(frame[_RESP]).alias(_RESP),
        )
        kinds = {"id.resp_p": pl.UInt16, "request_p": pl.UInt16, "version": pl.UInt8}
        frame = typed(frame, kinds, path, reading.quarantine, required=("time", _ORIG, _RESP))
        if frame.is_empty():
            continue
        outside = pl.col(_ORIG).str.contains(_LOCAL) & ~pl.col(_RESP).str.contains(_LOCAL)
        device = pl.when(outside | pl.lit(not reading.device)).then(pl.col(_RESP)).otherwise(pl.lit(reading.device))
        target = pl.coalesce("request.name", "request.host", pl.lit("?"))
        said = pl.format(
            "SOCKS{} {}:{} {}",
            pl.col("version").cast(pl.String).fill_null(""),
            target,
            pl.col("request_p").cast(pl.String).fill_null("?"),
            pl.col("status").fill_null(""),
        )
        rows = frame.select(
            "time", "position", "id.resp_p", device.alias("device"), said.str.strip_chars().alias("said")
        )
        columns = {
            "device_uid": text(rows["device"]),
            "kind": int(SignalKind.SOCKS_REQUEST),
            "start_time": column(rows["time"]),
            "end_time": column(rows["time"]),
            "observability": int(Observability.OBSERVED),
            "local_port": column(rows["id.resp_p"]),
            "detail": text(rows["said"]),
            "position": column(rows["position"]),
        }
        yield batch("signals", {**columns, **_provenance(path)}, length=rows.height)
