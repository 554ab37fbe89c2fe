"""Bridges between whole flows: each client leg and the one target leg that it feeds.

A relay sends on what it receives, so a client leg's bytes_in return as the target leg's bytes_out and the target's
bytes_in as the client leg's bytes_out; the target leg opens soon after the client leg, or, where the client leg waited
in a pool, both end together. Works on totals per flow; volumes are not needed.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from relaywatch.detection.calibration import (
    PAIR_EDGES,
    PAIR_NULL,
    PAIR_NULL_WEIGHT,
    PAIR_SURE_GRADE,
    Tables,
)
from relaywatch.detection.chance import (
    FEWEST_UNLIKE,
    RELAYED_SHARES,
    clock_step,
    grade_ratios,
    log_evidence,
    moved,
    ratios_among,
    shifts_within,
    stake,
    timeline_around,
)
from relaywatch.detection.columns import OVERHEAD, Flags, Floats, FlowColumns, Group, Ints, Keys, group_of
from relaywatch.model.compilation import compiled

NO_MATCH: Final = -9.0
UNLIKE: Final = -8.0
"""Score of a pair in reach whose bytes differ by more than FAR: the lowest grade there is for a pair."""
FAR: Final = 8.0
NONE: Final = -1
SOONEST_S: Final = 0.002
"""A target leg waits for the client's request; legs that open at one instant were opened by one cause."""
DATAGRAM: Final = 17
PROMPT_S: Final = 0.005
PROMPT_SHARE: Final = 0.3
"""Datagrams need no handshake and may be sent on at once: within some ms, this share of them."""
REFERENCE_S: Final = 10.0
"""Reach of the unrelated target legs that a start lag is compared with, in s, whatever TimeWindow is."""
EARLY_S: Final = 1.0
"""A back-connect link may open a moment after its target leg."""
TOGETHER_S: Final = 3.0
"""Legs that end within this time of each other end together."""
LARGEST_REACH: Final = 256
FURTHEST_REACH: Final = 16_384
"""Target legs weighed, and flows looked at, per client leg and rule: bounds the work in a burst of flows. Flows of
unlike size are looked at and not weighed, so that small ones cannot crowd out a target leg."""
MOST_SIDES: Final = 64
"""Client sides tried per app, those that send most: a relay sends to its clients all that it carries."""
WAYS: Final = 2.0
"""Each client side is tried by pairs and, where there are volumes, by volumes."""
EXCHANGES: Final = 9
"""Ways in which client legs exchange bytes, spread over the episode so that neighbours' targets stay out of reach."""
EXCHANGES_AT_FIRST: Final = 3
"""Exchanges after which a client side without evidence is given up: most sides are, and the rest cost more."""
TOLD_APART: Final = 0.7
"""Natural log of the ratio from which two byte counts are told apart."""
DOWN_CENTRE, DOWN_SCALE, DOWN_WEIGHT = 0.01, 0.015, 0.85
UP_CENTRE, UP_SCALE, UP_WEIGHT = 0.05, 0.05, 0.7
"""Where conserved bytes of large exchanges peak, how wide, and the belief in the peak: client to target a few per cent
are lost to framing, and requests carry headers that are rewritten."""
SMALL: Final = 200.0
"""Bytes at which agreement counts half."""


@compiled
def _peaked(x: float, centre: float, scale: float, weight: float) -> float:
    """Log ratio of a peak at centre with a broad base over a very broad alternative (natural-log byte ratios)."""
    peak = weight / (2.0 * scale) * np.exp(-abs(x - centre) / scale)
    base = (1.0 - weight) * 0.3989 * np.exp(-0.5 * x * x)
    broad = 0.19947 * np.exp(-0.125 * x * x) + 1e-4
    return float(np.log((peak + base + 1e-6) / broad))


@compiled
def _substance(least: float) -> float:
    """Share of belief that two byte counts deserve: small exchanges look alike without being the same."""
    return least / (least + SMALL)


@compiled
def _conserved(one: float, other: float, centre: float, scale: float, weight: float) -> float:
    """Log ratio that bytes are conserved one way. one, other: natural log of bytes and OVERHEAD on each leg."""
    padded = np.exp(min(one, other))
    return _peaked(one - other, centre, scale + OVERHEAD / padded, weight * _substance(padded - OVERHEAD))


@compiled
def conservation(client_out: float, client_in: float, target_out: float, target_in: float) -> float:
    """Log ratio that a pair of legs conserves bytes, directions swapped, in both directions.

    All four: natural log of bytes and OVERHEAD.
    """
    down = _conserved(client_out, target_in, DOWN_CENTRE, DOWN_SCALE, DOWN_WEIGHT)
    return float(down + _conserved(client_in, target_out, UP_CENTRE, UP_SCALE, UP_WEIGHT))


@compiled
def _timing(lag: float, end_gap: float, window: float, datagrams: bool) -> float:  # noqa: FBT001  a kernel
    """Log ratio of start lag (s, client to target) or common end over a target leg anywhere in REFERENCE_S."""
    best = NO_MATCH
    if datagrams and 0.0 <= lag <= window:
        prompt = PROMPT_SHARE * REFERENCE_S / PROMPT_S * np.exp(-lag / PROMPT_S)
        best = np.log(prompt + 1.5 * REFERENCE_S * np.exp(-lag / 0.4) + 0.4)
    elif SOONEST_S <= lag <= window:
        best = np.log(1.5 * REFERENCE_S * np.exp(-lag / 0.4) + 0.4)
    elif -EARLY_S <= lag < SOONEST_S:
        best = np.log(0.2)
    if end_gap <= TOGETHER_S:
        best = max(best, np.log(0.3 * REFERENCE_S * np.exp(-end_gap / 0.4) + 0.2))
    return float(best)


def _most_conserved(centre: float, scale: float, weight: float) -> Floats:
    """Upper bound of _conserved by size and by distance from 0 (natural logs, in bins; the last is of all beyond)."""
    distance = np.arange(DISTANCE_BINS) * DISTANCE_BIN
    further = np.append(distance[1:], np.inf)
    off = np.maximum(distance - centre, 0.0)
    low, high = (np.exp(np.arange(k, SIZE_BINS + k)[:, None] * SIZE_BIN).clip(OVERHEAD) for k in (0, 1))
    # Of the scales of these sizes the one nearest to the distance is highest there.
    nearest = np.clip(off, scale + OVERHEAD / high, scale + OVERHEAD / low)
    peak = np.exp(-off / nearest) / (2.0 * nearest)
    base = (1.0 - weight * (low - OVERHEAD) / (low - OVERHEAD + SMALL)) * 0.3989 * np.exp(-0.5 * distance**2)
    most = weight * (high - OVERHEAD) / (high - OVERHEAD + SMALL) * peak + base + 1e-6
    return np.asarray(np.log(most / (0.19947 * np.exp(-0.125 * further**2) + 1e-4)))


DISTANCE_BIN: Final = 0.0625
DISTANCE_BINS: Final = 128
SIZE_BIN: Final = 0.5
SIZE_BINS: Final = 32
LAG_BIN: Final = 0.05
LAG_BINS: Final = 64
_MOST_DOWN: Final = _most_conserved(DOWN_CENTRE, DOWN_SCALE, DOWN_WEIGHT)
_MOST_UP: Final = _most_conserved(UP_CENTRE, UP_SCALE, UP_WEIGHT)
_LAGS: Final = np.arange(LAG_BINS) * LAG_BIN
_MOST_BY_START: Final = np.log(1.5 * REFERENCE_S * np.exp(-_LAGS / 0.4) + 0.4)
_MOST_BY_END: Final = np.log(0.3 * REFERENCE_S * np.exp(-_LAGS / 0.4) + 0.2)
_MOST_EARLY: Final = float(np.log(0.2))
"""Upper bounds of `_timing` by lag of the start, by gap of the ends (in bins) and of early targets; datagrams aside."""
_SURE: Final = float(PAIR_EDGES[PAIR_SURE_GRADE - 1])
_BELOW_SURE: Final = float(np.nextafter(_SURE, -np.inf))
_LOG_FAR: Final = float(np.log(FAR))


def _near(time: Floats) -> Floats:
    """Distances of bytes, one of which a sure pair must come below in one direction, by most that its time gives."""
    most = sum(np.maximum.accumulate(bound.max(axis=0)[::-1])[::-1] for bound in (_MOST_DOWN, _MOST_UP))
    return np.asarray(DISTANCE_BIN * (most > _SURE - SLACK - np.asarray(time)[..., None]).sum(axis=-1))


SLACK: Final = 1e-6
"""What rounding may add to a bound."""
_NEAR_BY_START: Final = _near(np.maximum(_MOST_BY_START, _MOST_EARLY))
_NEAR_BY_END: Final = _near(_MOST_BY_END)
NO_TARGET: Final = 0
TOO_UNLIKE: Final = 1
TOO_WEAK: Final = 2
MAY_REACH: Final = 3
"""What is known of a pair before it is scored."""


@compiled
def _bins(one: float, other: float) -> tuple[int, int]:
    """Indices of a bound of `_conserved`. one, other: as there."""
    size = min(int(min(one, other) * (1.0 / SIZE_BIN)), SIZE_BINS - 1)
    return size, min(int(abs(one - other) * (1.0 / DISTANCE_BIN)), DISTANCE_BINS - 1)


@compiled
def _prospect(group: Group, leg: int, donor: int, row: int, at: float, until: float, asked: float) -> int:
    """NO_TARGET where row cannot be leg's target, TOO_UNLIKE, MAY_REACH where its score may be `asked`, else TOO_WEAK.

    Most pairs are ruled out by it, at a tenth of the cost of their score.
    """
    if group.inbound[row] or group.side[row] == group.side[leg]:
        return NO_TARGET
    if group.bytes_in[row] < 0.0 or group.bytes_out[row] < 0.0:
        return NO_TARGET
    if group.lookup[row] and not (group.inbound[leg] and group.protocol[row] == group.protocol[leg]):
        return NO_TARGET
    if abs(group.log_out[donor] - group.log_in[row]) >= _LOG_FAR:
        return TOO_UNLIKE
    if group.inbound[leg] and group.protocol[leg] == DATAGRAM:
        return MAY_REACH
    lag, gap = group.start[row] - at, abs(group.end[row] - until)
    most = _MOST_EARLY
    if lag >= SOONEST_S:
        most = _MOST_BY_START[min(int(lag * (1.0 / LAG_BIN)), LAG_BINS - 1)]
    if gap <= TOGETHER_S:
        most = max(most, _MOST_BY_END[min(int(gap * (1.0 / LAG_BIN)), LAG_BINS - 1)])
    most += _MOST_DOWN[_bins(group.log_out[donor], group.log_in[row])]
    most += _MOST_UP[_bins(group.log_in[donor], group.log_out[row])]
    return MAY_REACH if most >= asked else TOO_WEAK


@compiled
def _score(group: Group, leg: int, donor: int, row: int, at: float, until: float, window: float) -> float:
    """Score of a pair that MAY_REACH; NO_MATCH where it is out of reach."""
    datagrams = group.inbound[leg] and group.protocol[leg] == DATAGRAM and group.protocol[row] == DATAGRAM
    time = _timing(group.start[row] - at, abs(group.end[row] - until), window, datagrams)
    if time <= NO_MATCH:
        return NO_MATCH
    sent, received = group.log_out[donor], group.log_in[donor]
    return time + conservation(sent, received, group.log_out[row], group.log_in[row])


@compiled
def pair_score(group: Group, leg: int, row: int, window: float) -> float:
    """Score of one pair: NO_MATCH where row is no target of leg or out of reach, UNLIKE where it is too unlike."""
    at, until = group.start[leg], group.end[leg]
    prospect = _prospect(group, leg, leg, row, at, until, NO_MATCH)
    if prospect == MAY_REACH:
        return _score(group, leg, leg, row, at, until, window)
    return UNLIKE if prospect == TOO_UNLIKE else NO_MATCH


@compiled
def _place(values: Floats, bound: float) -> int:
    """Place of the first value that is not below the bound, of rising ones."""
    first, count = 0, len(values)
    while count > 0:
        half = count >> 1
        below = values[first + half] < bound
        first += (half + 1) * below
        count = count - half - 1 if below else half
    return first


@compiled
def _asked(best: float, graded: bool) -> float:  # noqa: FBT001  a kernel
    """What the score of another pair must reach to matter; where only grades are asked for, the next grade."""
    if not graded:
        return best
    grade = int(np.searchsorted(PAIR_EDGES, best, "right"))
    return float(PAIR_EDGES[grade]) - SLACK if grade < len(PAIR_EDGES) else np.inf


@compiled
def _best_target(
    group: Group,
    leg: int,
    donor: int,
    at: float,
    until: float,
    window: float,
    least: float,
    enough: float,
    graded: bool,  # noqa: FBT001  a kernel
) -> tuple[float, int]:
    """The best-scoring target leg of a client leg as if it lasted from `at` to `until` with the bytes of `donor`.

    least: what a score must exceed; enough: the score at which the search may stop; graded: some target leg of the best
    one's grade will do.
    """
    best, found, asked = least, NONE, _asked(least, graded)
    for by_end in range(1 if group.inbound[leg] else 2):
        weighed, times, begin, last = 0, group.start, at - EARLY_S, at + window
        if by_end:
            times, begin, last = group.ends, until - TOGETHER_S, until + TOGETHER_S
        first = _place(times, begin)
        for k in range(first, min(first + FURTHEST_REACH, len(times))):
            if times[k] > last or weighed >= LARGEST_REACH or best >= enough:
                break
            row = group.by_end[k] if by_end else k
            prospect = _prospect(group, leg, donor, row, at, until, asked)
            weighed += prospect >= TOO_WEAK
            score = UNLIKE if prospect == TOO_UNLIKE else NO_MATCH
            if prospect == MAY_REACH:
                score = _score(group, leg, donor, row, at, until, window)
            if score > best:
                best, found, asked = score, row, _asked(score, graded)
    return best, found


@compiled
def _mark_near(group: Group, rows: Ints, times: Floats, reach: float, near: Floats, may: Flags) -> None:
    """Mark flows that may make a sure pair with one whose time is within reach, as a client leg of either way round.

    times: of the rows, rising; near: distance of bytes by LAG_BIN of the times' difference.
    """
    log_out, log_in = group.log_out[rows], group.log_in[rows]
    for k in range(len(rows)):
        sent, received = log_out[k], log_in[k]
        for other in range(k + 1, len(rows)):
            gap = times[other] - times[k]
            if gap > reach:
                break
            most = near[min(int(gap * (1.0 / LAG_BIN)), LAG_BINS - 1)]
            if abs(sent - log_in[other]) >= most and abs(received - log_out[other]) >= most:
                continue
            for turned in range(2):
                leg, row = (rows[other], rows[k]) if turned else (rows[k], rows[other])
                if not may[leg]:
                    at, until = group.start[leg], group.end[leg]
                    may[leg] = _prospect(group, leg, leg, row, at, until, _BELOW_SURE) == MAY_REACH


@compiled
def sure_prospects(group: Group, window: float) -> Flags:
    """Flows that may make a sure pair as a client leg: the others make none.

    Flows near in time are compared once, for both ways round and for all client sides; few pairs come near in bytes.
    """
    count = len(group.start)
    if count > FURTHEST_REACH:  # so many are not all compared with each other
        return np.ones(count, np.bool_)
    may: Flags = group.inbound & (group.protocol == DATAGRAM)
    _mark_near(group, np.arange(count), group.start, max(window, EARLY_S), _NEAR_BY_START, may)
    _mark_near(group, group.by_end, group.ends, TOGETHER_S, _NEAR_BY_END, may)
    return may


@compiled
def has_sure(group: Group, legs: Ints, window: float, sessions: int, may: Flags) -> bool:
    """Whether at least `sessions` of the client legs make sure pairs. may: as sure_prospects gives it."""
    legs, found = legs[may[legs]], 0
    for i in range(len(legs)):
        leg = legs[i]
        if found + len(legs) - i < sessions:
            return False
        if group.bytes_out[leg] >= 0.0 and group.bytes_in[leg] >= 0.0:
            at, until = group.start[leg], group.end[leg]
            best, _ = _best_target(group, leg, leg, at, until, window, _BELOW_SURE, _SURE, graded=False)
            found += best >= _SURE
    return found >= sessions


@compiled
def match_legs(group: Group, legs: Ints, donors: Ints, at: Floats, until: Floats, window: float) -> tuple[Floats, Ints]:
    """Score and row of the best target leg of each client leg.

    legs: rows of the client legs in the group; donors: rows whose bytes stand in for theirs; at, until: their begin and
    end, s. Score NO_MATCH and row NONE where there is none.
    """
    scores = np.full(len(legs), NO_MATCH)
    rows = np.full(len(legs), NONE, np.int64)
    for i in range(len(legs)):
        if group.bytes_out[donors[i]] >= 0.0 and group.bytes_in[donors[i]] >= 0.0:
            scores[i], rows[i] = _best_target(
                group, legs[i], donors[i], at[i], until[i], window, NO_MATCH, np.inf, graded=False
            )
    return scores, rows


@compiled
def own_match(group: Group, legs: Ints, donors: Ints, window: float) -> tuple[Floats, Ints]:
    """As match_legs, each client leg at its own time."""
    return match_legs(group, legs, donors, group.start[legs], group.end[legs], window)


@compiled
def grade_counts(group: Group, legs: Ints, donors: Ints, at: Floats, until: Floats, window: float) -> Ints:
    """How many client legs' best scores fall into each grade. Arguments as in match_legs."""
    counts = np.zeros(len(PAIR_EDGES) + 1, np.int64)
    for i in range(len(legs)):
        score = NO_MATCH
        if group.bytes_out[donors[i]] >= 0.0 and group.bytes_in[donors[i]] >= 0.0:
            score, _ = _best_target(group, legs[i], donors[i], at[i], until[i], window, NO_MATCH, np.inf, graded=True)
        counts[np.searchsorted(PAIR_EDGES, score, "right")] += 1
    return counts


@compiled
def own_grades(group: Group, legs: Ints, donors: Ints, window: float) -> Ints:
    """As grade_counts, each client leg at its own time."""
    return grade_counts(group, legs, donors, group.start[legs], group.end[legs], window)


@compiled
def leg_ratios(group: Group, legs: Ints, window: float, tables: Tables) -> Floats:
    """Likelihood ratio of each grade for these client legs: the lesser of two, against two nulls of their own.

    The legs moved in time (bursts do not explain the match), and the legs with their bytes exchanged (bursts do
    happen together, and then some bytes agree).
    """
    null = np.zeros(len(PAIR_EDGES) + 1)
    step, inbound = clock_step(group.start), group.inbound[legs[0]]
    begin, end = group.start[legs], group.end[legs]
    # A dialled leg may be matched by its end, too.
    line = timeline_around(begin, begin) if inbound else timeline_around(np.append(begin, end), np.append(begin, end))
    at, until = np.empty(len(legs)), np.empty(len(legs))
    for shift in shifts_within(line.before[-1]):
        if step > 0.0:  # off the clock's steps nothing coincides, whether by chance or not
            shift = max(1.0, np.round(shift / step)) * step
        for i in range(len(legs)):
            at[i] = moved(begin[i], shift, line)
            until[i] = end[i] if inbound else moved(end[i], shift, line)
        null += grade_counts(group, legs, legs, at, until, window)
    ratios = grade_ratios(null, tables.pair_relay, PAIR_NULL, PAIR_NULL_WEIGHT)
    return np.minimum(ratios, _exchanged_ratios(group, legs, window, EXCHANGES, tables, np.zeros(0, np.int64)))


@compiled
def _unlike(count: Floats, legs: Ints, donors: Ints) -> Flags:
    """Where the byte counts of two legs can be told apart; an exchange of equal ones would exchange nothing."""
    return np.abs(np.log((count[legs] + OVERHEAD) / (count[donors] + OVERHEAD))) > TOLD_APART


@compiled
def _exchanged_ratios(group: Group, legs: Ints, window: float, exchanges: int, tables: Tables, counts: Ints) -> Floats:
    """Likelihood ratio of each grade against the client legs with their bytes exchanged in `exchanges` ways.

    Where nearly all legs are alike, exchanges of alike ones count too, unless strangers opened the legs: the app opens
    its own at one time for one cause. counts: of its own pairs' grades: as soon as no further exchange can leave
    evidence of them, upper bounds are given that leave none; empty: all are made.
    """
    unlike_only, every = np.zeros(len(PAIR_EDGES) + 1), np.zeros(len(PAIR_EDGES) + 1)
    legs_in_all = len(legs)
    ways = min(exchanges, legs_in_all - 1)
    for k in range(ways):
        distance = 1 + k * (legs_in_all - 1) // exchanges if legs_in_all > exchanges else 1 + k
        donors = np.roll(legs, distance)
        unlike = _unlike(group.bytes_out, legs, donors) | _unlike(group.bytes_in, legs, donors)
        met = own_grades(group, legs[unlike], donors[unlike], window)
        unlike_only += met
        every += met
        if len(counts) > 0 and k + 1 < ways:
            most = ratios_among(unlike_only, ways * legs_in_all, tables.pair_relay, PAIR_NULL, PAIR_NULL_WEIGHT)
            if log_evidence(most, counts, RELAYED_SHARES) < -SLACK:
                return most
        if not group.inbound[legs[0]] and unlike.mean() < FEWEST_UNLIKE:
            every += own_grades(group, legs[~unlike], donors[~unlike], window)
    enough = unlike_only.sum() >= FEWEST_UNLIKE * every.sum()
    return grade_ratios(unlike_only if enough else every, tables.pair_relay, PAIR_NULL, PAIR_NULL_WEIGHT)


@compiled
def may_bridge(group: Group, legs: Ints, counts: Ints, window: float, tables: Tables) -> bool:
    """Whether a few exchanges leave evidence for one client side; counts: of its pairs' grades."""
    at_first = _exchanged_ratios(group, legs, window, EXCHANGES_AT_FIRST, tables, counts)
    return log_evidence(at_first, counts, RELAYED_SHARES) > 0.0


@compiled
def _score_side(
    group: Group, legs: Ints, window: float, sessions: int, may: Flags, tables: Tables
) -> tuple[float, Floats]:
    """Log evidence of one client side, and the likelihood ratio of each grade; -inf below `sessions` sure bridges.

    may: as sure_prospects gives it.
    """
    none = np.ones(len(PAIR_EDGES) + 1)
    if not has_sure(group, legs, window, sessions, may):
        return -np.inf, none
    counts = own_grades(group, legs, legs, window)
    if not may_bridge(group, legs, counts, window, tables):
        return -np.inf, none
    ratios = leg_ratios(group, legs, window, tables)
    return log_evidence(ratios, counts, RELAYED_SHARES), ratios


@compiled
def side_bounds(sides: Keys) -> tuple[Ints, Ints]:
    """Rows ordered by client side, and where each side begins in that order (with the end appended)."""
    order = np.argsort(sides, kind="mergesort")
    ordered = sides[order]
    bounds = np.empty(len(order) + 1, np.int64)
    count = 0
    for k in range(len(order)):
        if k == 0 or ordered[k] != ordered[k - 1]:
            bounds[count] = k
            count += 1
    bounds[count] = len(order)
    return order, bounds[: count + 1]


@compiled
def largest_sides(group: Group, uplink: float) -> tuple[Ints, Ints, Ints, Floats]:
    """The MOST_SIDES client sides that send most, each at least `uplink` bytes and more than none.

    Rows ordered by side; for each side where it begins and ends in that order, and the bytes that it sends.
    """
    order, bounds = side_bounds(group.side)
    running = np.zeros(len(order) + 1)
    running[1:] = np.cumsum(np.maximum(group.bytes_out[order], 0.0))
    sent = running[bounds[1:]] - running[bounds[:-1]]
    ranked = np.argsort(-sent, kind="mergesort")[:MOST_SIDES]
    ranked = ranked[(sent[ranked] >= uplink) & (sent[ranked] > 0.0)]
    return order, bounds[ranked], bounds[ranked + 1], sent[ranked]


@compiled
def score_sides(
    group: Group, window: float, sessions: int, uplink: float, tables: Tables
) -> tuple[Floats, Ints, Floats]:
    """Each client side tried: its natural log evidence with its stake, its first row, its grades' likelihood ratios.

    Evidence is -inf, and ratios say nothing, where a side has fewer than `sessions` sure bridges. Nothing is tried by a
    clock so coarse that half of `window` passes between two of its steps: legs that open in one step are then no sign
    of anything.
    """
    grades = len(PAIR_EDGES) + 1
    if clock_step(group.start) > window / 2.0:
        return np.zeros(0), np.zeros(0, np.int64), np.zeros((0, grades))
    sent_in_all = np.maximum(group.bytes_out, 0.0).sum()
    order, begins, ends, sent = largest_sides(group, uplink)
    evidence, first, ratios = np.zeros(len(begins)), np.zeros(len(begins), np.int64), np.ones((len(begins), grades))
    may, tried = sure_prospects(group, window), 0
    for k in range(len(begins)):
        legs = order[begins[k] : ends[k]]
        if len(legs) < sessions:
            continue
        told, ratios[tried] = _score_side(group, legs, window, sessions, may, tables)
        evidence[tried] = told + stake(sent[k], sent_in_all, WAYS)
        first[tried] = legs[0]
        tried += 1
    return evidence[:tried], first[:tried], ratios[:tried]


@compiled
def score_bridging(flows: FlowColumns, window: float, sessions: int, uplink: float, tables: Tables) -> Floats:
    """Evidence that legs of each group are bridged one to one.

    window: TimeWindow in s; sessions: fewest bridges worth a score; uplink: UplinkBytesThreshold in bytes; tables: what
    is measured of relays.
    Returns the natural log evidence of each group's strongest client side, its stake counted; 0 where there is none.
    """
    groups = len(flows.offsets) - 1
    result = np.zeros(groups)
    for g in range(groups):
        if flows.offsets[g + 1] - flows.offsets[g] >= 2 * sessions:
            evidence = score_sides(group_of(flows, g), window, sessions, uplink, tables)[0]
            if len(evidence) > 0:
                result[g] = max(0.0, evidence.max())
    return result
