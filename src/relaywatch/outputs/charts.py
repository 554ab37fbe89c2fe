"""Geometry of the report's figures: where bars, curves and ticks lie. Numbers only; the template draws them as SVG.

Horizontal positions run from 0 to WIDTH and stretch with the page; vertical ones are CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from relaywatch.model.finding import BalancePoint, Bridge, Finding, Leg
from relaywatch.outputs.ranking import strongest_bridges
from relaywatch.outputs.text import defang, endpoint, period, plural, signed, size, utc

WIDTH: Final = 1000.0
DRAWN_LEGS: Final = 60
"""Target legs drawn at most, those of the strongest bridges; more would be a grey block."""
DRAWN_INTERVALS: Final = 120

_LANES: Final = {"client": 5, "target": 14}
"""Named lanes per side; further remotes share a last lane."""
_ROW: Final = 7.0
_ROWS_PER_LANE: Final = 4
_LANE_GAP: Final = 6.0
_LANE_LEAST: Final = 16.0
_BRIDGE_SPACE: Final = 76.0
_BALANCE_HEIGHT: Final = 46.0
_NARROWEST: Final = 2.5
_TICK_STEPS: Final = (
    0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
    86_400, 172_800, 604_800, 2_592_000, 7_776_000, 31_536_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tick:
    """One mark of the time axis. share: position in percent of the width."""

    share: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One leg: left edge, top, width; caption is its tooltip. closed: its end was seen."""

    x: float
    y: float
    width: float
    caption: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """The rows of one remote: its label and the label's height in pixels."""

    label: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One bridge as an SVG path; strength 0 to 1 is its likelihood ratio among those drawn."""

    path: str
    strength: float
    caption: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """An episode's client legs above, target legs below, bridges between."""

    height: float
    row: float
    client_bottom: float
    target_top: float
    client_lanes: list[Lane]
    target_lanes: list[Lane]
    client_bars: list[Bar]
    target_bars: list[Bar]
    curves: list[Curve]
    ticks: list[Tick]
    day: str
    weakest: float
    strongest: float
    drawn: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """Bytes that came (above the middle line) and bytes that left (below), per interval."""

    caption: str
    came: str
    left: str
    came_label: str
    left_label: str
    peak: str


@dataclass(frozen=True, slots=True)
class Balance:
    """Both directions' mirrored areas over one time axis."""

    height: float
    upstream: Mirror
    downstream: Mirror
    ticks: list[Tick]
    day: str
    interval: timedelta


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime

    def x(self, moment: datetime) -> float:
        span = (self.end - self.start).total_seconds()
        share = (utc(moment) - self.start).total_seconds() / span
        return round(WIDTH * min(max(share, 0.0), 1.0), 1)


def timeline(finding: Finding) -> Timeline | None:
    """Lay out the strongest bridges, up to DRAWN_LEGS; None where the finding lists no bridge."""
    bridges = strongest_bridges(finding, DRAWN_LEGS)
    if not bridges:
        return None
    clients = {bridge.client: finding.client_legs[bridge.client] for bridge in bridges}
    targets = {bridge.target: finding.target_legs[bridge.target] for bridge in bridges}
    scale = _scale([*clients.values(), *targets.values()])
    gateways = {index: _remote(leg) for index, leg in clients.items()}
    client_lanes, client_bars, bottom = _side(clients, gateways, scale, "client", 0.0)
    names = _destination_names(finding, targets)
    target_lanes, target_bars, height = _side(targets, names, scale, "target", bottom + _BRIDGE_SPACE)
    ratios = [bridge.log_likelihood_ratio for bridge in bridges]
    curves = [
        _curve(bridge, client_bars[bridge.client], target_bars[bridge.target], scale, targets[bridge.target], ratios)
        for bridge in sorted(bridges, key=lambda bridge: bridge.log_likelihood_ratio)
    ]
    return Timeline(
        height=height,
        row=_ROW - 1.5,
        client_bottom=bottom,
        target_top=bottom + _BRIDGE_SPACE,
        client_lanes=client_lanes,
        target_lanes=target_lanes,
        client_bars=list(client_bars.values()),
        target_bars=list(target_bars.values()),
        curves=curves,
        ticks=_ticks(scale),
        day=f"{scale.start:%Y-%m-%d}",
        weakest=min(ratios),
        strongest=max(ratios),
        drawn=len(bridges),
        left_out=max(finding.bridges - len(bridges), 0),
    )


def balance(finding: Finding) -> Balance | None:
    """Lay out bytes over time, per direction; None where there are none."""
    points = _thinned(sorted(finding.balance, key=lambda point: utc(point.time)))
    if not points:
        return None
    starts = [utc(point.time) for point in points]
    gaps = [later - earlier for earlier, later in pairwise(starts) if later > earlier]
    interval = min(gaps, default=max(utc(finding.last_seen) - starts[0], timedelta(seconds=1)))
    scale = _Scale(starts[0], starts[-1] + interval)
    return Balance(
        height=2 * _BALANCE_HEIGHT,
        upstream=_mirror(points, scale, interval, ("client_in", "target_out"), "Upstream"),
        downstream=_mirror(points, scale, interval, ("target_in", "client_out"), "Downstream"),
        ticks=_ticks(scale),
        day=f"{scale.start:%Y-%m-%d}",
        interval=interval,
    )


def _scale(legs: Sequence[Leg]) -> _Scale:
    start = min(utc(leg.start) for leg in legs)
    end = max(utc(leg.end or leg.start) for leg in legs)
    margin = max((end - start) * 0.01, timedelta(milliseconds=50))
    return _Scale(start - margin, end + margin)


def _remote(leg: Leg) -> str:
    return defang(leg.hostname) if leg.hostname else endpoint(leg.address, leg.port)


def _destination_names(finding: Finding, targets: Mapping[int, Leg]) -> dict[int, str]:
    """Name each target leg's destination, by host name, else by address, else the leg's own remote."""
    by_host = {host: row.name for row in finding.destinations for host in row.hostnames}
    by_address = {address: row.name for row in finding.destinations for address in row.addresses}
    names = {}
    for index, leg in targets.items():
        name = by_host.get(leg.hostname or "") or by_address.get(leg.address)
        names[index] = defang(name) if name else _remote(leg)
    return names


def _side(
    legs: Mapping[int, Leg], names: Mapping[int, str], scale: _Scale, side: str, top: float
) -> tuple[list[Lane], dict[int, Bar], float]:
    """Lay out lanes, bars by leg index, and where the side ends. Lanes lie in the order of their first leg.

    names: the lane of each leg, by leg index.
    """
    lanes: list[Lane] = []
    bars: dict[int, Bar] = {}
    for label, members in _grouped(legs, names, _LANES[side]):
        rows = _rows([legs[index] for index in members], scale)
        height = max(_ROW * (max(rows) + 1), _LANE_LEAST)
        inset = (height - _ROW * (max(rows) + 1)) / 2
        for index, row in zip(members, rows, strict=True):
            bars[index] = _bar(legs[index], scale, round(top + inset + _ROW * row, 1))
        lanes.append(Lane(label, top, height))
        top += height + _LANE_GAP
    return lanes, bars, top - _LANE_GAP


def _grouped(legs: Mapping[int, Leg], names: Mapping[int, str], most: int) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {}
    for index in sorted(legs, key=lambda index: (utc(legs[index].start), index)):
        groups.setdefault(names[index], []).append(index)
    if len(groups) <= most:
        return list(groups.items())
    kept = set(sorted(groups, key=lambda label: (-len(groups[label]), label))[: most - 1])
    others = sorted(index for label, members in groups.items() if label not in kept for index in members)
    rest = (plural(len(groups) - len(kept), "other"), others)
    return [*((label, members) for label, members in groups.items() if label in kept), rest]


def _rows(legs: Sequence[Leg], scale: _Scale) -> list[int]:
    """Give each leg a row so that legs of one lane do not overlap, while rows last; then the row that is free first."""
    free: list[float] = []
    rows = []
    for leg in legs:
        left = scale.x(leg.start)
        right = max(scale.x(leg.end or leg.start), left + _NARROWEST)
        row = next((number for number, until in enumerate(free) if until <= left), None)
        if row is None and len(free) < _ROWS_PER_LANE:
            row = len(free)
            free.append(right)
        if row is None:
            row = free.index(min(free))
        free[row] = max(free[row], right)
        rows.append(row)
    return rows


def _bar(leg: Leg, scale: _Scale, y: float) -> Bar:
    left = scale.x(leg.start)
    right = scale.x(leg.end or scale.end)
    caption = (
        f"{defang(leg.hostname) + ', ' if leg.hostname else ''}{endpoint(leg.address, leg.port)}, "
        f"{period(leg.start, leg.end) if leg.end else f'{period(leg.start, leg.start)}, end not seen'}, "
        f"{size(leg.bytes_in)} in, {size(leg.bytes_out)} out"
    )
    return Bar(left, y, round(max(right - left, _NARROWEST), 1), caption, leg.end is not None)


def _curve(bridge: Bridge, client: Bar, target: Bar, scale: _Scale, leg: Leg, ratios: Sequence[float]) -> Curve:
    asked = scale.x(utc(leg.start) - timedelta(seconds=bridge.lag_s))
    begin = min(max(asked, client.x), client.x + client.width)
    top, bottom = client.y + _ROW - 1.5, target.y
    bend = round((bottom - top) * 0.45, 1)
    end = target.x
    path = f"M{begin:.1f} {top:.1f}C{begin:.1f} {top + bend:.1f} {end:.1f} {bottom - bend:.1f} {end:.1f} {bottom:.1f}"
    low, high = min(ratios), max(ratios)
    strength = (bridge.log_likelihood_ratio - low) / (high - low) if high > low else 1.0
    caption = f"Bridge, lag {bridge.lag_s:.3g} s, log LR {signed(bridge.log_likelihood_ratio)}"
    return Curve(path, round(strength, 2), caption)


def _ticks(scale: _Scale) -> list[Tick]:
    """Mark up to six round times of the day."""
    span = (scale.end - scale.start).total_seconds()
    step = next((step for step in _TICK_STEPS if span / step <= 6), _TICK_STEPS[-1])
    midnight = scale.start.replace(hour=0, minute=0, second=0, microsecond=0)
    first = math.ceil((scale.start - midnight).total_seconds() / step)
    shape = "%m-%d" if step >= 86_400 else "%m-%d %H:%M" if span > 86_400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    ticks = []
    for number in range(first, first + 7):
        moment = midnight + timedelta(seconds=number * step)
        share = (moment - scale.start).total_seconds() / span
        if 0.02 <= share <= 0.98:
            fraction = f".{moment.microsecond // 100_000}" if step < 1 else ""
            ticks.append(Tick(round(100 * share, 2), f"{moment:{shape}}{fraction}"))
    return ticks


def _thinned(points: Sequence[BalancePoint]) -> list[BalancePoint]:
    """Merge points in runs so that at most DRAWN_INTERVALS remain; bytes add up, the run's first time stays."""
    run = math.ceil(len(points) / DRAWN_INTERVALS) or 1
    names = ("client_in", "target_out", "target_in", "client_out")
    return [
        BalancePoint(
            time=points[start].time,
            **{name: sum(getattr(point, name) for point in points[start : start + run]) for name in names},
        )
        for start in range(0, len(points), run)
    ]


def _mirror(
    points: Sequence[BalancePoint], scale: _Scale, interval: timedelta, sides: tuple[str, str], caption: str
) -> Mirror:
    came, left = ([int(getattr(point, name)) for point in points] for name in sides)
    peak = max(*came, *left, 1)
    edges = [(scale.x(point.time), scale.x(utc(point.time) + interval)) for point in points]
    sources = {
        "client_in": f"{size(sum(came))} from clients",
        "target_in": f"{size(sum(came))} from destinations",
        "target_out": f"{size(sum(left))} on to destinations",
        "client_out": f"{size(sum(left))} on to clients",
    }
    return Mirror(
        caption=caption,
        came=_area(edges, came, peak, -1),
        left=_area(edges, left, peak, 1),
        came_label=sources[sides[0]],
        left_label=sources[sides[1]],
        peak=size(peak),
    )


def _area(edges: Sequence[tuple[float, float]], values: Sequence[int], peak: int, sign: int) -> str:
    """Draw steps from the middle line, up (sign -1) or down (1), as one SVG path."""
    steps = []
    for (left, right), value in zip(edges, values, strict=True):
        if value > 0:
            height = sign * max(value / peak * (_BALANCE_HEIGHT - 2), 0.6)
            width = max(right - left, 1.0)
            steps.append(f"M{left:.1f} {_BALANCE_HEIGHT:.0f}h{width:.1f}v{height:.1f}h{-width:.1f}z")
    return "".join(steps)
