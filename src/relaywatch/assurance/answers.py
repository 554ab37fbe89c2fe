"""Provable and disprovable, window by window: pure functions of what was watched.

Provable is asked of each topology: would a relay have been shown? `yes` is a promise that drills check; `no` says that
no relay verdict can come of such telemetry, because the judgement asks for what it lacks; `in_part` promises neither.
Disprovable asks whether no finding means no relay: everything is provable, all of the time, on every interface, and no
flow is left without an app. Both speak of relays that do not hide; what hiding costs is for drills to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from relaywatch.assurance.watching import USERS, Span, Watching
from relaywatch.detection.settings import Settings
from relaywatch.engines.contacts import NAMED_SHARE
from relaywatch.model.schemas import SignalKind

TOPOLOGIES: Final = ("accepted", "back_connect", "tunnel")
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "accepted": ("unwatched", "app", "bytes", "direction", "inbound", "address", "clock", "sampling"),
    "back_connect": ("unwatched", "app", "bytes", "direction", "address", "hostname", "clock", "sampling"),
    "tunnel": ("unwatched", "app", "bytes", "direction", "address", "hostname", "volumes", "sampling"),
}
"""Gaps that hold back each topology: what `Provable` of a finding asks for, and what its matcher works on."""
COMPLETE_NEEDS: Final = ("pauses", "logging_gap", "unattributed", "interfaces", "profile", "sampling")
"""What absence asks for beyond a proof of every topology."""
OK, PARTIAL, MISSING = 0, 1, 2
"""State of a gap in a window: closed; open for some flows; open for all of them."""
ENOUGH: Final = 0.99
"""Share of flows that must show a field for it to count as there: a finding asks it of each of its legs."""
NAMES_ENOUGH: Final = (1.0 + NAMED_SHARE) / 2.0
"""Share of dialled flows with a name from which a relay's own targets are safely named in NAMED_SHARE of the cases."""
WHOLE: Final = 0.99
"""Share of a window that must be watched for it to count as watched throughout."""
ACCOUNTED: Final = 0.9
"""Share of an app's own byte count that its flows must show, each way: counters have headers and repeats besides."""
ALL_INTERFACES: Final = frozenset({"lab-trace", "lab-fleet", "perfetto"})
"""Formats that by their nature show an app's traffic on every interface."""
SIGNAL_GAPS: Final[Mapping[str, tuple[SignalKind, ...]]] = {
    "listener": (SignalKind.LISTENER,),
    "foreground": (SignalKind.FOREGROUND_UI,),
    "interaction": (SignalKind.USER_INTERACTION, SignalKind.KEYGUARD_LOCKED),
}


def answered(states: pl.DataFrame, watching: Watching, settings: Settings) -> pl.DataFrame:
    """A row an app and window, with a state a gap (`gap_*`), an answer a topology and `disprovable` (0 yes, 1, 2 no).

    states: device_states. Devices of which nothing but signals, or an inventory, is known have one row a window,
    without an app.
    """
    if states.is_empty():
        return pl.DataFrame()
    apps = _with_totals(watching.apps)
    rows = states.join(apps.drop("name"), on=["device", "window"], how="left", suffix="_app")
    counted = pl.min_horizontal("counted_out", "counted_in")
    unseen = (pl.col("flows_app") == 0) & (counted >= settings.uplink_bytes_threshold)
    accounted = pl.all_horizontal(
        pl.col(f"bytes_{way}") >= ACCOUNTED * pl.col(f"counted_{way}") for way in ("out", "in")
    )
    rows = rows.with_columns(
        pl.when(pl.col("hidden_app").fill_null(value=False)).then(MISSING).otherwise("gap_app").alias("gap_app"),
        pl.when(unseen.fill_null(value=False)).then(MISSING).otherwise("gap_unwatched").alias("gap_unwatched"),
        (pl.col("every_interface") | (accounted.fill_null(value=False) & (pl.col("flows_app") > 0))).alias(
            "complete_interfaces"
        ),
        _too_little(settings).alias("too_little"),
    )
    rows = rows.with_columns(_partly("interfaces"))
    rows = rows.with_columns(
        pl.max_horizontal(f"gap_{name}" for name in needs).alias(topology) for topology, needs in NEEDS.items()
    )
    every = pl.max_horizontal(*TOPOLOGIES)
    shown = ((every == OK) & pl.all_horizontal(f"complete_{name}" for name in COMPLETE_NEEDS)) | pl.col("too_little")
    return rows.with_columns(
        every.alias("every"), pl.when(shown).then(OK).otherwise(MISSING).cast(pl.Int32).alias("disprovable")
    )


def _with_totals(apps: pl.DataFrame) -> pl.DataFrame:
    """The apps with what their counters and their flows show over all windows: a relay may go on through several."""
    sums = [
        pl.col(name).sum().over("app").alias(f"{name}_in_all")
        for name in ("counted_out", "counted_in", "bytes_out", "bytes_in")
    ]
    return apps.with_columns(sums)


def _too_little(settings: Settings) -> pl.Expr:
    """Whether the phone's own counters cover the window and show less, over all windows, than any relay sends.

    An app without a bucket had none because its counter stood still. Counters below what flows show are not believed.
    """
    counted = {way: pl.col(f"counted_{way}_in_all").fill_null(0) for way in ("out", "in")}
    believed = pl.all_horizontal(pl.col(f"bytes_{way}_in_all").fill_null(0) <= counted[way] for way in counted)
    little = pl.min_horizontal(*counted.values()) < settings.uplink_bytes_threshold
    return (pl.col("counters") & ~pl.col("hidden_app") & believed & little).fill_null(value=False)


def device_states(watching: Watching, settings: Settings) -> pl.DataFrame:
    """A row a device and window, with the state of each gap there, and `complete_*` flags of what absence asks for.

    Empty where there is no flow at all.
    """
    span = watching.span
    if span is None:
        return pl.DataFrame()
    grid = _with_habits(_grid(watching, span))
    flows, none = pl.col("flows"), pl.col("flows") == 0
    inbound = (pl.col("format") & _bits(watching.inbound_formats, watching.formats)) != 0
    unknown = pl.when(none).then(OK)
    shares = {
        "app": unknown.otherwise(_state(1.0 - pl.col("hidden") / flows, ENOUGH)),
        "bytes": unknown.otherwise(_state(pl.col("bytes") / flows, ENOUGH)),
        "direction": unknown.otherwise(_state(pl.col("directed") / flows, ENOUGH)),
        "hostname": unknown.when(pl.col("dialled") == 0)
        .then(PARTIAL)
        .otherwise(_state(pl.col("named") / pl.col("dialled"), NAMES_ENOUGH)),
        "volumes": unknown.when(pl.col("moved") == 0)
        .then(MISSING)
        .otherwise(_state(pl.col("fine") / pl.col("moved"), ENOUGH)),
        "address": unknown.otherwise(_state(pl.col("remote") / flows, ENOUGH)),
    }
    flags = {
        "unwatched": ((pl.col("watched_s") <= 0) & ~pl.col("own_flows"), MISSING),
        "inbound": (~inbound & ~none, MISSING),
        "clock": (pl.col("step_s") > settings.time_window_s / 2.0, PARTIAL),
        "sampling": (pl.col("sampled"), PARTIAL),
        **{name: (~_shows(kinds), MISSING) for name, kinds in SIGNAL_GAPS.items()},
    }
    grid = grid.with_columns(
        *(state.alias(f"gap_{name}") for name, state in shares.items()),
        *(pl.when(where).then(state).otherwise(OK).alias(f"gap_{name}") for name, (where, state) in flags.items()),
    )
    idle = none & (pl.col("gap_unwatched") == OK)
    grid = grid.with_columns(pl.when(idle).then(PARTIAL).otherwise("gap_unwatched").alias("gap_unwatched"))
    # Names alone can still tell parties apart, though not as surely as addresses do.
    named = pl.when(pl.col("gap_hostname") < MISSING).then(PARTIAL).otherwise(MISSING)
    nowhere = pl.col("gap_address") == MISSING
    grid = grid.with_columns(pl.when(nowhere).then(named).otherwise("gap_address").alias("gap_address"))
    return _with_completeness(grid, watching)


_SHOWN: Final = ("flows", "dialled", "named", "bytes", "directed", "remote", "moved", "fine", "format")


def _with_habits(grid: pl.DataFrame) -> pl.DataFrame:
    """In windows in which a device has no flow, what its sources show of it otherwise: they see in the same way.

    Of a device of which no flow is ever seen nothing is known, and nothing but "unwatched" is told: in part where a
    source claims to have watched it.
    """
    sums = [pl.col(name).sum().over("name") for name in _SHOWN if name != "format"]
    bits = grid.group_by("name").agg(pl.col("format").bitwise_or().alias("formats"))
    seen = grid.join(bits, on="name", how="left", maintain_order="left")
    own = pl.col("flows") > 0
    return seen.with_columns(
        own.alias("own_flows"),
        *(pl.when(own).then(name).otherwise(total).alias(name) for name, total in zip(_SHOWN[:-1], sums, strict=True)),
        pl.when(own).then("format").otherwise("formats").alias("format"),
    )


def _state(share: pl.Expr, enough: float) -> pl.Expr:
    """State of a gap by the share of flows that show the field."""
    return pl.when(share >= enough).then(OK).when(share > 0.0).then(PARTIAL).otherwise(MISSING)


def _shows(kinds: Sequence[SignalKind]) -> pl.Expr:
    return (pl.col("kinds") & sum(1 << int(kind) for kind in kinds)) != 0


def _bits(names: frozenset[str], formats: Sequence[str]) -> int:
    return sum(1 << k for k, name in enumerate(formats) if name in names)


def _grid(watching: Watching, span: Span) -> pl.DataFrame:
    """A row a device and window, of every device that any source names, what was not counted as 0; `watched`: share."""
    known = watching.devices.select("name").unique()
    named = pl.concat([known, watching.inventory.select("name")]).unique().sort("name")
    windows = pl.DataFrame(
        {"window": range(span.windows), "begin": [span.begin(k) for k in range(span.windows)]},
        schema={"window": pl.Int64, "begin": pl.Int64},
    )
    width = pl.min_horizontal(pl.col("begin") + span.width_us, pl.lit(span.last_us)) - pl.max_horizontal(
        "begin", pl.lit(span.first_us)
    )
    kinds = watching.devices.schema
    flags = [name for name, kind in kinds.items() if kind == pl.Boolean]
    numbers = [name for name, kind in kinds.items() if kind.is_numeric() and name not in {"device", "window"}]
    return (
        named.join(windows, how="cross")
        .join(watching.devices, on=["name", "window"], how="left")
        .join(watching.inventory, on="name", how="left")
        .join(_users(watching), on=["name", "window"], how="left")
        .with_columns(pl.col(numbers).fill_null(0), pl.col(*flags, "packages", "signed").fill_null(value=False))
        .with_columns((pl.col("watched_s") / (width / 1e6).clip(1e-6)).clip(0.0, 1.0).alias("watched"))
        .with_columns((pl.col("told_s") / (width / 1e6).clip(1e-6)).clip(0.0, 1.0).alias("told"))
    )


def _users(watching: Watching) -> pl.DataFrame:
    """Android users of which flows are seen, by device and window."""
    seen = watching.apps.filter((pl.col("flows") > 0) & (pl.col("uid") >= 0))
    return seen.group_by("name", "window").agg((pl.col("uid") // USERS).unique().alias("seen_users"))


def _with_completeness(grid: pl.DataFrame, watching: Watching) -> pl.DataFrame:
    """What absence asks for beyond a proof, as flags, and the gaps that say so.

    Time that no source claims to have watched, but flows lie in, counts as watched for a proof and not for absence.
    Without a list of the phone's users nobody knows whether another profile is there.
    """
    every = (pl.col("format") != 0) & ((pl.col("format") & ~_bits(ALL_INTERFACES, watching.formats)) == 0)
    further = pl.col("users").list.set_difference(pl.col("seen_users").fill_null([])).list.eval(pl.element() > 0)
    listed = pl.col("users").list.len().fill_null(0) > 0
    grid = grid.with_columns(
        every.alias("every_interface"),
        (pl.col("told") >= WHOLE).alias("complete_pauses"),
        (~pl.col("gaps")).alias("complete_logging_gap"),
        (pl.col("hidden") == 0).alias("complete_unattributed"),
        (listed & ~further.list.any().fill_null(value=True)).alias("complete_profile"),
        (~pl.col("sampled")).alias("complete_sampling"),
    )
    paused = ~pl.col("complete_pauses") & (pl.col("gap_unwatched") == OK)
    return grid.with_columns(
        *(_partly(name) for name in ("logging_gap", "unattributed", "profile")),
        pl.when(paused).then(PARTIAL).otherwise(OK).alias("gap_pauses"),
    )


def _partly(name: str) -> pl.Expr:
    return pl.when(pl.col(f"complete_{name}")).then(OK).otherwise(PARTIAL).alias(f"gap_{name}")
