"""How a site's sources would have seen a drilled episode: what they show of the host's connections, they show of it.

Each drilled flow takes the visibility of a real one of the same device and direction, drawn at random: its app, bytes,
direction, name, end, ports and volumes are known exactly where that one's are. So fields are dropped together, as often
as they are there, failed joins and attributions included; clocks are as coarse, and samplers thin as they do there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from relaywatch.assurance.episodes import SECOND, Episode
from relaywatch.assurance.watching import FEWEST_STAMPS, step_of, with_volumes
from relaywatch.detection.columns import Flags, Ints
from relaywatch.engines.arrangement import LOOKUP_PORTS, US
from relaywatch.engines.names import text_keys
from relaywatch.engines.records import FIRST_SEEN, FLOW, NOT_KNOWN, SEEN_BYTES, VOLUME, Records
from relaywatch.model.schemas import Direction

TCP: Final = 6
MILLISECOND: Final = 1_000
SEGMENT_BYTES: Final = 1_400
"""Payload of a full packet: what a sampler counts by."""
ESTIMATE_ERROR: Final = 0.02
"""Relative error of payload that a sensor estimates from wire bytes: retransmissions and options."""
SAMPLING: Final = re.compile(r"sampled 1:(\d{1,9})")
RESTORED: Final = ("app", "bytes", "direction", "address", "hostname", "volumes", "inbound")
"""Gaps that can be given back to drilled flows, to see what each costs."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """What is known of one device's flows. rows: FLOW records, socket snapshots and name look-ups left out.

    fine: whether a flow has volumes; interval_us: their length; step_us: of the clock; rate: 1 packet of so many is
    sampled; accepts: whether the device's sources show accepted sessions.
    """

    rows: Records
    hidden: Flags
    fine: Flags
    interval_us: int
    step_us: int
    rate: int
    accepts: bool


class Marks(NamedTuple):
    """Codes under which drilled records go: of the device, the app, nobody's app on the device, and the source."""

    device: int
    app: int
    nobody: int
    source: int


class Seen(NamedTuple):
    """FLOW and VOLUME records of an episode as the sources show it."""

    flows: Records
    volumes: Records


def eyes_of(flows: Records, volumes: Records, hidden: Flags, details: Sequence[str], *, accepts: bool) -> Eyes | None:
    """The eyes on one device: its flows and volumes, which flows have no app, details of its CAPTURE signals.

    None where nothing of its connections is seen.
    """
    inbound = flows["direction"] == Direction.INBOUND
    lookups = np.isin(flows["remote_port"], LOOKUP_PORTS) & ~inbound
    kept = ~lookups & ((flows["seen"] & FIRST_SEEN) == 0)
    if not kept.any():
        return None
    own = volumes[volumes["flow_id"] >= 0]
    fine = with_volumes(flows, own)
    rates = [int(found[1]) for detail in details if (found := SAMPLING.match(detail))]
    return Eyes(
        rows=flows[kept],
        hidden=hidden[kept],
        fine=fine[kept],
        interval_us=int(np.median(own["duration"])) if len(own) else SECOND,
        step_us=_step(flows[kept]["start"]),
        rate=max(rates, default=1),
        accepts=accepts,
    )


def _step(start: Ints) -> int:
    """Step of the clock in us."""
    coarse = step_of(start.astype(np.float64) * US)
    if coarse > 0.0:
        return round(coarse * SECOND)
    return MILLISECOND if len(start) >= FEWEST_STAMPS and not (start % MILLISECOND).any() else 1


def seen(
    episode: Episode,
    begin_us: int,
    eyes: Eyes,
    marks: Marks,
    rng: np.random.Generator,
    restored: frozenset[str] = frozenset(),
) -> Seen:
    """The episode as the eyes would have seen it. begin_us: whole seconds; restored: gaps that are given back."""
    like = _drawn(episode, eyes, rng)
    sampled = _sampled(episode, eyes.rate, rng)
    shown = sampled.kept & (eyes.accepts | ("inbound" in restored) | ~episode.inbound)
    flows = _flows(episode, begin_us, eyes, marks, like, sampled, rng, restored)
    measured = shown & (eyes.fine[like] | ("volumes" in restored))
    interval = SECOND if "volumes" in restored else eyes.interval_us
    volumes = _volumes(episode, begin_us, interval, marks, measured, sampled)
    return Seen(flows[shown], volumes)


def _drawn(episode: Episode, eyes: Eyes, rng: np.random.Generator) -> Ints:
    """For each drilled flow a real one, of the same direction where there is one."""
    inbound = eyes.rows["direction"] == Direction.INBOUND
    dialled, accepted = np.flatnonzero(~inbound), np.flatnonzero(inbound)
    every = np.arange(len(eyes.rows))
    pools = (dialled if len(dialled) else every, accepted if len(accepted) else every)
    drawn = [rng.choice(pool, len(episode.start)) for pool in pools]
    return np.where(episode.inbound, drawn[1], drawn[0])


class _Sampled(NamedTuple):
    """Whether a sampler shows each flow, and by what factor its estimate of the bytes is off, sent and received."""

    kept: Flags
    sent: np.ndarray[tuple[int], np.dtype[np.float64]]
    received: np.ndarray[tuple[int], np.dtype[np.float64]]


def _sampled(episode: Episode, rate: int, rng: np.random.Generator) -> _Sampled:
    count = len(episode.start)
    if rate <= 1:
        return _Sampled(np.ones(count, bool), np.ones(count), np.ones(count))
    sides = []
    for amount in (episode.sent, episode.received):
        packets = np.maximum(-(-amount // SEGMENT_BYTES), 1)
        sides.append((rng.binomial(packets, 1.0 / rate), packets))
    factors = [hits * rate / packets for hits, packets in sides]
    return _Sampled(np.asarray((sides[0][0] + sides[1][0]) > 0), factors[0], factors[1])


def _flows(
    episode: Episode,
    begin_us: int,
    eyes: Eyes,
    marks: Marks,
    like: Ints,
    sampled: _Sampled,
    rng: np.random.Generator,
    restored: frozenset[str],
) -> Records:
    """FLOW records of all drilled flows, with what the flows they are like show."""
    count, model = len(episode.start), eyes.rows[like]
    out = np.zeros(count, FLOW)
    out["device"], out["source"], out["protocol"] = marks.device, marks.source, TCP
    out["app"] = np.where(eyes.hidden[like] & ("app" not in restored), marks.nobody, marks.app)
    start = begin_us + np.rint(episode.start * SECOND).astype(np.int64)
    end = begin_us + np.rint(episode.end * SECOND).astype(np.int64)
    out["start"] = start // eyes.step_us * eyes.step_us
    out["end"] = np.where(
        model["end"] >= model["start"], np.maximum(end // eyes.step_us * eyes.step_us, out["start"]), -1
    )
    known = ("bytes" in restored) | ((model["bytes_out"] >= 0) & (model["bytes_in"] >= 0))
    rough = ((model["seen"] & SEEN_BYTES) == 0) & ("bytes" not in restored)
    for name, amount, factor in (
        ("bytes_out", episode.sent, sampled.sent),
        ("bytes_in", episode.received, sampled.received),
    ):
        error = np.where(rough, 1.0 + rng.uniform(-ESTIMATE_ERROR, ESTIMATE_ERROR, count), 1.0)
        out[name] = np.where(known, np.rint(amount * factor * error).astype(np.int64), NOT_KNOWN)
    directed = (model["direction"] != Direction.UNKNOWN) | ("direction" in restored)
    side = np.where(episode.inbound, int(Direction.INBOUND), int(Direction.OUTBOUND))
    out["direction"] = np.where(directed, side, int(Direction.UNKNOWN))
    named = (model["name"] != 0) | ("hostname" in restored)
    names = text_keys(pl.Series(episode.name, dtype=pl.String))
    out["name"] = np.where(named & ~episode.client, names, np.uint64(0))
    addresses = text_keys(pl.Series(episode.remote, dtype=pl.String))
    out["remote"] = np.where((model["remote"] != 0) | ("address" in restored), addresses, np.uint64(0))
    out["local_port"] = np.where((model["local_port"] != 0) | episode.inbound, episode.local_port, 0)
    out["remote_port"] = episode.remote_port
    out["seen"] = model["seen"]
    out["flow_id"] = out["position"] = np.arange(1, count + 1)
    return out


def _volumes(
    episode: Episode, begin_us: int, interval_us: int, marks: Marks, shown: Flags, sampled: _Sampled
) -> Records:
    """VOLUME records of the shown flows, put together to the sources' interval."""
    rows = np.flatnonzero(shown[episode.volume_flow])
    flow = episode.volume_flow[rows]
    at = begin_us + episode.volume_second[rows] * SECOND
    width = max(interval_us, SECOND)
    frame = pl.DataFrame(
        {
            "flow": flow,
            "start": at // width * width,
            "sent": np.rint(episode.volume_sent[rows] * sampled.sent[flow]).astype(np.int64),
            "received": np.rint(episode.volume_received[rows] * sampled.received[flow]).astype(np.int64),
        }
    )
    summed = frame.group_by("flow", "start", maintain_order=True).agg(pl.col("sent", "received").sum())
    out = np.zeros(summed.height, VOLUME)
    out["device"], out["source"], out["app"] = marks.device, marks.source, marks.app
    out["flow_id"] = summed["flow"].to_numpy() + 1
    out["start"], out["duration"] = summed["start"].to_numpy(), width
    out["bytes_out"], out["bytes_in"] = summed["sent"].to_numpy(), summed["received"].to_numpy()
    return out
