"""What sources showed of each device, and of each app on it, window by window: counts, and nothing judged yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.detection.chance import clock_step
from relaywatch.detection.columns import Floats, Ints
from relaywatch.engines import shards
from relaywatch.engines.arrangement import COARSEST_US, LOOKUP_PORTS, US
from relaywatch.engines.identities import renamed
from relaywatch.engines.profile import SAMPLED
from relaywatch.engines.records import FIRST_SEEN, SEEN_BYTES, SEEN_DIRECTION, Records
from relaywatch.engines.view import View
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import Direction, SignalKind

MOST_WINDOWS: Final = 1_000
SECOND: Final = 1_000_000
_COUNTED: Final = (
    "flows", "inbound", "dialled", "named", "bytes", "bytes_seen", "directed", "direction_seen", "ended", "remote",
    "hidden", "moved", "fine",
)  # fmt: skip
FEWEST_STAMPS: Final = 10
"""Starts that lie on a clock's steps before these are taken for its steps: a few lie there by chance."""
USERS: Final = 100_000
"""Linux uids of one Android user."""


class Span(NamedTuple):
    """Windows of equal length that cover the telemetry: `first` is the number of the first, us since epoch / width."""

    width_us: int
    first: int
    windows: int

    def begin(self, window: int) -> int:
        """Begin of window number `window`, us since epoch."""
        return (self.first + window) * self.width_us


@dataclass(frozen=True, slots=True)
class Watching:
    """What was seen.

    devices: a row a device and window: counts of flows as in _COUNTED (name look-ups left out); watched_s, gaps,
    sampled, kinds (bits by SignalKind), format (bits by place in `formats`), step_s of the clock; counted, seen: bytes
    by the phone's own counters and by flows, of the apps that have counters.
    apps: a row an app and window: name, package, uid, hidden, flows, bytes_out, bytes_in, counted_out, counted_in.
    inventory: a row a device that one names: name, group, packages, signed, users. inbound_formats: those that show an
    accepted session anywhere. first_us, last_us: bounds of the flows, us since epoch.
    """

    span: Span | None
    devices: pl.DataFrame
    apps: pl.DataFrame
    inventory: pl.DataFrame
    formats: Sequence[str]
    inbound_formats: frozenset[str]
    first_us: int | None
    last_us: int | None


def watch(view: View, window_s: float) -> Watching:
    """Count what each window shows. Raises RelaywatchError where the windows are too short for the time covered."""
    formats = sorted(set(view.formats.values()))
    inventory = _inventory(view)
    bounds = _bounds(view)
    if bounds is None:
        return Watching(None, pl.DataFrame(), pl.DataFrame(), inventory, formats, frozenset(), None, None)
    span = _span(bounds, window_s)
    place = np.array([formats.index(view.formats[name]) for name in view.intake.registry.source_names()], np.int64)
    parts = [_shard(view, shard, span, place) for shard in range(shards.SHARDS) if len(view.intake.flows.read(shard))]
    alone = [_signals_only(view, shard, span, place) for shard in range(shards.SHARDS)]
    devices = pl.concat([*(part.devices for part in parts), *(frame for frame in alone if frame is not None)])
    accepting = np.unique(np.concatenate([np.empty(0, np.int64), *(part.accepting for part in parts)]))
    names = {code: view.intake.registry.device_name(code) for code in devices["device"].unique().to_list()}
    return Watching(
        span,
        devices.with_columns(pl.col("device").replace_strict(names, return_dtype=pl.String).alias("name")),
        _with_keys(pl.concat([part.apps for part in parts]), view) if parts else pl.DataFrame(),
        inventory,
        formats,
        frozenset(formats[k] for k in accepting.tolist()),
        *bounds,
    )


def _bounds(view: View) -> tuple[int, int] | None:
    """First and last moment of any flow, us since epoch."""
    first, last = [], []
    for shard in range(shards.SHARDS):
        flows = view.intake.flows.read(shard)
        if len(flows):
            first.append(int(flows["start"].min()))
            last.append(int(max(flows["start"].max(), flows["end"].max())))
    return (min(first), max(last)) if first else None


def _span(bounds: tuple[int, int], window_s: float) -> Span:
    width = round(window_s * SECOND)
    first, last = bounds[0] // width, bounds[1] // width
    if last - first >= MOST_WINDOWS:
        raise RelaywatchError(
            f"the telemetry covers {(bounds[1] - bounds[0]) / SECOND / 86_400:.1f} days, more than {MOST_WINDOWS} "
            f"windows of {window_s:g} s: choose a longer --window."
        )
    return Span(width, first, last - first + 1)


class _Shard(NamedTuple):
    devices: pl.DataFrame
    apps: pl.DataFrame
    accepting: Ints


def _shard(view: View, shard: int, span: Span, place: Ints) -> _Shard:
    flows, volumes = view.intake.flows.read(shard), view.intake.volumes.read(shard)
    frame = _flow_frame(flows, volumes, span, place, view)
    judged = frame.filter(~pl.col("lookup"))
    counts = judged.group_by("device", "window").agg(
        *(pl.col(name).sum().cast(pl.Int64) for name in _COUNTED), pl.col("format").bitwise_or()
    )
    step = _clock_steps(flows)
    apps = frame.group_by("app", "device", "window").agg(
        pl.len().cast(pl.Int64).alias("flows"),
        *(pl.col(name).clip(0).sum().alias(name) for name in ("bytes_out", "bytes_in")),
    )
    counters = _counters(volumes, span)
    apps = apps.join(counters, on=["app", "device", "window"], how="full", coalesce=True)
    apps = apps.with_columns(pl.col("flows", "bytes_out", "bytes_in").fill_null(0))
    accounted = (
        apps.filter(pl.col("counted_out").is_not_null())
        .group_by("device", "window")
        .agg(
            (pl.col("counted_out") + pl.col("counted_in")).sum().alias("counted"),
            (pl.col("bytes_out") + pl.col("bytes_in")).sum().alias("seen"),
        )
    )
    watched = _watched(view.intake.signals.read(shard), flows, frame, span, place, view)
    devices = (
        watched.join(counts, on=["device", "window"], how="full", coalesce=True)
        .join(accounted, on=["device", "window"], how="left")
        .join(step, on="device", how="left")
    )
    accepting = np.unique(place[flows["source"][flows["direction"] == Direction.INBOUND]])
    return _Shard(_completed(devices), apps, np.asarray(accepting, np.int64))


_DEVICE_SCHEMA: Final[Mapping[str, Any]] = {
    "device": pl.UInt32, "window": pl.Int64, "watched_s": pl.Float64, "gaps": pl.Int64, "sampled": pl.Boolean,
    "kinds": pl.Int64, **dict.fromkeys(_COUNTED, pl.Int64), "format": pl.Int64, "counted": pl.Int64, "seen": pl.Int64,
    "step_s": pl.Float64,
}  # fmt: skip


def _completed(devices: pl.DataFrame) -> pl.DataFrame:
    """All columns, counts that nothing gave as 0."""
    lacking = [pl.lit(None).alias(name) for name in _DEVICE_SCHEMA if name not in devices.columns]
    kept = devices.with_columns(*lacking).select(pl.col(name).cast(kind) for name, kind in _DEVICE_SCHEMA.items())
    zero = ("watched_s", "gaps", "kinds", "format", *_COUNTED)
    return kept.with_columns(pl.col(*zero).fill_null(0), pl.col("sampled").fill_null(value=False))


def _flow_frame(flows: Records, volumes: Records, span: Span, place: Ints, view: View) -> pl.DataFrame:
    """A row a flow with what is known of it as flags."""
    fine = volumes[(volumes["flow_id"] >= 0) & (volumes["duration"] <= COARSEST_US)]
    keys = pl.DataFrame({"source": fine["source"], "flow_id": fine["flow_id"]}).unique()
    own = pl.DataFrame({"source": flows["source"], "flow_id": flows["flow_id"], "row": np.arange(len(flows))})
    has = np.zeros(len(flows), bool)
    has[own.join(keys, on=["source", "flow_id"], how="semi")["row"].to_numpy()] = True
    inbound, known = flows["direction"] == Direction.INBOUND, (flows["bytes_out"] >= 0) & (flows["bytes_in"] >= 0)
    hidden = view.intake.registry.anonymous(flows["app"])
    moved = known & (flows["bytes_out"] + flows["bytes_in"] > 0)
    return pl.DataFrame(
        {
            "device": flows["device"],
            "app": flows["app"],
            "start": flows["start"],
            "window": flows["start"] // span.width_us - span.first,
            "flows": np.ones(len(flows), bool),
            "lookup": np.isin(flows["remote_port"], LOOKUP_PORTS) & ~inbound,
            "inbound": inbound,
            "dialled": ~inbound,
            "named": ~inbound & (flows["name"] != 0),
            "bytes": known,
            "bytes_seen": known & ((flows["seen"] & SEEN_BYTES) > 0),
            "directed": flows["direction"] != Direction.UNKNOWN,
            "direction_seen": (flows["seen"] & SEEN_DIRECTION) > 0,
            "ended": flows["end"] >= flows["start"],
            "remote": flows["remote"] != 0,
            "hidden": hidden,
            "moved": moved,
            "fine": moved & has,
            "snapshot": (flows["seen"] & FIRST_SEEN) > 0,
            "bytes_out": flows["bytes_out"],
            "bytes_in": flows["bytes_in"],
            "format": np.int64(1) << place[flows["source"]],
        }
    )


def step_of(start: Floats) -> float:
    """Step in s of the clock that stamped these starts (s); 0 where it is fine, or where too few of them tell."""
    return clock_step(start) if len(start) >= FEWEST_STAMPS else 0.0


def _clock_steps(flows: Records) -> pl.DataFrame:
    """step_s of each device's clock: of what it stamped flows with."""
    order = np.argsort(flows["device"], kind="stable")
    device, start = flows["device"][order], flows["start"][order] * US
    names, first = np.unique(device, return_index=True)
    steps = [step_of(own) for own in np.split(start, first[1:])]
    return pl.DataFrame({"device": names, "step_s": steps})


def _counters(volumes: Records, span: Span) -> pl.DataFrame:
    """Bytes of whole uids by the phone's own counters, by app and window."""
    whole = volumes[volumes["flow_id"] < 0]
    frame = pl.DataFrame(
        {
            "app": whole["app"],
            "device": whole["device"],
            "window": whole["start"] // span.width_us - span.first,
            "counted_out": whole["bytes_out"],
            "counted_in": whole["bytes_in"],
        }
    )
    inside = frame.filter(pl.col("window").is_between(0, span.windows - 1))
    return inside.group_by("app", "device", "window").agg(pl.col("counted_out", "counted_in").sum())


def _watched(
    signals: Records, flows: Records, frame: pl.DataFrame, span: Span, place: Ints, view: View
) -> pl.DataFrame:
    """Seconds of each window in which a source that shows flows watched, and what sources said of themselves."""
    telling = frame.filter(pl.col("bytes") & ~pl.col("snapshot"))["format"]
    bits = int(np.bitwise_or.reduce(telling.to_numpy(), initial=0)) or int(
        np.bitwise_or.reduce(frame["format"].to_numpy(), initial=0)
    )
    captures = _captures(signals, place, view)
    showing = captures.filter((pl.col("format") & bits) != 0).select("device", "start", "end", "format")
    silent = _without_capture(flows, place, showing, bits)
    seconds = _seconds(pl.concat([showing.select("device", "start", "end"), silent]), span)
    return _said(captures, signals, span).join(seconds, on=["device", "window"], how="full", coalesce=True)


def _captures(signals: Records, place: Ints, view: View) -> pl.DataFrame:
    """CAPTURE signals with an end: device, start, end, format bit, kinds bits, sampled."""
    own = signals[(signals["kind"] == SignalKind.CAPTURE) & (signals["end"] >= signals["start"])]
    details = view.intake.names.texts(np.unique(own["detail"])) if len(own) else {}
    kinds = {key: _kind_bits(text) for key, text in details.items()}
    return pl.DataFrame(
        {
            "device": own["device"],
            "start": own["start"],
            "end": own["end"],
            "format": np.int64(1) << place[own["source"]] if len(own) else np.empty(0, np.int64),
            "kinds": np.array([kinds.get(key, 0) for key in own["detail"].tolist()], np.int64),
            "sampled": np.array([details.get(key, "").startswith(SAMPLED) for key in own["detail"].tolist()], bool),
        }
    )


def _kind_bits(detail: str) -> int:
    words = set(detail.split())
    return sum(1 << int(kind) for kind in SignalKind if kind.name in words)


def _without_capture(flows: Records, place: Ints, showing: pl.DataFrame, bits: int) -> pl.DataFrame:
    """Of formats that never say when they watched, the time from a device's first flow to its last."""
    frame = pl.DataFrame(
        {
            "device": flows["device"],
            "format": np.int64(1) << place[flows["source"]],
            "start": flows["start"],
            "end": np.maximum(flows["start"], flows["end"]),
        }
    ).filter((pl.col("format") & bits) != 0)
    told = showing.select("device", "format").unique()
    spans = frame.group_by("device", "format").agg(pl.col("start").min(), pl.col("end").max())
    return spans.join(told, on=["device", "format"], how="anti").select("device", "start", "end")


def _seconds(intervals: pl.DataFrame, span: Span) -> pl.DataFrame:
    """watched_s by device and window: the union of the intervals, cut to windows."""
    ordered = intervals.sort("device", "start", "end")
    reach = pl.col("end").cum_max().shift(1).over("device")
    block = (pl.col("start") > reach).fill_null(value=True).cum_sum().alias("block")
    union = ordered.with_columns(block).group_by("device", "block").agg(pl.col("start").min(), pl.col("end").max())
    pieces = _by_window(union, span)
    begin = (pl.col("window") + span.first) * span.width_us
    held = pl.min_horizontal("end", begin + span.width_us) - pl.max_horizontal("start", begin)
    return pieces.group_by("device", "window").agg((held.sum() / SECOND).alias("watched_s"))


def _by_window(intervals: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Each interval once for each window that it touches."""
    first = (pl.col("start") // span.width_us - span.first).clip(0)
    last = (pl.col("end") // span.width_us - span.first).clip(None, span.windows - 1)
    touched = intervals.with_columns(first.alias("from"), last.alias("to")).filter(pl.col("from") <= pl.col("to"))
    windows = pl.int_ranges("from", pl.col("to") + 1).alias("window")
    return touched.with_columns(windows).explode("window").drop("from", "to")


def _said(captures: pl.DataFrame, signals: Records, span: Span) -> pl.DataFrame:
    """What sources would have shown or did show, whether they sampled, and where they say that they lost records."""
    would = _by_window(captures, span).select("device", "window", "kinds", "sampled")
    plain = signals[~np.isin(signals["kind"], [SignalKind.CAPTURE, SignalKind.LOGGING_GAP])]
    dated = pl.DataFrame(
        {
            "device": plain["device"],
            "start": plain["start"],
            "end": np.maximum(plain["start"], plain["end"]),
            "kinds": np.int64(1) << plain["kind"].astype(np.int64),
        }
    ).unique()
    did = _by_window(dated, span).select("device", "window", "kinds", pl.lit(value=False).alias("sampled"))
    lost = signals[signals["kind"] == SignalKind.LOGGING_GAP]
    holes = pl.DataFrame(
        {"device": lost["device"], "start": lost["start"], "end": np.maximum(lost["start"], lost["end"])}
    )
    gaps = _by_window(holes, span).group_by("device", "window").agg(pl.len().cast(pl.Int64).alias("gaps"))
    said = (
        pl.concat([would, did]).group_by("device", "window").agg(pl.col("kinds").bitwise_or(), pl.col("sampled").any())
    )
    return said.join(gaps, on=["device", "window"], how="full", coalesce=True)


def _signals_only(view: View, shard: int, span: Span, place: Ints) -> pl.DataFrame | None:
    """Devices of a shard that no flow is seen of, though signals are."""
    signals = view.intake.signals.read(shard)
    silent = signals[~np.isin(signals["device"], np.unique(view.intake.flows.read(shard)["device"]))]
    if not len(silent):
        return None
    return _completed(_said(_captures(silent, place, view), silent, span))


def _with_keys(apps: pl.DataFrame, view: View) -> pl.DataFrame:
    """The apps with their device's name, package and uid."""
    keys = view.intake.registry.app_keys(apps["app"].unique().to_numpy().astype(np.uint32))
    anonymous = view.intake.registry.anonymous(apps["app"].to_numpy().astype(np.uint32))
    found = [keys[code] for code in apps["app"].to_list()]
    return apps.with_columns(
        pl.Series("name", [key.device for key in found], pl.String),
        pl.Series("package", [key.package or None for key in found], pl.String),
        pl.Series("uid", [key.uid if key.uid >= 0 else None for key in found], pl.Int64),
        pl.Series("hidden", anonymous),
    )


def _inventory(view: View) -> pl.DataFrame:
    """A row a device that an inventory names: group, whether apps are listed, and with signatures; its user ids."""
    rows = renamed(view.intake.inventory().iter_rows(named=True), view.identity)
    frame = pl.DataFrame(
        [
            (row["device_uid"], row["device_group"], row["android_package"], row["signing_digest"], _user(row))
            for row in rows
        ],
        schema={
            "name": pl.String,
            "group": pl.String,
            "package": pl.String,
            "digest": pl.String,
            "user": pl.Int64,
        },
        orient="row",
    )
    return frame.group_by("name", maintain_order=True).agg(
        pl.col("group").drop_nulls().first(),
        pl.col("package").is_not_null().any().alias("packages"),
        pl.col("digest").is_not_null().any().alias("signed"),
        pl.col("user").drop_nulls().unique().alias("users"),
    )


def _user(row: Mapping[str, Any]) -> int | None:
    """The Android user that an inventory row is about."""
    if row["user_id"] is not None:
        return int(row["user_id"])
    return None if row["android_uid"] is None else int(row["android_uid"]) // USERS
