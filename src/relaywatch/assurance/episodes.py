"""Relay episodes to be drilled: what a relay of a chosen topology, rate and size would have sent, second by second.

Sizes, durations, lags and framing are drawn from what real relays of the range did (model/relay_shapes.py); each is
drawn whole, so that a long session is as large as long sessions are. Addresses are of the range reserved for benchmarks
(RFC 2544) and names end in .example (RFC 2606): no site has them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from relaywatch.detection.columns import Flags, Floats, Ints
from relaywatch.model.finding import Topology
from relaywatch.model.relay_shapes import Shape, received_by_tenth, shapes

SECOND: Final = 1_000_000
SMOOTHING: Final = 0.2
"""Deviation of the natural log of what each drawn session's bytes are multiplied by: a smoothed bootstrap, as no two
sessions of a site are the same to the byte, and a fitted shape has some tens of them only."""
BUSY: Final = 0.5
PARTIES_A_SESSION: Final = 0.5
"""Distinct parties for each session; clients of a relay visit some more often than others."""
LATENCY_S: Final = (0.005, 0.2)
"""How long a relay holds what it passes on, where it does not hide."""
KEEPALIVE_S: Final = 30
KEEPALIVE_BYTES: Final = 60
OPENING_BYTES: Final = 120
"""Bytes that a link spends on opening one session."""
EARLY_S: Final = 5.0
"""How long a link is there before its first session."""
CLIENT_PORT: Final = 18_080
GATEWAY_PORT: Final = 8_443
TARGET_PORT: Final = 443


class Evasion(StrEnum):
    """Ways of hiding that a drill can play; each is applied by the relay to what it passes on."""

    DELAY = "delay"
    JITTER = "jitter"
    PADDING = "padding"
    CHAFF = "chaff"
    BATCH = "batch"
    COMPRESS = "compress"


class Wanted(NamedTuple):
    """What to play. sessions: how many; seconds: over which time; size: factor of all session bytes."""

    topology: Topology
    sessions: int
    seconds: float
    size: float = 1.0
    evasions: tuple[Evasion, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """One relay at work, one value a flow; times in s from its begin, bytes as the device sees them.

    client: whether the flow is a client leg; remote, name: texts, name empty for client legs; and its volumes: flow
    (row), second, sent and received bytes. begins: when each session's target leg begins.
    """

    start: Floats
    end: Floats
    sent: Ints
    received: Ints
    client: Flags
    inbound: Flags
    remote: list[str]
    name: list[str]
    local_port: Ints
    remote_port: Ints
    volume_flow: Ints
    volume_second: Ints
    volume_sent: Ints
    volume_received: Ints
    begins: Floats


class _Sessions(NamedTuple):
    """Target legs: begin and length in s, bytes up and down; rows: their rows in the shape's sessions."""

    begin: Floats
    length: Floats
    up: Floats
    down: Floats
    rows: Ints


def play(wanted: Wanted, rng: np.random.Generator) -> Episode:
    """One relay at work. The same request and generator state give the same episode."""
    shape = _drawn(wanted, rng)
    rows = rng.integers(0, len(shape.sessions), wanted.sessions)
    up, down, length = shape.sessions[rows, :3].T
    up, down = (amount * rng.lognormal(0.0, SMOOTHING, wanted.sessions) for amount in (up, down))
    begin = np.sort(rng.uniform(0.0, wanted.seconds, wanted.sessions))
    sessions = _Sessions(begin, np.minimum(length, wanted.seconds), up * wanted.size, down * wanted.size, rows)
    if wanted.topology is Topology.TUNNEL:
        return _tunnel(shape, sessions, wanted, rng)
    return _paired(shape, sessions, wanted, rng)


def _drawn(wanted: Wanted, rng: np.random.Generator) -> Shape:
    """One of the programs that served at least BUSY of the wanted rate: long sessions do not come in quick succession.

    Where none did, the one that came nearest.
    """
    of_kind, rate = shapes()[wanted.topology], wanted.sessions / wanted.seconds
    able = [shape for shape in of_kind if shape.rate >= BUSY * rate]
    return able[int(rng.integers(len(able)))] if able else max(of_kind, key=lambda shape: shape.rate)


def without_relaying(wanted: Wanted, rng: np.random.Generator) -> Episode:
    """A decoy: the client legs of one episode beside the target legs of another, so that nothing is passed on."""
    one, other = play(wanted, rng), play(wanted, rng)
    clients, targets = np.flatnonzero(one.client), np.flatnonzero(~other.client)
    place = {int(row): k for k, row in enumerate(clients)}
    beside = {int(row): len(clients) + k for k, row in enumerate(targets)}
    own, foreign = np.isin(one.volume_flow, clients), np.isin(other.volume_flow, targets)
    merged: dict[str, Any] = {
        name: np.concatenate([getattr(one, name)[clients], getattr(other, name)[targets]])
        for name in ("start", "end", "sent", "received", "client", "inbound", "local_port", "remote_port")
    }
    for name in ("volume_second", "volume_sent", "volume_received"):
        merged[name] = np.concatenate([getattr(one, name)[own], getattr(other, name)[foreign]])
    rows = [place[int(row)] for row in one.volume_flow[own]] + [beside[int(row)] for row in other.volume_flow[foreign]]
    return replace(
        one,
        **merged,
        remote=[one.remote[k] for k in clients] + [other.remote[k] for k in targets],
        name=[one.name[k] for k in clients] + [other.name[k] for k in targets],
        volume_flow=np.array(rows, np.int64),
        begins=other.begins,
    )


class _Legs(NamedTuple):
    """Flows, or parts of a link: begin and end in s, bytes sent and received; row: of the flow they count to."""

    begin: Floats
    end: Floats
    sent: Floats
    received: Floats
    row: Ints


def _paired(shape: Shape, sessions: _Sessions, wanted: Wanted, rng: np.random.Generator) -> Episode:
    """A client leg a session, accepted or dialled to a gateway."""
    count = len(sessions.begin)
    up, down, _, lag, client_up, client_down, after = shape.sessions[sessions.rows].T
    held = _held(wanted, count, rng)
    targets = _Legs(
        sessions.begin, sessions.begin + sessions.length, sessions.up, sessions.down, np.arange(count, 2 * count)
    )
    clients = _Legs(
        sessions.begin - np.abs(lag) - held,
        targets.end + np.maximum(after, 0.0) + held,
        np.maximum(sessions.down + client_down - down, 1.0),
        np.maximum(sessions.up + client_up - up, 1.0),
        np.arange(count),
    )
    passed = clients._replace(begin=targets.begin + held, end=targets.end + held)
    accepted = wanted.topology is Topology.ACCEPTED
    volumes = _volumes(passed, wanted, rng, hidden=True), _volumes(targets, wanted, rng, hidden=False)
    return _episode(clients, targets, accepted, volumes, rng)


def _tunnel(shape: Shape, sessions: _Sessions, wanted: Wanted, rng: np.random.Generator) -> Episode:
    """One link or a few that carry all sessions."""
    count, links = len(sessions.begin), shape.links
    held = _held(wanted, count, rng)
    link = rng.integers(0, links, count)
    targets = _Legs(
        sessions.begin, sessions.begin + sessions.length, sessions.up, sessions.down, np.arange(links, links + count)
    )
    passed = _Legs(
        targets.begin + held,
        targets.end + held,
        sessions.down * shape.framing_down + OPENING_BYTES,
        sessions.up * shape.framing_up + OPENING_BYTES,
        link,
    )
    last = float(passed.end.max()) + 1.0
    beats = np.arange(-EARLY_S, last, KEEPALIVE_S)
    alive = np.full(links * len(beats), float(KEEPALIVE_BYTES))
    kept = _Legs(np.tile(beats, links), np.tile(beats, links), alive, alive, np.repeat(np.arange(links), len(beats)))
    carried = _Legs(*(np.concatenate(pair) for pair in zip(passed, kept, strict=True)))
    volumes = _volumes(carried, wanted, rng, hidden=True), _volumes(targets, wanted, rng, hidden=False)
    legs = _Legs(np.full(links, -EARLY_S), np.full(links, last), np.zeros(links), np.zeros(links), np.arange(links))
    return _episode(legs, targets, accepted=False, volumes=volumes, rng=rng)


def _held(wanted: Wanted, count: int, rng: np.random.Generator) -> Floats:
    """How long what passes is held, s a session."""
    held = rng.uniform(*LATENCY_S, count)
    return held + rng.uniform(1.0, 5.0, count) if Evasion.DELAY in wanted.evasions else held


class _Volumes(NamedTuple):
    """Bytes of one flow in one second."""

    row: Ints
    second: Ints
    sent: Ints
    received: Ints


def _volumes(legs: _Legs, wanted: Wanted, rng: np.random.Generator, *, hidden: bool) -> _Volumes:
    """What the legs carry, second by second; hidden: on the relay's own side, where it hides what it can."""
    first, last = np.floor(legs.begin).astype(np.int64), np.floor(legs.end).astype(np.int64)
    counts = last - first + 1
    of = np.repeat(np.arange(len(counts)), counts)
    second = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    sent, received = (_spread(legs, amount, of, second) for amount in (legs.sent, legs.received))
    if hidden:
        second, sent = _evaded(second, sent, of, wanted.evasions, rng)
    kept = (sent > 0) | (received > 0)
    volumes = _Volumes(legs.row[of][kept], second[kept], sent[kept], received[kept])
    return _chaffed(volumes, rng) if hidden and Evasion.CHAFF in wanted.evasions else volumes


def _spread(legs: _Legs, amount: Floats, of: Ints, second: Ints) -> Ints:
    """Each leg's bytes on its seconds, whole bytes that add up to it, as the fitted profile has them lie in time."""
    length = np.maximum(legs.end - legs.begin, 1e-6)[of]
    tenths = np.linspace(0.0, 1.0, len(received_by_tenth()))

    def by(moment: npt.NDArray[Any]) -> Ints:
        share = np.interp((moment - legs.begin[of]) / length, tenths, received_by_tenth())
        return np.rint(share * amount[of]).astype(np.int64)

    until, since = by(second + 1.0), by(second.astype(np.float64))
    whole = np.rint(amount[of]).astype(np.int64)
    is_last, is_first = second == np.floor(legs.end).astype(np.int64)[of], second == np.floor(legs.begin)[of]
    return np.asarray(np.where(is_last, whole, until) - np.where(is_first, 0, since))


def _evaded(
    second: Ints, sent: Ints, of: Ints, evasions: tuple[Evasion, ...], rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """When and how much the relay sends on, hidden as asked."""
    amount = sent.astype(np.float64)
    if Evasion.COMPRESS in evasions:
        amount *= rng.uniform(0.3, 0.9, int(of.max(initial=0)) + 1)[of]
    if Evasion.PADDING in evasions:
        amount = np.where(amount > 0, amount * rng.uniform(1.0, 1.5, len(amount)) + rng.integers(0, 500, len(of)), 0.0)
    if Evasion.JITTER in evasions:
        second = second + rng.integers(0, 3, len(second))
    if Evasion.BATCH in evasions:
        step = int(rng.integers(2, 6))
        second = -(-second // step) * step
    return second, np.rint(amount).astype(np.int64)


def _chaffed(volumes: _Volumes, rng: np.random.Generator) -> _Volumes:
    """With chaff of one to three kilobytes in every second of the busiest leg that carries nothing."""
    row = int(np.bincount(volumes.row, volumes.sent).argmax())
    own = volumes.second[volumes.row == row]
    idle = np.setdiff1d(np.arange(own.min(), own.max()), own)
    chaff = rng.integers(1_000, 3_000, len(idle))
    more = _Volumes(np.full(len(idle), row), idle, chaff, np.zeros(len(idle), np.int64))
    return _Volumes(*(np.concatenate(pair) for pair in zip(volumes, more, strict=True)))


def _episode(
    clients: _Legs,
    targets: _Legs,
    accepted: bool,  # noqa: FBT001  which of two client sides the caller has
    volumes: tuple[_Volumes, _Volumes],
    rng: np.random.Generator,
) -> Episode:
    """Flows and volumes of both sides; a flow's bytes are the sum of its volumes."""
    both = _Volumes(*(np.concatenate(pair) for pair in zip(*volumes, strict=True)))
    count, sessions = len(clients.begin), len(targets.begin)
    parties = max(3, round(PARTIES_A_SESSION * sessions))
    party = np.minimum(rng.zipf(1.5, sessions), parties) - 1
    party = np.where(rng.random(sessions) < 0.5, party, rng.integers(0, parties, sessions))
    drawn = int(rng.integers(1 << 20))
    rows = count + sessions
    end = np.concatenate([clients.end, targets.end])
    last = np.full(rows, -np.inf)
    np.maximum.at(last, both.row, both.second.astype(np.float64))
    return Episode(
        start=np.concatenate([clients.begin, targets.begin]),
        end=np.maximum(end, last),
        sent=np.bincount(both.row, both.sent, rows).astype(np.int64),
        received=np.bincount(both.row, both.received, rows).astype(np.int64),
        client=np.arange(rows) < count,
        inbound=(np.arange(rows) < count) & accepted,
        remote=[
            *(f"198.19.{drawn % 250}.{k % 250 + 1 if accepted else 1}" for k in range(count)),
            *(f"198.18.{(drawn + who) % 250}.{who % 250 + 1}" for who in party.tolist()),
        ],
        name=[*([""] * count), *(f"www.drill-{drawn:x}-{who}.example" for who in party.tolist())],
        local_port=np.where((np.arange(rows) < count) & accepted, CLIENT_PORT, rng.integers(32_768, 61_000, rows)),
        remote_port=np.concatenate(
            [
                rng.integers(32_768, 61_000, count) if accepted else np.full(count, GATEWAY_PORT),
                np.full(sessions, TARGET_PORT),
            ]
        ),
        volume_flow=both.row,
        volume_second=both.second,
        volume_sent=both.sent,
        volume_received=both.received,
        begins=targets.begin,
    )
