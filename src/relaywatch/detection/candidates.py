"""Every pair of legs that may be a bridge, with its score: what a finding's bridges are chosen from, for evaluation.

A pair's score is the natural log of (the belief that its client side relays, times the share of the pair among all
that compete for the same legs), so that scores of different apps can be ranked together.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import (
    EARLY_S,
    FURTHEST_REACH,
    NO_MATCH,
    TOGETHER_S,
    UNLIKE,
    pair_score,
    score_sides,
)
from relaywatch.detection.calibration import FEWEST_BRIDGES, PRIOR_LOG_ODDS, Tables
from relaywatch.detection.columns import Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.detection.episode import PAIRS_SUFFICE, passed_meanwhile
from relaywatch.detection.settings import Settings
from relaywatch.detection.totals import fed_link, score_totals
from relaywatch.detection.tunnelling import (
    DOWN,
    MANNERS,
    chosen_feeders,
    hypotheses,
    passing_of,
    score_links,
    scratch,
    sendings_of,
    volumes_of,
)
from relaywatch.model.compilation import compiled

WORTH_LISTING: Final = -10.0
"""Natural log evidence of a client side below which its pairs are not listed."""
NO_PARTNER: Final = 2.0
"""Score of "none of them", against which a leg's possible partners compete."""
TOTALS_ONLY: Final = -9.0
"""Natural log of the belief in a link of which only totals are known."""
LEAST_SHARE: Final = 1e-3


class Candidates(NamedTuple):
    """Pairs of one group's flows, one value each. client, target: rows; score: natural log, 0 at the most."""

    client: Ints
    target: Ints
    score: Floats


@compiled
def _reach(group: Group, legs: Ints, window: float) -> tuple[Ints, Ints, Floats]:
    """Every target leg within reach of each client leg: place in legs, row, score of the pair."""
    most = 1_024
    place, target, score = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    count = 0
    for i in range(len(legs)):
        at, until = group.start[legs[i]], group.end[legs[i]]
        first = np.searchsorted(group.start, at - EARLY_S)
        begun = np.searchsorted(group.start, at + window, "right")
        rows = np.arange(first, min(begun, first + FURTHEST_REACH))
        if not group.inbound[legs[i]]:
            low = np.searchsorted(group.ends, until - TOGETHER_S)
            high = np.searchsorted(group.ends, until + TOGETHER_S, "right")
            rows = np.unique(np.concatenate((rows, group.by_end[low : min(high, low + FURTHEST_REACH)])))
        for row in rows:
            found = pair_score(group, legs[i], row, window)
            if found <= UNLIKE:
                continue
            if count == most:
                most *= 2
                place, target = np.append(place, np.empty_like(place)), np.append(target, np.empty_like(target))
                score = np.append(score, np.empty_like(score))
            place[count], target[count], score[count] = i, row, found
            count += 1
    return place[:count], target[:count], score[:count]


def _belief(evidence: float) -> float:
    """Natural log of the probability that a client side with this evidence relays."""
    odds = evidence + PRIOR_LOG_ODDS
    return -math.log1p(math.exp(-odds)) if odds > NO_MATCH else odds


def _rivalled(score: Floats, place: Ints) -> Floats:
    """Natural log share of each score among those with the same place, and NO_PARTNER."""
    weight = np.exp(score)
    return np.asarray(score - np.log(np.bincount(place, weight)[place] + math.exp(NO_PARTNER)))


def _of_pairs(group: Group, evidence: Floats, first: Ints, window: float) -> list[Candidates]:
    """Pairs of the client sides that were tried by pairs: their evidence and first rows."""
    found = []
    for value, row in zip(evidence.tolist(), first.tolist(), strict=True):
        if value < WORTH_LISTING:
            continue
        legs = np.flatnonzero(group.side == group.side[row])
        place, target, score = _reach(group, legs, window)
        rivalled = _rivalled(score, place) + _rivalled(score, target)
        found.append(Candidates(legs[place], target, _belief(value) + rivalled))
    return found


def _of_links(
    group: Group, volumes: VolumeColumns, evidence: Floats, sides: Ints, ways: Ints, manners: Ints
) -> list[Candidates]:
    """Pairs of the links that were tried: as score_links gives them."""
    tried = hypotheses(group, FEWEST_BRIDGES)
    found = []
    for k in np.flatnonzero(evidence >= WORTH_LISTING).tolist():
        legs = tried.rows[tried.begins[sides[k]] : tried.ends[sides[k]]]
        manner = MANNERS[manners[k]]
        link, beside = passing_of(group, volumes, legs, int(ways[k]))
        _, row, given, worth = chosen_feeders(link, beside, sendings_of(link, manner[3]), manner, scratch())
        targets, place = np.unique(row, return_inverse=True)
        total = np.bincount(beside.flow, beside.amount, len(group.side))[targets]
        share = np.bincount(place, given * worth, len(targets)) / total
        score = _belief(float(evidence[k])) + np.log(np.clip(share, LEAST_SHARE, 1.0))
        passed = np.maximum(passed_meanwhile(group, volumes, legs, targets, uploads=bool(ways[k] != DOWN)), 0.0)
        leg, column = np.nonzero(passed)
        part = passed[leg, column] / passed.sum(axis=0)[column]
        found.append(Candidates(legs[leg], targets[column], score[column] + np.log(part)))
    return found


def _of_totals(flows: FlowColumns, number: int, settings: Settings) -> list[Candidates]:
    """Pairs of a link that is known by totals only: each flow that could have fed it, with every leg open then."""
    uplink = float(settings.uplink_bytes_threshold)
    if not score_totals(flows, uplink)[number]:
        return []
    group, link = group_of(flows, number), fed_link(flows, number, uplink)
    begun = group.start[link.legs][:, None] <= group.start[link.targets]
    leg, column = np.nonzero(begun & (group.end[link.legs][:, None] >= group.start[link.targets]))
    score = np.full(len(leg), TOTALS_ONLY - abs(math.log(link.ratio)))
    return [Candidates(link.legs[leg], link.targets[column], score)]


def candidate_pairs(
    flows: FlowColumns, volumes: VolumeColumns, number: int, settings: Settings, tables: Tables
) -> Candidates:
    """All pairs of group `number` that may be bridges, each once with its best score, by client and target.

    Pairs that are not listed have no score: nothing speaks for them.
    """
    group, uplink = group_of(flows, number), float(settings.uplink_bytes_threshold)
    sides, first, _ = score_sides(group, settings.time_window_s, FEWEST_BRIDGES, uplink, tables)
    found = _of_pairs(group, sides, first, settings.time_window_s)
    if volumes.offsets[number] == volumes.offsets[number + 1]:
        if sides.max(initial=0.0) < PAIRS_SUFFICE:
            found += _of_totals(flows, number, settings)
    else:
        own = volumes_of(flows, volumes, number)
        links = score_links(group, own, FEWEST_BRIDGES, uplink, tables)
        if sides.max(initial=0.0) < min(links[0].max(initial=0.0), PAIRS_SUFFICE):
            found = _of_links(group, own, *links)
    if not found:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    client, target, score = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((-score, target, client))
    kept = order[np.unique(client[order] * len(group.side) + target[order], return_index=True)[1]]
    return Candidates(client[kept], target[kept], score[kept])
