"""Tunnels: one or a few links that carry many sessions, matched to the sum of the flows that they feed.

Needs volumes. Each burst that a possible target leg receives must leave on the link within the delay, and what leaves
on the link in that time must be this burst, or this burst and those beside it. An app's own traffic may run beside the
relay's: bursts are judged one by one, and only those that the link could have carried are added up.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.bridging import largest_sides
from relaywatch.detection.calibration import (
    BALANCED,
    BALANCED_RATIO,
    CARRIED_GRADE,
    FED_EDGES,
    FED_RATIOS,
    MIRROR_BRIDGE_GRADE,
    MIRROR_GAPS,
    MIRROR_GRADES,
    MIRROR_NULL,
    MIRROR_NULL_WEIGHT,
    MIRROR_RELAY,
    MIRROR_SIZES,
    SPARSE,
    UNBALANCED_RATIO,
)
from relaywatch.detection.chance import grade_ratios, log_evidence, shifts_within, stake, wrap
from relaywatch.detection.columns import Flags, Floats, FlowColumns, Group, Ints, VolumeColumns, group_of
from relaywatch.model.compilation import compiled

MANNERS: Final = np.array([[2.0, 1.02, 0.5], [6.0, 1.02, 0.2], [2.0, 1.36, 0.2], [6.0, 1.36, 0.1]])
"""How a link may relay: delay in s (prompt at one-second volumes, or waiting some seconds), bytes sent for each byte
carried (binary framing within TLS or SSH, or base64 within JSON), and the share of belief staked on it."""
BURSTS_STAKE: Final = 0.3
SERIES_STAKE: Final = 0.2
SINGLE_BURSTS_STAKE: Final = 0.6
SINGLE_SERIES_STAKE: Final = 0.4
"""Shares of the belief in a client side staked on bursts and on series, pairs having the rest; and where a side has too
few legs for pairs."""
PAUSE_S: Final = 2.0
"""Silence that parts two bursts of one flow."""
COVERED: Final = 0.9
"""Share of a burst that must leave on the link in time for the link to have carried it."""
EXCHANGES: Final = 9
"""Ways in which bursts exchange sizes, spread over the episode."""
UNLIKE: Final = 0.7
"""Natural log of the ratio from which two sizes are told apart: beyond the widest gap of a bridged burst."""
SIZE_WORTH: Final = 2.0
"""Exchanged bursts keep the times at which the link is busy, where chance matches are commoner: they tell less each."""
PARTLY: Final = 0.3
"""Share of a burst from which the link has carried part of it."""
OVERHEAD: Final = 60.0


class Bursts(NamedTuple):
    """What possible target legs received, in bursts; bytes_in > 0 in every burst.

    first, last: rows of VolumeColumns (within the group's slice), half-open; begin: first interval of the burst;
    head, tail: first and last interval with bytes_in; scale: what the bytes of its rows are multiplied by, 1 as seen.
    row_time, row_bytes, row_burst: every interval with bytes_in, by time, and the number of its burst.
    """

    flow: Ints
    first: Ints
    last: Ints
    begin: Floats
    head: Floats
    tail: Floats
    bytes_in: Floats
    bytes_out: Floats
    scale: Floats
    row_time: Floats
    row_bytes: Floats
    row_burst: Ints


class Link(NamedTuple):
    """What one client side sends over time: interval begins, running totals with a leading zero."""

    time: Floats
    total_out: Floats


@compiled
def bursts_of(flow: Ints, time: Floats, bytes_out: Floats, bytes_in: Floats, target: Flags) -> Bursts:
    """Bursts of the flows that may be target legs, from a group's volumes sorted by (flow, time)."""
    size = len(flow)
    flows, firsts, lasts = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    numbers = np.zeros((5, size))
    burst_of = np.full(size, -1, np.int64)
    count, k = 0, 0
    while k < size:
        stop = k + 1
        while stop < size and flow[stop] == flow[k] and time[stop] - time[stop - 1] <= PAUSE_S:
            stop += 1
        received = bytes_in[k:stop].sum()
        if target[flow[k]] and received > 0.0:
            flows[count], firsts[count], lasts[count] = flow[k], k, stop
            filled = np.flatnonzero(bytes_in[k:stop] > 0.0)
            numbers[0, count] = time[k]
            numbers[1, count], numbers[2, count] = time[k + filled[0]], time[k + filled[-1]]
            numbers[3, count], numbers[4, count] = received, bytes_out[k:stop].sum()
            burst_of[k + filled] = count
            count += 1
        k = stop
    rows = np.flatnonzero(burst_of >= 0)
    rows = rows[np.argsort(time[rows], kind="mergesort")]
    return Bursts(
        flows[:count],
        firsts[:count],
        lasts[:count],
        numbers[0, :count],
        numbers[1, :count],
        numbers[2, :count],
        numbers[3, :count],
        numbers[4, :count],
        np.ones(count),
        time[rows],
        bytes_in[rows],
        burst_of[rows],
    )


@compiled
def link_of(member: Flags, flow: Ints, time: Floats, bytes_out: Floats) -> Link:
    """What the flows marked in `member` sent, over time."""
    rows = np.flatnonzero(member[flow])
    rows = rows[np.argsort(time[rows], kind="mergesort")]
    total = np.zeros(len(rows) + 1)
    total[1:] = np.cumsum(bytes_out[rows])
    return Link(time[rows], total)


@compiled
def without_framing(link: Link, framing: float) -> Link:
    """The link as if each byte that it sends carried 1 / framing bytes."""
    return Link(link.time, link.total_out / framing)


@compiled
def sent_within(link: Link, begin: float, end: float) -> float:
    """Bytes that the link sent in intervals that begin within [begin, end], in s."""
    high = np.searchsorted(link.time, end, "right")
    low = np.searchsorted(link.time, begin)
    return float(link.total_out[high] - link.total_out[low])


@compiled
def _coverage(
    bursts: Bursts, link: Link, time: Floats, bytes_in: Floats, delay: float, offsets: Floats
) -> tuple[Floats, Floats]:
    """For each burst moved by its offset: share of it that the link sends on in time; bytes it sends meanwhile."""
    count = len(bursts.flow)
    covered, sent = np.zeros(count), np.zeros(count)
    for k in range(count):
        sent[k] = sent_within(link, bursts.head[k] + offsets[k], bursts.tail[k] + offsets[k] + delay)
        if sent[k] < 0.3 * bursts.bytes_in[k]:
            continue
        for row in range(bursts.first[k], bursts.last[k]):
            if bytes_in[row] > 0.0:
                at = time[row] + offsets[k]
                covered[k] += min(bytes_in[row] * bursts.scale[k], sent_within(link, at, at + delay))
        covered[k] /= bursts.bytes_in[k]
    return covered, sent


@compiled
def received_beside(bursts: Bursts, kept: Flags) -> Floats:
    """For each burst what the kept bursts received between its head and its tail, itself included."""
    total = np.zeros(len(bursts.row_time) + 1)
    for k in range(len(bursts.row_time)):
        burst = bursts.row_burst[k]
        total[k + 1] = total[k] + (bursts.row_bytes[k] * bursts.scale[burst] if kept[burst] else 0.0)
    low = np.searchsorted(bursts.row_time, bursts.head)
    return total[np.searchsorted(bursts.row_time, bursts.tail, "right")] - total[low]


@compiled
def mirror_grades(
    bursts: Bursts, link: Link, time: Floats, bytes_in: Floats, delay: float, shift: float, begin: float, span: float
) -> Ints:
    """Grade of each burst: 0 and 1 not carried by the link, then carried with ever closer agreement of bytes.

    shift: seconds by which all bursts are moved against the link, wrapped around the activity.
    """
    offsets = np.zeros(len(bursts.flow))
    if shift != 0.0:
        for k in range(len(offsets)):
            offsets[k] = wrap(bursts.begin[k] + shift, begin, span) - bursts.begin[k]
    covered, sent = _coverage(bursts, link, time, bytes_in, delay, offsets)
    carried = covered >= COVERED
    alone = np.log((sent + OVERHEAD) / (bursts.bytes_in + OVERHEAD))
    together = np.log((sent + OVERHEAD) / (received_beside(bursts, carried) + OVERHEAD))
    closeness = MIRROR_GRADES - 1 - np.searchsorted(MIRROR_GAPS, np.minimum(np.abs(alone), np.abs(together)))
    return np.where(carried, closeness, np.where(covered >= PARTLY, 1, 0))


@compiled
def burst_ratios(
    bursts: Bursts, link: Link, time: Floats, bytes_in: Floats, delay: float, begin: float, span: float
) -> Floats:
    """Likelihood ratio of each (size class, grade), flattened, against the shifted null of these bursts and link."""
    null = np.zeros((len(MIRROR_SIZES) + 1, MIRROR_GRADES))
    for shift in shifts_within(span):
        found = mirror_grades(bursts, link, time, bytes_in, delay, shift, begin, span)
        _count_grades(null, bursts, found, np.ones(len(found), np.bool_))
    return _ratios(null)


@compiled
def exchanged_ratios(
    bursts: Bursts, link: Link, time: Floats, bytes_in: Floats, delay: float, begin: float, span: float
) -> Floats:
    """As burst_ratios, against the same bursts at their times with the size of another burst that is unlike theirs.

    A link that is busy whenever its app is busy then sends enough, but not as much.
    """
    null = np.zeros((len(MIRROR_SIZES) + 1, MIRROR_GRADES))
    number = len(bursts.flow)
    for k in range(min(EXCHANGES, number - 1)):
        others = _exchanged(bursts, 1 + k * (number - 1) // EXCHANGES if number > EXCHANGES else 1 + k)
        found = mirror_grades(others, link, time, bytes_in, delay, 0.0, begin, span)
        _count_grades(null, others, found, np.abs(np.log(others.scale)) > UNLIKE)
    return _ratios(null)


@compiled
def _exchanged(bursts: Bursts, distance: int) -> Bursts:
    """The bursts at their times, each with the size of the burst so many places away."""
    sizes = np.roll(bursts.bytes_in, distance)
    return Bursts(
        bursts.flow,
        bursts.first,
        bursts.last,
        bursts.begin,
        bursts.head,
        bursts.tail,
        sizes,
        bursts.bytes_out,
        sizes / bursts.bytes_in,
        bursts.row_time,
        bursts.row_bytes,
        bursts.row_burst,
    )


@compiled
def _count_grades(counts: Floats, bursts: Bursts, grades: Ints, counted: Flags) -> None:
    """Add the bursts marked in `counted` to the counts, a row a size class and a column a grade."""
    sizes = np.searchsorted(MIRROR_SIZES, bursts.bytes_in, "right")
    for k in range(len(grades)):
        if counted[k]:
            counts[sizes[k], grades[k]] += 1.0


@compiled
def _ratios(null: Floats) -> Floats:
    ratios = np.empty(null.shape)
    for size in range(len(null)):
        ratios[size] = grade_ratios(null[size], MIRROR_RELAY[size], MIRROR_NULL[size], MIRROR_NULL_WEIGHT)
    return ratios.ravel()


@compiled
def _score_link(
    bursts: Bursts, link: Link, time: Floats, bytes_in: Floats, delay: float, begin: float, span: float, sessions: int
) -> float:
    """Log evidence that the link carries the bursts and nothing else; -inf below `sessions` bridged bursts.

    Evidence against moved bursts stands as far as sizes, too, go with bursts: at most SIZE_WORTH times the evidence
    against exchanged sizes.
    """
    found = mirror_grades(bursts, link, time, bytes_in, delay, 0.0, begin, span)
    sizes = np.searchsorted(MIRROR_SIZES, bursts.bytes_in, "right")
    if ((found >= MIRROR_BRIDGE_GRADE) & (sizes > 0)).sum() < sessions:
        return -np.inf
    counts = np.zeros((len(MIRROR_SIZES) + 1) * MIRROR_GRADES, np.int64)
    for k in range(len(found)):
        counts[sizes[k] * MIRROR_GRADES + found[k]] += 1
    by_time = log_evidence(burst_ratios(bursts, link, time, bytes_in, delay, begin, span), counts)
    by_size = log_evidence(exchanged_ratios(bursts, link, time, bytes_in, delay, begin, span), counts)
    fed, balance = link_account(bursts, link, found, delay)
    return min(by_time, SIZE_WORTH * by_size) + account_ratio(fed, balance)


@compiled
def link_account(bursts: Bursts, link: Link, grades: Ints, delay: float) -> tuple[float, float]:
    """Share of the link's bytes that it sends while carried bursts feed it; carried bytes over all that it sends."""
    change = np.zeros(len(link.time) + 1)
    carried = 0.0
    for k in np.flatnonzero(grades >= CARRIED_GRADE):
        change[np.searchsorted(link.time, bursts.head[k])] += 1.0
        change[np.searchsorted(link.time, bursts.tail[k] + delay, "right")] -= 1.0
        carried += bursts.bytes_in[k]
    feeding = np.cumsum(change)[:-1] > 0.0
    sent = np.diff(link.total_out)
    return float(sent[feeding].sum() / link.total_out[-1]), float(carried / link.total_out[-1])


@compiled
def account_ratio(fed: float, balance: float) -> float:
    """Log likelihood ratio of link_account: a relay's link sends when it is fed, and about as much as it is fed."""
    ratio = FED_RATIOS[np.searchsorted(FED_EDGES, fed, "right")]
    gap = abs(np.log(max(balance, 1e-9)))
    if gap <= BALANCED:
        return float(ratio + BALANCED_RATIO)
    return float(ratio + (UNBALANCED_RATIO if balance < SPARSE else 0.0))


@compiled
def without(bursts: Bursts, member: Flags) -> Bursts:
    """The bursts of flows that are not marked in `member`."""
    keep = ~member[bursts.flow]
    rows = keep[bursts.row_burst]
    number = np.cumsum(keep) - 1
    return Bursts(
        bursts.flow[keep],
        bursts.first[keep],
        bursts.last[keep],
        bursts.begin[keep],
        bursts.head[keep],
        bursts.tail[keep],
        bursts.bytes_in[keep],
        bursts.bytes_out[keep],
        bursts.scale[keep],
        bursts.row_time[rows],
        bursts.row_bytes[rows],
        number[bursts.row_burst[rows]],
    )


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
def score_links(group: Group, volumes: VolumeColumns, sessions: int, uplink: float) -> tuple[Floats, Ints, Ints]:
    """Each client side and manner tried: natural log evidence with its stake, first row, manner.

    Evidence is -inf where fewer than `sessions` bursts are bridged.
    """
    sent_in_all = np.maximum(group.bytes_out, 0.0).sum()
    every = bursts_of(volumes.flow, volumes.time, volumes.bytes_out, volumes.bytes_in, ~group.inbound & ~group.lookup)
    order, begins, ends, sent = largest_sides(group, uplink)
    room = len(begins) * len(MANNERS)
    evidence = np.zeros(room)
    first, manners = np.zeros(room, np.int64), np.zeros(room, np.int64)
    begin, span, tried = volumes.time.min(), volumes.time.max() - volumes.time.min() + 1.0, 0
    for k in range(len(begins)):
        legs = order[begins[k] : ends[k]]
        member = np.zeros(len(group.side), np.bool_)
        member[legs] = True
        bursts = without(every, member)
        framed = link_of(member, volumes.flow, volumes.time, volumes.bytes_out)
        if len(bursts.flow) < sessions or framed.total_out[-1] <= 0.0 or framed.total_out[-1] < uplink:
            continue
        part = BURSTS_STAKE if len(legs) >= sessions else SINGLE_BURSTS_STAKE  # fewer legs are not tried by pairs
        for manner in range(len(MANNERS)):
            delay, framing, share = MANNERS[manner]
            link = without_framing(framed, framing)
            evidence[tried] = _score_link(
                bursts, link, volumes.time, volumes.bytes_in, delay, begin, span, sessions
            ) + stake(sent[k], sent_in_all, 1.0 / (part * share))
            first[tried], manners[tried] = legs[0], manner
            tried += 1
    return evidence[:tried], first[:tried], manners[:tried]


@compiled
def score_tunnelling(flows: FlowColumns, volumes: VolumeColumns, sessions: int, uplink: float) -> Floats:
    """Evidence that one client side of each group mirrors the other flows.

    sessions: fewest bridged bursts worth a score; uplink: UplinkBytesThreshold in bytes. Returns the natural log
    evidence of each group's strongest link and manner, its stake counted; 0 where there is none.
    """
    groups = len(flows.offsets) - 1
    result = np.zeros(groups)
    for g in range(groups):
        if volumes.offsets[g] == volumes.offsets[g + 1] or flows.offsets[g + 1] - flows.offsets[g] < 2:
            continue
        evidence = score_links(group_of(flows, g), volumes_of(flows, volumes, g), sessions, uplink)[0]
        if len(evidence) > 0:
            result[g] = max(0.0, evidence.max())
    return result
