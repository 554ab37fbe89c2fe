"""What sources showed of each device, and of each app on it, window by window: counts, and nothing judged yet.

Flows are those that a hunt would judge: joined, and each once. A flow counts in every window that it overlaps, its
bytes in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.detection.chance import clock_step
from relaywatch.detection.columns import Flags, Floats, Ints
from relaywatch.engines import shards
from relaywatch.engines.arrangement import COARSEST_US, LOOKUP_PORTS, US, settled
from relaywatch.engines.identities import renamed
from relaywatch.engines.profile import SAMPLED
from relaywatch.engines.records import FIRST_SEEN, NO_UID, Records
from relaywatch.engines.view import View
from relaywatch.model.assurance import ALL_DEVICES, NO_GROUP
from relaywatch.model.errors import RelaywatchError
from relaywatch.model.schemas import Direction, SignalKind

MOST_WINDOWS: Final = 1_000
MOST_ROWS: Final = 10_000_000
"""Windows of all devices together: some 12 GiB."""
SECOND: Final = 1_000_000
FEWEST_STAMPS: Final = 10
"""Starts that lie on a clock's steps before these are taken for its steps: a few lie there by chance."""
USERS: Final = 100_000
"""Linux uids of one Android user."""
_COUNTED: Final = ("flows", "dialled", "named", "bytes", "directed", "remote", "hidden", "moved", "fine")


class Span(NamedTuple):
    """The windows in which any flow begins, `width_us` each: numbers since epoch, in order. last_us: of any flow."""

    width_us: int
    numbers: Ints
    first_us: int
    last_us: int

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def begin(self, window: int) -> int:
        """Begin of the window at place `window`, us since epoch."""
        return int(self.numbers[window]) * self.width_us

    def end(self, window: int) -> int:
        """Its end, us since epoch."""
        return self.begin(window) + self.width_us

    def within(self, window: int) -> tuple[int, int]:
        """Begin and end of the window as far as telemetry covers it: from the first flow on, up to the last."""
        return max(self.begin(window), self.first_us), min(self.end(window), self.last_us)


@dataclass(frozen=True, slots=True)
class Watching:
    """What was seen.

    devices: a row a device and window in which anything is known of it: counts of flows as in _COUNTED (name look-ups
    left out); watched_s, and told_s of it by sources that say when they watched; gaps, sampled, kinds (bits by
    SignalKind), format (bits by place in `formats`), step_s of the clock; counters: whether the phone's own counters
    cover the window.
    apps: a row an app and window: name, package, uid, hidden, flows, bytes_out, bytes_in; counted_out, counted_in by
    the phone's own counters.
    inventory: a row a device that one names: name, group, packages, signed, users. inbound_formats: those that show an
    accepted session anywhere. span: None where there is no flow at all.
    """

    span: Span | None
    devices: pl.DataFrame
    apps: pl.DataFrame
    inventory: pl.DataFrame
    formats: Sequence[str]
    inbound_formats: frozenset[str]


class _Site(NamedTuple):
    """What holds for all shards.

    place: of each source's format, by source code; telling: bits of formats that show flows with bytes anywhere;
    ranks: as engines.arrangement.
    """

    view: View
    span: Span
    place: Ints
    telling: int
    ranks: Ints


def watch(view: View, window_s: float) -> Watching:
    """Count what each window shows.

    Raises RelaywatchError where flows begin in more windows than MOST_WINDOWS, or all devices have more than MOST_ROWS.
    """
    formats = sorted(set(view.formats.values()))
    inventory = _inventory(view)
    place = np.array([formats.index(view.formats[name]) for name in view.intake.registry.source_names()], np.int64)
    span, telling, accepting = _bounds(view, window_s, place)
    if span is None:
        return Watching(None, pl.DataFrame(), pl.DataFrame(), inventory, formats, frozenset())
    devices = max(view.devices, inventory.height)
    if devices * span.windows > MOST_ROWS:
        raise RelaywatchError(
            f"{devices:,} devices in {span.windows:,} windows of {window_s:g} s are too many to hold: "
            "choose a longer --window, or cover the devices in parts."
        )
    site = _Site(view, span, place, telling, view.intake.registry.source_ranks())
    parts = [_shard(site, shard) for shard in range(shards.SHARDS)]
    rows = pl.concat([part.devices for part in parts])
    names = {code: view.intake.registry.device_name(code) for code in rows["device"].unique().to_list()}
    return Watching(
        span,
        rows.with_columns(pl.col("device").replace_strict(names, return_dtype=pl.String).alias("name")),
        _with_keys(pl.concat([part.apps for part in parts]), view),
        inventory,
        formats,
        frozenset(formats[k] for k in accepting),
    )


def _bounds(view: View, window_s: float, place: Ints) -> tuple[Span | None, int, list[int]]:
    """The windows; bits of the formats that show bytes of dated flows; places of those that show accepted sessions."""
    width = round(window_s * SECOND)
    numbers, first, last, telling = [np.empty(0, np.int64)], [], [], 0
    accepting: set[int] = set()
    for shard in range(shards.SHARDS):
        flows = view.intake.flows.read(shard)
        if not len(flows):
            continue
        numbers.append(np.unique(flows["start"] // width))
        first.append(int(flows["start"].min()))
        last.append(int(max(flows["start"].max(), flows["end"].max())))
        telling |= _bits(place[flows["source"][_told(flows)]])
        accepting |= set(place[flows["source"][flows["direction"] == Direction.INBOUND]].tolist())
    if not first:
        return None, 0, []
    every = np.unique(np.concatenate(numbers))
    if len(every) > MOST_WINDOWS:
        raise RelaywatchError(
            f"flows begin in {len(every):,} windows of {window_s:g} s, more than {MOST_WINDOWS:,}: "
            "choose a longer --window."
        )
    return Span(width, every, min(first), max(last)), telling, sorted(accepting)


def _told(flows: Records) -> Flags:
    """Flows that are dated and whose bytes are known in both directions."""
    known = (flows["bytes_out"] >= 0) & (flows["bytes_in"] >= 0)
    return np.asarray(known & ((flows["seen"] & FIRST_SEEN) == 0), np.bool_)


def _bits(places: Ints) -> int:
    return sum(1 << int(k) for k in np.unique(places))


class _Shard(NamedTuple):
    devices: pl.DataFrame
    apps: pl.DataFrame


def _shard(site: _Site, shard: int) -> _Shard:
    intake, span = site.view.intake, site.span
    flows = settled(intake.flows.read(shard), site.ranks)
    volumes, signals = intake.volumes.read(shard), intake.signals.read(shard)
    frame = _by_window(_flow_frame(flows, volumes, site), span)
    judged = frame.filter(~pl.col("lookup"))
    counts = judged.group_by("device", "window").agg(
        *(pl.col(name).sum().cast(pl.Int64) for name in _COUNTED), pl.col("format").bitwise_or()
    )
    apps = frame.group_by("app", "device", "window").agg(
        pl.len().cast(pl.Int64).alias("flows"),
        *((pl.col(name).clip(0) * pl.col("part")).sum().alias(name) for name in ("bytes_out", "bytes_in")),
    )
    counters = _counters(volumes, span)
    apps = apps.join(counters, on=["app", "device", "window"], how="full", coalesce=True)
    apps = apps.with_columns(pl.col("flows", "bytes_out", "bytes_in").fill_null(0))
    devices = _watched(signals, flows, site)
    for part in (counts, _covered_by_counters(volumes, span), apps.select("device", "window").unique()):
        devices = devices.join(part, on=["device", "window"], how="full", coalesce=True)
    return _Shard(_completed(devices.join(_clock_steps(flows), on="device", how="left")), apps)


_DEVICE_SCHEMA: Final[Mapping[str, Any]] = {
    "device": pl.UInt32, "window": pl.Int64, "watched_s": pl.Float64, "told_s": pl.Float64, "gaps": pl.Boolean,
    "sampled": pl.Boolean, "kinds": pl.Int64, **dict.fromkeys(_COUNTED, pl.Int64), "format": pl.Int64,
    "counters": pl.Boolean, "step_s": pl.Float64,
}  # fmt: skip


def _completed(devices: pl.DataFrame) -> pl.DataFrame:
    """All columns in order, what nothing gave as 0 or false."""
    typed = devices.select(pl.col(name).cast(kind) for name, kind in _DEVICE_SCHEMA.items())
    flags = [name for name, kind in _DEVICE_SCHEMA.items() if kind == pl.Boolean]
    numbers = [name for name in _DEVICE_SCHEMA if name not in {"device", "window", *flags}]
    return typed.with_columns(pl.col(numbers).fill_null(0), pl.col(flags).fill_null(value=False))


def with_volumes(flows: Records, volumes: Records) -> Flags:
    """Whether each flow has one of the volumes."""
    keys = pl.DataFrame({"source": volumes["source"], "flow_id": volumes["flow_id"]}).unique()
    asked = pl.DataFrame({"source": flows["source"], "flow_id": flows["flow_id"], "row": np.arange(len(flows))})
    found = np.zeros(len(flows), np.bool_)
    found[asked.join(keys, on=["source", "flow_id"], how="semi")["row"].to_numpy()] = True
    return found


def _flow_frame(flows: Records, volumes: Records, site: _Site) -> pl.DataFrame:
    """A row a flow with what is known of it as flags."""
    fine = with_volumes(flows, volumes[(volumes["flow_id"] >= 0) & (volumes["duration"] <= COARSEST_US)])
    inbound, known = flows["direction"] == Direction.INBOUND, (flows["bytes_out"] >= 0) & (flows["bytes_in"] >= 0)
    moved = known & (flows["bytes_out"] + flows["bytes_in"] > 0)
    return pl.DataFrame(
        {
            "device": flows["device"],
            "app": flows["app"],
            "start": flows["start"],
            "end": np.maximum(flows["start"], flows["end"]),
            "flows": np.ones(len(flows), np.bool_),
            "lookup": np.isin(flows["remote_port"], LOOKUP_PORTS) & ~inbound,
            "dialled": ~inbound,
            "named": ~inbound & (flows["name"] != 0),
            "bytes": known,
            "directed": flows["direction"] != Direction.UNKNOWN,
            "remote": flows["remote"] != 0,
            "hidden": site.view.intake.registry.anonymous(flows["app"]),
            "moved": moved,
            "fine": moved & fine,
            "bytes_out": flows["bytes_out"],
            "bytes_in": flows["bytes_in"],
            "format": np.int64(1) << site.place[flows["source"]],
        }
    )


def _by_window(intervals: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Each interval (start, end in us) once for each window that it overlaps; part: the share of it that lies there."""
    start, end = intervals["start"].to_numpy(), intervals["end"].to_numpy()
    first = np.searchsorted(span.numbers, start // span.width_us)
    last = np.searchsorted(span.numbers, end // span.width_us, side="right") - 1
    touched = intervals.with_columns(pl.Series("from", first), pl.Series("to", last)).filter(
        pl.col("from") <= pl.col("to")
    )
    single = touched.filter(pl.col("from") == pl.col("to")).with_columns(window="from")
    several = touched.filter(pl.col("from") < pl.col("to"))
    several = several.with_columns(pl.int_ranges("from", pl.col("to") + 1).alias("window")).explode("window")
    begin = pl.Series("begin", span.numbers[several["window"].to_numpy()] * span.width_us)
    held = pl.min_horizontal("end", begin + span.width_us) - pl.max_horizontal("start", begin)
    parted = several.with_columns((held / (pl.col("end") - pl.col("start"))).alias("part"))
    whole = single.with_columns(pl.lit(1.0).alias("part"))
    return (
        pl.concat([whole, parted.select(whole.columns)])
        .drop("from", "to")
        .with_columns(pl.col("window").cast(pl.Int64))
    )


def _counters(volumes: Records, span: Span) -> pl.DataFrame:
    """Bytes of whole uids by the phone's own counters, by app and window.

    A uid's sets of one bucket add up; of a bucket that several dumps hold, the fullest counts.
    """
    whole = volumes[volumes["flow_id"] < 0]
    frame = pl.DataFrame({name: whole[name] for name in ("app", "device", "source", "start", "duration")})
    frame = frame.with_columns(
        pl.Series("counted_out", whole["bytes_out"]),
        pl.Series("counted_in", whole["bytes_in"]),
        (pl.col("start") + pl.col("duration")).alias("end"),
    )
    bucket = ["app", "device", "start", "end"]
    told = frame.group_by(*bucket, "source").agg(pl.col("counted_out", "counted_in").sum())
    settled_buckets = told.group_by(bucket).agg(pl.col("counted_out", "counted_in").max())
    parted = _by_window(settled_buckets, span)
    amounts = [(pl.col(name) * pl.col("part")).sum().alias(name) for name in ("counted_out", "counted_in")]
    return parted.group_by("app", "device", "window").agg(amounts)


def _covered_by_counters(volumes: Records, span: Span) -> pl.DataFrame:
    """Windows between a device's first and last bucket: of a uid without one there, the counter stood still."""
    whole = volumes[volumes["flow_id"] < 0]
    frame = pl.DataFrame(
        {"device": whole["device"], "start": whole["start"], "end": whole["start"] + whole["duration"]}
    )
    spans = frame.group_by("device").agg(pl.col("start").min(), pl.col("end").max())
    touched = _by_window(spans, span)
    begin = pl.Series("begin", span.numbers[touched["window"].to_numpy()] * span.width_us)
    inside = (pl.col("start") <= pl.max_horizontal(begin, pl.lit(span.first_us))) & (
        pl.col("end") >= pl.min_horizontal(begin + span.width_us, pl.lit(span.last_us))
    )
    return touched.select("device", "window", inside.alias("counters"))


def step_of(start: Floats) -> float:
    """Step in s of the clock that stamped these starts (s); 0 where it is fine, or where too few of them tell."""
    return clock_step(start) if len(start) >= FEWEST_STAMPS else 0.0


def _clock_steps(flows: Records) -> pl.DataFrame:
    """step_s of each device's clock: of what it stamped flows with."""
    order = np.argsort(flows["device"], kind="stable")
    device, start = flows["device"][order], flows["start"][order] * US
    names, first = np.unique(device, return_index=True)
    steps = [step_of(own) for own in np.split(start, first[1:])] if len(names) else []
    return pl.DataFrame({"device": names, "step_s": steps}, schema={"device": pl.UInt32, "step_s": pl.Float64})


def _watched(signals: Records, flows: Records, site: _Site) -> pl.DataFrame:
    """Seconds of each window in which a source that shows flows watched, and what sources said of themselves."""
    captures = _captures(signals, site)
    telling = pl.DataFrame(
        {"device": flows["device"], "own": np.where(_told(flows), np.int64(1) << site.place[flows["source"]], 0)}
    )
    own = telling.group_by("device").agg(pl.col("own").bitwise_or())
    showing = captures.join(own, on="device", how="left").filter(
        (pl.col("format") & pl.when(pl.col("own") > 0).then("own").otherwise(site.telling)) != 0
    )
    told = _seconds(showing.select("device", "start", "end"), site.span).rename({"seconds": "told_s"})
    silent = _without_capture(flows, showing, site)
    both = pl.concat([showing.select("device", "start", "end"), silent])
    watched = _seconds(both, site.span).rename({"seconds": "watched_s"})
    found = _said(captures, signals, site.span)
    for part in (watched, told):
        found = found.join(part, on=["device", "window"], how="full", coalesce=True)
    return found


def _captures(signals: Records, site: _Site) -> pl.DataFrame:
    """CAPTURE signals with an end: device, start, end, format bit, kinds bits, sampled."""
    own = signals[(signals["kind"] == SignalKind.CAPTURE) & (signals["end"] >= signals["start"])]
    details = site.view.intake.names.texts(np.unique(own["detail"])) if len(own) else {}
    kinds = {key: _kind_bits(text) for key, text in details.items()}
    return pl.DataFrame(
        {
            "device": own["device"],
            "start": own["start"],
            "end": own["end"],
            "format": np.int64(1) << site.place[own["source"]],
            "kinds": np.array([kinds.get(key, 0) for key in own["detail"].tolist()], np.int64),
            "sampled": np.array([details.get(key, "").startswith(SAMPLED) for key in own["detail"].tolist()], np.bool_),
        }
    )


def _kind_bits(detail: str) -> int:
    words = set(detail.split())
    return sum(1 << int(kind) for kind in SignalKind if kind.name in words)


def _without_capture(flows: Records, showing: pl.DataFrame, site: _Site) -> pl.DataFrame:
    """Of formats that never say when they watched, the time from a device's first flow to its last."""
    told = _told(flows)
    frame = pl.DataFrame(
        {
            "device": flows["device"][told],
            "format": np.int64(1) << site.place[flows["source"][told]],
            "start": flows["start"][told],
            "end": np.maximum(flows["start"], flows["end"])[told],
        }
    )
    spans = frame.group_by("device", "format").agg(pl.col("start").min(), pl.col("end").max())
    captured = showing.select("device", "format").unique()
    return spans.join(captured, on=["device", "format"], how="anti").select("device", "start", "end")


def _union(intervals: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Intervals (start, end) of equal keys put together where they meet: no more of them than there are gaps."""
    ordered = intervals.sort(*keys, "start", "end")
    reach = pl.col("end").cum_max().shift(1).over(keys)
    block = (pl.col("start") > reach).fill_null(value=True).cum_sum().alias("block")
    return ordered.with_columns(block).group_by(*keys, "block").agg(pl.col("start").min(), pl.col("end").max())


def _seconds(intervals: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Seconds of each window that the intervals of a device cover, within the time of all flows."""
    inside = intervals.with_columns(pl.col("start").clip(span.first_us), pl.col("end").clip(None, span.last_us))
    pieces = _by_window(_union(inside.filter(pl.col("start") <= pl.col("end")), "device"), span)
    held = pl.col("part") * (pl.col("end") - pl.col("start"))
    return pieces.group_by("device", "window").agg((held.sum() / SECOND).alias("seconds"))


def _said(captures: pl.DataFrame, signals: Records, span: Span) -> pl.DataFrame:
    """What sources would have shown or did show, whether they sampled, and where they say that they lost records."""
    plain = signals[signals["kind"] != SignalKind.CAPTURE]
    dated = pl.DataFrame(
        {
            "device": plain["device"],
            "start": plain["start"],
            "end": np.maximum(plain["start"], plain["end"]),
            "kinds": np.int64(1) << plain["kind"].astype(np.int64),
        }
    ).with_columns(pl.lit(value=False).alias("sampled"))
    both = pl.concat([captures.select(dated.columns), dated])
    touched = _by_window(_union(_in_windows(both, span), "device", "kinds", "sampled"), span)
    lost = pl.col("kinds") == 1 << int(SignalKind.LOGGING_GAP)
    return touched.group_by("device", "window").agg(
        pl.col("kinds").bitwise_or(), pl.col("sampled").any(), lost.any().alias("gaps")
    )


def _in_windows(intervals: pl.DataFrame, span: Span) -> pl.DataFrame:
    """The intervals widened to whole windows, so that those of one kind become one."""
    width = span.width_us
    begin, end = pl.col("start") // width * width, (pl.col("end") // width + 1) * width - 1
    return intervals.with_columns(begin.alias("start"), end.alias("end"))


def _with_keys(apps: pl.DataFrame, view: View) -> pl.DataFrame:
    """The apps with their device's name, package and uid."""
    codes = apps["app"].unique().to_numpy().astype(np.uint32)
    keys = view.intake.registry.app_keys(codes)
    known = pl.DataFrame(
        [(code, key.device, key.package or None, None if key.uid == NO_UID else key.uid) for code, key in keys.items()],
        schema={"app": pl.UInt32, "name": pl.String, "package": pl.String, "uid": pl.Int64},
        orient="row",
    )
    anonymous = pl.col("package").is_null() & pl.col("uid").is_null()
    return apps.join(known.with_columns(anonymous.alias("hidden")), on="app", how="left")


def _inventory(view: View) -> pl.DataFrame:
    """A row a device that an inventory names: group, whether apps are listed, and with signatures; its user ids."""
    rows = renamed(view.intake.inventory.frame().iter_rows(named=True), view.identity)
    frame = pl.DataFrame(
        [
            (row["device_uid"], _group(row["device_group"]), row["android_package"], row["signing_digest"], _user(row))
            for row in rows
        ],
        schema={"name": pl.String, "group": pl.String, "package": pl.String, "digest": pl.String, "user": pl.Int64},
        orient="row",
    )
    return frame.group_by("name", maintain_order=True).agg(
        pl.col("group").drop_nulls().sort().first(),
        pl.col("package").is_not_null().any().alias("packages"),
        pl.col("digest").is_not_null().any().alias("signed"),
        pl.col("user").drop_nulls().unique().sort().alias("users"),
    )


def _group(name: object) -> str | None:
    """A group's name, told apart from the names that stand for all devices and for those in no group."""
    if name is None:
        return None
    return f"{name} (a group)" if name in {ALL_DEVICES, NO_GROUP} else str(name)


def _user(row: Mapping[str, Any]) -> int | None:
    """The Android user that an inventory row is about."""
    if row["user_id"] is not None:
        return int(row["user_id"])
    return None if row["android_uid"] is None else int(row["android_uid"]) // USERS
