"""DeviceNetworkEvents as flows, listeners, names looked up and proxy requests.

Direction is what the ActionType says. Packet-level reports (those with "Tcp Flags") are of one packet: a SYN that came
in is an inbound attempt, a SYN-ACK that came in answers a connection that the device opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import canonical_addresses, column, text
from relaywatch.sources.context_rows import ContextRows
from relaywatch.sources.defender_context import SKEW_BOUND_S, Devices, describe
from relaywatch.sources.reading import Reading

_UNKNOWN, _IN, _OUT = int(Direction.UNKNOWN), int(Direction.INBOUND), int(Direction.OUTBOUND)
_DIRECTIONS: Final = {
    "ConnectionSuccess": _OUT,
    "ConnectionFailed": _OUT,
    "ConnectionRequest": _OUT,
    "ConnectionAttempt": _OUT,
    "ConnectionFound": _UNKNOWN,
    "ConnectionAcknowledged": _UNKNOWN,
    "InboundConnectionAccepted": _IN,
    "InboundConnectionAttempt": _IN,
    "InboundConnectionBlocked": _IN,
    "InboundConnectionAcknowledged": _UNKNOWN,
}
"""The action types that report one connection, with who opened it."""
_ESTABLISHED: Final = {
    "ConnectionSuccess": True,
    "ConnectionFound": True,
    "ConnectionAcknowledged": True,
    "InboundConnectionAcknowledged": True,
    "InboundConnectionAccepted": True,
    "ConnectionFailed": False,
    "ConnectionAttempt": False,
    "InboundConnectionAttempt": False,
    "InboundConnectionBlocked": False,
}
"""An attempt that is answered has a record of its own; ConnectionRequest tells neither."""
_LISTENER: Final = "ListeningConnectionCreated"
_INSPECTED: Final = ("DnsConnectionInspected", "HttpConnectionInspected", "SslConnectionInspected")
_PROTOCOLS: Final = {
    "tcp": 6,
    "tcpv4": 6,
    "tcpv6": 6,
    "udp": 17,
    "udpv4": 17,
    "udpv6": 17,
    "icmp": 1,
    "icmpv4": 1,
    "icmpv6": 58,
}
_UNSTATED_PROTOCOL: Final = 255
"""IANA's reserved number: the record does not say."""
_SYN_ACK: Final = 0x12
_PACKAGE: Final = r"^[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+(?::[A-Za-z0-9_.]+)?$"
_HOST_OF_URL: Final = (
    r"^(?:[a-z][a-z0-9+.\-]*://)?(?:[^/?#@\s]*@)?([a-z0-9_](?:[a-z0-9_.\-]*[a-z0-9_\-])?)\.?(?::[0-9]+)?(?:[/?#]|$)"
)
_BARE_HOST: Final = r"^[a-z0-9_](?:[a-z0-9_.\-]*[a-z0-9_\-])?$"
_ONLY_DIGITS: Final = r"^[0-9.]+$"


def event_batches(frame: pl.DataFrame, path: Path, reading: Reading, devices: Devices) -> list[Batch]:
    """The rows of network events that have a device and a time; the rest of the tally is done here."""
    if frame.is_empty():
        return []
    for device_id, platform in (
        frame.filter(pl.col("OSPlatform").is_not_null()).select("DeviceId", "OSPlatform").unique().iter_rows()
    ):
        devices.runs(device_id, platform)
    frame = _addressed(frame, path, reading).with_columns(_package(devices))
    action = pl.col("ActionType")
    flows = action.is_in(list(_DIRECTIONS)) & (pl.col("RemoteIP").is_not_null() | pl.col("RemoteUrl").is_not_null())
    listeners = (action == _LISTENER) & pl.col("LocalPort").is_not_null()
    frame = frame.with_columns(
        flows.fill_null(value=False).alias("flow"),
        listeners.fill_null(value=False).alias("listener"),
        action.is_in(list(_INSPECTED)).fill_null(value=False).alias("inspected"),
    )
    found: list[Batch] = []
    signals = [_listeners(frame.filter("listener"))]
    inspected = frame.filter("inspected")
    if inspected.height:
        signals += [_lookups(inspected), _connects(inspected)]
    given = pl.concat(signals)
    connections = frame.filter("flow")
    used = set(given["position"].to_list())
    _leave(frame, used, reading)
    if connections.height:
        found.append(batch("flows", _flow_columns(connections, path, devices), length=connections.height))
    if given.height:
        found.append(batch("signals", _signal_columns(given, path, devices), length=given.height))
    return [*_contexts(frame.filter(pl.col("flow") | pl.col("position").is_in(sorted(used))), path, devices), *found]


def _addressed(frame: pl.DataFrame, path: Path, reading: Reading) -> pl.DataFrame:
    """Addresses in canonical form; records with a remote address or a port that is none go to quarantine."""
    empty = {
        name: pl.when(pl.col(name).str.len_bytes() > 0).then(name).alias(name)
        for name in ("RemoteIP", "LocalIP", "RemoteUrl")
    }
    frame = frame.with_columns(*empty.values())
    remote, local = canonical_addresses(frame["RemoteIP"]), canonical_addresses(frame["LocalIP"])
    ports = [~pl.col(name).is_between(0, 65_535).fill_null(value=True) for name in ("LocalPort", "RemotePort")]
    bad_port = frame.select(pl.any_horizontal(*ports).alias("bad"))["bad"]
    bad = (frame["RemoteIP"].is_not_null() & remote.is_null()) | bad_port
    for position, port in zip(frame["position"].filter(bad).to_list(), bad_port.filter(bad).to_list(), strict=True):
        what = "a port is out of range" if port else "RemoteIP is no address"
        reading.quarantine.add(str(path), f"line {position}", what)
    return frame.with_columns(remote.alias("RemoteIP"), local.alias("LocalIP")).filter(~bad)


def _package(devices: Devices) -> pl.Expr:
    """The process as an Android package, without its `:process` suffix, on devices known to run Android."""
    process = pl.col("InitiatingProcessFileName")
    known = pl.col("DeviceId").is_in(devices.android()) & process.str.contains(_PACKAGE)
    return pl.when(known).then(process.str.replace(r":.*$", "")).alias("package")


def _leave(frame: pl.DataFrame, used: set[int], reading: Reading) -> None:
    """Counts the sound events that give no row, by reason."""
    idle = frame.filter(~pl.col("flow") & ~pl.col("position").is_in(sorted(used)))
    action = pl.col("ActionType")
    reasons = idle.select(
        pl.when(action.is_in(list(_DIRECTIONS))).then(pl.lit("a connection report that names no other side"))
        .when(action == _LISTENER).then(pl.lit("a listener without a port"))
        .when(action.is_in(list(_INSPECTED))).then(pl.lit("an inspection that names no host asked for"))
        .otherwise(pl.lit("an event of another kind than one connection or listener"))
        .alias("reason")
    )  # fmt: skip
    for reason, count in reasons["reason"].value_counts().iter_rows():
        reading.tally.left(reason, count)


def _flow_columns(frame: pl.DataFrame, path: Path, devices: Devices) -> dict[str, Any]:
    flags = _extra("$['Tcp Flags']").cast(pl.Int64, strict=False)
    said_way = _extra("$.direction").str.to_lowercase()
    came_in = pl.col("ActionType").str.starts_with("Inbound") | (said_way == "in").fill_null(value=False)
    answers = pl.col("ActionType").str.ends_with("Acknowledged") & (flags == _SYN_ACK).fill_null(value=False)
    stated = pl.col("ActionType").replace_strict(_DIRECTIONS, default=_UNKNOWN, return_dtype=pl.UInt8)
    direction = (
        pl.when(answers & came_in).then(_OUT)
        .when(answers & (said_way == "out")).then(_IN)
        .when((pl.col("ActionType") == "ConnectionAttempt") & (said_way == "in")).then(_IN)
        .otherwise(stated)
    )  # fmt: skip
    derived = frame.select(
        direction.alias("direction"),
        answers.alias("answers"),
        _protocol(),
        _hosts(frame["RemoteUrl"]).alias("host"),
        pl.col("ActionType").replace_strict(_ESTABLISHED, default=None, return_dtype=pl.Boolean).alias("established"),
        pl.when(pl.col("ActionType") == "ConnectionFound").then(int(Observability.INFERRED)).alias("start_from"),
    ).with_columns(
        pl.when(pl.col("direction") == _UNKNOWN).then(int(Observability.NOT_OBSERVABLE))
        .when("answers").then(int(Observability.INFERRED)).otherwise(int(Observability.OBSERVED)).alias("way_from"),
        pl.when(pl.col("host").is_not_null()).then(int(Observability.OBSERVED))
        .otherwise(int(Observability.NOT_OBSERVABLE)).alias("host_from"),
    )  # fmt: skip
    return {
        "device_uid": _uid(frame, devices),
        "android_package": text(frame["package"]),
        "flow_id": column(frame["position"]),
        "start_time": column(frame["at"]),
        "start_observability": column(derived["start_from"]),
        "protocol_num": column(derived["protocol"]),
        "direction_id": column(derived["direction"]),
        "direction_observability": column(derived["way_from"]),
        "local_ip": text(frame["LocalIP"]),
        "local_port": column(frame["LocalPort"]),
        "remote_ip": text(frame["RemoteIP"]),
        "remote_port": column(frame["RemotePort"]),
        "remote_hostname": text(derived["host"]),
        "hostname_observability": column(derived["host_from"]),
        "bytes_observability": int(Observability.NOT_OBSERVABLE),
        "established": column(derived["established"]),
        "position": column(frame["position"]),
        **_provenance(path),
    }


def _protocol() -> pl.Expr:
    name = pl.col("Protocol").str.to_lowercase()
    return name.replace_strict(_PROTOCOLS, default=_UNSTATED_PROTOCOL, return_dtype=pl.UInt8).alias("protocol")


def _extra(path: str) -> pl.Expr:
    """A value inside AdditionalFields, as text."""
    return pl.col("AdditionalFields").str.json_path_match(path)


def _host(url: pl.Expr) -> pl.Expr:
    """The host of a URL or a bare host name; null where it is an address or none."""
    host = url.str.to_lowercase().str.extract(_HOST_OF_URL, 1)
    return pl.when(host.str.len_bytes().is_between(1, 253) & ~host.str.contains(_ONLY_DIGITS)).then(host)


def _hosts(urls: pl.Series) -> pl.Series:
    """_host of each, faster where all are bare host names."""
    lowered = urls.str.to_lowercase()
    if not lowered.str.contains(_BARE_HOST).all():
        lowered = lowered.str.extract(_HOST_OF_URL, 1)
    found = pl.DataFrame({"host": lowered})
    sound = pl.col("host").str.len_bytes().is_between(1, 253) & ~pl.col("host").str.contains(_ONLY_DIGITS)
    return found.select(pl.when(sound).then(pl.col("host")))["host"]


_SIGNAL: Final = ("position", "DeviceId", "package", "at", "kind", "observability", "local_port", "detail")


def _signal(frame: pl.DataFrame, kind: SignalKind, seen: Observability) -> pl.DataFrame:
    """The columns of one kind of signal; `detail` is there already."""
    return frame.select(
        "position",
        "DeviceId",
        "package",
        "at",
        pl.lit(int(kind), pl.UInt8).alias("kind"),
        pl.lit(int(seen), pl.UInt8).alias("observability"),
        (pl.col("LocalPort") if kind != SignalKind.NAME_LOOKUP else pl.lit(None, pl.Int64)).alias("local_port"),
        "detail",
    )


def _listeners(frame: pl.DataFrame) -> pl.DataFrame:
    process = pl.col("InitiatingProcessFileName").fill_null("")
    said = pl.format("{} {} {}", pl.col("Protocol").fill_null(""), pl.col("LocalIP").fill_null("any address"), process)
    return _signal(
        frame.with_columns(said.str.strip_chars().alias("detail")), SignalKind.LISTENER, Observability.OBSERVED
    )


def _lookups(frame: pl.DataFrame) -> pl.DataFrame:
    """Names asked of DNS with the addresses answered, and names asked of the server at an address."""
    frame = frame.with_columns(_extra("$.direction").str.to_lowercase().alias("way")).filter(
        (pl.col("way") != "in") | pl.col("way").is_null()
    )
    dns = frame.filter(pl.col("ActionType") == "DnsConnectionInspected").with_columns(
        _host(_extra("$.query")).alias("host"), _extra("$.answers").str.extract_all(r'[^"\[\],\s\\]+').alias("answer")
    )
    each = dns.select("position", "answer").explode("answer")
    each = each.with_columns(canonical_addresses(each["answer"]).alias("answer")).drop_nulls()
    answers = each.group_by("position", maintain_order=True).agg(
        pl.col("answer").unique(maintain_order=True).str.join(" ")
    )
    dns = dns.drop("answer").join(answers, on="position", how="left", maintain_order="left")
    dns = dns.filter(pl.col("host").is_not_null()).with_columns(
        pl.concat_str("host", "answer", separator=" ", ignore_nulls=True).alias("detail")
    )
    named = frame.filter(pl.col("ActionType") != "DnsConnectionInspected").with_columns(
        _host(pl.coalesce(_extra("$.server_name"), _extra("$.host"))).alias("host")
    )
    named = named.filter(pl.col("host").is_not_null() & pl.col("RemoteIP").is_not_null()).with_columns(
        pl.concat_str("host", "RemoteIP", separator=" ").alias("detail")
    )
    return pl.concat(
        [
            _signal(dns, SignalKind.NAME_LOOKUP, Observability.OBSERVED),
            _signal(named, SignalKind.NAME_LOOKUP, Observability.INFERRED),
        ]
    )


def _connects(frame: pl.DataFrame) -> pl.DataFrame:
    """HTTP CONNECT requests that came in: the device was asked to be a proxy."""
    asked = frame.filter(
        (pl.col("ActionType") == "HttpConnectionInspected")
        & (_extra("$.direction").str.to_lowercase() == "in")
        & (_extra("$.method").str.to_uppercase() == "CONNECT")
    )
    target = pl.coalesce(_extra("$.uri"), _extra("$.host"), pl.lit("?"))
    said = pl.format("CONNECT {} {}", target.str.slice(0, 253), _extra("$.status_code").fill_null(""))
    return _signal(
        asked.with_columns(said.str.strip_chars().alias("detail")), SignalKind.HTTP_CONNECT, Observability.OBSERVED
    )


def _signal_columns(given: pl.DataFrame, path: Path, devices: Devices) -> dict[str, Any]:
    given = given.sort("position", maintain_order=True)
    return {
        "device_uid": _uid(given, devices),
        "android_package": text(given["package"]),
        "kind": column(given["kind"]),
        "start_time": column(given["at"]),
        "observability": column(given["observability"]),
        "local_port": column(given["local_port"]),
        "detail": text(given["detail"]),
        "position": column(given["position"]),
        **_provenance(path),
    }


def _contexts(frame: pl.DataFrame, path: Path, devices: Devices) -> list[Batch]:
    """What is new of the devices and processes: names, users, and processes that are no known Android package."""
    rows = ContextRows(path, "device", SKEW_BOUND_S)
    keys = ("DeviceId", "DeviceName", "InitiatingProcessFileName", "package", "InitiatingProcessAccountUpn")
    new = devices.unmet(frame.select(*keys, "position", pl.struct(keys).hash(seed=0).alias("key")))
    for device_id, host, process, package, user, position in new.select(*keys, "position").iter_rows():
        if devices.first_time(device_id, f"host {host}"):
            describe(rows, position, device_id, host, devices)
        if process and devices.first_time(device_id, f"process {process} {user}"):
            uid = devices.uid(device_id)
            detail = None if package else f"process {process}: not stated to be an Android app"
            rows.add("inventory", position, uid, android_package=package, user_name=user, detail=detail)
    return rows.batches()


def _uid(frame: pl.DataFrame, devices: Devices) -> Any:  # noqa: ANN401 - a name for all rows, or a column
    return devices.given or text("defender:" + frame["DeviceId"])


def _provenance(path: Path) -> dict[str, Any]:
    return {"source": str(path), "clock": "device", "clock_skew_bound_s": SKEW_BOUND_S}
