"""The relay episode of one group: which legs are bridged, how, and the evidence for it, for whoever explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import EARLY_S, NONE, own_match, score_sides, side_bounds
from relaywatch.detection.calibration import (
    ACCOUNT_BRIDGE_GRADE,
    ACCOUNT_GRADES,
    FEWEST_BRIDGES,
    PAIR_BRIDGE_GRADE,
    PAIR_EDGES,
    Tables,
)
from relaywatch.detection.chance import LINK_SHARES, RELAYED_SHARES, log_evidence
from relaywatch.detection.columns import Flags, Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.detection.settings import Settings
from relaywatch.detection.tunnelling import (
    DOWN,
    MANNERS,
    PAUSE_S,
    account_classes,
    chosen_feeders,
    exchanged_ratios,
    hypotheses,
    moved_ratios,
    passing_of,
    score_links,
    scratch,
    sendings_of,
    volumes_of,
)
from relaywatch.model.finding import Topology

PAIRS_SUFFICE: Final = 11.5
"""Natural log evidence (100,000 to 1) from which pairs are told, whatever volumes add: they name each session."""
FURTHER_SIDES: Final = 4.6
"""Natural log evidence (100 to 1) from which a further client side of the same app joins the episode."""
ADDED_BYTES: Final = 200.0
"""Bytes that a session may gain on the way in headers and handshakes before it counts as unequal."""


MANY_LINKS: Final = 10
"""Links of one relay from which it may be back-connect: SDKs open up to eight that multiplex sessions."""
NEEDED: Final = 0.3
"""Share of a flow's bytes that the account of a sending must need for the flow to count as bridged."""


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
    """What an episode's evidence is made of, one value each: client legs of pairs, or a link's sendings.

    rows: the target leg in the group's flows, of a sending the one that gave most, NONE where there is none; classes:
    index into the ratios; ratios, size_ratios: likelihood ratio of each class against moved and against exchanged
    units; shares: grid of the share of units that relay.
    """

    rows: Ints
    classes: Ints
    ratios: Floats
    size_ratios: Floats
    shares: Floats


@dataclass(frozen=True, slots=True)
class Manner:
    """How a link relays: window_s and lag_s in s, framing in bytes passed on for each byte carried (MANNERS).

    uploads: it brings what the others send, rather than sends what they receive; accounted: the share of what passes on
    it, in bytes, that the others account for.
    """

    window_s: float
    lag_s: float
    framing: float
    uploads: bool
    accounted: float


@dataclass(frozen=True, slots=True)
class Episode:
    """One group's relaying. legs: rows of all flows of the client sides.

    manner: how the link relays, where it was judged by volume, interval by interval; None where legs were paired.
    units: what the evidence of the strongest client side is made of.
    """

    group: int
    topology: Topology
    log_evidence: float
    manner: Manner | None
    units: Units
    legs: Ints
    bridges: Bridges

    @property
    def sessions(self) -> int:
        """Bridged sessions: requests over one kept-alive target leg count one each where volumes part them."""
        return int(self.bridges.slices.sum())


class Found(NamedTuple):
    """Natural log evidence of one group by each matcher; 0 where there is none."""

    pairs: float
    volumes: float


def episode_of(
    flows: FlowColumns, volumes: VolumeColumns, number: int, evidence: Found, settings: Settings, tables: Tables
) -> Episode:
    """The episode of group `number`; evidence: what each matcher found in it, one above 0."""
    group = group_of(flows, number)
    if evidence.pairs >= min(evidence.volumes, PAIRS_SUFFICE):
        return _by_pairs(number, group, settings, tables)
    return _by_volumes(number, group, volumes_of(flows, volumes, number), settings, tables)


def _by_pairs(number: int, group: Group, settings: Settings, tables: Tables) -> Episode:
    window, uplink = settings.time_window_s, float(settings.uplink_bytes_threshold)
    scores, first, ratios = score_sides(group, window, FEWEST_BRIDGES, uplink, tables)
    chosen = _chosen(group, scores, first)
    sides = _legs_of(group, first[chosen])
    matched = [_pair_units(group, legs, window, ratios[k]) for legs, k in zip(sides, chosen, strict=True)]
    parts = [_paired(group, legs, *own) for legs, own in zip(sides, matched, strict=True)]
    sides, parts = _clients_only(group, sides, parts)
    inbound = bool(group.inbound[first[scores.argmax()]])
    return Episode(
        group=number,
        topology=Topology.ACCEPTED if inbound else Topology.BACK_CONNECT,
        log_evidence=float(max(0.0, scores.max())),
        manner=None,
        units=matched[0][0],
        legs=np.sort(np.concatenate(sides)),
        bridges=_merged(group, parts),
    )


def _chosen(group: Group, scores: Floats, first: Ints) -> list[int]:
    """Place of the strongest client side, and of every further one of its kind that stands by itself."""
    best = int(scores.argmax())
    further = (scores >= FURTHER_SIDES) & (group.inbound[first] == group.inbound[first[best]])
    return list(dict.fromkeys([best, *np.flatnonzero(further).tolist()]))


def _legs_of(group: Group, first: Ints) -> list[Ints]:
    """All legs of each client side of which the first is given."""
    order, bounds = side_bounds(group.side)
    place = {row: k for k, row in enumerate(order[bounds[:-1]].tolist())}
    return [order[bounds[place[row]] : bounds[place[row] + 1]] for row in first.tolist()]


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


def _pair_units(group: Group, legs: Ints, window: float, ratios: Floats) -> tuple[Units, Floats]:
    """What the evidence of one client side is made of, and the score of each client leg."""
    scores, targets = own_match(group, legs, legs, window)
    return Units(targets, np.searchsorted(PAIR_EDGES, scores, "right"), ratios, ratios, RELAYED_SHARES), scores


def _merged(group: Group, parts: list[Bridges]) -> Bridges:
    """Bridges of several client sides, each target leg once, in order of the target legs' start."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Bridges.__slots__}
    order = np.lexsort((-columns["log_ratio"], columns["target"]))
    keep = order[np.unique(columns["target"][order], return_index=True)[1]]
    keep = keep[np.lexsort((columns["target"][keep], group.start[columns["target"][keep]]))]
    return Bridges(**{name: values[keep] for name, values in columns.items()})


class _Link(NamedTuple):
    """One link's sendings and what accounts for them.

    legs: rows of its flows; begin, end, amount: of each sending, s (running backwards where it uploads) and bytes;
    classes: of each sending; number, row, given: each chosen flow's sending, row in the group and bytes.
    """

    legs: Ints
    begin: Floats
    end: Floats
    amount: Floats
    units: Units
    number: Ints
    row: Ints
    given: Floats

    @property
    def accounted(self) -> Flags:
        """Which sendings are accounted for."""
        return np.asarray(self.units.classes % ACCOUNT_GRADES >= ACCOUNT_BRIDGE_GRADE)


def _by_volumes(number: int, group: Group, volumes: VolumeColumns, settings: Settings, tables: Tables) -> Episode:
    """The strongest link, with every further one that stands by itself and relays the same way."""
    uplink = float(settings.uplink_bytes_threshold)
    scores, side, way, manner = score_links(group, volumes, FEWEST_BRIDGES, uplink, tables)
    best = int(scores.argmax())
    tried = hypotheses(group, FEWEST_BRIDGES)
    every = [tried.rows[a:b] for a, b in zip(tried.begins.tolist(), tried.ends.tolist(), strict=True)]
    same_kind = np.array([group.inbound[every[k][0]] == group.inbound[every[side[best]][0]] for k in side])
    further = (scores >= FURTHER_SIDES) & (way == way[best]) & same_kind
    order = [int(side[best]), *sorted(set(side[further].tolist()) - {int(side[best])})]
    shape = MANNERS[manner[best]]
    links = [_link(group, volumes, every[k], int(way[best]), shape, tables) for k in order]
    links = _distinct(group, links)
    parts = [_accounted(group, volumes, link, shape[2], uploads=way[best] != DOWN) for link in links]
    main = links[0]
    window_s, lag_s, framing = shape[:3].tolist()
    accounted = float(main.amount[main.accounted].sum() / max(main.amount.sum(), 1.0))
    return Episode(
        group=number,
        topology=_topology(group, main.legs, sum(len(part.target) for part in parts)),
        log_evidence=float(max(0.0, scores[best])),
        manner=Manner(window_s, lag_s, framing, bool(way[best] != DOWN), accounted),
        units=main.units,
        legs=np.unique(np.concatenate([link.legs for link in links])),
        bridges=_merged(group, parts),
    )


def _topology(group: Group, legs: Ints, targets: int) -> Topology:
    """How the sessions reach the device: a link for about every session is back-connect, however it was judged."""
    if group.inbound[legs[0]]:
        return Topology.ACCEPTED
    return Topology.BACK_CONNECT if len(legs) >= max(MANY_LINKS, targets / 2) else Topology.TUNNEL


def _distinct(group: Group, links: list[_Link]) -> list[_Link]:
    """Leave out further links that the strongest one uses as targets, or has among its legs."""
    main = links[0]
    taken = set(group.side[main.row[main.accounted[main.number]]].tolist()) | set(group.side[main.legs].tolist())
    return [main, *(link for link in links[1:] if int(group.side[link.legs[0]]) not in taken)]


def _link(group: Group, volumes: VolumeColumns, legs: Ints, way: int, manner: Floats, tables: Tables) -> _Link:
    link, beside = passing_of(group, volumes, legs, way)
    sendings, room = sendings_of(link, manner[3]), scratch()
    classes, _ = account_classes(link, beside, sendings, manner, room)
    number, row, given, worth = chosen_feeders(link, beside, sendings, manner, room)
    number, row, given = number[worth >= NEEDED], row[worth >= NEEDED], given[worth >= NEEDED]
    order = np.lexsort((row, given, number))
    largest = np.full(len(classes), NONE, np.int64)
    largest[number[order]] = row[order]
    units = Units(
        largest,
        classes,
        moved_ratios(link, beside, sendings, manner, tables, room),
        exchanged_ratios(link, beside, sendings, manner, tables, room),
        LINK_SHARES,
    )
    return _Link(legs, sendings.begin, sendings.end, sendings.amount, units, number, row, given)


def _accounted(group: Group, volumes: VolumeColumns, link: _Link, framing: float, *, uploads: bool) -> Bridges:
    """Bridges of one link: each target leg that accounts for part of its sendings."""
    kept = link.accounted[link.number]
    number, row, given = link.number[kept], link.row[kept], link.given[kept]
    whole = _sums(number, given, len(link.amount))
    # Each flow's part of what passed on the link while it was among those that account for it.
    passed = link.amount[number] * given / whole[number]
    worth = np.log(link.units.ratios)[link.units.classes[number]] * given / whole[number]
    targets, place = np.unique(row, return_inverse=True)
    fed = _sums(place, given, len(targets))
    ratio = _over(_sums(place, passed, len(targets)), fed)
    unknown = np.full(len(targets), np.nan)
    return Bridges(
        client=carriers(group, volumes, link.legs, targets, np.asarray(framing * fed), uploads=uploads),
        target=targets,
        lag=_waited(group, volumes, link.legs, targets),
        upstream=_over(np.ones(len(targets)), ratio) if uploads else unknown,
        downstream=unknown if uploads else ratio,
        log_ratio=_sums(place, worth, len(targets)),
        slices=_runs(link, number, place, len(targets)),
    )


def _sums(place: Ints, amount: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(place, amount, count), np.float64)


def _runs(link: _Link, number: Ints, place: Ints, count: int) -> Ints:
    """For each target leg the accounted sendings that silence parts: requests over one kept-alive connection."""
    order = np.lexsort((link.begin[number], place))
    begin, end, who = link.begin[number[order]], link.end[number[order]], place[order]
    apart = np.ones(len(order), np.bool_)
    apart[1:] = (who[1:] != who[:-1]) | (begin[1:] - end[:-1] > PAUSE_S)
    return np.bincount(who[apart], minlength=count).astype(np.int64)


def carriers(
    group: Group, volumes: VolumeColumns, legs: Ints, targets: Ints, expected: Floats, *, uploads: bool
) -> Ints:
    """Of several links the one that each target leg was carried on: what passed on it meanwhile comes nearest to it.

    legs, targets: rows of the group's flows; expected: bytes that carrying each target leg takes; uploads: see Manner.
    """
    passed = passed_meanwhile(group, volumes, legs, targets, uploads=uploads)
    gap = np.abs(np.log((np.maximum(passed, 0.0) + 1.0) / (expected + 1.0)))
    return np.asarray(legs[np.where(passed >= 0.0, gap, np.inf).argmin(axis=0)], np.int64)


def passed_meanwhile(group: Group, volumes: VolumeColumns, legs: Ints, targets: Ints, *, uploads: bool) -> Floats:
    """Bytes that each leg (rows) passed on while each target leg (columns) was open; -1 where it was not open then."""
    passed = np.full((len(legs), len(targets)), -1.0)
    for k, leg in enumerate(legs.tolist()):
        own = np.flatnonzero(volumes.flow == leg)
        amount = volumes.bytes_in[own] if uploads else volumes.bytes_out[own]
        total = np.concatenate([[0.0], np.cumsum(amount)])
        first = np.searchsorted(volumes.time[own], np.floor(group.start[targets]))
        last = np.searchsorted(volumes.time[own], group.end[targets] + PAUSE_S, "right")
        open_then = (group.start[leg] <= group.end[targets]) & (group.end[leg] >= group.start[targets] - EARLY_S)
        passed[k] = np.where(open_then, total[last] - total[first], -1.0)
    return passed


def _waited(group: Group, volumes: VolumeColumns, legs: Ints, targets: Ints) -> Floats:
    """Seconds from what the link last received before each target leg began, or from the link's own begin."""
    own = np.isin(volumes.flow, legs) & (volumes.bytes_in > 0.0)
    heard = np.concatenate([[group.start[legs].min()], np.sort(volumes.time[own])])
    last = heard[np.maximum(np.searchsorted(heard, group.start[targets], "right") - 1, 0)]
    return np.asarray(np.maximum(group.start[targets] - last, 0.0))


def evidence_beyond_one(units: Units, parties: Sequence[str]) -> tuple[float, float]:
    """Natural log evidence that is left without the one party that gives most of it, and with all of them.

    parties: the party at the other end of each unit's row.
    """
    codes: dict[str, int] = {}
    party = np.array([codes.setdefault(name, len(codes)) for name in parties], np.int64)
    classes = len(units.ratios)
    given = np.bincount(party * classes + units.classes, minlength=len(codes) * classes).reshape(-1, classes)
    every = given.sum(axis=0)
    left = [_unit_evidence(units, every - own) for own in np.unique(given, axis=0)]  # most parties give the same
    return min(left, default=0.0), _unit_evidence(units, every)


def _unit_evidence(units: Units, counts: Ints) -> float:
    by_time = log_evidence(units.ratios, counts, units.shares)
    return float(min(by_time, log_evidence(units.size_ratios, counts, units.shares)))
