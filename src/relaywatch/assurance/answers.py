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

from relaywatch.assurance.gaps import GAPS
from relaywatch.assurance.watching import USERS, Watching
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
"""Share of the phone's own byte count that flows must show: counters have headers and retransmissions besides."""
ALL_INTERFACES: Final = frozenset({"lab-trace", "lab-fleet", "perfetto"})
"""Formats that by their nature show an app's traffic on every interface."""
SIGNAL_GAPS: Final[Mapping[str, tuple[SignalKind, ...]]] = {
    "listener": (SignalKind.LISTENER,),
    "foreground": (SignalKind.FOREGROUND_UI,),
    "interaction": (SignalKind.USER_INTERACTION, SignalKind.KEYGUARD_LOCKED),
}


def answered(states: pl.DataFrame, watching: Watching, settings: Settings) -> pl.DataFrame:
    """A row an app and window, with a state a gap (`gap_*`), an answer a topology and `disprovable` (0 yes, 1, 2 no).

    states: device_states. Devices that only signals or an inventory tell of have one row a window, without an app.
    """
    if states.is_empty():
        return pl.DataFrame()
    rows = states.join(watching.apps.drop("name"), on=["device", "window"], how="left", suffix="_app")
    counters = (pl.col("counted_out") >= 0) & (
        pl.min_horizontal("counted_out", "counted_in") < settings.uplink_bytes_threshold
    )
    anonymous = pl.col("hidden_app").fill_null(value=True)
    rows = rows.with_columns(
        pl.when(anonymous).then(MISSING).otherwise("gap_app").alias("gap_app"),
        counters.fill_null(value=False).alias("too_little"),
    )
    rows = rows.with_columns(
        pl.max_horizontal(f"gap_{name}" for name in needs).alias(topology) for topology, needs in NEEDS.items()
    )
    every = pl.max_horizontal(*TOPOLOGIES)
    complete = pl.all_horizontal(pl.col(f"complete_{name}") for name in COMPLETE_NEEDS)
    shown = ((every == OK) & complete) | pl.col("too_little")
    return rows.with_columns(
        every.alias("every"), pl.when(shown).then(OK).otherwise(MISSING).cast(pl.Int32).alias("disprovable")
    )


def device_states(watching: Watching, settings: Settings) -> pl.DataFrame:
    """A row a device and window, with the state of each gap there, and `complete_*` flags of what absence asks for.

    Empty where there is no flow at all.
    """
    span = watching.span
    if span is None:
        return pl.DataFrame()
    grid = _grid(watching, span.windows)
    width_s = pl.min_horizontal(
        pl.lit(span.width_us), watching.last_us - (pl.col("window") + span.first) * span.width_us
    ) - pl.max_horizontal(pl.lit(0), watching.first_us - (pl.col("window") + span.first) * span.width_us)
    flows = pl.col("flows")
    inbound = pl.lit(bool(watching.inbound_formats)) & (
        (pl.col("format") & _bits(watching.inbound_formats, watching.formats)) != 0
    )
    needs_volumes = pl.col("moved") > 0
    grid = grid.with_columns((width_s / 1e6).clip(1e-6).alias("width_s")).with_columns(
        (pl.col("watched_s") / pl.col("width_s")).clip(0.0, 1.0).alias("watched"),
        pl.when((pl.col("watched_s") <= 0) & (flows == 0)).then(MISSING).otherwise(OK).alias("gap_unwatched"),
        pl.when(flows == 0).then(OK).otherwise(_state(1.0 - pl.col("hidden") / flows, ENOUGH)).alias("gap_app"),
        pl.when(flows == 0).then(MISSING).otherwise(_state(pl.col("bytes") / flows, ENOUGH)).alias("gap_bytes"),
        pl.when(flows == 0).then(MISSING).otherwise(_state(pl.col("directed") / flows, ENOUGH)).alias("gap_direction"),
        pl.when(pl.col("dialled") == 0)
        .then(pl.when(flows == 0).then(MISSING).otherwise(PARTIAL))
        .otherwise(_state(pl.col("named") / pl.col("dialled"), NAMES_ENOUGH))
        .alias("gap_hostname"),
        pl.when(needs_volumes)
        .then(_state(pl.col("fine") / pl.col("moved"), ENOUGH))
        .otherwise(MISSING)
        .alias("gap_volumes"),
        pl.when(inbound).then(OK).otherwise(MISSING).alias("gap_inbound"),
        pl.when(pl.col("step_s").fill_null(0.0) > settings.time_window_s / 2.0)
        .then(PARTIAL)
        .otherwise(OK)
        .alias("gap_clock"),
        pl.when(pl.col("sampled")).then(PARTIAL).otherwise(OK).alias("gap_sampling"),
        *(
            pl.when((pl.col("kinds") & sum(1 << int(kind) for kind in kinds)) != 0)
            .then(OK)
            .otherwise(MISSING)
            .alias(f"gap_{name}")
            for name, kinds in SIGNAL_GAPS.items()
        ),
    )
    # Names alone can still tell parties apart, though not as surely as addresses do.
    address = pl.when(flows == 0).then(MISSING).otherwise(_state(pl.col("remote") / flows, ENOUGH))
    named = pl.when(pl.col("gap_hostname") < MISSING).then(PARTIAL).otherwise(MISSING)
    grid = grid.with_columns(pl.when(address == MISSING).then(named).otherwise(address).alias("gap_address"))
    return _with_completeness(grid, watching)


def _state(share: pl.Expr, enough: float) -> pl.Expr:
    """State of a gap by the share of flows that show the field."""
    return pl.when(share >= enough).then(OK).when(share > 0.0).then(PARTIAL).otherwise(MISSING)


def _bits(names: frozenset[str], formats: Sequence[str]) -> int:
    return sum(1 << k for k, name in enumerate(formats) if name in names)


def _grid(watching: Watching, windows: int) -> pl.DataFrame:
    """A row a device and window, of every device that any source names, what was not counted as 0."""
    known = watching.devices.select("name").unique()
    named = pl.concat([known, watching.inventory.select("name")]).unique().sort("name")
    every = named.join(pl.DataFrame({"window": range(windows)}, schema={"window": pl.Int64}), how="cross")
    zero = [name for name, kind in watching.devices.schema.items() if kind.is_numeric() and name not in _NOT_COUNTS]
    users = _users(watching)
    return (
        every.join(watching.devices, on=["name", "window"], how="left")
        .join(watching.inventory, on="name", how="left")
        .join(users, on="name", how="left")
        .with_columns(pl.col(zero).fill_null(0), pl.col("sampled").fill_null(value=False))
        .with_columns(pl.col("packages", "signed").fill_null(value=False))
    )


_NOT_COUNTS: Final = {"device", "window", "step_s", "counted", "seen"}


def _users(watching: Watching) -> pl.DataFrame:
    """Android users of which flows are seen, by device."""
    if watching.apps.is_empty():
        return pl.DataFrame(schema={"name": pl.String, "seen_users": pl.List(pl.Int64)})
    seen = watching.apps.filter(pl.col("flows") > 0)
    return seen.group_by("name").agg((pl.col("uid") // USERS).drop_nulls().unique().alias("seen_users"))


def _with_completeness(grid: pl.DataFrame, watching: Watching) -> pl.DataFrame:
    """What absence asks for beyond a proof, as flags, and the gaps that say so."""
    whole = (pl.col("format") != 0) & ((pl.col("format") & ~_bits(ALL_INTERFACES, watching.formats)) == 0)
    counted = (pl.col("counted") > 0) & (pl.col("seen") >= ACCOUNTED * pl.col("counted"))
    further = pl.col("users").list.set_difference(pl.col("seen_users").fill_null([])).list.eval(pl.element() > 0)
    unseen = further.list.any().fill_null(value=False)
    grid = grid.with_columns(
        (pl.col("watched") >= WHOLE).alias("complete_pauses"),
        (pl.col("gaps") == 0).alias("complete_logging_gap"),
        (pl.col("hidden") == 0).alias("complete_unattributed"),
        (whole | counted).fill_null(value=False).alias("complete_interfaces"),
        (~unseen).alias("complete_profile"),
        (~pl.col("sampled")).alias("complete_sampling"),
    )
    partly = [
        pl.when(pl.col(f"complete_{name}")).then(OK).otherwise(PARTIAL).alias(f"gap_{name}")
        for name in COMPLETE_NEEDS
        if name in GAPS and name not in {"sampling", "pauses"}
    ]
    paused = ~pl.col("complete_pauses") & (pl.col("gap_unwatched") == OK)
    return grid.with_columns(*partly, pl.when(paused).then(PARTIAL).otherwise(OK).alias("gap_pauses"))
