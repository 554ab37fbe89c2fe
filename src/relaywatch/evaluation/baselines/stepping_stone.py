"""Zeek's stepping-stone timing rule: two connections whose silences end together.

Sources: Y. Zhang and V. Paxson, "Detecting Stepping Stones", USENIX Security 2000, section 4; Zeek's analyzer
(src/analyzer/protocol/stepping-stone/SteppingStone.cc, removed in Zeek 4.1) and its policy script stepping.bro. Of each
TCP connection either direction has ON and OFF periods: it resumes when new data comes after stp_idle_min without. Two
directions coincide if one resumes within stp_delta after the other. A pair of connections is a stepping stone if at
least two coincidences follow directly on one another (for every 100 silences of the one that has fewer), and at least
stp_ratio_thresh of its silences end in coincidence. As in Zeek, directions with a common sender, receiver or endpoint
are passed over, and so are two connections that one host dialled both ("A->B, A->C uninteresting"); `dialled_both`
drops that last exclusion, since a back-connect relay dials both legs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from relaywatch.evaluation.baselines.baseline import Baseline, Traffic, best_first, no_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


IDLE_S: Final = 0.5
"""stp_idle_min."""
DELTA_S: Final = 0.08
"""stp_delta."""
RATIO: Final = 0.3
"""stp_ratio_thresh."""
IN_A_ROW: Final = 2
"""stp_common_host_thresh: the legs of one device always share it."""
SCALE: Final = 100.0
"""stp_scale."""
IDLE_SECONDS: Final = 1.0
"""Where only whole seconds are known: silent for one whole second, and resumed within the same second."""
LATEST: Final = 64
"""Directions that resumed last and are compared with the next: bounds the work where very many resume at once."""


class Connection(NamedTuple):
    """One TCP connection of the app."""

    flow_id: int
    inbound: bool
    local_port: int
    remote: str
    remote_port: int


@dataclass(slots=True)
class _Silences:
    """A direction's state: when it resumed last and before that (seconds, 0 never), and how often."""

    resumed: float = 0.0
    resumed_before: float = 0.0
    count: int = 0


@dataclass(slots=True)
class _Hits:
    """Coincidences of one ordered pair of directions."""

    all: int = 0
    in_a_row: int = 0


_NONE: Final = _Hits()


class TimingRule:
    """The rule's state over one app's resumptions, fed in order of time.

    A direction is numbered: twice its connection's place in `connections`, and one more where the app sends; the other
    direction of a connection differs in the last bit.
    scores: by places (client leg, target leg), the best hit ratio at a time at which enough coincidences followed on
    one another, or before that the ratio less 1. From RATIO on it is Zeek's notice. The accepted one is the client leg.
    """

    __slots__ = ("_comparable", "_connections", "_hits", "_recent", "_silences", "scores")

    def __init__(self, connections: Sequence[Connection], comparable: Callable[[Connection, Connection], bool]) -> None:
        """comparable: which two connections may be a stone."""
        self.scores: dict[tuple[int, int], float] = {}
        self._connections = connections
        self._comparable = comparable
        self._silences = [_Silences() for _ in range(2 * len(connections))]
        self._hits: dict[tuple[int, int], _Hits] = {}
        self._recent: deque[int] = deque(maxlen=LATEST)

    def resume(self, time: float, direction: int) -> None:
        """Take in that a direction has new data after a silence; time in seconds, above 0 and not falling."""
        while self._recent and self._silences[self._recent[0]].resumed < time - DELTA_S:
            self._recent.popleft()
        own = self._silences[direction]
        own.resumed_before, own.resumed, own.count = own.resumed, time, own.count + 1
        for earlier in self._recent:
            # Both sent by the app or both received: a common sender or receiver.
            if (earlier ^ direction) & 1 and self._may_be_stone(earlier >> 1, direction >> 1):
                self._coincide(earlier, direction)
        self._recent.append(direction)

    def _may_be_stone(self, one: int, other: int) -> bool:
        first, second = self._connections[one], self._connections[other]
        return (
            one != other
            and first.local_port != second.local_port
            and (first.remote_port != second.remote_port or first.remote != second.remote)
            and self._comparable(first, second)
        )

    def _coincide(self, earlier: int, later: int) -> None:
        hits = self._hits.setdefault((earlier, later), _Hits())
        hits.all += 1
        first, second = self._silences[earlier], self._silences[later]
        between = second.resumed_before - first.resumed_before
        if first.resumed_before and second.resumed_before and 0.0 <= between <= DELTA_S:
            hits.in_a_row += 1
        score = self._score(hits, earlier, later)
        pair = (later >> 1, earlier >> 1) if self._connections[later >> 1].inbound else (earlier >> 1, later >> 1)
        self.scores[pair] = max(score, self.scores.get(pair, score))

    def _score(self, hits: _Hits, earlier: int, later: int) -> float:
        reverse = self._hits.get((later ^ 1, earlier ^ 1), _NONE)
        fewest = min(self._silences[earlier].count, self._silences[later].count)
        needed = max(1.0, fewest / SCALE) * IN_A_ROW
        if reverse.all > hits.all:
            ratio = reverse.all / min(self._silences[earlier ^ 1].count, self._silences[later ^ 1].count)
        else:
            ratio = hits.all / fewest
        return ratio if hits.in_a_row + reverse.in_a_row >= needed else ratio - 1.0


def accepted_and_dialled(one: Connection, other: Connection) -> bool:
    """Zeek's: one connection was accepted, the other dialled."""
    return one.inbound != other.inbound


def dialled_both(one: Connection, other: Connection) -> bool:
    """Also two connections that the app dialled."""
    return not (one.inbound and other.inbound)


def resumptions(traffic: Traffic, packets: pl.DataFrame | None) -> pl.DataFrame:
    """When each direction of each TCP connection has data after a silence: flow_id, sent, time, in order of time.

    From packets (evaluation.packets) where there are some, else from the whole seconds of the volumes; at one instant
    what is received goes before what is sent. Order of rows does not matter.
    """
    moments = _seconds(traffic.volumes) if packets is None else packets.filter(pl.col("payload") > 0)
    idle = IDLE_SECONDS if packets is None else IDLE_S
    return (
        moments.select("flow_id", "sent", "time")
        .sort("flow_id", "sent", "time")
        .filter((pl.col("time").diff().over("flow_id", "sent") > idle).fill_null(value=True))
        .sort("time", "sent", "flow_id")
    )


def _seconds(volumes: pl.DataFrame) -> pl.DataFrame:
    sides = (
        volumes.filter(pl.col(column) > 0).select(
            "flow_id", pl.lit(value=sent).alias("sent"), pl.col("second").cast(pl.Float64).alias("time")
        )
        for column, sent in (("bytes_in", False), ("bytes_out", True))
    )
    return pl.concat(sides)


def stones(
    comparable: Callable[[Connection, Connection], bool], packets: pl.DataFrame | None, traffic: Traffic
) -> pl.DataFrame:
    """Score pairs of connections that coincide at least once.

    Of two dialled connections either may be the client leg, so that both orders are given.
    """
    columns = Connection._fields
    rows = traffic.flows.filter(pl.col("protocol") == "tcp").select(columns).sort("flow_id")
    rule = TimingRule([Connection(*row) for row in rows.iter_rows()], comparable)
    places = rows.select("flow_id").with_row_index("place")
    moments = resumptions(traffic, packets).join(places, on="flow_id", maintain_order="left")
    directions = moments.select("time", 2 * pl.col("place").cast(pl.Int64) + pl.col("sent").cast(pl.Int64))
    for time, direction in directions.iter_rows():
        rule.resume(time, direction)
    if not rule.scores:
        return no_pairs()
    flow_ids = rows["flow_id"]
    clients, targets = (flow_ids.gather([pair[end] for pair in rule.scores]) for end in (0, 1))
    pairs = pl.DataFrame({"client": clients, "target": targets, "score": list(rule.scores.values())})
    accepted = traffic.flows.filter(pl.col("inbound"))["flow_id"].implode()
    turned = pairs.filter(~pl.col("client").is_in(accepted)).select(client="target", target="client", score="score")
    return best_first(pl.concat([pairs, turned]))


def count_stones(
    comparable: Callable[[Connection, Connection], bool], packets: pl.DataFrame | None, traffic: Traffic
) -> float:
    """Count the pairs that Zeek would report; where there are none, the best score of any, -1 without coincidence."""
    scores = stones(comparable, packets, traffic)["score"]
    return float((scores >= RATIO).sum()) or float(scores.max() if len(scores) else -1.0)  # type: ignore[arg-type]


def stepping_stones(packets: pl.DataFrame | None) -> tuple[Baseline, Baseline]:
    """Zeek's rule for an app with these packets, or from seconds where it has none: as it is, and with dialled_both."""
    source = "Zhang and Paxson (2000); Zeek's stepping-stone analyzer and stepping.bro"
    return tuple(  # type: ignore[return-value]
        Baseline(name, source, partial(count_stones, rule, packets), partial(stones, rule, packets))
        for name, rule in (
            ("Zeek stepping stone", accepted_and_dialled),
            ("Zeek stepping stone, both legs dialled too", dialled_both),
        )
    )
