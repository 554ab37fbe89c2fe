"""The relay episode of one group: which legs are bridged, how, and the evidence for it, for whoever explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import EARLY_S, NONE, leg_ratios, match_legs, score_sides, side_bounds
from relaywatch.detection.calibration import (
    CARRIED_GRADE,
    FEWEST_BRIDGES,
    MIRROR_BRIDGE_GRADE,
    MIRROR_GRADES,
    MIRROR_SIZES,
    PAIR_BRIDGE_GRADE,
    PAIR_EDGES,
)
from relaywatch.detection.chance import log_evidence
from relaywatch.detection.columns import Flags, Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.detection.series import LAGS_S, balance_ratio, score_series
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import (
    MANNERS,
    SIZE_WORTH,
    Bursts,
    Link,
    account_ratio,
    burst_ratios,
    bursts_of,
    exchanged_ratios,
    link_account,
    link_of,
    mirror_grades,
    received_beside,
    score_links,
    sent_within,
    volumes_of,
    without,
    without_framing,
)
from relaywatch.model.finding import Topology

PAIRS_SUFFICE: Final = 11.5
"""Natural log evidence (100,000 to 1) from which pairs are told, whatever volumes add: they name each session."""
FURTHER_SIDES: Final = 4.6
"""Natural log evidence (100 to 1) from which a further client side of the same app joins the episode."""
ADDED_BYTES: Final = 200.0
"""Bytes that a session may gain on the way in headers and handshakes before it counts as unequal."""


@dataclass(frozen=True, slots=True)
class Bridges:
    """Bridges of an episode, in order of time; one value each.

    client, target: rows of the group's flows; lag: s; upstream, downstream: target over client bytes and client over
    target bytes, NaN where not known; log_ratio: natural log likelihood ratio; slices: sessions it stands for.
    """

    client: Ints
    target: Ints
    lag: Floats
    upstream: Floats
    downstream: Floats
    log_ratio: Floats
    slices: Ints


@dataclass(frozen=True, slots=True)
class Units:
    """What an episode's evidence is made of, one value each: client legs of pairs, bursts of volumes.

    rows: the target leg in the group's flows, NONE where there is none; classes: index into the ratios; ratios,
    size_ratios: likelihood ratio of each class against moved and against exchanged legs or bursts.
    """

    rows: Ints
    classes: Ints
    ratios: Floats
    size_ratios: Floats


@dataclass(frozen=True, slots=True)
class Episode:
    """One group's relaying. legs: rows of all flows of the client sides.

    by_volume: judged interval by interval (tunnelling), not flow by flow (bridging); delay (s) and framing (bytes
    sent for each byte carried): as in MANNERS; fed, balance: link_account of the strongest link, NaN of pairs.
    log_evidence leaves account_ratio out.
    units: what the evidence of the strongest client side is made of; None where the sum of all flows
    beside it was judged.
    """

    group: int
    topology: Topology
    by_volume: bool
    log_evidence: float
    delay: float
    framing: float
    fed: float
    balance: float
    units: Units | None
    legs: Ints
    bridges: Bridges

    @property
    def sessions(self) -> int:
        """Bridged sessions: requests over one kept-alive target leg count one each where volumes part them."""
        return int(self.bridges.slices.sum())


class Found(NamedTuple):
    """Natural log evidence of one group by each matcher; 0 where there is none."""

    pairs: float
    bursts: float
    series: float


def episode_of(flows: FlowColumns, volumes: VolumeColumns, number: int, evidence: Found, settings: Settings) -> Episode:
    """The episode of group `number`; evidence: what each matcher found in it, one above 0."""
    group = group_of(flows, number)
    if evidence.pairs >= min(max(evidence.bursts, evidence.series), PAIRS_SUFFICE):
        return _by_pairs(number, group, settings)
    if evidence.series > evidence.bursts and evidence.bursts < PAIRS_SUFFICE:
        return _by_series(number, group, volumes_of(flows, volumes, number), settings)
    return _by_volumes(number, group, volumes_of(flows, volumes, number), settings)


def _by_pairs(number: int, group: Group, settings: Settings) -> Episode:
    window, uplink = settings.time_window_s, float(settings.uplink_bytes_threshold)
    scores, first = score_sides(group, window, FEWEST_BRIDGES, uplink)
    sides = _chosen(group, scores, first)
    matched = [_pair_units(group, legs, window) for legs in sides]
    parts = [_paired(group, legs, *own) for legs, own in zip(sides, matched, strict=True)]
    sides, parts = _clients_only(group, sides, parts)
    inbound = bool(group.inbound[first[scores.argmax()]])
    return Episode(
        group=number,
        topology=Topology.ACCEPTED if inbound else Topology.BACK_CONNECT,
        by_volume=False,
        log_evidence=float(max(0.0, scores.max())),
        delay=0.0,
        framing=1.0,
        fed=np.nan,
        balance=np.nan,
        units=matched[0][0],
        legs=np.sort(np.concatenate(sides)),
        bridges=_merged(group, parts),
    )


def _chosen(group: Group, scores: Floats, first: Ints) -> list[Ints]:
    """Legs of the strongest client side, and of every further one of its kind that stands by itself."""
    best = int(scores.argmax())
    order, bounds = side_bounds(group.side)
    legs = {int(order[bounds[k]]): order[bounds[k] : bounds[k + 1]] for k in range(len(bounds) - 1)}
    same_kind = group.inbound[first] == group.inbound[first[best]]
    further = (scores >= FURTHER_SIDES) & same_kind
    further[best] = True
    return [legs[row] for row in dict.fromkeys([int(first[best]), *first[further].tolist()])]


def _clients_only(group: Group, sides: list[Ints], parts: list[Bridges]) -> tuple[list[Ints], list[Bridges]]:
    """Leave out further sides that the strongest one uses as targets: conservation alone cannot tell the two apart."""
    targets = set(group.side[parts[0].target].tolist())
    kept = [k for k in range(len(sides)) if k == 0 or int(group.side[sides[k][0]]) not in targets]
    return [sides[k] for k in kept], [parts[k] for k in kept]


def _paired(group: Group, legs: Ints, units: Units, scores: Floats) -> Bridges:
    """Bridges of one client side by pairs; a target leg serves one client leg, the better match first."""
    targets, grades, ratios = units.rows, units.classes, np.log(units.ratios)
    taken: set[int] = set()
    kept = []
    for k in np.argsort(-scores, kind="stable").tolist():
        if grades[k] >= PAIR_BRIDGE_GRADE and targets[k] != NONE and int(targets[k]) not in taken:
            taken.add(int(targets[k]))
            kept.append(k)
    client, target = legs[kept], targets[kept]
    return Bridges(
        client=client,
        target=target,
        lag=group.start[target] - group.start[client],
        upstream=_over(group.bytes_out[target], group.bytes_in[client]),
        downstream=_over(group.bytes_out[client], group.bytes_in[target]),
        log_ratio=ratios[grades[kept]],
        slices=np.ones(len(kept), np.int64),
    )


def _over(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0))


def _pair_units(group: Group, legs: Ints, window: float) -> tuple[Units, Floats]:
    """What the evidence of one client side is made of, and the score of each client leg."""
    scores, targets = match_legs(group, legs, legs, 0.0, window)
    ratios = leg_ratios(group, legs, window)
    return Units(targets, np.searchsorted(PAIR_EDGES, scores, "right"), ratios, ratios), scores


def _merged(group: Group, parts: list[Bridges]) -> Bridges:
    """Bridges of several client sides, each target leg once, in order of the target legs' start."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Bridges.__slots__}
    order = np.lexsort((-columns["log_ratio"], columns["target"]))
    keep = order[np.unique(columns["target"][order], return_index=True)[1]]
    keep = keep[np.lexsort((columns["target"][keep], group.start[columns["target"][keep]]))]
    return Bridges(**{name: values[keep] for name, values in columns.items()})


def _by_series(number: int, group: Group, volumes: VolumeColumns, settings: Settings) -> Episode:
    """Every flow beside the link counts as fed by it: their sum is what was judged."""
    scores, first, balances = score_series(group, volumes, FEWEST_BRIDGES, float(settings.uplink_bytes_threshold))
    best = int(scores.argmax())
    legs = np.flatnonzero(group.side == group.side[first[best]])
    beside = ~group.inbound & ~group.lookup & (group.side != group.side[first[best]]) & (group.bytes_in > 0.0)
    alive = (group.start >= group.start[legs].min() - EARLY_S) & (group.start <= group.end[legs].max())
    target = np.flatnonzero(beside & alive)
    client = legs[np.clip(np.searchsorted(group.start[legs], group.start[target], "right") - 1, 0, len(legs) - 1)]
    unknown, count = np.full(len(target), np.nan), len(target)
    lag = np.maximum(group.start[target] - group.start[client], 0.0)
    return Episode(
        group=number,
        topology=Topology.ACCEPTED if group.inbound[legs[0]] else Topology.TUNNEL,
        by_volume=True,
        log_evidence=float(max(0.0, scores[best] - balance_ratio(balances[best]))),
        delay=float(LAGS_S - 1),
        framing=float(balances[best]),
        fed=np.nan,
        balance=float(balances[best]),
        units=None,
        legs=legs,
        bridges=Bridges(client, target, lag, unknown, unknown, np.zeros(count), np.ones(count, np.int64)),
    )


def _by_volumes(number: int, group: Group, volumes: VolumeColumns, settings: Settings) -> Episode:
    scores, first, manners = score_links(group, volumes, FEWEST_BRIDGES, float(settings.uplink_bytes_threshold))
    sides = _chosen(group, scores, first)
    manner = int(manners[scores.argmax()])
    delay, framing, _ = MANNERS[manner].tolist()
    sides, parts = _clients_only(group, sides, [_mirrored(group, volumes, legs, manner) for legs in sides])
    inbound = bool(group.inbound[first[scores.argmax()]])
    view = _link_view(group, volumes, sides[0], manner)
    fed, balance = link_account(view.bursts, view.link, view.grades, delay)
    return Episode(
        group=number,
        topology=Topology.ACCEPTED if inbound else Topology.TUNNEL,
        by_volume=True,
        log_evidence=float(max(0.0, scores.max() - account_ratio(fed, balance))),
        delay=delay,
        framing=framing,
        fed=fed,
        balance=balance,
        units=Units(view.bursts.flow, view.classes, view.ratios, view.size_ratios),
        legs=np.sort(np.concatenate(sides)),
        bridges=_merged(group, parts),
    )


@dataclass(frozen=True, slots=True)
class _LinkView:
    """One link and the bursts beside it.

    beside: bytes of the carried bursts within each one's intervals, itself included; classes: grade within size class,
    as an index into the ratios (not logs).
    """

    bursts: Bursts
    link: Link
    back: Link
    beside: Floats
    grades: Ints
    classes: Ints
    ratios: Floats
    size_ratios: Floats


def _link_view(group: Group, volumes: VolumeColumns, legs: Ints, manner: int) -> _LinkView:
    delay, framing, _ = MANNERS[manner].tolist()
    member = np.zeros(len(group.side), np.bool_)
    member[legs] = True
    target = ~group.inbound & ~group.lookup
    bursts = without(bursts_of(volumes.flow, volumes.time, volumes.bytes_out, volumes.bytes_in, target), member)
    link = without_framing(link_of(member, volumes.flow, volumes.time, volumes.bytes_out), framing)
    begin, span = volumes.time.min(), volumes.time.max() - volumes.time.min() + 1.0
    grades = mirror_grades(bursts, link, volumes.time, volumes.bytes_in, delay, 0.0, begin, span)
    return _LinkView(
        bursts,
        link,
        link_of(member, volumes.flow, volumes.time, volumes.bytes_in),
        received_beside(bursts, grades >= CARRIED_GRADE),
        grades,
        np.searchsorted(MIRROR_SIZES, bursts.bytes_in, "right") * MIRROR_GRADES + grades,
        burst_ratios(bursts, link, volumes.time, volumes.bytes_in, delay, begin, span),
        exchanged_ratios(bursts, link, volumes.time, volumes.bytes_in, delay, begin, span),
    )


def _mirrored(group: Group, volumes: VolumeColumns, legs: Ints, manner: int) -> Bridges:
    """Bridges of one link: each target leg with a burst that the link sent on."""
    view = _link_view(group, volumes, legs, manner)
    bursts, worth = view.bursts, np.log(view.ratios)[view.classes]
    bridged = np.flatnonzero((view.grades >= MIRROR_BRIDGE_GRADE) & (bursts.bytes_in >= MIRROR_SIZES[0]))
    rows = [
        _target_bridge(group, legs, view, bridged[bursts.flow[bridged] == flow], worth, manner)
        for flow in np.unique(bursts.flow[bridged])
    ]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), 7).T
    return Bridges(
        client=columns[0].astype(np.int64),
        target=columns[1].astype(np.int64),
        lag=columns[2],
        upstream=columns[3],
        downstream=columns[4],
        log_ratio=columns[5],
        slices=columns[6].astype(np.int64),
    )


def evidence_beyond_one(units: Units, parties: Sequence[str]) -> tuple[float, float]:
    """Natural log evidence that is left without the one party that gives most of it, and with all of them.

    parties: the party at the other end of each unit's row.
    """
    names = np.array(parties)
    left = [_unit_evidence(units, names != name) for name in np.unique(names)]
    return min(left, default=0.0), _unit_evidence(units, np.ones(len(names), np.bool_))


def _unit_evidence(units: Units, counted: Flags) -> float:
    counts = np.bincount(units.classes[counted], minlength=len(units.ratios))
    return float(min(log_evidence(units.ratios, counts), SIZE_WORTH * log_evidence(units.size_ratios, counts)))


def _target_bridge(
    group: Group, legs: Ints, view: _LinkView, own: Ints, worth: Floats, manner: int
) -> tuple[float, ...]:
    """One target leg's row of Bridges, from its bridged bursts `own`."""
    bursts, link, back = view.bursts, view.link, view.back
    delay, framing, _ = MANNERS[manner].tolist()
    flow = int(bursts.flow[own[0]])
    begin = float(group.start[flow])
    open_legs = legs[(group.start[legs] <= begin + delay) & (group.end[legs] >= begin)]
    client = int(open_legs[-1]) if len(open_legs) else int(legs[0])
    asked = int(np.searchsorted(back.time, begin, "right")) - 1
    lag = begin - float(back.time[asked] if asked >= 0 else group.start[client])
    received = sum(sent_within(back, bursts.begin[k] - delay, bursts.tail[k]) for k in own)
    sent = np.array([sent_within(link, bursts.head[k], bursts.tail[k] + delay) for k in own])
    returned = framing * (sent * bursts.bytes_in[own] / np.maximum(view.beside[own], bursts.bytes_in[own])).sum()
    return (
        client,
        flow,
        max(lag, 0.0),
        bursts.bytes_out[own].sum() / received if received else np.nan,
        returned / bursts.bytes_in[own].sum(),
        worth[own].sum(),
        len(own),
    )
