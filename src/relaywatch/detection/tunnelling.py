"""Tunnels: links that carry many sessions, each thing they send accounted for by what other flows just received.

Needs volumes. What a link sends without a pause is one sending. For each sending, a set of the flows beside it is
sought that, each taken whole, sums second by second to what left (`_account`). A relay's link sends nothing that it was
not fed, so nearly all its sendings have such a set; an app's own traffic may run beside it, since no flow has to be in
the set. Uploads are the same seen backwards: what the link receives is accounted for by what other flows send next.

Choosing sets makes chance matches common where many flows are busy at once. The nulls choose sets in the same way, for
sendings moved in time and for sendings of another one's size, so they tell what the freedom of choice is worth.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import largest_sides
from relaywatch.detection.calibration import (
    ACCOUNT_BRIDGE_GRADE,
    ACCOUNT_EDGES,
    ACCOUNT_GRADES,
    ACCOUNT_NULL,
    ACCOUNT_NULL_WEIGHT,
    ACCOUNT_SIZES,
    Tables,
)
from relaywatch.detection.chance import (
    FEWEST_UNLIKE,
    LINK_SHARES,
    grade_ratios,
    log_evidence,
    moved,
    shifts_within,
    stake,
    timeline_around,
)
from relaywatch.detection.columns import Flags, Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.model.compilation import compiled

MANNERS: Final = np.array(
    [
        [2.0, 0.0, 1.02, 10.0, 0.28],
        [2.0, 0.0, 1.36, 10.0, 0.14],
        [6.0, 0.0, 1.02, 16.0, 0.10],
        [6.0, 0.0, 1.36, 16.0, 0.08],
        [6.0, 2.0, 1.02, 16.0, 0.08],
        [6.0, 2.0, 1.36, 16.0, 0.04],
        [16.0, 2.0, 1.02, 24.0, 0.12],
        [16.0, 2.0, 1.36, 24.0, 0.04],
        [16.0, 8.0, 1.02, 24.0, 0.04],
        [6.0, 2.0, 0.5, 16.0, 0.08],
    ]
)
"""How a link may relay. Window in s over which bytes are summed (what is held back by a varying time less than that
stays in it); further delay in s; bytes passed on for each byte carried (binary frames within TLS or SSH, base64 within
JSON, compressed); longest sending in s; and the share of belief staked on it."""
DOWN: Final = 0
UP: Final = 1
WAY_STAKES: Final = np.array([0.7, 0.3])
"""Belief staked on a link that sends what others receive, and on one that brings what others send."""
ALONE_STAKE: Final = 0.8
TOGETHER_STAKE: Final = 0.2
"""Belief staked on a client side by itself, and on all upload-heavy ones together as links to several gateways."""
BESIDE_PAIRS: Final = 0.5
"""Belief left for volumes where a client side has legs enough to be tried by pairs."""
MOST_SENDERS: Final = 16
MOST_RECEIVERS: Final = 4
MOST_TOGETHER: Final = 8
"""Client sides tried: those that send most, those that receive most, and how many may be links of one relay."""
UPLOAD_HEAVY: Final = 1.5
PAUSE_S: Final = 2.0
"""Silence that parts two sendings."""
LEAST_SENDING: Final = 300.0
"""Bytes of a sending that is judged: keep-alives are not."""
MOST_SENDINGS: Final = 400
"""Sendings judged of one link, the largest ones: bounds the work."""
LONGEST_S: Final = 64
MOST_FEEDERS: Final = 256
"""Flows weighed for one sending."""
PASSES: Final = 2
EXCHANGES: Final = 9
"""Ways in which sendings exchange sizes, spread over the activity."""
UNLIKE: Final = 0.5
"""Natural log of the ratio from which two sizes are told apart; an exchange of like ones would exchange nothing."""
LEAST_PROMISE: Final = 2.0
"""Natural log evidence, against what is assumed of all apps, below which a link's own nulls are not tried."""


class Passing(NamedTuple):
    """Bytes that pass on some flows, by time. second: whole s; flow: row in the group; amount: bytes, above 0."""

    second: Floats
    flow: Ints
    amount: Floats


class Sendings(NamedTuple):
    """What a link passes on without a pause. begin, end: its first and last second; amount: bytes."""

    begin: Floats
    end: Floats
    amount: Floats


class Scratch(NamedTuple):
    """Room for one sending: bytes by (flow, second), the flows' rows, bytes, choice, and what is left by second."""

    carried: Floats
    flow: Ints
    total: Floats
    chosen: Flags
    left: Floats


class Hypotheses(NamedTuple):
    """Client sides tried as links. Side k is rows[begins[k] : ends[k]] of the group's flows.

    stakes: natural log of the belief staked on each side, a column a way (DOWN, UP); -inf where it is not tried.
    """

    rows: Ints
    begins: Ints
    ends: Ints
    stakes: Floats


@compiled
def volumes_of(flows: FlowColumns, volumes: VolumeColumns, number: int) -> VolumeColumns:
    """The volumes of one group, flow rows counted from the group's first."""
    low, high = volumes.offsets[number], volumes.offsets[number + 1]
    return VolumeColumns(
        volumes.offsets[number : number + 2],
        volumes.flow[low:high] - flows.offsets[number],
        volumes.time[low:high],
        volumes.bytes_out[low:high],
        volumes.bytes_in[low:high],
    )


@compiled
def hypotheses(group: Group, sessions: int) -> Hypotheses:
    """The client sides worth trying as links: the largest senders and receivers, and upload-heavy ones together."""
    order, begins, ends, sent = largest_sides(group, 0.0)
    sides = len(begins)
    received = np.zeros(sides)
    for k in range(sides):
        received[k] = np.maximum(group.bytes_in[order[begins[k] : ends[k]]], 0.0).sum()
    tried = np.zeros(sides, np.bool_)
    tried[:MOST_SENDERS] = True
    tried[np.argsort(-received, kind="mergesort")[:MOST_RECEIVERS]] = True
    all_sent = max(np.maximum(group.bytes_out, 0.0).sum(), 1.0)
    all_received = max(np.maximum(group.bytes_in, 0.0).sum(), 1.0)
    stakes = np.full((sides + 1, 2), -np.inf)
    together = np.empty(0, np.int64)
    members, sent_together = 0, 0.0
    for k in range(sides):
        part = ALONE_STAKE * (BESIDE_PAIRS if ends[k] - begins[k] >= sessions else 1.0)
        if tried[k]:
            stakes[k, DOWN] = stake(sent[k], all_sent, 1.0 / (part * WAY_STAKES[DOWN]))
            stakes[k, UP] = stake(max(received[k], 1.0), all_received, 1.0 / (part * WAY_STAKES[UP]))
        if members < MOST_TOGETHER and sent[k] > UPLOAD_HEAVY * received[k]:
            together = np.concatenate((together, order[begins[k] : ends[k]]))
            members, sent_together = members + 1, sent_together + sent[k]
    if members > 1:
        stakes[sides, DOWN] = stake(sent_together, all_sent, 1.0 / (TOGETHER_STAKE * BESIDE_PAIRS * WAY_STAKES[DOWN]))
    together.sort()
    return Hypotheses(
        np.concatenate((order, together)),
        np.append(begins, len(order)),
        np.append(ends, len(order) + len(together)),
        stakes,
    )


@compiled
def _by_time(second: Floats, flow: Ints, amount: Floats) -> Passing:
    kept = np.flatnonzero(amount > 0.0)
    kept = kept[np.argsort(second[kept], kind="mergesort")]
    return Passing(second[kept], flow[kept], amount[kept])


@compiled
def passing_of(group: Group, volumes: VolumeColumns, legs: Ints, way: int) -> tuple[Passing, Passing]:
    """What passes on a link, and on the possible target legs beside it, in one way.

    DOWN: what the link sends, what the others receive. UP: what the link receives and what the others send, with time
    running backwards, so that there too the others' bytes come first.
    """
    member = np.zeros(len(group.side), np.bool_)
    member[legs] = True
    own = member[volumes.flow]
    other = ~own & (~group.inbound & ~group.lookup)[volumes.flow]
    second = np.floor(volumes.time)
    if way == DOWN:
        given, taken = volumes.bytes_out, volumes.bytes_in
    else:
        given, taken, second = volumes.bytes_in, volumes.bytes_out, -second
    link = _by_time(second[own], volumes.flow[own], given[own])
    return link, _by_time(second[other], volumes.flow[other], taken[other])


@compiled
def sendings_of(link: Passing, longest: float) -> Sendings:
    """The link's sendings, cut at `longest` s; small ones are left out, and of very many the largest are kept."""
    bounds = np.empty((3, len(link.second)))
    count, k = 0, 0
    while k < len(link.second):
        stop = k + 1
        while (
            stop < len(link.second)
            and link.second[stop] - link.second[stop - 1] <= PAUSE_S
            and link.second[stop] - link.second[k] < longest
        ):
            stop += 1
        amount = link.amount[k:stop].sum()
        if amount >= LEAST_SENDING:
            bounds[0, count], bounds[1, count], bounds[2, count] = link.second[k], link.second[stop - 1], amount
            count += 1
        k = stop
    kept = np.sort(np.argsort(-bounds[2, :count], kind="mergesort")[:MOST_SENDINGS])
    return Sendings(bounds[0][kept], bounds[1][kept], bounds[2][kept])


@compiled
def scratch() -> Scratch:
    """Room for one sending at a time."""
    return Scratch(
        np.zeros((MOST_FEEDERS, LONGEST_S)),
        np.zeros(MOST_FEEDERS, np.int64),
        np.zeros(MOST_FEEDERS),
        np.zeros(MOST_FEEDERS, np.bool_),
        np.zeros(LONGEST_S),
    )


@compiled
def _window_sums(link: Passing, begin: float, seconds: int, window: int, scale: float, left: Floats) -> None:
    """Into `left`: for each second of a sending what the link passed on in the window that ends with it, scaled."""
    left[:seconds] = 0.0
    first = np.searchsorted(link.second, begin - window + 1)
    for row in range(first, np.searchsorted(link.second, begin + seconds - 1, "right")):
        at = int(link.second[row] - begin)
        for t in range(max(0, at), min(seconds, at + window)):
            left[t] += link.amount[row] * scale


@compiled
def _feeders(beside: Passing, begin: float, seconds: int, manner: Floats, room: Scratch) -> int:
    """Into `room`: what each flow could have fed to each second from `begin` on; how many flows there are."""
    window, lag, framing = int(manner[0]), manner[1], manner[2]
    count = 0
    first = np.searchsorted(beside.second, begin - lag - window + 1)
    for row in range(first, np.searchsorted(beside.second, begin + seconds - 1 - lag, "right")):
        k = 0
        while k < count and room.flow[k] != beside.flow[row]:
            k += 1
        if k == MOST_FEEDERS:
            continue
        if k == count:
            room.flow[k], room.total[k], room.chosen[k] = beside.flow[row], 0.0, False
            room.carried[k, :seconds] = 0.0
            count += 1
        room.total[k] += beside.amount[row]
        at = int(beside.second[row] + lag - begin)
        for t in range(max(0, at), min(seconds, at + window)):
            room.carried[k, t] += framing * beside.amount[row]
    return count


@compiled
def _account(room: Scratch, count: int, seconds: int) -> float:
    """Choose flows so that their sum comes near what is left to explain, the largest first; what stays unexplained."""
    unexplained = np.abs(room.left[:seconds]).sum()
    order = np.argsort(-room.total[:count], kind="mergesort")
    for _ in range(PASSES):
        changed = False
        for k in order:
            sign = -1.0 if room.chosen[k] else 1.0
            rest = 0.0
            for t in range(seconds):
                rest += abs(room.left[t] - sign * room.carried[k, t])
            if rest < unexplained - 1e-6:
                for t in range(seconds):
                    room.left[t] -= sign * room.carried[k, t]
                room.chosen[k] = not room.chosen[k]
                unexplained, changed = rest, True
        if not changed:
            break
    return float(unexplained)


@compiled
def explain(
    link: Passing, beside: Passing, begin: float, end: float, manner: Floats, moved: float, scale: float, room: Scratch
) -> tuple[float, int]:
    """Share of a sending that no set of flows accounts for, and how many flows were weighed (the chosen: in `room`).

    moved: whole s by which the sending is moved against the flows; scale: what its bytes are multiplied by.
    """
    seconds = int(end - begin) + 1
    _window_sums(link, begin, seconds, int(manner[0]), scale, room.left)
    whole = room.left[:seconds].sum()
    count = _feeders(beside, begin + moved, seconds, manner, room)
    return _account(room, count, seconds) / whole, count


@compiled
def size_class(begin: float, end: float, amount: float) -> int:
    """0 small; 1 of a second or two; 2 longer: the more seconds there are, the less chance explains them."""
    if amount < ACCOUNT_SIZES[0]:
        return 0
    return 1 if end - begin < ACCOUNT_SIZES[1] else 2


@compiled
def account_class(sendings: Sendings, k: int, unexplained: float) -> int:
    """Size class and grade of a sending as one index into flattened tables; grade 0: nothing accounts for it."""
    grade = ACCOUNT_GRADES - 1 - np.searchsorted(ACCOUNT_EDGES, unexplained)
    return size_class(sendings.begin[k], sendings.end[k], sendings.amount[k]) * ACCOUNT_GRADES + int(grade)


@compiled
def account_classes(
    link: Passing, beside: Passing, sendings: Sendings, manner: Floats, room: Scratch
) -> tuple[Ints, int]:
    """Class of each sending, and how many flows are chosen to account for sendings."""
    classes = np.zeros(len(sendings.begin), np.int64)
    chosen = np.zeros(beside.flow.max() + 1, np.bool_)
    for k in range(len(classes)):
        rest, count = explain(link, beside, sendings.begin[k], sendings.end[k], manner, 0.0, 1.0, room)
        classes[k] = account_class(sendings, k, rest)
        if classes[k] % ACCOUNT_GRADES >= ACCOUNT_BRIDGE_GRADE:
            for j in range(count):
                chosen[room.flow[j]] |= room.chosen[j]
    return classes, int(chosen.sum())


@compiled
def moved_ratios(
    link: Passing, beside: Passing, sendings: Sendings, manner: Floats, tables: Tables, room: Scratch
) -> Floats:
    """Likelihood ratio of each class against the same sendings moved around the link's own activity."""
    null = np.zeros(len(tables.account_relay.ravel()))
    line = timeline_around(sendings.begin, sendings.end)
    for shift in shifts_within(line.before[-1]):
        for k in range(len(sendings.begin)):
            away = np.floor(moved(sendings.begin[k], shift, line) - sendings.begin[k])
            rest, _ = explain(link, beside, sendings.begin[k], sendings.end[k], manner, away, 1.0, room)
            null[account_class(sendings, k, rest)] += 1.0
    return _ratios(null, tables)


@compiled
def exchanged_ratios(
    link: Passing, beside: Passing, sendings: Sendings, manner: Floats, tables: Tables, room: Scratch
) -> Floats:
    """As moved_ratios, against the same sendings at their times with the size of another one that is unlike them.

    A link that is busy whenever its app is busy finds feeders, but none that fit another's size as well as its own.
    Where nearly all are alike, the others count too.
    """
    unlike, alike = np.zeros(len(tables.account_relay.ravel())), np.zeros(len(tables.account_relay.ravel()))
    number = len(sendings.begin)
    for way in range(min(EXCHANGES, number - 1)):
        distance = 1 + way * (number - 1) // EXCHANGES if number > EXCHANGES else 1 + way
        for k in range(number):
            scale = sendings.amount[(k + distance) % number] / sendings.amount[k]
            rest, _ = explain(link, beside, sendings.begin[k], sendings.end[k], manner, 0.0, scale, room)
            null = alike if abs(np.log(scale)) < UNLIKE else unlike
            null[account_class(sendings, k, rest)] += 1.0
    if unlike.sum() < FEWEST_UNLIKE * (unlike.sum() + alike.sum()):
        unlike += alike
    return _ratios(unlike, tables)


@compiled
def _ratios(null: Floats, tables: Tables) -> Floats:
    """Likelihood ratio of each class, size class by size class."""
    ratios = np.empty(len(null))
    for size in range(len(tables.account_relay)):
        part = slice(size * ACCOUNT_GRADES, (size + 1) * ACCOUNT_GRADES)
        ratios[part] = grade_ratios(null[part], tables.account_relay[size], ACCOUNT_NULL[size], ACCOUNT_NULL_WEIGHT)
    return ratios


@compiled
def _score_link(
    link: Passing,
    beside: Passing,
    manner: Floats,
    sessions: int,
    tables: Tables,
    room: Scratch,
) -> float:
    """Log evidence that what passes on the link is accounted for by the flows beside it: the lesser of both nulls'.

    -inf below `sessions` chosen flows, and where even the assumed null gives little.
    """
    sendings = sendings_of(link, manner[3])
    classes, chosen = account_classes(link, beside, sendings, manner, room)
    counts = np.zeros(len(tables.account_relay.ravel()), np.int64)
    for k in classes:
        counts[k] += 1
    assumed = (tables.account_relay / ACCOUNT_NULL).ravel()
    if chosen < sessions or log_evidence(assumed, counts, LINK_SHARES) < LEAST_PROMISE:
        return -np.inf
    by_time = log_evidence(moved_ratios(link, beside, sendings, manner, tables, room), counts, LINK_SHARES)
    if by_time <= 0.0:
        return -np.inf
    return min(
        by_time, log_evidence(exchanged_ratios(link, beside, sendings, manner, tables, room), counts, LINK_SHARES)
    )


@compiled
def score_links(
    group: Group, volumes: VolumeColumns, sessions: int, uplink: float, tables: Tables
) -> tuple[Floats, Ints, Ints, Ints]:
    """Each client side tried, way and manner: natural log evidence with its stake, side (of hypotheses), way, manner.

    Evidence is -inf where fewer than `sessions` sessions are bridged, or fewer than `uplink` bytes passed on.
    """
    tried = hypotheses(group, sessions)
    room_for = len(tried.begins) * 2 * len(MANNERS)
    evidence = np.full(room_for, -np.inf)
    labels = np.zeros((3, room_for), np.int64)
    count, room = 0, scratch()
    for side in range(len(tried.begins)):
        for way in range(2):
            if tried.stakes[side, way] == -np.inf:
                continue
            link, beside = passing_of(group, volumes, tried.rows[tried.begins[side] : tried.ends[side]], way)
            if link.amount.sum() < max(uplink, LEAST_SENDING) or len(beside.second) == 0:
                continue
            for manner in range(len(MANNERS)):
                evidence[count] = (
                    _score_link(link, beside, MANNERS[manner], sessions, tables, room)
                    + tried.stakes[side, way]
                    + np.log(MANNERS[manner, 4])
                )
                labels[0, count], labels[1, count], labels[2, count] = side, way, manner
                count += 1
    return evidence[:count], labels[0, :count], labels[1, :count], labels[2, :count]


@compiled
def score_tunnelling(
    flows: FlowColumns, volumes: VolumeColumns, sessions: int, uplink: float, tables: Tables
) -> Floats:
    """Evidence that one client side of each group is a link whose sendings the other flows account for.

    sessions: fewest bridged sessions worth a score; uplink: UplinkBytesThreshold in bytes. Returns the natural log
    evidence of each group's strongest hypothesis, its stake counted; 0 where there is none.
    """
    groups = len(flows.offsets) - 1
    result = np.zeros(groups)
    for g in range(groups):
        if volumes.offsets[g] == volumes.offsets[g + 1] or flows.offsets[g + 1] - flows.offsets[g] < 2:
            continue
        evidence = score_links(group_of(flows, g), volumes_of(flows, volumes, g), sessions, uplink, tables)[0]
        if len(evidence) > 0:
            result[g] = max(0.0, evidence.max())
    return result


@compiled
def _worth(room: Scratch, k: int, seconds: int) -> float:
    """Share of what a chosen flow carries that nothing would account for without it: 1 where it is all needed."""
    gained, carried = 0.0, 0.0
    for t in range(seconds):
        gained += abs(room.left[t] + room.carried[k, t]) - abs(room.left[t])
        carried += room.carried[k, t]
    return gained / carried


@compiled
def chosen_feeders(
    link: Passing, beside: Passing, sendings: Sendings, manner: Floats, room: Scratch
) -> tuple[Ints, Ints, Floats, Floats]:
    """For every sending the flows chosen to account for it.

    One value each: number of the sending, row of the flow, bytes that it gave, share of them that the account needs.
    """
    most = 64
    number, flow = np.empty(most, np.int64), np.empty(most, np.int64)
    amount, worth = np.empty(most), np.empty(most)
    count = 0
    for k in range(len(sendings.begin)):
        _, weighed = explain(link, beside, sendings.begin[k], sendings.end[k], manner, 0.0, 1.0, room)
        seconds = int(sendings.end[k] - sendings.begin[k]) + 1
        for j in range(weighed):
            if not room.chosen[j]:
                continue
            if count == most:
                most *= 2
                number, flow = np.append(number, np.empty_like(number)), np.append(flow, np.empty_like(flow))
                amount, worth = np.append(amount, np.empty_like(amount)), np.append(worth, np.empty_like(worth))
            number[count], flow[count], amount[count] = k, room.flow[j], room.total[j]
            worth[count] = _worth(room, j, seconds)
            count += 1
    return number[:count], flow[:count], amount[:count], worth[:count]
