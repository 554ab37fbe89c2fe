"""Relay-lab traces: one app's packets as flows and one-second bins, or composed devices with several apps.

Layout and column meanings: the README that the lab writes beside its traces. The lab's labels (truth) are never read.
Volumes carry the flow file as their source, because their flow_id counts there; their position is the row of the bins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.model.errors import SourceError
from relaywatch.model.quarantine import Quarantine
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch
from relaywatch.sources.columns import LAST_SECOND, canonical_addresses, column, microseconds, text
from relaywatch.sources.compression import open_content
from relaywatch.sources.lines import counted_blocks, delimited, shown, typed
from relaywatch.sources.reading import Reading

SKEW_BOUND_S: Final = 0.001
CONTEXT_BYTES: Final = 64 << 20
ROWS: Final = 65_536

_FLOW_KINDS: Final[Mapping[str, type[pl.DataType]]] = {
    "flow_id": pl.Int64,
    "start": pl.Float64,
    "end": pl.Float64,
    "local_port": pl.UInt16,
    "remote_port": pl.UInt16,
    "tx_payload": pl.Int64,
    "rx_payload": pl.Int64,
    "tx_ip": pl.Int64,
    "rx_ip": pl.Int64,
    "tx_pkts": pl.Int64,
    "rx_pkts": pl.Int64,
    "syn_seen": pl.Int64,
    "established": pl.Int64,
}
_FLOW_TEXTS: Final = ("proto", "local_ip", "remote_ip", "direction", "hostname", "hostname_src")
_FLOW_COLUMNS: Final = (*_FLOW_KINDS, *_FLOW_TEXTS)
_BIN_KINDS: Final = dict.fromkeys(("flow_id", "sec", "tx_bytes", "rx_bytes", "tx_pkts", "rx_pkts"), pl.Int64)
_CONTEXT_KINDS: Final = {
    "listeners": SignalKind.LISTENER,
    "foreground": SignalKind.FOREGROUND_UI,
    "foreground_service": SignalKind.FOREGROUND_SERVICE,
    "screen_on": SignalKind.SCREEN_ON,
    "interaction": SignalKind.USER_INTERACTION,
}


@dataclass(frozen=True, slots=True)
class _App:
    """One app as the context describes it. window: epoch seconds."""

    device: str
    package: str | None
    uid: int | None
    window: tuple[float, float] | None
    context: Mapping[str, Any]
    position: int


class LabTrace:
    """A trace folder: flows.csv, bins.parquet, context.json. The folder's name is the device."""

    name: ClassVar[str] = "lab-trace"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The trace's files; packets.parquet and the capture say the same again and are claimed but not read."""
        return _members(folder, ("flows.csv", "context.json"), ("bins.parquet", "packets.parquet", "trace.pcap.zst"))

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """Inventory and signals, then flows, then volumes of one app."""
        context = _load(folder / "context.json", reading)
        app = _App(folder.name, None, None, None, {}, 1)
        if isinstance(context, dict):
            window = _interval([context.get("trace_start"), context.get("trace_end")])
            app = _App(folder.name, _text(context.get("package")), _uid(context.get("uid")), window, context, 1)
            yield from _context_batches([app], folder / "context.json", reading)
        elif context is not None:
            _put_aside(reading, folder / "context.json", "file", "no JSON object")
        flows = folder / "flows.csv"
        for frame in _csv_frames(flows, reading):
            yield _flows(_with_app(frame, app), flows, reading)
        for frame in _parquet_frames(folder / "bins.parquet", tuple(_BIN_KINDS), reading):
            yield from _volumes(_with_app(frame, app), folder / "bins.parquet", flows, reading)


class LabFleet:
    """A fleet folder: flows.parquet, bins.parquet, apps.json, with a device and a uid on each row."""

    name: ClassVar[str] = "lab-fleet"

    @staticmethod
    def members(folder: Path) -> frozenset[Path]:
        """The fleet's files; the labels beside them are claimed, so that nothing else reads them, but never read."""
        return _members(folder, ("flows.parquet", "apps.json"), ("bins.parquet", "truth.json", "flow_origin.parquet"))

    def read(self, folder: Path, reading: Reading) -> Iterator[Batch]:
        """Inventory and signals, then flows, then volumes of every device."""
        apps = list(_fleet_apps(folder / "apps.json", reading))
        if apps:
            yield from _context_batches(apps, folder / "apps.json", reading)
        packages = pl.DataFrame(
            {"device": [a.device for a in apps], "uid": [a.uid for a in apps], "package": [a.package for a in apps]},
            schema={"device": pl.String, "uid": pl.Int64, "package": pl.String},
        ).unique(["device", "uid"], keep="first", maintain_order=True)
        flows = folder / "flows.parquet"
        for frame in _parquet_frames(flows, (*_FLOW_COLUMNS, "device", "uid"), reading):
            yield _flows(_with_packages(frame, packages), flows, reading)
        for frame in _parquet_frames(folder / "bins.parquet", (*_BIN_KINDS, "device", "uid"), reading):
            yield from _volumes(_with_packages(frame, packages), folder / "bins.parquet", flows, reading)


def _put_aside(reading: Reading, path: Path, position: str, reason: str) -> None:
    """A damaged part of the context, which counts as a record of its own."""
    reading.tally.met(1)
    reading.quarantine.add(str(path), position, reason)


def _members(folder: Path, needed: Sequence[str], further: Sequence[str]) -> frozenset[Path]:
    present = {name for name in (*needed, *further) if (folder / name).is_file() and not (folder / name).is_symlink()}
    return frozenset(folder / name for name in present) if present.issuperset(needed) else frozenset()


def _load(path: Path, reading: Reading) -> object:
    """The JSON of a context file; None, and a quarantine record, where it cannot be had."""
    try:
        with open_content(path, reading.progress, json_as_lines=False) as stream:
            content = stream.read(CONTEXT_BYTES + 1)
        if len(content) <= CONTEXT_BYTES:
            loaded = cast("object", json.loads(content))
            if loaded is None:
                _put_aside(reading, path, "file", "holds nothing but a JSON null")
            return loaded
        _put_aside(reading, path, "file", f"longer than {CONTEXT_BYTES} bytes")
    except SourceError as error:
        _put_aside(reading, path, error.position or "file", error.reason)
    except (ValueError, RecursionError) as error:
        _put_aside(reading, path, "file", f"no valid JSON ({error})")
    return None


def _fleet_apps(path: Path, reading: Reading) -> Iterator[_App]:
    listed = _load(path, reading)
    if listed is None:
        return
    if not isinstance(listed, list):
        _put_aside(reading, path, "file", "no JSON list of apps")
        return
    for position, entry in enumerate(listed, 1):
        device, uid = (_text(entry.get("device")), _uid(entry.get("uid"))) if isinstance(entry, dict) else (None, None)
        if device is None or uid is None:
            _put_aside(reading, path, f"app {position}", "no device and uid")
            continue
        yield _App(device, _text(entry.get("package")), uid, _interval(entry.get("window")), entry, position)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None


def _uid(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _instant(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= LAST_SECOND else None


def _interval(value: object) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    start, end = _instant(value[0]), _instant(value[1])
    return None if start is None or end is None or end < start else (start, end)


def _signal(
    kind: SignalKind, start: float, end: float | None, app: _App, port: int | None = None, detail: str | None = None
) -> dict[str, Any]:
    return {
        "device_uid": app.device,
        "android_package": app.package,
        "android_uid": app.uid,
        "kind": int(kind),
        "start_time": round(start * 1_000_000),
        "end_time": None if end is None else round(end * 1_000_000),
        "local_port": port,
        "detail": detail,
        "position": app.position,
    }


def _app_signals(app: _App, path: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    """The app's scripted context and sampled listeners, and what this source would have shown."""
    context = app.context
    for key, kind in (("foreground", SignalKind.FOREGROUND_UI), ("screen_on", SignalKind.SCREEN_ON)):
        for entry in _entries(context, key):
            if (interval := _interval(entry)) is None:
                _put_aside(reading, path, f"app {app.position}", f"{key}: {shown(entry)} is no interval")
            else:
                yield _signal(kind, *interval, app)
    for entry in _entries(context, "interaction"):
        if (instant := _instant(entry)) is None:
            _put_aside(reading, path, f"app {app.position}", f"interaction: {shown(entry)} is no time")
        else:
            yield _signal(SignalKind.USER_INTERACTION, instant, None, app)
    for entry in _entries(context, "listeners"):
        if (listener := _listener(entry, app)) is None:
            _put_aside(reading, path, f"app {app.position}", f"listeners: {shown(entry)} is no listener")
        else:
            yield listener
    if app.window is None:
        _put_aside(reading, path, f"app {app.position}", "no time window")
        return
    if context.get("foreground_service") is True:
        yield _signal(SignalKind.FOREGROUND_SERVICE, *app.window, app)
    seen = " ".join(kind.name for key, kind in _CONTEXT_KINDS.items() if key in context)
    yield _signal(SignalKind.CAPTURE, *app.window, app, detail=seen)


def _entries(context: Mapping[str, Any], key: str) -> list[Any]:
    value = context.get(key, [])
    return value if isinstance(value, list) else [value]


def _listener(entry: object, app: _App) -> dict[str, Any] | None:
    """A listening socket; where its times are not given, it stood for the app's whole window."""
    if not isinstance(entry, dict):
        return None
    times = _interval([entry.get("first_seen"), entry.get("last_seen")]) or app.window
    protocol, address = entry.get("proto"), entry.get("addr")
    port = address.rpartition(":")[2] if isinstance(address, str) else ""
    if (
        times is None
        or protocol not in ("tcp", "udp")
        or not (port.isascii() and port.isdigit())
        or int(port[:6]) > 65_535
    ):
        return None
    return _signal(SignalKind.LISTENER, *times, app, port=int(port), detail=f"{protocol} {address}")


def _context_batches(apps: Sequence[_App], path: Path, reading: Reading) -> Iterator[Batch]:
    shared = {"source": str(path), "clock": "device", "clock_skew_bound_s": SKEW_BOUND_S}
    who = {
        "device_uid": [a.device for a in apps],
        "android_package": [a.package for a in apps],
        "android_uid": [a.uid for a in apps],
        "user_id": [None if a.uid is None else a.uid // 100_000 for a in apps],
        "position": [a.position for a in apps],
    }
    inventory = batch("inventory", {**who, **shared}, length=len(apps))
    reading.tally.met(len(apps))
    reading.tally.gave([inventory])
    yield inventory
    rows = [row for app in apps for row in _app_signals(app, path, reading)]
    if rows:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        yield batch("signals", {**columns, **shared, "observability": int(Observability.OBSERVED)}, length=len(rows))


def _csv_frames(path: Path, reading: Reading) -> Iterator[pl.DataFrame]:
    """The flow file in blocks, typed."""
    header: list[str] | None = None
    with open_content(path, reading.progress) as stream:
        for block in counted_blocks(stream, path, reading):
            if header is None:
                first = block.content.partition(b"\n")[0]
                header = first.decode("utf-8", "replace").strip().split(",")
                if missing := set(_FLOW_COLUMNS) - set(header) or len(set(header)) != len(header):
                    raise SourceError(
                        path, f"the header lacks or repeats columns: {shown(missing)}.", position="line 1"
                    )
                block = type(block)(block.first_line + 1, block.content[len(first) + 1 :])
            aside = reading.quarantine.counts[str(path)]
            frame = delimited(block, header, ",", path, reading.quarantine, used=_FLOW_COLUMNS)
            reading.tally.met(reading.quarantine.counts[str(path)] - aside + frame.height)
            frame = frame.with_columns(
                pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in _FLOW_COLUMNS
            )
            yield typed(frame, _FLOW_KINDS, path, reading.quarantine, required=("flow_id", "start", "proto"))


def _parquet_frames(path: Path, columns: Sequence[str], reading: Reading) -> Iterator[pl.DataFrame]:
    """A Parquet file by batches, plus `position` (row from 1); damage goes to quarantine, rows before it count."""
    row = 1
    try:
        with pq.ParquetFile(path) as file:
            if missing := set(columns) - set(file.schema_arrow.names):
                _put_aside(reading, path, "file", f"lacks columns: {', '.join(sorted(missing))}")
                return
            for rows in file.iter_batches(ROWS, columns=list(columns)):
                frame = pl.from_arrow(pa.Table.from_batches([rows]))
                assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table always becomes a frame
                reading.tally.met(frame.height)
                yield frame.with_columns(
                    pl.int_range(row, row + frame.height, dtype=pl.Int64, eager=True).alias("position")
                )
                row += frame.height
        reading.progress(path.stat().st_size)
    except (OSError, pa.ArrowException) as error:
        _put_aside(reading, path, f"row {row}", f"cannot be read as Parquet ({shown(error)})")


def _with_app(frame: pl.DataFrame, app: _App) -> pl.DataFrame:
    return frame.with_columns(
        pl.lit(app.device).alias("device"),
        pl.lit(app.uid, pl.Int64).alias("uid"),
        pl.lit(app.package, pl.String).alias("package"),
    )


def _with_packages(frame: pl.DataFrame, packages: pl.DataFrame) -> pl.DataFrame:
    typed_who = frame.with_columns(pl.col("device").cast(pl.String), pl.col("uid").cast(pl.Int64, strict=False))
    return typed_who.join(packages, on=["device", "uid"], how="left", maintain_order="left")


def _sound(frame: pl.DataFrame, good: pl.Expr, path: Path, place: str, quarantine: Quarantine) -> pl.DataFrame:
    """The rows where `good` holds; the others go to quarantine."""
    mask = frame.select(good.fill_null(value=False).alias("good"))["good"]
    for position in frame["position"].filter(~mask).to_list():
        quarantine.add(str(path), f"{place} {position}", "a time, protocol, direction or count out of range")
    return frame.filter(mask)


def _flows(frame: pl.DataFrame, path: Path, reading: Reading) -> Batch:
    place = "line" if path.suffix == ".csv" else "row"
    frame = frame.with_columns(
        microseconds(pl.col("start")).alias("start"),
        microseconds(pl.col("end")).alias("end"),
        pl.col("proto").replace_strict({"tcp": 6, "udp": 17}, default=None, return_dtype=pl.UInt8).alias("protocol"),
        pl.col("direction").replace_strict(
            {"in": int(Direction.INBOUND), "out": int(Direction.OUTBOUND)},
            default=int(Direction.UNKNOWN),
            return_dtype=pl.UInt8,
        ),
        pl.col("hostname_src").replace_strict(
            {"sni": int(Observability.OBSERVED), "dns": int(Observability.INFERRED)},
            default=int(Observability.NOT_OBSERVABLE),
            return_dtype=pl.UInt8,
        ),
        pl.when(pl.col("hostname") != "").then(pl.col("hostname")).alias("hostname"),
    )
    counts = ("tx_payload", "rx_payload", "tx_ip", "rx_ip", "tx_pkts", "rx_pkts")
    ports = pl.col("local_port").is_between(0, 65_535) & pl.col("remote_port").is_between(0, 65_535)
    good = pl.col("start").is_not_null() & pl.col("protocol").is_not_null() & ports & pl.col("device").is_not_null()
    frame = _sound(
        frame,
        pl.all_horizontal(good, *((pl.col(c) >= 0).fill_null(value=True) for c in counts)),
        path,
        place,
        reading.quarantine,
    )
    reading.tally.with_rows += frame.height
    tcp_start_seen = (frame["protocol"] == 6) & (frame["syn_seen"].fill_null(0) == 1)
    columns = {
        "device_uid": text(frame["device"]),
        "android_package": text(frame["package"]),
        "android_uid": column(frame["uid"]),
        "flow_id": column(frame["flow_id"]),
        "start_time": column(frame["start"]),
        "end_time": column(frame["end"]),
        "protocol_num": column(frame["protocol"]),
        "direction_id": column(frame["direction"]),
        "direction_observability": column(_direction_observability(frame["direction"], tcp_start_seen)),
        "local_ip": text(canonical_addresses(frame["local_ip"].cast(pl.String))),
        "local_port": column(frame["local_port"]),
        "remote_ip": text(canonical_addresses(frame["remote_ip"].cast(pl.String))),
        "remote_port": column(frame["remote_port"]),
        "remote_hostname": text(frame["hostname"].cast(pl.String)),
        "hostname_observability": column(frame["hostname_src"]),
        "bytes_out": column(frame["tx_payload"]),
        "bytes_in": column(frame["rx_payload"]),
        "bytes_observability": int(Observability.OBSERVED),
        "wire_bytes_out": column(frame["tx_ip"]),
        "wire_bytes_in": column(frame["rx_ip"]),
        "packets_out": column(frame["tx_pkts"]),
        "packets_in": column(frame["rx_pkts"]),
        "established": column(_established(frame)),
        "position": column(frame["position"]),
    }
    return batch("flows", {**columns, **_provenance(path)}, length=frame.height)


def _direction_observability(direction: pl.Series, start_seen: pl.Series) -> pl.Series:
    """Observed from the SYN; otherwise inferred from who sent the first packet captured."""
    values = pl.select(
        pl.when(direction == int(Direction.UNKNOWN))
        .then(int(Observability.NOT_OBSERVABLE))
        .when(start_seen)
        .then(int(Observability.OBSERVED))
        .otherwise(int(Observability.INFERRED))
        .alias("observability")
    )
    return values["observability"]


def _established(frame: pl.DataFrame) -> pl.Series:
    """Accepted, refused, or null where the connection's start was not captured (or there is none, as with UDP)."""
    accepted, start_seen = pl.col("established") == 1, (pl.col("syn_seen") == 1) & (pl.col("protocol") == 6)
    answer = pl.when(accepted).then(statement=True).when(start_seen).then(statement=False).otherwise(None)
    return frame.select(answer.alias("established"))["established"]


def _volumes(frame: pl.DataFrame, bins: Path, flows: Path, reading: Reading) -> Iterator[Batch]:
    frame = frame.with_columns(microseconds(pl.col("sec")).alias("start"))
    counts = [(pl.col(name) >= 0) for name in ("tx_bytes", "rx_bytes", "tx_pkts", "rx_pkts")]
    frame = _sound(
        frame,
        pl.all_horizontal(pl.col("start").is_not_null(), pl.col("device").is_not_null(), *counts),
        bins,
        "row",
        reading.quarantine,
    )
    reading.tally.with_rows += frame.height
    columns = {
        "device_uid": text(frame["device"]),
        "android_package": text(frame["package"]),
        "android_uid": column(frame["uid"]),
        "flow_id": column(frame["flow_id"]),
        "start_time": column(frame["start"]),
        "duration_us": 1_000_000,
        "bytes_out": column(frame["tx_bytes"]),
        "bytes_in": column(frame["rx_bytes"]),
        "packets_out": column(frame["tx_pkts"]),
        "packets_in": column(frame["rx_pkts"]),
        "position": column(frame["position"]),
    }
    yield batch("volumes", {**columns, **_provenance(flows)}, length=frame.height)


def _provenance(path: Path) -> dict[str, Any]:
    return {"source": str(path), "clock": "device", "clock_skew_bound_s": SKEW_BOUND_S}
