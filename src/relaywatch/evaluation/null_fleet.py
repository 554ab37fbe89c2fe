"""A fleet of app-days that relay nothing, for measuring false alarms: benign bouts laid out as real days are.

Every app-day is of an app of its own. Its volumes, its hours and whether it was before the user's eyes are those of a
uid-day of real phones (null_fleet_days); what it does is bouts of one to three benign programs (null_fleet_sessions),
chosen so that their bytes fit. Everything is drawn from the fleet's seed and the app-day's number alone, so each can be
made again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from relaywatch.evaluation.null_fleet_days import BUCKET_S, DAY_S, FIRST_APP_UID, Days
from relaywatch.evaluation.null_fleet_sessions import SECOND, Bouts, Floats, Ints
from relaywatch.model.schemas import Direction, Observability, SignalKind
from relaywatch.model.tables import Batch, batch

PROGRAM_COUNTS: Final = np.array([0.5, 0.3, 0.2])
"""How often an app does what one, two or three programs do."""
FIT: Final = 1.2
"""Deviation, in natural logs, of a bout's bytes from those that are wanted; larger misfits are rarer, as a normal."""
MISFIT: Final = 0.01
LEAST_FIT: Final = 1e-9
"""Weight of a program, and of a bout among its program's, whatever its bytes; that of a perfect fit is 1."""
APP_SCALE: Final = 0.5
BOUT_SCALE: Final = 0.15
"""Deviations of the natural log of the factor that all bytes of an app, and of one bout, are multiplied by."""
MOST_FLOWS: Final = 400
"""Flows of one app-day beyond which no further bout is placed; one bout may have more."""
ENOUGH: Final = 0.7
"""Share of a bucket's bytes from which it gets no further bout."""
BOUTS_A_WAKE: Final = 4.0
WAKE_GAP_S: Final = 15.0
"""An app wakes now and then, does about so many bouts, and begins each a mean of so many seconds after the wake."""
COMMON_SHARE: Final = 0.1
COMMON: Final = 20
"""Share of an app's dialled addresses that are one of so many that all apps share: advertisers, analytics, clouds."""
DAY_BEGIN_S: Final = 1_767_571_200
"""2026-01-05, a Monday, UTC."""
APPS_A_PHONE: Final = 20
LOOKUP_PORT: Final = 53
SEEN: Final = f"{SignalKind.FOREGROUND_UI.name} {SignalKind.USER_INTERACTION.name}"
FLOWS_A_DAY: Final = 10_000
"""Room for flow numbers of one app-day."""
_PACKAGE: Final = "org.example.app"


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the app-days are drawn from. Two fleets of the same bouts, days and seed are the same."""

    bouts: Bouts
    days: Days
    seed: int


class Plan(NamedTuple):
    """One app-day. bout: numbers; begin: s after the day's begin; foreground; scale: factor of each bout's bytes.

    common: for each address of the fleet the number of the common one that stands for it in this app, or -1.
    wanted: bytes of the uid-day that it is modelled on.
    """

    bout: Ints
    begin: Ints
    foreground: np.ndarray[Any, np.dtype[np.bool_]]
    scale: Floats
    common: Ints
    wanted: float


class Tables(NamedTuple):
    """The canonical tables of some app-days, and their plans."""

    flows: Batch
    volumes: Batch
    signals: Batch
    plans: tuple[Plan, ...]


def device_of(number: int) -> str:
    """The phone that an app-day is of."""
    return f"phone-{number // APPS_A_PHONE:06d}"


def package_of(number: int) -> str:
    """The app that an app-day is of."""
    return f"{_PACKAGE}{number:07d}"


def number_of(package: str) -> int:
    """The app-day that an app is of. Raises ValueError where it is none of the fleet."""
    return int(package.removeprefix(_PACKAGE))


def plan_day(fleet: Fleet, number: int) -> Plan:
    """What app-day `number` does, and when."""
    rng = np.random.default_rng([fleet.seed, number])
    days, frame = fleet.days, fleet.bouts.frame
    day = rng.integers(len(days.bounds) - 1)
    low, high = days.bounds[day], days.bounds[day + 1]
    wanted, scale = days.amount[low:high], rng.lognormal(0.0, APP_SCALE)
    amounts = np.maximum(frame["amount"].to_numpy(), 1) * scale
    weights = _program_weights(fleet.bouts, amounts, float(np.exp(np.log(wanted).mean())), rng)
    part, bout = _filled(wanted, amounts, frame["flows"].to_numpy(), weights, rng)
    begin = _placed(part, bout, days.slot[low:high], fleet.bouts, rng)
    addresses = fleet.bouts.addresses
    common = np.where(rng.random(addresses) < COMMON_SHARE, rng.integers(0, COMMON, addresses), -1)
    return Plan(
        bout,
        begin,
        days.foreground[low:high][part],
        scale * rng.lognormal(0.0, BOUT_SCALE, len(bout)),
        common,
        float(wanted.sum()),
    )


def _program_weights(bouts: Bouts, amounts: Floats, typical: float, rng: np.random.Generator) -> Floats:
    """Weight of each bout: those of the app's programs share the app's preference for each, others have none."""
    trace = bouts.frame["trace"].to_numpy()
    first = np.searchsorted(trace, np.arange(len(bouts.traces)))
    fit = np.maximum.reduceat(_fit(amounts, typical), first) + MISFIT
    count = min(1 + rng.choice(len(PROGRAM_COUNTS), p=PROGRAM_COUNTS), len(fit))
    programs = rng.choice(len(fit), count, replace=False, p=fit / fit.sum())
    preference = np.zeros(len(fit))
    preference[programs] = rng.dirichlet(np.ones(count))
    return np.asarray((preference / np.bincount(trace))[trace])


def _fit(amounts: Floats, wanted: float) -> Floats:
    return np.asarray(np.exp(-0.5 * (np.log(amounts / wanted) / FIT) ** 2))


def _filled(
    wanted: Floats, amounts: Floats, flows: Ints, weights: Floats, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Bouts for the parts of a day: part and bout of each, a part after another in turns.

    Whole bouts only, and none twice: what coincides by chance in one bout would coincide again in each copy, as it does
    in no app. So every part gets a bout as far as the app's bouts and MOST_FLOWS go, and further ones until its bytes
    are ENOUGH, or each bout left would overshoot by more than it lacks.
    """
    parts: list[int] = []
    bouts: list[int] = []
    room, left = MOST_FLOWS, np.flatnonzero(weights)
    lacking, turn = wanted.copy(), rng.permutation(len(wanted))
    while len(turn):
        again = []
        for part in turn.tolist():
            left = left[flows[left] <= room] if parts else left
            if not len(left):
                return np.array(parts, np.int64), np.array(bouts, np.int64)
            chance = weights[left] * (_fit(amounts[left], lacking[part]) + LEAST_FIT)
            place = np.searchsorted(np.cumsum(chance), rng.random() * chance.sum())
            parts.append(part)
            bouts.append(int(left[place]))
            room -= int(flows[bouts[-1]])
            lacking[part] -= amounts[bouts[-1]]
            left = np.delete(left, place)
            if lacking[part] > max((1.0 - ENOUGH) * wanted[part], 0.5 * amounts[left].min(initial=np.inf)):
                again.append(part)
        turn = rng.permutation(again) if again else np.empty(0, np.int64)
    return np.array(parts, np.int64), np.array(bouts, np.int64)


def _placed(part: Ints, bout: Ints, slots: Ints, bouts: Bouts, rng: np.random.Generator) -> Ints:
    """When each bout begins, s after the day's begin: near a wake within its part's two hours.

    Programs run beside each other, but one program does one bout after another.
    """
    begin = np.empty(len(bout), np.int64)
    for one in np.unique(part).tolist():
        rows = np.flatnonzero(part == one)
        wakes = rng.integers(0, BUCKET_S, 1 + rng.poisson(len(rows) / BOUTS_A_WAKE))
        late = rng.exponential(WAKE_GAP_S, len(rows))
        begin[rows] = slots[one] * BUCKET_S + wakes[rng.integers(0, len(wakes), len(rows))] + late.astype(np.int64)
    trace, length = bouts.frame["trace"].to_numpy()[bout], bouts.frame["length_s"].to_numpy()[bout]
    free: dict[int, int] = {}
    for row in np.argsort(begin, kind="stable").tolist():
        begin[row] = max(begin[row], free.get(int(trace[row]), 0))
        free[int(trace[row])] = int(begin[row] + length[row] + rng.integers(1, 1 + int(WAKE_GAP_S)))
    return begin


class _Placed(NamedTuple):
    """The plans of some app-days as one list of bouts. app: place among the plans; the others as in Plan."""

    app: Ints
    bout: Ints
    begin: Ints
    scale: Floats


class _Gathered(NamedTuple):
    """owner: place of what asked for a row; row: the row."""

    owner: Ints
    row: Ints


def build(fleet: Fleet, numbers: Sequence[int]) -> Tables:
    """The canonical tables of some app-days; each one's rows do not depend on which others are asked for."""
    plans = [plan_day(fleet, number) for number in numbers]
    placed = _Placed(
        np.repeat(np.arange(len(plans)), [len(plan.bout) for plan in plans]),
        np.concatenate([plan.bout for plan in plans]),
        np.concatenate([plan.begin for plan in plans]),
        np.concatenate([plan.scale for plan in plans]),
    )
    who = np.asarray(numbers, np.int64)
    pieces = _gathered(fleet.bouts.piece_bounds, placed.bout)
    flows, place = _flows(fleet.bouts, placed, pieces, who)
    common = np.array([plan.common for plan in plans])
    return Tables(
        batch("flows", _flow_columns(flows, fleet.bouts, common, who), length=flows.height),
        _volumes(fleet.bouts, placed, pieces, flows[place], who),
        _signals(fleet.bouts, plans, who),
        tuple(plans),
    )


def write(fleet: Fleet, numbers: Sequence[int], folder: Path) -> Tables:
    """Write the canonical tables of some app-days as Parquet files of a folder, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = build(fleet, numbers)
    for part in (tables.flows, tables.volumes, tables.signals):
        pq.write_table(pa.Table.from_batches([part.rows]), folder / f"{part.table}.parquet", compression="zstd")
    return tables


def _gathered(bounds: Ints, wanted: Ints) -> _Gathered:
    """All rows from bounds[k] to bounds[k + 1] for each k of `wanted`, one after the other."""
    counts = bounds[wanted + 1] - bounds[wanted]
    owner = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Gathered(owner, bounds[wanted][owner] + within)


def _scaled(count: pl.Series, factor: Floats) -> Ints:
    return np.rint(count.to_numpy() * factor).astype(np.int64)


def _flows(bouts: Bouts, placed: _Placed, pieces: _Gathered, who: Ints) -> tuple[pl.DataFrame, Ints]:
    """The flows of all placed bouts, by app and start, and for each piece the row of its flow.

    A standing flow's pieces within one app-day are one flow; any other piece is a flow of its own.
    """
    piece, app, factor = bouts.pieces[pieces.row], placed.app[pieces.owner], placed.scale[pieces.owner]
    at = placed.begin[pieces.owner] * SECOND
    key = np.where(piece["standing"].to_numpy(), piece["flow"].to_numpy(), -1 - np.arange(piece.height))
    piece = piece.with_columns(
        pl.Series("app", app),
        pl.Series("key", key),
        pl.Series("start", piece["start"].to_numpy() + at),
        pl.Series("end", piece["end"].to_numpy() + at),
        pl.Series("bytes_out", _scaled(piece["bytes_out"], factor)),
        pl.Series("bytes_in", _scaled(piece["bytes_in"], factor)),
    )
    summed = {"app", "key", "start", "end", "bytes_out", "bytes_in"}
    flows = (
        piece.group_by("app", "key", maintain_order=True)
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            pl.col("bytes_out", "bytes_in").sum(),
            pl.exclude(summed).first(),
        )
        .sort("app", "start", "key", descending=[False, False, True])
        .with_row_index("row")
        .with_columns((pl.col("row") - pl.col("row").min().over("app")).cast(pl.Int64).alias("flow_id"))
    )
    flows = flows.with_columns(
        pl.Series("flow_id", flows["flow_id"].to_numpy() + who[flows["app"].to_numpy()] * FLOWS_A_DAY)
    )
    found = piece.select("app", "key").join(flows.select("app", "key", "row"), on=["app", "key"], maintain_order="left")
    return flows.drop("row"), found["row"].to_numpy().astype(np.int64)


def _text(codes: Ints, values: Sequence[str | None]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values, pa.string()))


def _who(app: Ints, numbers: Ints) -> dict[str, Any]:
    """The columns that say whose rows these are. app: place of each row's app among `numbers`."""
    devices, phone = np.unique(numbers // APPS_A_PHONE, return_inverse=True)
    return {
        "device_uid": _text(phone[app], [device_of(int(device) * APPS_A_PHONE) for device in devices]),
        "android_package": _text(app, [package_of(int(number)) for number in numbers]),
        "android_uid": pa.array((FIRST_APP_UID + numbers % APPS_A_PHONE).astype(np.int32)[app]),
        "clock": "device",
    }


def _instants(microseconds: Ints) -> pa.Array:
    return pa.array(microseconds + DAY_BEGIN_S * SECOND).cast(pa.timestamp("us", "UTC"))


def _flow_columns(flows: pl.DataFrame, bouts: Bouts, common: Ints, who: Ints) -> dict[str, Any]:
    """Canonical columns. common: as in Plan, a row an app. The source is the trace that a flow is from."""
    app = flows["app"].to_numpy()
    dialled = (flows["direction_id"].to_numpy() != Direction.INBOUND) & (flows["remote_port"].to_numpy() != LOOKUP_PORT)
    shared = np.where(dialled, common[app, flows["address"].to_numpy()], -1)
    flows = flows.with_columns(pl.Series("shared", shared)).with_columns(
        pl.when(pl.col("shared") >= 0).then("shared").cast(pl.String).alias("number")
    )
    address, name = "192.0.2." + pl.col("number"), "cdn" + pl.col("number") + ".shared.example"
    flows = flows.with_columns(
        pl.coalesce(address, "remote_ip").alias("remote_ip"),
        pl.coalesce(name, "remote_hostname").alias("remote_hostname"),
    )
    plain = (
        "flow_id",
        "protocol_num",
        "direction_id",
        "direction_observability",
        "local_port",
        "remote_port",
        "hostname_observability",
        "bytes_out",
        "bytes_in",
    )
    texts = {name: flows[name].to_arrow().cast(pa.string()) for name in ("remote_ip", "remote_hostname")}
    return {
        **_who(app, who),
        **{name: flows[name].to_arrow() for name in plain},
        **{name: values.dictionary_encode() for name, values in texts.items()},
        "start_time": _instants(flows["start"].to_numpy()),
        "end_time": _instants(flows["end"].to_numpy()),
        "bytes_observability": int(Observability.OBSERVED),
        "source": _text(flows["trace"].to_numpy(), bouts.traces),
        "position": flows["flow_id"].to_arrow(),
    }


def _volumes(bouts: Bouts, placed: _Placed, pieces: _Gathered, flow: pl.DataFrame, who: Ints) -> Batch:
    """The volumes of all pieces. flow: the flow of each piece."""
    seconds = _gathered(bouts.volume_bounds, pieces.row)
    of_piece, volume = pieces.owner[seconds.owner], bouts.volumes[seconds.row]
    begin = (volume["second"].to_numpy() + placed.begin[of_piece]) * SECOND
    columns = {
        **_who(placed.app[of_piece], who),
        "flow_id": flow["flow_id"].to_numpy()[seconds.owner],
        "start_time": _instants(begin),
        "duration_us": SECOND,
        "bytes_out": _scaled(volume["bytes_out"], placed.scale[of_piece]),
        "bytes_in": _scaled(volume["bytes_in"], placed.scale[of_piece]),
        "source": _text(flow["trace"].to_numpy()[seconds.owner], bouts.traces),
        "position": np.arange(1, len(begin) + 1),
    }
    return batch("volumes", columns, length=len(begin))


def _signals(bouts: Bouts, plans: Sequence[Plan], who: Ints) -> Batch:
    """That the whole day was watched, and for each foreground bout the app's window and a tap as it opens."""
    watched = np.arange(len(plans))
    shown = [np.flatnonzero(plan.foreground) for plan in plans]
    app = np.repeat(watched, [len(rows) for rows in shown])
    begin = np.concatenate([plan.begin[rows] for plan, rows in zip(plans, shown, strict=True)])
    bout = np.concatenate([plan.bout[rows] for plan, rows in zip(plans, shown, strict=True)])
    until = begin + bouts.frame["length_s"].to_numpy()[bout]
    kinds = np.repeat(
        [SignalKind.CAPTURE, SignalKind.FOREGROUND_UI, SignalKind.USER_INTERACTION], [len(plans), len(app), len(app)]
    )
    start = np.concatenate([np.zeros(len(plans), np.int64), begin, begin])
    end = np.concatenate([np.full(len(plans), 2 * DAY_S), until, begin])
    columns = {
        **_who(np.concatenate([watched, app, app]), who),
        "kind": kinds.astype(np.uint8),
        "start_time": _instants(start * SECOND),
        "end_time": _instants(end * SECOND),
        "observability": int(Observability.OBSERVED),
        "detail": pa.array([SEEN] * len(plans) + [None] * (2 * len(app)), pa.string()).dictionary_encode(),
        "source": "null-fleet",
        "position": np.arange(1, len(kinds) + 1),
    }
    return batch("signals", columns, length=len(kinds))
