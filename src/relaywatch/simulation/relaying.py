"""What relaying apps do besides: bounded episodes of sessions, drawn from real relays' (model/relay_shapes.py)."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from relaywatch.detection.columns import Floats, Ints
from relaywatch.model.errors import SettingError
from relaywatch.model.finding import Topology
from relaywatch.model.relay_shapes import Shape, shapes
from relaywatch.simulation.drafts import ACCEPTED, DIALLED, DRAFT, LINK, PIECE, TARGET, Drafts
from relaywatch.simulation.fleet import CLIENTS, GATEWAYS, SITES, Fleet
from relaywatch.simulation.plan import APPS_A_PHONE, DAY_US, SECOND, Plan

TOPOLOGIES: Final = (Topology.ACCEPTED, Topology.BACK_CONNECT, Topology.TUNNEL)
SESSIONS: Final = (40, 160)
"""Sessions of an episode, equally likely in each octave; fewer where the fleet has too few flows for them."""
FEWEST_SESSIONS: Final = 12
MOST_SHARE: Final = 0.3
"""Share of all flows that relaying may take before episodes get fewer sessions."""
LAST_SHARE: Final = 0.6
"""Share of all flows beyond which a plan has too few flows for its relays."""
PACE: Final = (0.1, 0.6)
"""Sessions a second, as a share of those that the program was seen to serve."""
LENGTH_S: Final = (300.0, 7_200.0)
PARTS_A_DAY: Final = 2
BOTH_PARTS: Final = 0.5
"""An episode lies within one half of a day; of a relay's days, so many have one in either half."""
SMOOTHING: Final = 0.2
HELD_S: Final = (0.005, 0.2)
EARLY_US: Final = 5 * SECOND
KEEPALIVE_US: Final = 30 * SECOND
KEEPALIVE_BYTES: Final = 60
OPENING_BYTES: Final = 120
"""As drills have it: what is varied, held, and spent by a link."""
CLIENTS_A_RELAY: Final = 20
CLIENT_PORTS: Final = (1080, 3128, 8080, 8888, 18_080)
GATEWAY_PORTS: Final = (443, 5000, 8443, 9000)
_RELAYS, _SESSIONS = 11, 12


class Episodes(NamedTuple):
    """Episodes in order of their begin, one value each.

    begin, length: us; topology: place in TOPOLOGIES; shape: place among that topology's; port: of the listener or the
    gateway; flows: how many flows it has.
    """

    pair: Ints
    topology: Ints
    shape: Ints
    begin: Ints
    length: Ints
    sessions: Ints
    links: Ints
    port: Ints
    flows: Ints

    def rows(self, chosen: Ints | slice) -> Episodes:
        """Some of the episodes."""
        return Episodes(*(column[chosen] for column in self))


def episodes_of(plan: Plan, fleet: Fleet) -> Episodes:
    """All episodes of a plan.

    Raises SettingError where the plan has too few flows for them.
    """
    rng = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(_RELAYS,)))
    relays = plan.relaying_pairs
    pairs = np.sort(rng.choice(plan.devices * APPS_A_PHONE, relays, replace=False)).astype(np.int64)
    topology = _topologies(fleet.fine[pairs // APPS_A_PHONE], rng)
    shape = np.array([rng.integers(len(shapes()[TOPOLOGIES[kind]])) for kind in topology], np.int64)
    fixed = np.array(CLIENT_PORTS)[rng.integers(0, len(CLIENT_PORTS), relays)]
    gateway = np.array(GATEWAY_PORTS)[rng.integers(0, len(GATEWAY_PORTS), relays)]
    port = np.where(topology == 0, fixed, gateway)
    parts = plan.days * PARTS_A_DAY
    part, of = np.tile(np.arange(parts), relays), np.repeat(np.arange(relays), parts)
    first = rng.integers(0, PARTS_A_DAY, (relays, plan.days))[of, part // PARTS_A_DAY] == part % PARTS_A_DAY
    kept = first | (rng.random(len(part)) < BOTH_PARTS)
    part, of = part[kept], of[kept]
    made = [shapes()[TOPOLOGIES[kind]][own] for kind, own in zip(topology, shape, strict=True)]
    links = np.array([one.links for one in made], np.int64)[of] * (topology[of] == 2)
    sessions = _sessions(plan, topology[of], links, rng)
    rate = np.array([one.rate for one in made], np.float64)[of] * rng.uniform(*PACE, len(of))
    length = np.rint(np.clip(sessions / np.maximum(rate, 1e-9), *LENGTH_S) * SECOND).astype(np.int64)
    half = DAY_US // PARTS_A_DAY
    begin = part * half + EARLY_US + (rng.random(len(of)) * (half - length - 2 * EARLY_US)).astype(np.int64)
    flows = np.where(topology[of] == 2, links + sessions, 2 * sessions)
    order = np.lexsort((pairs[of], begin))
    own = (pairs[of], topology[of], shape[of], begin, length, sessions, links, port[of], flows)
    return Episodes(*own).rows(order)


def _topologies(fine: np.ndarray[tuple[int], np.dtype[np.bool_]], rng: np.random.Generator) -> Ints:
    """Accepted, back-connect and, where volumes can show it, tunnel: one as often as the other."""
    return np.where(fine, rng.integers(0, 3, len(fine)), rng.integers(0, 2, len(fine))).astype(np.int64)


def _sessions(plan: Plan, topology: Ints, links: Ints, rng: np.random.Generator) -> Ints:
    """Sessions of each episode, fewer where they would take too large a part of the fleet's flows."""
    low, high = SESSIONS
    wanted = low * (high / low) ** rng.random(len(topology))
    each = np.where(topology == 2, 1.0, 2.0)
    taken = float((wanted * each).sum()) / plan.flows
    sessions = np.maximum(np.rint(wanted * min(1.0, MOST_SHARE / max(taken, 1e-9))), FEWEST_SESSIONS).astype(np.int64)
    flows = int((sessions * each).sum() + links.sum())
    if flows > LAST_SHARE * plan.flows:
        raise SettingError(
            f"flows: {plan.flows} are too few for {plan.relaying_pairs} relaying apps on {plan.days} days, whose "
            f"sessions alone take {flows}. Give at least {int(flows / LAST_SHARE) + 1} flows, "
            "or a smaller share of relays."
        )
    return sessions


class _Played(NamedTuple):
    """Sessions one by one: row of the episode, number within it; times in us, bytes as their target legs have them."""

    episode: Ints
    number: Ints
    begin: Floats
    length: Floats
    up: Floats
    down: Floats
    lag: Floats
    more_up: Floats
    more_down: Floats
    after: Floats
    held: Floats
    framing_up: Floats
    framing_down: Floats


def relayed(seed: int, number: int, episodes: Episodes, first: int, fleet: Fleet) -> Drafts:
    """Drafts of some episodes, their flows numbered from `first`, episode after episode.

    number: of the slice of time in which they all begin, so that the same slice is always the same.
    """
    if not len(episodes.pair):
        return np.empty(0, DRAFT)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SESSIONS, number)))
    base = first + np.cumsum(episodes.flows) - episodes.flows
    played = _played(episodes, rng)
    tunnel = episodes.topology[played.episode] == 2
    paired, carried = (_Played(*(column[rows] for column in played)) for rows in (~tunnel, tunnel))
    return np.concatenate(
        [
            _clients(episodes, paired, base, fleet, rng),
            _targets(episodes, paired, base + episodes.sessions, fleet, rng),
            _targets(episodes, carried, base + episodes.links, fleet, rng),
            *_links(episodes, carried, base, fleet, rng),
        ]
    )


def _played(episodes: Episodes, rng: np.random.Generator) -> _Played:
    of = np.repeat(np.arange(len(episodes.pair)), episodes.sessions)
    number = np.arange(len(of)) - np.repeat(np.cumsum(episodes.sessions) - episodes.sessions, episodes.sessions)
    made: list[Shape] = [
        shapes()[TOPOLOGIES[kind]][own] for kind, own in zip(episodes.topology, episodes.shape, strict=True)
    ]
    counts = np.array([len(one.sessions) for one in made])
    table = np.concatenate([_seven(one.sessions) for one in made])
    row = (np.cumsum(counts) - counts)[of] + (rng.random(len(of)) * counts[of]).astype(np.int64)
    up, down, length, lag, client_up, client_down, after = table[row].T
    moment = rng.random(len(of))
    begin = episodes.begin[of] + moment * episodes.length[of]
    factors = np.exp(SMOOTHING * rng.standard_normal((2, len(of))))
    return _Played(
        of,
        number,
        begin,
        np.minimum(length * SECOND, episodes.length[of]),
        np.maximum(np.rint(up * factors[0]), 1.0),
        np.maximum(np.rint(down * factors[1]), 1.0),
        np.abs(lag) * SECOND,
        client_up - up,
        client_down - down,
        np.maximum(after, 0.0) * SECOND,
        rng.uniform(*HELD_S, len(of)) * SECOND,
        np.array([one.framing_up for one in made])[of],
        np.array([one.framing_down for one in made])[of],
    )


def _seven(sessions: Floats) -> Floats:
    """Sessions with all columns; those of programs without a client leg a session carry what their target does."""
    if sessions.shape[1] == 7:
        return sessions
    still = np.zeros(len(sessions))
    return np.column_stack([sessions, still, sessions[:, 0], sessions[:, 1], still])


def _clients(episodes: Episodes, played: _Played, base: Ints, fleet: Fleet, rng: np.random.Generator) -> Drafts:
    """Client legs: they send what their target received, and receive what it sent, framed as measured."""
    of, count = played.episode, len(played.episode)
    accepted = episodes.topology[of] == 0
    out = _legs(episodes, played, base)
    out["start"] = played.begin - played.lag - played.held
    out["busy"] = played.begin + played.held
    out["idle"] = out["busy"] + played.length.astype(np.int64)
    out["end"] = out["idle"] + played.after.astype(np.int64)
    out["bytes_out"] = np.maximum(played.down + played.more_down, 1.0)
    out["bytes_in"] = np.maximum(played.up + played.more_up, 1.0)
    pair = episodes.pair[of]
    who = fleet.remotes.clients + (pair * 31 + rng.integers(0, CLIENTS_A_RELAY, count)) % CLIENTS
    out["remote"] = np.where(accepted, who, fleet.remotes.gateways + pair % GATEWAYS)
    own = rng.integers(32_768, 60_768, count)
    out["local_port"] = np.where(accepted, episodes.port[of], own)
    out["remote_port"] = np.where(accepted, own, episodes.port[of])
    out["kind"] = np.where(accepted, ACCEPTED, DIALLED)
    return out


def _targets(episodes: Episodes, played: _Played, base: Ints, fleet: Fleet, rng: np.random.Generator) -> Drafts:
    """Target legs: to sites, some far more often than others, and each relay's in a part of them of its own."""
    of, count = played.episode, len(played.episode)
    out = _legs(episodes, played, base)
    out["start"] = out["busy"] = played.begin
    out["end"] = out["idle"] = out["busy"] + played.length.astype(np.int64)
    out["bytes_out"], out["bytes_in"] = played.up, played.down
    parties = np.maximum(3, episodes.sessions[of] // 2)
    often = np.minimum(rng.zipf(1.5, count), parties) - 1
    party = np.where(rng.random(count) < 0.5, often, (rng.random(count) * parties).astype(np.int64))
    out["remote"] = fleet.remotes.sites + (episodes.pair[of] * 7_919 + party) % SITES
    out["local_port"], out["remote_port"] = rng.integers(32_768, 60_768, count), 443
    out["kind"] = TARGET
    return out


def _legs(episodes: Episodes, played: _Played, base: Ints) -> Drafts:
    out = np.zeros(len(played.episode), DRAFT)
    out["pair"], out["asked"] = episodes.pair[played.episode], -1
    out["flow"] = base[played.episode] + played.number
    return out


def _links(
    episodes: Episodes, played: _Played, base: Ints, fleet: Fleet, rng: np.random.Generator
) -> tuple[Drafts, Drafts, Drafts]:
    """Links of tunnels with all that they carried, and the pieces that their volumes are made of."""
    rows = np.flatnonzero(episodes.topology == 2)
    of = np.repeat(rows, episodes.links[rows])
    number = np.arange(len(of)) - np.repeat(
        np.cumsum(episodes.links[rows]) - episodes.links[rows], episodes.links[rows]
    )
    links = np.zeros(len(of), DRAFT)
    links["pair"], links["asked"], links["flow"] = episodes.pair[of], -1, base[of] + number
    links["start"] = links["busy"] = episodes.begin[of] - EARLY_US
    links["remote"] = fleet.remotes.gateways + (episodes.pair[of] + number) % GATEWAYS
    links["local_port"], links["remote_port"] = rng.integers(32_768, 60_768, len(of)), episodes.port[of]
    links["kind"] = LINK
    pieces = _legs(episodes, played, base)
    pieces["flow"] = base[played.episode] + (rng.random(len(pieces)) * episodes.links[played.episode]).astype(np.int64)
    pieces["start"] = pieces["busy"] = played.begin + played.held
    pieces["end"] = pieces["idle"] = pieces["busy"] + played.length.astype(np.int64)
    pieces["bytes_out"] = np.rint(played.down * played.framing_down) + OPENING_BYTES
    pieces["bytes_in"] = np.rint(played.up * played.framing_up) + OPENING_BYTES
    pieces["kind"] = PIECE
    last = np.zeros(len(episodes.pair), np.int64)
    np.maximum.at(last, played.episode, pieces["idle"])
    links["end"] = links["idle"] = last[of] + SECOND
    beats = _beats(links)
    for part in (pieces, beats):
        link = np.searchsorted(links["flow"], part["flow"])  # links are in order of their numbers
        np.add.at(links["bytes_out"], link, part["bytes_out"])
        np.add.at(links["bytes_in"], link, part["bytes_in"])
    return links, pieces, beats


def _beats(links: Drafts) -> Drafts:
    """Keep-alives of links, as pieces of their own."""
    counts = (links["end"] - links["start"]) // KEEPALIVE_US + 1
    of = np.repeat(np.arange(len(links)), counts)
    out = links[of]
    place = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    for name in ("start", "busy", "end", "idle"):
        out[name] = links["start"][of] + place * KEEPALIVE_US
    out["bytes_out"] = out["bytes_in"] = KEEPALIVE_BYTES
    out["kind"] = PIECE
    return out
